"""Scenes with objects on black: Multi-MNIST and Sprites (paper, section 4.1).

Boxes are (left, top, width, height) in pixels; rows beyond a scene's count are zero.
"""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

SCENE_SIZE = 50
MAX_OBJECTS = 2
_CHUNK = 4096  # scenes in memory at twice the size
MNIST_PATH = Path(__file__).parent / "mnist.npz"


class DataError(ValueError):
    """A data file or array that cannot be used."""


class Scenes(NamedTuple):
    """Grey levels `images / white` in [0, 1]."""

    images: np.ndarray  # [scenes, side, side] uint8 (or float16 once there is noise)
    counts: np.ndarray  # [scenes] uint8
    boxes: np.ndarray  # [scenes, objects, 4] float32
    white: int


def load_mnist(path: Path | str = MNIST_PATH) -> dict[str, np.ndarray]:
    """The digits of an npz file with x_train and x_test, each [n, 28, 28] uint8.

    Raises:
      DataError: if the file is missing, damaged or holds something else.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            digits = {name: archive[name] for name in ("x_train", "x_test")}
    except FileNotFoundError:
        raise DataError(f"{path}: no such file; give the MNIST digits with --mnist FILE.npz") from None
    except (OSError, EOFError, ValueError, KeyError, TypeError, AttributeError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(f"{path}: not an npz file with x_train and x_test ({error})") from None
    for name, array in digits.items():
        if array.dtype != np.uint8 or array.ndim != 3 or array.shape[1:] != (28, 28) or not len(array):
            raise DataError(f"{path}: expected {name} to be uint8 [n, 28, 28], found {array.dtype} {array.shape}")
    return digits


def multi_mnist(
    num_scenes: int, digits: np.ndarray, rng: np.random.Generator, side: int = SCENE_SIZE, max_objects: int = MAX_OBJECTS
) -> Scenes:
    """Scenes of 0 to `max_objects` digits, each shrunk to int(28 / s) pixels, s ~ N(1.3, 0.1), and wholly inside.

    Scenes in which digits together exceed full white anywhere are drawn again, with the same count.

    Args:
      num_scenes: how many.
      digits: [n, 28, 28] uint8.
      rng: the source of randomness.
      side: of a scene, in pixels.
      max_objects: the largest count.
    """

    def draw(count: int):
        sizes = np.clip((28 / rng.normal(1.3, 0.1, count)).astype(int), 1, side)
        corners = rng.integers(0, side - sizes + 1, (2, count)).T
        chosen = digits[rng.integers(len(digits), size=count)]
        stamps = [None] * count
        for size in np.unique(sizes):
            same = np.flatnonzero(sizes == size)
            for index, stamp in zip(same, _resize(chosen[same], size)):
                stamps[index] = stamp
        return stamps, corners, sizes

    return _compose(num_scenes, draw, rng, 255, side, max_objects)


def _resize(images: np.ndarray, size: int) -> np.ndarray:
    """Resize [n, 28, 28] to [n, size, size] (bilinear), one axis after the other and all images at once."""
    for _ in range(2):
        tall = Image.fromarray(images.reshape(-1, images.shape[2]))
        narrow = np.asarray(tall.resize((size, tall.height), Image.Resampling.BILINEAR))
        images = narrow.reshape(*images.shape[:2], size).swapaxes(1, 2)
    return images


# Grey levels in tenths, so that they are stored exactly.
_SPRITE_LEVELS = {"circle": 10, "square": 8, "diamond": 7}
_SPRITE_SIZES = range(12, 17)


def _sprite(shape: str, size: int) -> np.ndarray:
    offset = np.abs(np.arange(size) - (size - 1) / 2)
    if shape == "circle":
        mask = offset[:, None] ** 2 + offset**2 <= (size / 2) ** 2
    elif shape == "diamond":
        mask = offset[:, None] + offset <= size / 2
    else:
        mask = np.ones([size, size], bool)
    return mask.astype(np.uint8) * _SPRITE_LEVELS[shape]


_SPRITES = {(shape, size): _sprite(shape, size) for shape in _SPRITE_LEVELS for size in _SPRITE_SIZES}


def sprites(num_scenes: int, rng: np.random.Generator) -> Scenes:
    """Scenes of 0, 1 or 2 circles, squares and diamonds; scenes in which two share a pixel are drawn again.

    A sprite's corner is uniform on 0..38 and its size a uniform integer on 12..16, as far as the scene goes.
    """
    shapes = list(_SPRITE_LEVELS)

    def draw(count: int):
        corners = rng.integers(0, SCENE_SIZE - 12 + 1, (count, 2))
        largest = np.minimum(_SPRITE_SIZES[-1], SCENE_SIZE - corners.max(axis=1, initial=0))
        sizes = rng.integers(12, largest + 1)
        stamps = [_SPRITES[shapes[kind], size] for kind, size in zip(rng.integers(3, size=count), sizes)]
        return stamps, corners, sizes

    return _compose(num_scenes, draw, rng, 10, SCENE_SIZE, MAX_OBJECTS)


def _compose(num_scenes: int, draw, rng: np.random.Generator, white: int, side: int, max_objects: int) -> Scenes:
    """Add up drawn stamps, and draw scenes again while any of their pixels is brighter than white."""
    counts = rng.integers(0, max_objects + 1, num_scenes).astype(np.uint8)
    images = np.zeros([num_scenes, side, side], np.uint8)
    boxes = np.zeros([num_scenes, max_objects, 4], np.float32)
    for chunk in np.array_split(np.arange(num_scenes), range(_CHUNK, num_scenes, _CHUNK)):
        pending = chunk[counts[chunk] > 0]
        while len(pending):
            owner = np.repeat(np.arange(len(pending)), counts[pending])
            slot = np.concatenate([np.arange(count) for count in counts[pending]])
            stamps, corners, sizes = draw(len(owner))
            canvas = np.zeros([len(pending), side, side], np.uint16)
            for scene, stamp, left, top, size in zip(owner, stamps, *corners.T, sizes):
                canvas[scene, top : top + size, left : left + size] += stamp
            images[pending] = np.minimum(canvas, 255)
            boxes[pending[owner], slot] = np.stack([*corners.T, sizes, sizes], axis=1)
            pending = pending[canvas.max(axis=(1, 2)) > white]
    return Scenes(images, counts, boxes, white)
