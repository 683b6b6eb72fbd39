"""Trained models from the disk: of a run's folder, or of one with weights alone."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import NamedTuple

import numpy as np

import supair
from supair.config import ConfigError, TrainingError, model_from_settings, require
from supair.detect.images import Images, Preparation, as_picture, read_images
from supair.run import load_weights, read_configuration

# Of the classes that a configuration may name; they bring TensorFlow.
_MODULES = {"SuPAIR": "supair.model", "ExactSuPAIR": "supair.extensions.exact"}


class Detections(NamedTuple):
    counts: np.ndarray  # [images]
    boxes: list[np.ndarray]  # of each image [objects, 4] (left, top, width, height), pixels
    scores: list[np.ndarray]  # of each image [objects], in [0, 1]


class Detector(NamedTuple):
    """A trained model, and how it wants images prepared."""

    model: supair.SuPAIR
    preparation: Preparation

    def detect(self, images, levels: str = "auto") -> Detections:
        """Find the objects in images: a path, see `read_images`, or arrays [height, width] or
        [height, width, 1 or 3] of any numbers; for levels see `Preparation.adapted`.  Prints why
        the result may be wrong; ConfigError if images cannot be read or do not fit.  Where mirror
        images of a scene disagree in the count, the best counts (`extensions.best_view`)."""
        from supair.detect.results import detect  # brings TensorFlow

        if isinstance(images, (str, Path)):
            images = read_images(Path(images))
        else:
            images = [*images]
            names = [f"image {number}" for number in range(len(images))]
            pictures = [as_picture(np.asarray(x), n) for x, n in zip(images, names)]
            pictures = [p[..., 0] if p.shape[2:] == (1,) else p for p in pictures]
            good = {2} == {p[..., 0].ndim if p.shape[2:] == (3,) else p.ndim for p in pictures}
            require(good, "images [height, width] or [height, width, 1 or 3]", len(pictures))
            images = Images(names, pictures)
        found, _ = detect(self.model, self.preparation, images, levels)
        boxes, scores = [image.boxes for image in found], [image.score for image in found]
        return Detections(np.array([len(few) for few in boxes]), boxes, scores)


def load(name: Path | str) -> Detector:
    """The detector of a run or a folder of weights; raises as `find_model` and `load_model`."""
    return Detector(*load_model(find_model(name)))


def find_model(name: Path | str) -> Path:
    """The folder of this path or, in a checkout, of pretrained weights; or a ConfigError."""
    pretrained = Path(__file__).parents[2] / "reproduce" / "pretrained"
    for folder in (Path(name), pretrained / name):
        if (folder / "config.json").exists():
            return folder
    names = sorted(config.parent.name for config in pretrained.glob("*/config.json"))
    raise ConfigError(f"expected --model PATH or one of {', '.join(names)}, found {name}")


def load_model(directory: Path | str) -> tuple[supair.SuPAIR, Preparation]:
    """The model of a run, or of a folder of weights, and its Preparation; or a TrainingError."""
    directory = Path(directory)
    configuration = read_configuration(directory)
    try:
        name, seed = configuration["model"]["class"], configuration["training"]["seed"]
        require(name in _MODULES, f"one of the models {', '.join(_MODULES)}", name)
        config = model_from_settings(configuration["model"])
        preparation = Preparation(**configuration.get("preparation", {"side": config.scene_size}))
        side = config.scene_size
        require(preparation.side == side, f"a preparation of side {side}", preparation.side)
        model = getattr(importlib.import_module(_MODULES[name]), name)(config, seed)
    except (ConfigError, KeyError, TypeError, AttributeError, ValueError) as error:
        path = directory / "config.json"
        raise TrainingError(f"{path}: damaged, or not of a SuPAIR ({error})") from None
    load_weights(model, directory)
    return model, preparation
