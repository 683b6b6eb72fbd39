"""Trained models on disk: a run's directory, or one with weights alone (`pretrained/`)."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np

from supair.config import TrainingError, model_from_settings
from supair.files import write_whole
from supair.images import UNREADABLE, Preparation
from supair.model import SuPAIR
from supair.training import CHECKPOINTS, load_weights

WEIGHTS = "weights.npz"


def load_model(directory: Path | str) -> tuple[SuPAIR, Preparation]:
    """The model of a run or of a directory of weights, and how it wants images prepared.

    Raises:
      TrainingError: if the directory does not hold a trained SuPAIR, or it is damaged; the message names the file.
    """
    directory = Path(directory)
    path = directory / "config.json"
    try:
        config = json.loads(path.read_text())
        seed, settings = config["training"]["seed"], {**config["model"], "warm_up": None}  # how it was trained is no matter
        model_config = model_from_settings(settings)
        preparation = Preparation(**config.get("preparation", {"side": model_config.scene_size}))
        if preparation.side != model_config.scene_size:
            raise ValueError(f"scenes of {preparation.side} pixels are prepared for a model of {model_config.scene_size}")
        model = SuPAIR(model_config, seed)
    except FileNotFoundError:
        raise TrainingError(f"{path}: no such file; expected the directory of a trained model") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise TrainingError(f"{path}: damaged, or not of a SuPAIR ({error})") from None
    if (directory / WEIGHTS).exists():
        _read_weights(model, directory / WEIGHTS)
    elif (directory / CHECKPOINTS).is_dir():
        load_weights(model, directory)
    else:
        raise TrainingError(f"{directory}: expected {WEIGHTS} or {CHECKPOINTS}/ in it, found neither")
    return model, preparation


def write_weights(model: SuPAIR, directory: Path) -> None:
    """Write a model's weights in half precision, whole or not at all."""
    arrays = {name: variable.numpy().astype(np.float16) for name, variable in zip(_names(model), model.variables)}
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    write_whole(directory / WEIGHTS, buffer.getvalue())


def _names(model: SuPAIR) -> list[str]:
    return [f"weight{index}" for index in range(len(model.variables))]


def _read_weights(model: SuPAIR, path: Path) -> None:
    try:
        with np.load(path, allow_pickle=False) as file:
            if sorted(file.files) != sorted(_names(model)):
                raise ValueError(f"expected {len(model.variables)} arrays, found {len(file.files)}, or others")
            arrays = [file[name] for name in _names(model)]
    except UNREADABLE as error:
        raise TrainingError(f"{path}: damaged, or another model's ({error})") from None
    for variable, array in zip(model.variables, arrays):
        if array.shape != tuple(variable.shape) or array.dtype.kind != "f" or not np.all(np.isfinite(array)):
            expected = f"finite numbers of shape {tuple(variable.shape)}"
            raise TrainingError(f"{path}: damaged, or another model's (expected {expected}, found {array.dtype} {array.shape})")
        variable.assign(array.astype(np.float32))
