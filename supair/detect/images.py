"""Images of one's own: read from files, and made into scenes that a model can see."""

from __future__ import annotations

import csv
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np
from PIL import Image, ImageOps

from supair.config import ConfigError, require
from supair.detect.tiles import FITS, Window, cut_tiles, resize

_SUFFIXES = (".png", ".jpg", ".jpeg")
_SAMPLE = 2000  # scenes that grey levels and variances are suggested from
_LEAST_CONTRAST = 0.02


class Images(NamedTuple):
    names: list[str]  # of the files, or numbers
    # Each [height, width] or [height, width, 3], uint8 or floating point in [0, 1].
    pictures: Sequence[np.ndarray] | np.ndarray
    counts: np.ndarray | None  # [images] true numbers of objects, where they are known


def read_images(path: Path, array: str = "images") -> Images:
    """Read a folder of PNG and JPEG files (in the order of their names), or an array of a file.

    Photographs are turned as their EXIF data say, and what is transparent is laid on white.  True
    counts are taken from `counts.csv` (columns image and count) in the folder, or from an array
    `counts` beside the images.

    Args:
      path: the folder, or an .npz or HDF5 file.
      array: the array's name in the file, [n, height, width] or [n, height, width, 3], uint8 or
        floating point in [0, 1].

    Raises:
      ConfigError: naming the file, what was expected and what was found.
    """
    if path.is_dir():
        return _read_folder(path)
    try:
        pictures, counts = _read_arrays(path, array)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None
    except Exception as error:  # damaged files make h5py, zipfile and zlib raise all kinds
        raise ConfigError(f"{path}: missing or damaged ({error!r:.150})") from None
    return Images([str(number) for number in range(len(pictures))], pictures, counts)


def _read_arrays(path: Path, array: str) -> tuple[np.ndarray, np.ndarray | None]:
    """Images and counts of a file."""
    kind = path.suffix.lower()
    require(kind in (".npz", ".h5", ".hdf5"), "a folder, an .npz or an .h5 file", kind or "neither")
    beside = f"{array.rpartition('/')[0]}/counts".lstrip("/")
    with h5py.File(path) if kind != ".npz" else np.load(path, allow_pickle=False) as file:
        require(array in file, f"an array {array} (or another --array)", ", ".join(file))
        images = np.asarray(file[array])
        counts = np.asarray(file[beside]) if beside in file else None
        white = file[array].parent.attrs.get("white", 255) if kind != ".npz" else 255
    shape = images.shape
    good = shape[3:] in ((), (3,)) and len(shape) >= 3 and images.size
    require(good, f"{array} [n, height, width] or [n, height, width, 3]", shape)
    if images.dtype != np.uint8:
        require(images.dtype.kind == "f", "grey levels of uint8 or floating point", images.dtype)
        low, high = images.min(), images.max()  # nan if there is one
        require(low >= 0 and high <= 1, "grey levels in [0, 1]", f"{low} to {high}")
    elif white != 255:  # data/'s Sprites
        images = images / np.float32(white)
    if counts is not None:
        good = counts.shape == shape[:1] and counts.dtype.kind in "iu" and counts.min() >= 0
        expected = f"counts [{len(images)}] of integers from 0"
        require(good, expected, f"{counts.shape} {counts.dtype}")
    return images, counts


def _read_folder(folder: Path) -> Images:
    files = sorted(
        path
        for path in folder.iterdir()
        if path.suffix.lower() in _SUFFIXES and path.is_file() and not path.name.startswith(".")
    )
    require(bool(files), f"PNG or JPEG files in {folder}", "none")
    pictures = []
    for path in files:
        try:
            path.name.encode()  # names that are not UTF-8 cannot be written to the results
            with Image.open(path) as image:
                pictures.append(_pixels(ImageOps.exif_transpose(image)))
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            name = os.fsencode(path).decode(errors="replace")
            raise ConfigError(f"{name}: damaged or no image ({error!r:.150})") from None
    names = [path.name for path in files]
    counts = folder / "counts.csv"
    return Images(names, pictures, _read_counts(counts, names) if counts.exists() else None)


def _pixels(image: Image.Image) -> np.ndarray:
    if image.mode.startswith("I"):  # 16 bits
        return np.asarray(image).astype(np.float32) / np.float32(65535)
    if image.has_transparency_data:
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image.convert("RGBA"))
    return np.asarray(image.convert("L" if image.mode in ("1", "L") else "RGB"))


def _read_counts(path: Path, names: list[str]) -> np.ndarray:
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file))
        counts = {row["image"]: int(row["count"]) for row in rows}
        if len(counts) < len(rows) or not all(0 <= count < 2**31 for count in counts.values()):
            raise ValueError("an image twice, or a count that is none")
        return np.array([counts[name] for name in names])
    except (OSError, KeyError, TypeError, ValueError) as error:
        expected = "columns image and count, and a line for every image"
        raise ConfigError(f"{path}: expected {expected} ({error!r})") from None


