"""Networks in integers only: the same bits in NumPy, in the engine and on a chip."""
