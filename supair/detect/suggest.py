"""What images suggest about themselves: how large their objects are, how many, and how noisy."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw
from scipy.ndimage import find_objects, gaussian_filter, label

from supair.detect.images import Images, Preparation, luminance, sample

_IMAGES, _CROP = 60, 1000  # how many are looked at, and pixels along a side of their middle
_SMOOTHING = (0.5, 1.0, 2.0, 3.0, 5.0, 8.0)  # pixels; the first that leaves few specks
_GROUND, _EVEN = 0.15, 150  # an image's ground, smoothed by this share of its longer side, if that
# has more pixels
_GOOD = 0.85  # share of the pieces that may be objects
_MARGINS = 0.65, 1.35  # by which boxes may be smaller and larger than objects
_SIDE, _TILE_SIDE = 14, 18  # pixels of an object in a scene that is an image, and in a tile
_FEW, _LARGE = 6, 64  # objects, and pixels along a side, that a scene may have
LARGEST_SIDE = 100  # of a scene; it takes four times as long as the paper's
_SAMPLE = 2000  # scenes that variances are suggested from


class Sizes(NamedTuple):
    """Objects in images; an object's size is the longer side of its box, in pixels."""

    shapes: list[tuple[int, int]]  # of some images
    pictures: list[np.ndarray]  # these or their middle [height, width], as scenes have them
    boxes: np.ndarray  # [objects, 4] (left, top, width, height)
    owner: np.ndarray  # [objects], the number of the picture
    quantiles: tuple[float, float, float]  # the sizes that 10, 50 and 75 % of them are below
    doubts: list[str]

    def number(self, window: float = 1e9) -> int:
        """Of the objects in an image, or a window of this side in it; few have more.  A box as
        large as several objects counts so."""
        several = np.maximum(1, np.round(self.boxes[:, 2:] / self.quantiles[1])).prod(axis=1)
        x, y = (self.boxes[:, :2] + self.boxes[:, 2:] / 2).T
        numbers = []
        for n, (height, width) in enumerate(picture.shape for picture in self.pictures):
            for top in np.arange(0, height, window / 2):
                for left in np.arange(0, width, window / 2):
                    inside = (top <= y) & (y < top + window) & (left <= x) & (x < left + window)
                    numbers.append(several @ (inside & (self.owner == n)))
        return max(1, round(float(np.quantile(numbers, 0.95))))


