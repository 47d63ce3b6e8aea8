"""One model compressed in many ways, each measured the same way: a grid from a file, alone or on a Ray cluster."""
