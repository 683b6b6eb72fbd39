"""Scenes with objects on black: Multi-MNIST and Sprites (paper, section 4.1).

A stamp is one object's image, to be added to a scene.  Boxes are (left, top, width, height) in
pixels, tight around the ink of a stamp, that is its pixels above 0.
"""

from __future__ import annotations

import itertools
import zipfile
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.random import Generator
from PIL import Image

SIDE = 50  # of a scene in pixels
CHUNK = 4096  # scenes in memory at once in more than their stored size
MNIST_PATH = Path(__file__).parent / "mnist.npz"


class DataError(ValueError):
    """A data file or array that cannot be used."""


class Scenes(NamedTuple):
    """Grey levels `images / white` in [0, 1]."""

    images: np.ndarray  # [scenes, side, side] uint8 (or float16 once there is noise)
    counts: np.ndarray  # [scenes] uint8
    boxes: np.ndarray  # [scenes, objects, 4] float32, zero beyond the count
    white: int


def check(seed: int, sizes: tuple[int, int]) -> None:
    """Raise a DataError if scenes cannot be drawn from this seed and in these numbers."""
    if not (0 <= seed < 2**31 and 1 <= min(sizes) <= max(sizes) <= 10**6):
        raise DataError(f"expected a seed below 2**31, sizes up to 10**6: found {seed}, {sizes}")


