"""What images suggest about themselves: how large their objects are, how many, and how noisy."""

from __future__ import annotations

import itertools
import math
from typing import NamedTuple

import numpy as np
import scipy
from PIL import Image

from supair.detect.images import Images, Preparation, luminance
from supair.detect.report import draw_boxes
from supair.detect.tiles import sample

_IMAGES, _CROP = 60, 1000  # how many are looked at, and pixels along a side of their middle
_SEVERAL, _RARE = 10, 0.05  # images that show a ground that is the same, and share without object
_SMOOTHING = (0.5, 1.0, 2.0, 3.0, 5.0, 8.0)  # pixels; the first that leaves few specks
_GROUND, _EVEN = 0.15, 150  # an image smoothed by this share of its side is its ground, if larger
_GOOD = 0.85  # share of the pieces that may be objects
_MARGINS = 0.65, 1.35  # of boxes, around the sizes of objects
_SIDE, _TILE_SIDE = 14, 18  # pixels of an object in a scene that is an image, and in a tile
_FEW, _SMALL = 6, 64  # objects and pixels along a side of an image that may be a scene
_LARGEST = 100  # side of a scene; that takes four times as long as the paper's


class Sizes(NamedTuple):
    """Objects in some images, in pixels; an object's size is the longer side of its box."""

    numbers: list[int]  # of the images looked at
    shapes: list[tuple[int, int]]  # of these
    pictures: list[np.ndarray]  # the images or their middle [height, width], as scenes have them
    boxes: np.ndarray  # [objects, 4] (left, top, width, height)
    owner: np.ndarray  # [objects], in which picture
    quantiles: tuple[float, float, float]  # the sizes that 10, 50 and 75 % are below
    num_pieces: int  # in the pictures: the objects or, if these are more, what is beyond noise
    doubts: list[str]

    def number(self, window: float = 1e9) -> int:
        """Objects in an image, or a window in it; few have more.  A box as large as two is two."""
        several = np.maximum(1, np.round(self.boxes[:, 2:] / self.quantiles[1])).prod(axis=1)
        x, y = (self.boxes[:, :2] + self.boxes[:, 2:] / 2).T
        numbers = []
        for n, (height, width) in enumerate(picture.shape for picture in self.pictures):
            for top in np.arange(0, height, window / 2):
                for left in np.arange(0, width, window / 2):
                    inside = (top <= y) & (y < top + window) & (left <= x) & (x < left + window)
                    numbers.append(several @ (inside & (self.owner == n)))
        return max(1, round(float(np.quantile(numbers, 0.95))))


