"""Sets of labelled pictures, as bytes: MNIST, Fashion-MNIST, CIFAR-10 as JPEG; and pictures of another size."""

from scrimp.pictures.load import SETS, load
from scrimp.pictures.pictures import Pictures

__all__ = ["SETS", "Pictures", "load"]
