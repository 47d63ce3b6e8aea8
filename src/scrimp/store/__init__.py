"""A compressed model as a directory: written part by part, resumed, renamed when complete; opened by mapping it."""

from scrimp.store.open import ScrimpSource, open_store
from scrimp.store.verify import verify

__all__ = ["ScrimpSource", "open_store", "verify"]
