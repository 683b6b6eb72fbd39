"""Scenes held in memory, for training on arrays of one's own."""

from __future__ import annotations

import numpy as np

from supair.config import require


class InMemoryScenes:
    """Checked scenes, with the attributes that training and evaluation ask for.

    Args:
      images: [scenes, side, side], uint8 (0..255) or floating point in [0, 1].
      counts: [scenes] true numbers of objects, or None: what needs them is not measured.
      boxes: [scenes, objects, 4] true boxes (left, top, width, height in pixels), used up to each
        scene's count, or None.

    Raises:
      ConfigError: if a shape, type or value is wrong.
    """

    def __init__(self, images, counts=None, boxes=None):
        self.images = images = np.asarray(images)
        square = images.ndim == 3 and images.shape[1] == images.shape[2] and images.size > 0
        require(square, "scenes of shape [scenes, side, side]", images.shape)
        size, kind = len(images), images.dtype
        require(kind == np.uint8 or kind.kind == "f", "scenes of uint8 or floating point", kind)
        self.white = 255 if kind == np.uint8 else 1
        low, high = np.min(images), np.max(images)
        inside = 0 <= low and high <= self.white  # false for nan too
        require(inside, f"grey levels in 0..{self.white}", f"{low} to {high}")
        self.counts, self.boxes = counts, boxes
        if counts is not None:
            self.counts = counts = np.asarray(counts)
            good = counts.shape == (size,) and counts.dtype.kind in "iu" and np.min(counts) >= 0
            require(good, f"counts [{size}] of integers from 0", f"{counts.shape} {counts.dtype}")
        if boxes is not None:
            require(counts is not None, "counts beside the boxes", None)
            self.boxes, most = np.asarray(boxes), int(np.max(counts))
            shape = self.boxes.shape
            good = len(shape) == 3 and shape[::2] == (size, 4) and shape[1] >= most
            require(good, f"boxes [{size}, at least {most}, 4]", shape)

    def __len__(self) -> int:
        return len(self.images)

    def read(self, start: int, stop: int) -> np.ndarray:
        """Scenes start .. stop-1 as float32 in [0, 1]."""
        return self.images[start:stop].astype(np.float32) / np.float32(self.white)


def require_side(images, side: int) -> None:
    """Refuse a batch of scenes of another size with a ConfigError."""
    require(images.shape[1:] == (side, side), f"scenes [batch, {side}, {side}]", images.shape)
