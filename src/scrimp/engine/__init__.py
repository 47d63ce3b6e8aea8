"""The Python face of the compiled engine."""

from scrimp.engine.engine import Arithmetic, Engine, OpTime
from scrimp.engine.machine import default_threads, pick_isa

__all__ = ["Arithmetic", "Engine", "OpTime", "default_threads", "pick_isa"]
