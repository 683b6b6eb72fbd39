"""Images of one's own: from files and arrays to scenes that a model can see, and from boxes in scenes back to the images."""

from __future__ import annotations

import csv
import math
import os
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
from PIL import Image, ImageOps

from supair.config import ConfigError

SUFFIXES = (".png", ".jpg", ".jpeg")
FITS = ("resize", "tile")
# What reading a damaged HDF5 or npz file can raise, or an array where an archive is expected.
UNREADABLE = (OSError, EOFError, ValueError, KeyError, TypeError, AttributeError, RuntimeError, zipfile.BadZipFile, zlib.error)
_SAMPLE = 2000  # scenes that grey levels and variances are suggested from


class Images(NamedTuple):
    names: list[str]  # of the files, or numbers
    pictures: Sequence[np.ndarray] | np.ndarray  # each [height, width] or [height, width, 3], uint8 or floating point in [0, 1]
    counts: np.ndarray | None  # [images] true numbers of objects, where they are known

    @property
    def size(self) -> tuple[int, int] | None:
        """(height, width) in pixels if it is the same for all."""
        sizes = {picture.shape[:2] for picture in self.pictures}
        return sizes.pop() if len(sizes) == 1 else None


def read_images(path: Path, array: str = "images") -> Images:
    """Read a folder of PNG and JPEG files (in the order of their names), or an array of an .npz or HDF5 file.

    Photographs are turned as their EXIF data say, and what is transparent is laid on white.
    True counts are taken from `counts.csv` (columns image and count) in the folder, or from an array `counts` beside the
    images.

    Args:
      path: the folder or file.
      array: the array's name in the file, [n, height, width] or [n, height, width, 3], uint8 or floating point in [0, 1].

    Raises:
      ConfigError: naming the file, what was expected and what was found.
    """
    if path.is_dir():
        return _read_folder(path)
    kind = path.suffix.lower()
    if kind not in (".npz", ".h5", ".hdf5"):
        missing = "" if path.exists() else "there is no such file or folder; "
        raise ConfigError(f"{path}: {missing}expected a folder, an .npz or an .h5 file")
    beside = array.rpartition("/")[0]
    try:
        if kind == ".npz":
            with np.load(path, allow_pickle=False) as file:
                images, counts = _arrays(file, file.files, array, "counts")
        else:
            with h5py.File(path, "r") as file:
                images, counts = _arrays(file, _datasets(file), array, f"{beside}/counts".lstrip("/"))
                white = file[array].parent.attrs.get("white", 255)
                if images.dtype == np.uint8 and white != 255:  # Sprites
                    images = images / np.float32(white)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None
    except UNREADABLE as error:
        raise ConfigError(f"{path}: missing, damaged, or no {kind} file ({str(error).splitlines()[0][:150]})") from None
    if images.ndim not in (3, 4) or not images.size or (images.ndim == 4 and images.shape[3] != 3):
        raise ConfigError(f"{path}: expected {array} [n, height, width] or [n, height, width, 3], found {images.shape}")
    _check_values(images, f"{path}: {array}")
    if counts is not None and (counts.shape != (len(images),) or counts.dtype.kind not in "iu" or counts.min() < 0):
        raise ConfigError(f"{path}: expected counts [{len(images)}] of integers from 0, found {counts.shape} {counts.dtype}")
    return Images([str(number) for number in range(len(images))], images, counts)


def _arrays(file: Any, names: Sequence[str], array: str, counts: str) -> tuple[np.ndarray, np.ndarray | None]:
    if array not in names:
        raise ConfigError(f"has no array {array}, but {', '.join(names) or 'none'}; choose one with --array")
    return np.asarray(file[array]), np.asarray(file[counts]) if counts in names else None


def _datasets(file: h5py.File) -> list[str]:
    names: list[str] = []
    file.visititems(lambda name, item: names.append(name) if isinstance(item, h5py.Dataset) else None)
    return names


def _read_folder(path: Path) -> Images:
    files = sorted(
        file for file in path.iterdir() if file.suffix.lower() in SUFFIXES and file.is_file() and not file.name.startswith(".")
    )
    if not files:
        raise ConfigError(f"{path}: expected PNG or JPEG files in this folder, found none")
    pictures = []
    for file in files:
        try:
            file.name.encode()
            with Image.open(file) as image:
                picture = _pixels(ImageOps.exif_transpose(image))
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            name = os.fsencode(file).decode(errors="replace")  # names that are not UTF-8 cannot be written either
            raise ConfigError(f"{name}: damaged or no image ({str(error)[:150]})") from None
        _check_values(picture, str(file))
        pictures.append(picture)
    names = [file.name for file in files]
    truth = path / "counts.csv"
    return Images(names, pictures, _read_counts(truth, names) if truth.exists() else None)


