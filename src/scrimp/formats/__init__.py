"""What a stored number means: elements, formats and their packing, in NumPy. The slow, obvious truth."""

from scrimp.formats.element import ELEMENTS, Element
from scrimp.formats.format import Format, parse

__all__ = ["ELEMENTS", "Element", "Format", "parse"]
