"""The paper's four data sets: Multi-MNIST, Sprites, Noisy-MNIST and Grid-MNIST."""

from data.scenes import DataError, Scenes
from data.store import DATASETS, SIZES, SceneFile, load, make, read

__all__ = ["DATASETS", "SIZES", "DataError", "SceneFile", "Scenes", "load", "make", "read"]
