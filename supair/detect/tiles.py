"""Scenes cut from images, and boxes in scenes brought back to the images."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import scipy
from PIL import Image

from supair.config import ModelConfig, require
from supair.metrics import box_iou

FITS = ("resize", "tile")
_SAMPLE = 1000  # pixels along an axis that a median is taken of
# Two boxes are of one object if their IoU, or the share of the smaller that lies in the larger, is
# above these.  Steps know of each other, tiles do not.  The first pair changes the pretrained
# models' counts by less than their sampling error; the second found digits on canvases best (F1).
_DOUBLE_IN_A_SCENE = 0.75, 0.95
_DOUBLE_ACROSS_TILES = 0.3, 0.6


class Window(NamedTuple):
    """Where a scene is in an image: its (x, y) is the image's (left + zoom_x x, top + zoom_y y)."""

    left: float
    top: float
    zoom_x: float
    zoom_y: float
    size: tuple[float, float]  # (width, height) of the image
    # (left, top, right, bottom) in the image: objects with their centre in here are this scene's.
    core: tuple[float, float, float, float] = (-math.inf, -math.inf, math.inf, math.inf)

    def to_image(self, boxes: np.ndarray) -> np.ndarray:
        """Boxes [n, 4] (left, top, width, height), from scene pixels to image pixels."""
        zoom = [self.zoom_x, self.zoom_y, self.zoom_x, self.zoom_y]
        return np.asarray(boxes, float) * zoom + [self.left, self.top, 0.0, 0.0]

    def owns(self, boxes: np.ndarray) -> np.ndarray:
        """Which of the boxes [n, 4], in image pixels, have their centre in the core, [n] bool."""
        centres = boxes[:, :2] + boxes[:, 2:] / 2
        return np.all((centres >= self.core[:2]) & (centres < self.core[2:]), axis=1)

    def clip(self, boxes: np.ndarray) -> np.ndarray:
        """The parts of boxes [n, 4] that lie in the image."""
        corner = np.clip(boxes[:, :2], 0, self.size)
        opposite = np.clip(boxes[:, :2] + boxes[:, 2:], 0, self.size)
        return np.hstack([corner, opposite - corner])


def resize(levels: np.ndarray, side: int) -> tuple[np.ndarray, Window]:
    """An image [height, width] as a scene [side, side], whole; the rest is its median."""
    longer = max(levels.shape)
    height, width = shape = tuple(max(1, round(side / longer * n)) for n in levels.shape)
    zoom_y, zoom_x = np.divide(levels.shape, shape)
    top, left = (side - height) // 2, (side - width) // 2
    scene = np.full([side, side], np.median(levels) if min(shape) < side else 0, np.float32)
    scene[top : top + height, left : left + width] = _rows(levels, shape, 0, height)
    return scene, Window(-left * zoom_x, -top * zoom_y, zoom_x, zoom_y, levels.shape[::-1])


def _rows(levels: np.ndarray, shape: tuple[int, ...], first: int, last: int) -> np.ndarray:
    """Some rows of an image [height, width] resized to the shape, of which no more is made."""
    if shape == levels.shape:
        return levels[first:last]
    by = levels.shape[0] / shape[0]
    above = max(0, int((first - 1) * by) - 1)
    near = Image.fromarray(levels[above : int((last + 1) * by) + 2])
    box = 0, first * by - above, levels.shape[1], min(last * by - above, near.height)
    return np.asarray(near.resize((shape[1], last - first), Image.Resampling.BILINEAR, box))


def sample(things: Sequence, most: int) -> Sequence:
    """At most so many of them in their order, chosen at random, always the same."""
    numbers = np.random.default_rng(0).permutation(len(things))[:most]
    return [things[number] for number in np.sort(numbers)]


def cut_tiles(
    levels: np.ndarray, side: int, overlap: int, zoom: float = 1.0
) -> Iterator[tuple[np.ndarray, Window]]:
    """Scenes [side, side] that cover an image [height, width] once it is resized, one after the
    other; neighbours share `overlap` pixels, and the image's median fills what lies beyond it.

    Cores overlap a little, as an object's centre differs between tiles; see `drop_doubles`.
    """
    stride, margin, slack = side - overlap, overlap // 2, overlap / 32
    shape, size = tuple(max(1, round(zoom * n)) for n in levels.shape), levels.shape[::-1]
    (height, width), (zoom_y, zoom_x) = shape, np.divide(levels.shape, shape)
    ground = np.median(levels[:: -(-size[1] // _SAMPLE), :: -(-size[0] // _SAMPLE)])
    for y in range(-margin, height - margin, stride):
        strip = _rows(levels, shape, max(y, 0), min(y + side, height))
        for x in range(-margin, width - margin, stride):
            inside = strip[:, max(x, 0) : x + side]
            scene = np.full([side, side], ground, np.float32)
            scene[max(-y, 0) :, max(-x, 0) :][: len(inside), : inside.shape[1]] = inside
            start = np.array([x, y]) + margin - slack
            core = np.multiply([*start, *(start + stride + 2 * slack)], [zoom_x, zoom_y] * 2)
            yield scene, Window(x * zoom_x, y * zoom_y, zoom_x, zoom_y, size, tuple(core))


def drop_doubles(boxes: np.ndarray, scene: np.ndarray, log_ratio: np.ndarray) -> np.ndarray:
    """Non-maximum suppression of boxes [n, 4] in image pixels, each of some area and found in a
    scene of a number: of several of one object that of the highest log_ratio stays, [n] bool."""
    if len(boxes) < 2:
        return np.ones(len(boxes), bool)
    rank, area = np.argsort(np.argsort(-log_ratio, kind="stable")), boxes[:, 2:].prod(axis=1)
    near = scipy.spatial.cKDTree(boxes[:, :2] + boxes[:, 2:] / 2)  # centres of boxes that touch are
    pairs = near.query_pairs(boxes[:, 2:].max(), p=np.inf, output_type="ndarray")  # [pairs, 2]
    iou = box_iou(boxes[pairs[:, :1]], boxes[pairs[:, 1:]])[:, 0, 0]
    within = iou / (1 + iou) * area[pairs].sum(axis=1) / area[pairs].min(axis=1)
    same = scene[pairs[:, 0]] == scene[pairs[:, 1]]
    limits = np.where(same[:, None], _DOUBLE_IN_A_SCENE, _DOUBLE_ACROSS_TILES)
    double = (iou > limits[:, 0]) | (within > limits[:, 1])
    ranks, keep = np.sort(rank[pairs[double]], axis=1), np.ones(len(boxes), bool)
    for better, worse in ranks[np.argsort(ranks[:, 0], kind="stable")]:
        keep[worse] &= ~keep[better]
    return keep[rank]


def tile_overlap(config: ModelConfig) -> int:
    """How many pixels neighbouring tiles share, so that every object is whole in one of them: as
    far as the model's highest box reaches."""
    side, patch = config.scene_size, config.patch_size
    overlap = math.ceil(config.scale_max * config.aspect_max * patch * patch / (patch - 1))
    least = math.ceil(overlap / 0.75)  # or tiles would be little more than what they share
    require(side >= least, f"--side of at least {least} for such --object-size in tiles", side)
    return overlap
