"""The Python face of the compiled engine."""

from scrimp.engine.activations import ActivationBlock
from scrimp.engine.cache import Kv
from scrimp.engine.engine import Arithmetic, Engine, OpTime
from scrimp.engine.machine import default_threads, pick_isa
from scrimp.engine.sequences import Sequence

__all__ = ["ActivationBlock", "Arithmetic", "Engine", "Kv", "OpTime", "Sequence", "default_threads", "pick_isa"]
