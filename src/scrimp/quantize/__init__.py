"""How codes and scales are chosen: one method per file, a Plan of them, and the loop that applies it."""

from scrimp.quantize.methods import METHODS, Method, method
from scrimp.quantize.plan import Choice, Plan

__all__ = ["METHODS", "Choice", "Method", "Plan", "method"]
