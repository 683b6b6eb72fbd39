"""Scenes held in memory, for training on arrays of one's own."""

from __future__ import annotations

import numpy as np

from supair.config import ConfigError


class InMemoryScenes:
    """Checked scenes, with the attributes that training and evaluation ask for.

    Args:
      images: [scenes, side, side], uint8 (0..255) or floating point in [0, 1].
      counts: [scenes] true numbers of objects; None if they are not known, and then nothing is measured that needs them.
      boxes: [scenes, objects, 4] true boxes (left, top, width, height in pixels), used up to each scene's count.

    Raises:
      ConfigError: if a shape, type or value is wrong.
    """

    def __init__(self, images, counts=None, boxes=None):
        self.images = check_images(images)
        self.white = 255 if self.images.dtype == np.uint8 else 1
        size = len(self.images)
        if counts is None:
            self.counts = self.boxes = None
            return
        self.counts = np.asarray(counts)
        most = int(np.max(self.counts, initial=0)) if self.counts.dtype.kind in "iu" else 0
        self.boxes = np.zeros([size, most, 4], np.float32) if boxes is None else np.asarray(boxes)
        if self.counts.shape != (size,) or self.counts.dtype.kind not in "iu" or np.min(self.counts, initial=0) < 0:
            raise ConfigError(f"expected counts [{size}] of integers from 0, found {self.counts.shape} {self.counts.dtype}")
        if self.boxes.ndim != 3 or self.boxes.shape[0] != size or self.boxes.shape[1] < most or self.boxes.shape[2] != 4:
            raise ConfigError(f"expected boxes [{size}, at least {most}, 4], found {self.boxes.shape}")

    def __len__(self) -> int:
        return len(self.images)

    def read(self, start: int, stop: int) -> np.ndarray:
        """Scenes start .. stop-1 as float32 in [0, 1]."""
        images = self.images[start:stop]
        return images.astype(np.float32) / np.float32(self.white)


def require_side(images, side: int) -> None:
    """Refuse a batch of scenes of another size.

    Raises:
      ConfigError: naming the expected and the found shape.
    """
    if images.shape[1:] != (side, side):
        raise ConfigError(f"expected scenes [batch, {side}, {side}], found {images.shape}")


def check_images(images) -> np.ndarray:
    """The images as an array, if they are [scenes, side, side] uint8, or floating point in [0, 1].

    Raises:
      ConfigError: otherwise, with what was expected and found.
    """
    images = np.asarray(images)
    if images.ndim != 3 or images.shape[1] != images.shape[2] or not images.size:
        raise ConfigError(f"expected scenes of shape [scenes, side, side], found {images.shape}")
    if images.dtype != np.uint8 and images.dtype.kind != "f":
        raise ConfigError(f"expected scenes of uint8 or floating point, found {images.dtype}")
    if images.dtype.kind == "f" and not (np.min(images) >= 0 and np.max(images) <= 1):  # false for nan too
        raise ConfigError(f"expected grey levels in [0, 1], found {np.min(images)} to {np.max(images)}")
    return images
