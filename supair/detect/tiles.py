"""Scenes cut from images, and boxes in scenes brought back to the images."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from PIL import Image

from supair.config import ModelConfig, require

FITS = ("resize", "tile")


class Window(NamedTuple):
    """Where in an image a scene was taken: the scene's point (x, y) is the image's
    (left + zoom_x x, top + zoom_y y)."""

    left: float
    top: float
    zoom_x: float = 1.0
    zoom_y: float = 1.0
    # (left, top, right, bottom) in the image: objects whose centre is in here are this scene's,
    # those beyond are a neighbour's.
    core: tuple[float, float, float, float] = (-math.inf, -math.inf, math.inf, math.inf)

    def to_image(self, boxes: np.ndarray) -> np.ndarray:
        """Boxes [n, 4] (left, top, width, height), from scene pixels to image pixels."""
        zoom = [self.zoom_x, self.zoom_y, self.zoom_x, self.zoom_y]
        return np.asarray(boxes, float) * zoom + [self.left, self.top, 0.0, 0.0]

    def owns(self, boxes: np.ndarray) -> np.ndarray:
        """Which of the boxes [n, 4], in image pixels, have their centre in the core, [n] bool."""
        centres = boxes[:, :2] + boxes[:, 2:] / 2
        return np.all((centres >= self.core[:2]) & (centres < self.core[2:]), axis=1)


def resize(levels: np.ndarray, side: int) -> tuple[np.ndarray, Window]:
    """An image [height, width] in [0, 1] as one scene [side, side]: its longer side fits, and its
    median fills the rest."""
    if levels.shape == (side, side):
        return levels, Window(0.0, 0.0)
    height, width = (max(1, round(length / max(levels.shape) * side)) for length in levels.shape)
    small = Image.fromarray(levels).resize((width, height), Image.Resampling.BILINEAR)
    top, left = (side - height) // 2, (side - width) // 2
    scene = np.full([side, side], np.median(levels), np.float32)
    scene[top : top + height, left : left + width] = np.clip(small, 0, 1)
    zoom_x, zoom_y = levels.shape[1] / width, levels.shape[0] / height
    return scene, Window(-left * zoom_x, -top * zoom_y, zoom_x, zoom_y)


def cut_tiles(levels: np.ndarray, side: int, overlap: int) -> list[tuple[np.ndarray, Window]]:
    """Scenes [side, side] that cover an image [height, width]; neighbours share `overlap` pixels,
    and the image's median fills what lies beyond it."""
    stride, margin = side - overlap, overlap // 2
    rows, columns = counts = [-(-length // stride) for length in levels.shape]
    beyond = [(margin, side + n * stride - length) for n, length in zip(counts, levels.shape)]
    padded = np.pad(levels, beyond, constant_values=np.median(levels))
    tiles = []
    for top in range(0, rows * stride, stride):
        for left in range(0, columns * stride, stride):
            core = (left, top, left + stride, top + stride)
            scene = padded[top : top + side, left : left + side]
            tiles.append((scene, Window(left - margin, top - margin, core=core)))
    return tiles


def tile_overlap(config: ModelConfig) -> int:
    """How many pixels neighbouring tiles share, so that every object is whole in one of them: as
    far as the model's highest box reaches."""
    side, patch = config.scene_size, config.patch_size
    overlap = math.ceil(config.scale_max * config.aspect_max * patch * patch / (patch - 1))
    least = math.ceil(overlap / 0.75)  # or tiles would be little more than what they share
    require(side >= least, f"--side of at least {least} for such --object-size in tiles", side)
    return overlap