def luminance(picture: np.ndarray) -> np.ndarray:
    """Grey levels [height, width] of a picture, float32 in [0, 1]."""
    levels = picture.astype(np.float32) / np.float32(255 if picture.dtype == np.uint8 else 1)
    return levels @ np.array([0.299, 0.587, 0.114], np.float32) if levels.ndim == 3 else levels


@dataclass(frozen=True)
class Preparation:
    """How images become scenes: square, grey, and with objects on something dark, as the paper's
    variances want them."""

    side: int = 50  # of a scene in pixels
    # "resize" makes one scene of an image, "tile" many, None takes images of side x side pixels.
    fit: str | None = None
    overlap: int = 0  # pixels that neighbouring tiles share, see `tile_overlap`
    black: float = 0.0  # grey levels that become 0 and 1; what is beyond is cut off
    white: float = 1.0
    inverted: bool = False  # whether black and white are exchanged

    def __post_init__(self):
        require(self.fit in (None, *FITS), f"a fit out of None, {', '.join(FITS)}", self.fit)
        require(0 <= self.overlap < self.side, f"0 <= overlap < side {self.side}", self.overlap)
        require(0 <= self.black < self.white <= 1, "0 <= black < white <= 1", self)

    @classmethod
    def suggest(cls, images: Images, side: int, fit: str | None, overlap: int) -> Preparation:
        """Stretch the contrast, but for a thousandth of the pixels at either end, and invert images
        that are mostly bright.

        Raises:
          ConfigError: if the images do not have the size, or are all of one grey.
        """
        as_they_are = cls(side, fit, overlap)
        numbers = _sample(range(len(images.pictures)), _SAMPLE)
        scenes: list[np.ndarray] = []
        for number in numbers:
            of_image = [scene for scene, _ in as_they_are._cut(images, number)]
            scenes += _sample(of_image, -(-_SAMPLE // len(numbers)))
        black, white = (round(float(level), 4) for level in np.quantile(scenes, [0.001, 0.999]))
        if white - black < _LEAST_CONTRAST:  # objects may be smaller than a thousandth
            black, white = float(np.min(scenes)), float(np.max(scenes))
        found = f"grey levels from {black:.3f} to {white:.3f} only"
        require(white - black >= _LEAST_CONTRAST, "images with contrast", found)
        inverted = bool(np.median(scenes) > (black + white) / 2)
        return cls(side, fit, overlap, black, white, inverted)

    def scenes(self, images: Images) -> tuple[np.ndarray, list[tuple[int, Window]]]:
        """Scenes [n, side, side] uint8, and of each the number of its image and where in it it was.

        Raises:
          ConfigError: if an image does not have the size.
        """
        scenes, places = [], []
        for number in range(len(images.pictures)):
            for scene, window in self._cut(images, number):
                scenes.append(self._stretch(scene))
                places.append((number, window))
        return np.stack(scenes), places

    def _cut(self, images: Images, number: int) -> list[tuple[np.ndarray, Window]]:
        levels, side = luminance(images.pictures[number]), self.side
        if self.fit == "tile":
            return cut_tiles(levels, side, self.overlap)
        expected = (
            f"{side} x {side} pixels of image {images.names[number]}, or --fit resize or tile"
        )
        fits = self.fit == "resize" or levels.shape == (side, side)
        require(fits, expected, "{1} x {0}".format(*levels.shape))
        return [resize(levels, side)]

    def _stretch(self, scene: np.ndarray) -> np.ndarray:
        levels = np.clip((scene - self.black) / (self.white - self.black), 0, 1)
        return np.round(255 * (1 - levels if self.inverted else levels)).astype(np.uint8)


def _sample(things: Sequence, most: int) -> Sequence:
    """At most so many of them, evenly spaced."""
    return things[:: -(-len(things) // most)]


class Variances(NamedTuple):
    """Variance bounds for the leaves of both models, and the noise they were suggested for."""

    object: tuple[float, float]
    background: tuple[float, float]
    noise: float


def suggest_variances(scenes: np.ndarray) -> Variances:
    """Between the paper's bounds for clean scenes and those for Noisy-MNIST, by the variance of the
    noise.

    The noise is by how much most pixels of a scene differ from its median; on Noisy-MNIST that
    makes a variance of 0.025, less than what was added, because it was cut off at black.

    Args:
      scenes: [n, side, side] uint8, prepared.
    """
    few = _sample(scenes, _SAMPLE).reshape(-1, scenes[0].size) / np.float32(255)
    deviation = np.median(np.abs(few - np.median(few, axis=1, keepdims=True)), axis=1)
    noise = float(np.median(1.4826 * deviation)) ** 2  # as of a Gaussian's standard deviation
    share = min(1.0, noise / 0.025)
    of_object = (round(0.12 + 0.13 * share, 3), 0.35)
    return Variances(of_object, (0.002, round(0.12 - 0.06 * share, 3)), noise)
