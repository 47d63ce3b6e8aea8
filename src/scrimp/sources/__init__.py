"""Read a trained network, whatever wrote it: every kind of file becomes the same :class:`Source`."""

from scrimp.sources.open import open_source
from scrimp.sources.source import Source, TensorInfo
from scrimp.sources.tokenizer_data import TokenizerData

__all__ = ["Source", "TensorInfo", "TokenizerData", "open_source"]