def find_sizes(images: Images, preparation: Preparation, most=_IMAGES) -> Sizes:
    """Sizes of what is brighter than its ground and, once smoothed, in one piece."""
    numbers, shapes, pictures = sample(range(len(images.names)), most), [], []
    for number in numbers:
        picture = images.pictures[number]
        shapes.append(picture.shape[:2])
        top, left = (max(0, length - _CROP) // 2 for length in shapes[-1])
        levels = luminance(picture[top : top + _CROP, left : left + _CROP])
        pictures.append(preparation.levels_of(picture).stretch(levels))
    looks = [pictures]
    if len(pictures) >= _SEVERAL and len(set(shapes)) == 1:
        shared = np.quantile(pictures, _RARE, axis=0)
        if np.std(pictures - shared) > np.std(shared) / 3:  # else it has the objects, too
            looks = [[picture - shared for picture in pictures], pictures]
    longer, best = max(pictures[0].shape), (-1.0, np.zeros([0, 4]), np.zeros(0, int))
    grounds = (0.0, _GROUND * longer) if longer > _EVEN else (0.0,)
    for smoothing, ground, look in itertools.product(_SMOOTHING, grounds, looks):
        boxes, owner = _find_pieces(look, smoothing, ground, _threshold)
        size = boxes[:, 2:].max(axis=1, initial=0)
        typical = np.sqrt(np.sum(size**3) / max(1, np.sum(size)))  # specks weigh little
        good = (size > typical / 4) & (size < 0.7 * longer)
        if good.any() and good.mean() > best[0]:
            best = good.mean(), boxes[good], owner[good]
        if best[0] >= _GOOD:
            break
    share, boxes, owner = best
    size = boxes[:, 2:].max(axis=1)
    size = size if len(size) else np.array([longer / 3])
    small, middle, large = map(float, np.quantile(size, [0.1, 0.5, 0.75]))
    doubts = {
        "these are no separate objects, all darker or all brighter than the ground": share < _GOOD,
        "the sizes differ much: objects may touch, or be in parts": large > 2.5 * small,
    }
    pieces = max(len(boxes), len(_find_pieces(pictures, 1.0, 0.0, _noise_limit)[0]))
    few = f"{pieces} pieces are brighter than noise, and most too faint to be counted"
    doubts[few] = pieces > 2 * len(boxes)
    said = [doubt for doubt, true in doubts.items() if true]
    quantiles = small, middle, large
    return Sizes(numbers, shapes, pictures, boxes, owner, quantiles, pieces, said)


def _find_pieces(pictures, smoothing: float, ground: float, limit):
    """Boxes [n, 4] of what is above a limit for all pictures, and which picture has each."""
    ndi, rows = scipy.ndimage, []
    smooth = [ndi.gaussian_filter(picture, smoothing) for picture in pictures]
    if ground:
        smooth = [s - ndi.gaussian_filter(picture, ground) for s, picture in zip(smooth, pictures)]
    threshold = limit(np.concatenate([levels.ravel() for levels in smooth]))
    for n, levels in enumerate(smooth):
        for y, x in ndi.find_objects(*ndi.label(levels > threshold, np.ones([3, 3]))):
            rows.append((x.start, y.start, x.stop - x.start, y.stop - y.start, n))
    rows = np.array(rows, float).reshape(-1, 5)
    return rows[:, :4], rows[:, 4].astype(int)


def _threshold(values: np.ndarray) -> float:
    """What parts values into two kinds as far from each other as can be (Otsu, 1979)."""
    numbers, edges = np.histogram(values, 256)
    below, total = np.cumsum(numbers), np.cumsum(numbers * (edges[1:] + edges[:-1]) / 2)
    apart = (total[-1] * below - total * below[-1]) ** 2
    return float(edges[1:][np.argmax(apart / np.maximum(1.0, below * (below[-1] - below)))])


def _noise_limit(values: np.ndarray) -> float:
    """Five standard deviations above the median, by the median deviation from that."""
    median = np.median(values)
    return median + max(0.02, 5 * 1.4826 * np.median(np.abs(values - median)))


class Layout(NamedTuple):
    """How images become scenes, and what a model has to expect in these."""

    fit: str | None
    side: int  # scene pixels
    object_size: tuple[float, float]  # image pixels
    max_objects: int
    zoom: float  # scene pixels to one of an image

    @property
    def options(self) -> str:
        """For the command line."""
        fit, (least, most) = f"--fit {self.fit} " * bool(self.fit), self.object_size
        size = f"--side {self.side} --object-size {least:g} {most:g}"
        return f"{fit}{size} --max-objects {self.max_objects}"


def suggest_layout(sizes: Sizes, fit=None, side=None, object_size=None, max_objects=None) -> Layout:
    """What is not told: small square images become scenes as they are; others, if they have few
    objects that are large enough, are resized, and else cut into tiles."""
    small, middle, large = sizes.quantiles
    least, most = object_size or (round(_MARGINS[0] * small, 1), round(_MARGINS[1] * large, 1))
    if object_size:
        middle = max(0.1, (least + most) / 2)
    longer, few = float(np.median(np.max(sizes.shapes, axis=1))), sizes.number() <= _FEW
    (height, width), *others = set(sizes.shapes)
    if fit is None and side is None:
        if height == width <= _SMALL and few and not others:
            side = height
        else:
            fit = "resize" if few and _SIDE * longer <= _LARGEST * middle else "tile"
    if fit == "tile":
        zoom = min(max(_TILE_SIDE / middle, 0.01), 10.0)
        zoom = 1.0 if 0.8 < zoom < 1.25 else round(zoom, 3)
        side = side or min(max(math.ceil(2 * most * zoom), 50), _LARGEST)  # see `tile_overlap`
    else:
        side = side or min(max(math.ceil(_SIDE * longer / middle), 32), _LARGEST)
        zoom = side / longer if fit else 1.0
    number = max_objects or sizes.number(side / zoom if fit == "tile" else 1e9)
    return Layout(fit, side, (least, most), number, zoom)


def draw_suggestion(sizes: Sizes, layout: Layout) -> Image.Image:
    """One of the images with what was found in it (white) and, around an object of middle size, the
    smallest box (yellow) and the largest (red) that a model may use."""
    number = np.bincount(sizes.owner, minlength=1).argmax()
    picture, boxes = sizes.pictures[number], sizes.boxes[sizes.owner == number]
    if not len(boxes):
        boxes = np.array([[0, 0, *picture.shape[::-1]]])
    middle = boxes[np.argmin(np.abs(boxes[:, 2:].max(axis=1) - sizes.quantiles[1]))]
    centre = middle[:2] + middle[2:] / 2
    limits = [[*(centre - size / 2), size, size] for size in layout.object_size]
    colours = [*["white"] * len(boxes), "yellow", "red"]
    return draw_boxes(picture, np.concatenate([boxes, limits]), colours)


def suggest_variances(scenes: np.ndarray) -> tuple[float, tuple, tuple]:
    """The noise's variance in scenes [n, side, side] uint8, and for it the variance bounds of the
    object and the background model, between the paper's for clean scenes and those for Noisy-MNIST.

    The noise is by how much most pixels of a scene differ from its median; on Noisy-MNIST a
    variance of 0.025, less than what was added and cut off at black.
    """
    few = np.array(sample(scenes, 2000)).reshape(-1, scenes[0].size) / np.float32(255)
    deviation = np.median(np.abs(few - np.median(few, axis=1, keepdims=True)), axis=1)
    noise = float(np.median(1.4826 * deviation)) ** 2  # as of a Gaussian's standard deviation
    share = min(1.0, noise / 0.025)
    return noise, (round(0.12 + 0.13 * share, 3), 0.35), (0.002, round(0.12 - 0.06 * share, 3))
