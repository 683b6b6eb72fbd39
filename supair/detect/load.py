"""Trained models from the disk: of a run's folder, or of one with weights alone."""

from __future__ import annotations

import importlib
from pathlib import Path

import supair
from supair.config import ConfigError, TrainingError, model_from_settings, require
from supair.detect.images import Preparation
from supair.run import load_weights, read_configuration

_MODULES = {  # of the classes that a configuration may name; they bring TensorFlow
    "SuPAIR": "supair.model",
    "ExactSuPAIR": "supair.extensions.exact",
    "PerStepSuPAIR": "supair.extensions.object_models",
    "MixtureSuPAIR": "supair.extensions.object_models",
}


def find_model(name: str) -> Path:
    """The folder of this path or, in a checkout, of pretrained weights of this name; ConfigError if
    there is none."""
    pretrained = Path(__file__).parents[2] / "reproduce" / "pretrained"
    names = sorted(config.parent.name for config in pretrained.glob("*/config.json"))
    if name in names and not Path(name).exists():
        return pretrained / name
    known = ", or ".join(["--model PATH of a run or of weights", *names])
    require(Path(name).is_dir(), known, name)
    return Path(name)


def load_model(directory: Path | str) -> tuple[supair.SuPAIR, Preparation]:
    """The model of a run or of a folder of weights, and how it wants images prepared.

    Raises:
      TrainingError: if the folder does not hold a trained SuPAIR, or it is damaged; the message
        names the file.
    """
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