def _pixels(image: Image.Image) -> np.ndarray:
    if image.mode.startswith("I"):  # 16 bits
        return np.asarray(image).astype(np.float32) / np.float32(65535)
    if image.has_transparency_data:
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA"))
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
        raise ConfigError(f"{path}: expected columns image and count, and a line for every image ({error!r})") from None


def _check_values(images: np.ndarray, name: str) -> None:
    if images.dtype == np.uint8:
        return
    if images.dtype.kind != "f":
        raise ConfigError(f"{name}: expected uint8 or floating point, found {images.dtype}; divide by the value of white")
    if not (images.min() >= 0 and images.max() <= 1):  # false for nan too
        raise ConfigError(f"{name}: expected values in [0, 1], found {images.min()} to {images.max()}")


def grey(picture: np.ndarray) -> np.ndarray:
    """Luminance [height, width] of a picture, float32 in [0, 1]."""
    levels = picture.astype(np.float32) / np.float32(255 if picture.dtype == np.uint8 else 1)
    return levels @ np.array([0.299, 0.587, 0.114], np.float32) if levels.ndim == 3 else levels


class Window(NamedTuple):
    """Where in an image a scene was taken: its point (x, y) is the image's (left + zoom_x x, top + zoom_y y)."""

    image: int
    left: float
    top: float
    zoom_x: float = 1.0
    zoom_y: float = 1.0
    # Objects whose centre is in here are this scene's, those beyond a neighbour's: (left, top, right, bottom) in the image.
    core: tuple[float, float, float, float] = (-math.inf, -math.inf, math.inf, math.inf)

    def to_image(self, boxes: np.ndarray) -> np.ndarray:
        """Boxes [n, 4] (left, top, width, height), from scene pixels to image pixels."""
        return np.asarray(boxes, float) * ([self.zoom_x, self.zoom_y] * 2) + [self.left, self.top, 0.0, 0.0]

    def owns(self, boxes: np.ndarray) -> np.ndarray:
        """Which of the boxes [n, 4], in image pixels, have their centre in the core, [n] bool."""
        centres = boxes[:, :2] + boxes[:, 2:] / 2
        return np.all((centres >= self.core[:2]) & (centres < self.core[2:]), axis=1)