def find_sizes(images: Images, preparation: Preparation) -> Sizes:
    """Sizes of what is brighter than its ground and, once it is smoothed, in one piece, in some of
    the images; the preparation knows their levels."""
    shapes, pictures = [], []
    for number in sample(range(len(images.pictures)), _IMAGES):
        picture = images.pictures[number]
        shapes.append(picture.shape[:2])
        top, left = (max(0, length - _CROP) // 2 for length in picture.shape[:2])
        levels = luminance(picture[top : top + _CROP, left : left + _CROP])
        pictures.append(preparation.stretch(levels, preparation.levels_of(picture)))
    longer = max(pictures[0].shape)
    grounds = (0.0, _GROUND * longer) if longer > _EVEN else (0.0,)
    best, found = -1.0, None
    for smoothing, ground in ((s, g) for s in _SMOOTHING for g in grounds):
        boxes, owner = _find_pieces(pictures, smoothing, ground)
        size = boxes[:, 2:].max(axis=1, initial=0)
        typical = np.sqrt(np.sum(size**3) / max(1, np.sum(size)))  # specks weigh little
        good = (size > typical / 4) & (size < 0.7 * longer)
        if good.any() and good.mean() > best:
            best, found = good.mean(), (boxes[good], owner[good], size[good])
        if best >= _GOOD:
            break
    doubts = []
    boxes, owner, size = found or (np.zeros([0, 4]), np.zeros(0, int), np.array([longer / 3]))
    if best < _GOOD:
        doubts.append(
            "the images are not of separate objects on a ground that is darker or brighter"
        )
    if len(boxes) < 10:
        doubts.append(f"there are only {len(boxes)} objects to judge by")
    small, middle, large = map(float, np.quantile(size, [0.1, 0.5, 0.75]))
    if large > 2.5 * small:
        doubts.append(
            f"sizes differ, {small:.0f} to {large:.0f} pixels: objects may touch, or be in parts"
        )
    return Sizes(shapes, pictures, boxes, owner, (small, middle, large), doubts)


def _find_pieces(pictures, smoothing: float, ground: float) -> tuple[np.ndarray, np.ndarray]:
    """Boxes [n, 4] of what is above a threshold for all pictures, and which picture has each."""
    smooth = [gaussian_filter(picture, smoothing) for picture in pictures]
    if ground:
        smooth = [s - gaussian_filter(picture, ground) for s, picture in zip(smooth, pictures)]
    threshold, boxes = _threshold(np.concatenate([s.ravel() for s in smooth])), []
    for n, levels in enumerate(smooth):
        for rows, columns in find_objects(label(levels > threshold, np.ones([3, 3]))[0]):
            size = columns.stop - columns.start, rows.stop - rows.start
            boxes.append((columns.start, rows.start, *size, n))
    boxes = np.array(boxes, float).reshape(-1, 5)
    return boxes[:, :4], boxes[:, 4].astype(int)


def _threshold(values: np.ndarray) -> float:
    """What parts the values into two kinds as far from each other as can be (Otsu, 1979)."""
    numbers, edges = np.histogram(values, 256)
    below = np.cumsum(numbers)
    total = np.cumsum(numbers * (edges[1:] + edges[:-1]) / 2)
    apart = (total[-1] * below - total * below[-1]) ** 2
    return float(edges[1:][np.argmax(apart / np.maximum(1.0, below * (below[-1] - below)))])


class Layout(NamedTuple):
    """How images become scenes, and what a model has to expect in these, in scene pixels."""

    fit: str | None
    zoom: float
    side: int
    object_size: tuple[float, float]
    max_objects: int
    scale: float  # scene pixels to an image's

    @property
    def options(self) -> str:
        """For the command line."""
        fit = f"--fit {self.fit} " * bool(self.fit) + f"--zoom {self.zoom} " * (self.zoom != 1)
        size = " ".join(f"{length:g}" for length in self.object_size)
        return f"{fit}--side {self.side} --object-size {size} --max-objects {self.max_objects}"


def suggest_layout(
    sizes: Sizes,
    fit: str | None = None,
    zoom: float | None = None,
    side: int | None = None,
    object_size: tuple[float, float] | None = None,
    max_objects: int | None = None,
) -> Layout:
    """What is not told, by the sizes: small square images become scenes as they are; others, if
    they have few objects that are large enough, are resized, and else cut into tiles."""
    small, middle, large = sizes.quantiles
    longer, few = float(np.median(np.max(sizes.shapes, axis=1))), sizes.number() <= _FEW
    (height, width), *others = set(sizes.shapes)
    if fit is None and side is None:
        if height == width <= _LARGE and few and not others:
            side = height
        else:
            fit = "resize" if few and _SIDE * longer <= LARGEST_SIDE * middle else "tile"
    if fit == "tile":
        by_size = 1.0 if object_size else float(np.clip(_TILE_SIDE / middle, 0.01, 10))
        scale = zoom = zoom or (1.0 if 0.8 < by_size < 1.25 else round(by_size, 3))
    else:
        side = side or int(np.clip(math.ceil(_SIDE * longer / middle), 32, LARGEST_SIDE))
        scale, zoom = side / longer if fit else 1.0, 1.0
    if object_size is None:
        least, most = (round(by * size * scale, 1) for by, size in zip(_MARGINS, (small, large)))
        object_size = least, most
    if side is None:  # most of a tile is what it shares with others, see `tile_overlap`
        side = int(np.clip(math.ceil(2 * object_size[1]), 50, LARGEST_SIDE))
    if max_objects is None:
        max_objects = sizes.number(side / scale) if fit == "tile" else sizes.number()
    return Layout(fit, zoom, side, object_size, max_objects, scale)


def draw_suggestion(sizes: Sizes, layout: Layout) -> Image.Image:
    """One of the images with what was found in it (white) and, around an object of middle size, the
    smallest box (yellow) and the largest (red) of the model."""
    number = np.bincount(sizes.owner, minlength=1).argmax()
    picture, boxes = sizes.pictures[number], sizes.boxes[sizes.owner == number]
    zoom = max(1, -(-400 // max(picture.shape)))
    drawn = Image.fromarray(np.uint8(255 * picture)).convert("RGB")
    drawn = drawn.resize([zoom * length for length in drawn.size], Image.Resampling.NEAREST)
    pen, centre = ImageDraw.Draw(drawn), np.array(picture.shape[::-1]) / 2
    for box in boxes:
        pen.rectangle((*zoom * box[:2], *zoom * (box[:2] + box[2:]) - 1), outline="white")
    if len(boxes):
        middle = np.abs(boxes[:, 2:].max(axis=1) - sizes.quantiles[1]).argmin()
        centre = boxes[middle, :2] + boxes[middle, 2:] / 2
    for length, colour in zip(layout.object_size, ("yellow", "red")):
        half = length / layout.scale / 2
        pen.rectangle((*zoom * (centre - half), *zoom * (centre + half)), outline=colour, width=2)
    return drawn


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
    few = sample(scenes, _SAMPLE).reshape(-1, scenes[0].size) / np.float32(255)
    deviation = np.median(np.abs(few - np.median(few, axis=1, keepdims=True)), axis=1)
    noise = float(np.median(1.4826 * deviation)) ** 2  # as of a Gaussian's standard deviation
    share = min(1.0, noise / 0.025)
    of_object = (round(0.12 + 0.13 * share, 3), 0.35)
    return Variances(of_object, (0.002, round(0.12 - 0.06 * share, 3)), noise)
