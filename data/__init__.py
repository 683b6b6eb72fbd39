"""The paper's four data sets, Multi-MNIST, Sprites, Noisy-MNIST and Grid-MNIST, and two others."""

from data.scenes import DataError, Scenes
from data.store import DATASETS, OTHER_SCENES, SIZES, SceneFile, load, make

__all__ = ["DATASETS", "OTHER_SCENES", "SIZES", "DataError", "SceneFile", "Scenes", "load", "make"]
