"""The paper's four data sets, Multi-MNIST, Sprites, Noisy-MNIST and Grid-MNIST, and two with other scenes."""

from data.scenes import DataError, Scenes
from data.store import DATASETS, OTHER_SCENES, SIZES, SceneFile, load, make, read

__all__ = ["DATASETS", "OTHER_SCENES", "SIZES", "DataError", "SceneFile", "Scenes", "load", "make", "read"]