@dataclass(frozen=True)
class Preparation:
    """How images become scenes: square, grey, and with objects on something dark, as the paper's variances want them.

    Args:
      side: of a scene in pixels.
      fit: "resize" shrinks or enlarges an image until its longer side fits, and fills up with its median; "tile" takes
        scenes out of it as it is, which overlap; None takes images of side x side pixels only.
      overlap: of neighbouring tiles in pixels, at least the size of an object, so that each is whole in one of them.
      black, white: grey levels that become 0 and 1; what is beyond is cut off.
      inverted: whether black and white are exchanged.
    """

    side: int = 50
    fit: str | None = None
    overlap: int = 0
    black: float = 0.0
    white: float = 1.0
    inverted: bool = False

    def __post_init__(self):
        if self.fit not in (None, *FITS):
            raise ConfigError(f"expected a fit out of None, {', '.join(FITS)}, found {self.fit}")
        if not 0 <= self.overlap < self.side:
            raise ConfigError(f"expected an overlap from 0 to below the side {self.side}, found {self.overlap}")
        if not 0 <= self.black < self.white <= 1:
            raise ConfigError(f"expected 0 <= black < white <= 1, found {self.black} and {self.white}")

    @staticmethod
    def suggest(images: Images, side: int, fit: str | None, overlap: int) -> Preparation:
        """Stretch the contrast, but for a thousandth of the pixels at either end, and invert images that are mostly bright.

        Raises:
          ConfigError: if the images do not have the size, or are all of one grey.
        """
        unchanged = Preparation(side, fit, overlap)
        pictures = images.pictures[:: -(-len(images.pictures) // _SAMPLE)]
        share = -(-_SAMPLE // len(pictures))  # scenes of one image, which may be many tiles
        parts = [unchanged._cut(picture, number)[0] for number, picture in enumerate(pictures)]
        scenes = np.concatenate([part[:: -(-len(part) // share)] for part in parts])
        black, white = (round(float(level), 4) for level in np.quantile(scenes, [0.001, 0.999]))
        if white - black < 0.02:
            black, white = float(np.min(scenes)), float(np.max(scenes))
        if white - black < 0.02:
            raise ConfigError(f"expected images with contrast, found grey levels from {black:.3f} to {white:.3f} only")
        inverted = bool(np.median(scenes) > (black + white) / 2)
        return Preparation(side, fit, overlap, black, white, inverted)

    def scenes(self, images: Images) -> tuple[np.ndarray, list[Window]]:
        """Scenes [n, side, side] uint8, and where each was taken.

        Raises:
          ConfigError: if an image does not have the size.
        """
        scenes, windows = [], []
        for number, picture in enumerate(images.pictures):
            levels, of_image = self._cut(picture, number)
            scenes.append(self._level(levels))
            windows += of_image
        return np.concatenate(scenes), windows

    def _level(self, scenes: np.ndarray) -> np.ndarray:
        levels = np.clip((scenes - self.black) / (self.white - self.black), 0, 1)
        return np.round(255 * (1 - levels if self.inverted else levels)).astype(np.uint8)

    def _cut(self, picture: np.ndarray, number: int) -> tuple[np.ndarray, list[Window]]:
        """The scenes of one image, [n, side, side] in [0, 1]."""
        levels = grey(picture)
        if self.fit is None and levels.shape != (self.side, self.side):
            height, width = levels.shape
            raise ConfigError(
                f"image {number} has {width} x {height} pixels, and scenes have {self.side} x {self.side}; "
                "choose --fit resize, or --fit tile"
            )
        taken = self._tile(levels, number) if self.fit == "tile" else [self._resize(levels, number)]
        return np.stack([scene for scene, _ in taken]), [window for _, window in taken]

    def _resize(self, levels: np.ndarray, number: int) -> tuple[np.ndarray, Window]:
        if levels.shape == (self.side, self.side):
            return levels, Window(number, 0.0, 0.0)
        height, width = (max(1, round(length / max(levels.shape) * self.side)) for length in levels.shape)
        zoom_x, zoom_y = levels.shape[1] / width, levels.shape[0] / height
        small = np.asarray(Image.fromarray(levels).resize((width, height), Image.Resampling.BILINEAR))
        top, left = (self.side - height) // 2, (self.side - width) // 2
        scene = np.full([self.side, self.side], np.median(levels), np.float32)
        scene[top : top + height, left : left + width] = np.clip(small, 0, 1)
        return scene, Window(number, -left * zoom_x, -top * zoom_y, zoom_x, zoom_y)

    def _tile(self, levels: np.ndarray, number: int) -> list[tuple[np.ndarray, Window]]:
        stride, margin = self.side - self.overlap, self.overlap // 2
        rows, columns = (-(-length // stride) for length in levels.shape)
        whole = [((margin, self.side + count * stride - length), length) for count, length in zip((rows, columns), levels.shape)]
        padded = np.pad(levels, [pad for pad, _ in whole], constant_values=np.median(levels))
        tiles = []
        for top in range(0, rows * stride, stride):
            for left in range(0, columns * stride, stride):
                window = Window(number, left - margin, top - margin, core=(left, top, left + stride, top + stride))
                tiles.append((padded[top : top + self.side, left : left + self.side], window))
        return tiles


class Variances(NamedTuple):
    """Variance bounds for the leaves of both models, and the noise that they were suggested for."""

    object: tuple[float, float]
    background: tuple[float, float]
    noise: float


def suggest_variances(scenes: np.ndarray) -> Variances:
    """Between the paper's bounds for clean scenes and those for Noisy-MNIST, by the variance of the noise.

    The noise is by how much most pixels of a scene differ from its median; on Noisy-MNIST that makes a variance of 0.025,
    less than what was added, because it was cut off at black.

    Args:
      scenes: [n, side, side] uint8, prepared.
    """
    few = scenes[:: -(-len(scenes) // _SAMPLE)].reshape(-1, scenes.shape[1] * scenes.shape[2]) / np.float32(255)
    deviation = np.median(np.abs(few - np.median(few, axis=1, keepdims=True)), axis=1)
    noise = float(np.median(1.4826 * deviation)) ** 2  # the factor makes it the standard deviation of Gaussian noise
    share = min(1.0, noise / 0.025)
    return Variances((round(0.12 + 0.13 * share, 3), 0.35), (0.002, round(0.12 - 0.06 * share, 3)), noise)
