"""Quantization-aware training of networks of pictures: a recipe → a store (docs/notes/012)."""