def load_mnist(path: Path | str = MNIST_PATH) -> dict[str, np.ndarray]:
    """The digits of an npz file with x_train and x_test, each [n, 28, 28] uint8.

    Raises:
      DataError: if the file is missing, damaged or holds something else.
    """
    errors = (OSError, EOFError, ValueError, KeyError, TypeError, AttributeError, MemoryError)
    try:
        if not Path(path).is_file():  # a pipe, say, that would be waited for
            raise OSError("no such file, or no plain one")
        with np.load(path, allow_pickle=False) as archive:
            if sum(member.file_size for member in archive.zip.infolist()) > 2**28:
                raise ValueError("too large")
            digits = {name: archive[name] for name in ("x_train", "x_test")}
    except (*errors, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(f"{path}: not an npz file with x_train and x_test ({error})") from None
    for name, array in digits.items():
        if array.dtype != np.uint8 or array.shape[1:] != (28, 28) or not len(array):
            found = f"{array.dtype} {array.shape}"
            raise DataError(f"{path}: expected {name} uint8 [n, 28, 28], found {found}")
    return digits


def multi_mnist(
    num_scenes: int, digits: np.ndarray, rng: Generator, side: int = SIDE, most: int = 2
) -> Scenes:
    """Scenes of 0 to `most` digits [n, 28, 28] uint8, each shrunk to int(28 / s), s ~ N(1.3, 0.1).

    Digits lie wholly in the scene, of `side` pixels.  Scenes in which they together exceed full
    white anywhere are drawn again, with the same count.
    """

    def draw(number: int):
        sizes = np.clip((28 / rng.normal(1.3, 0.1, number)).astype(int), 1, side)
        corners = rng.integers(0, side - sizes + 1, (2, number)).T
        chosen = digits[rng.integers(len(digits), size=number)]
        stamps = np.zeros([number, sizes.max(), sizes.max()], np.uint8)
        for size in np.unique(sizes):
            stamps[sizes == size, :size, :size] = _resize(chosen[sizes == size], size)
        return stamps, corners

    return _compose(num_scenes, draw, rng, 255, side, most, together=most)


def _resize(images: np.ndarray, size: int) -> np.ndarray:
    """Resize [n, 28, 28] to [n, size, size], bilinear, an axis at a time and all images at once."""
    for _ in range(2):
        tall = Image.fromarray(images.reshape(-1, images.shape[2]))  # [n * rows, columns]
        narrow = np.asarray(tall.resize((size, tall.height), Image.Resampling.BILINEAR))
        images = narrow.reshape(*images.shape[:2], size).swapaxes(1, 2)  # [n, size, rows]
    return images


_SMALLEST, _LARGEST = 12, 16  # sides of sprites' squares in pixels


def _draw_sprites(size: int) -> np.ndarray:
    """A circle, a square and a diamond, each in the upper left of a stamp: [3, 16, 16] uint8.

    Circle and diamond lie within the square's half side of its pixel `size // 2`, so they are 11,
    13 or 15 pixels wide and begin at pixel 1 (code).
    """
    half = size // 2
    offset = np.abs(np.arange(size) - half)
    circle = offset[:, None] ** 2 + offset**2 < half**2
    square = np.ones([size, size], bool)
    diamond = offset[:, None] + offset < half
    shapes = [10 * circle, 8 * square, 7 * diamond]  # in tenths, which are stored exactly
    return np.array([np.pad(shape, (0, _LARGEST - size)) for shape in shapes], np.uint8)


def sprites(num_scenes: int, rng: Generator) -> Scenes:
    """Scenes of 0 to 2 circles, squares and diamonds; one that shares a pixel with another is
    redrawn alone (code).

    A sprite's corner is uniform on 0..38 and its size a uniform integer on 12..16, as far as the
    scene goes.
    """
    stamps = np.array([_draw_sprites(size) for size in range(_SMALLEST, _LARGEST + 1)])

    def draw(number: int):
        corners = rng.integers(0, SIDE - _SMALLEST + 1, (number, 2))
        sizes = rng.integers(_SMALLEST, np.minimum(_LARGEST, SIDE - corners.max(axis=1)) + 1)
        return stamps[sizes - _SMALLEST, rng.integers(3, size=number)], corners

    return _compose(num_scenes, draw, rng, 10, SIDE, 2, together=1)


def ink_boxes(stamps: np.ndarray) -> np.ndarray:
    """Tight boxes [n, 4] of the pixels above 0 of [n, edge, edge]; without any, of size 0."""
    ink = stamps > 0
    on = np.stack([ink.any(axis=1), ink.any(axis=2)], axis=1)  # columns and rows, [n, 2, edge]
    start, stop = on.argmax(axis=2), on.shape[2] - on[..., ::-1].argmax(axis=2)  # [n, 2]
    return np.concatenate([start, (stop - start) * on.any(axis=2)], axis=1)


def _compose(
    num_scenes: int, draw, rng: Generator, white: int, side: int, most: int, together: int
) -> Scenes:
    """Add up to `most` stamps to each scene, so many `together`, and draw these again while they
    make any pixel brighter than white.

    `draw(n)` gives stamps [n, edge, edge] uint8, black beyond the scene, and their corners [n, 2].
    """
    counts = rng.integers(0, most + 1, num_scenes).astype(np.uint8)
    images = np.zeros([num_scenes, side, side], np.uint8)
    boxes = np.zeros([num_scenes, most, 4], np.float32)
    chunks = np.array_split(np.arange(num_scenes), range(CHUNK, num_scenes, CHUNK))
    for chunk, first in itertools.product(chunks, range(0, most, together)):
        pending = chunk[counts[chunk] > first]
        while len(pending):
            numbers = np.minimum(counts[pending] - first, together)
            owner = np.repeat(np.arange(len(pending)), numbers)
            slot = np.concatenate([first + np.arange(number) for number in numbers])
            stamps, corners = draw(len(owner))
            edge = stamps.shape[1]
            canvas = np.pad(images[pending], ((0, 0), (0, edge), (0, edge))).astype(np.uint16)
            for scene, stamp, (left, top) in zip(owner, stamps, corners):
                canvas[scene, top : top + edge, left : left + edge] += stamp
            boxes[pending[owner], slot] = ink_boxes(stamps) + np.pad(corners, ((0, 0), (0, 2)))
            good = canvas.max(axis=(1, 2)) <= white
            images[pending[good]] = canvas[good, :side, :side]
            pending = pending[~good]
    return Scenes(images, counts, boxes, white)
