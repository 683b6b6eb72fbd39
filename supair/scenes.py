"""Scenes held in memory, for training on arrays of one's own."""

from __future__ import annotations

import numpy as np

from supair.config import ConfigError, require


class InMemoryScenes:
    """Checked scenes, with the attributes that training and evaluation ask for.

    Args:
      images: [scenes, side, side] or [scenes, side, side, 1], see `read_levels`.
      counts: [scenes] true numbers of objects, or None: what needs them is not measured.
      boxes: [scenes, objects, 4] true boxes (left, top, width, height in pixels), used up to each
        scene's count, or None.

    Raises:
      ConfigError: if a shape, type or value is wrong.
    """

    def __init__(self, images, counts=None, boxes=None):
        self.images, self.white = read_levels(images)
        (size, *sides), self.counts, self.boxes = self.images.shape, counts, boxes
        require(size and len(set(sides)) == 1, "scenes [scenes, side, side]", self.images.shape)
        if counts is not None:
            self.counts = counts = _as_array("counts", counts)
            good = counts.shape == (size,) and counts.dtype.kind in "iu" and np.min(counts) >= 0
            require(good, f"counts [{size}] of integers from 0", f"{counts.shape} {counts.dtype}")
        if boxes is not None:
            require(counts is not None, "counts beside the boxes", None)
            self.boxes, most = _as_array("boxes", boxes), int(np.max(counts))
            shape = self.boxes.shape
            good = len(shape) == 3 and shape[::2] == (size, 4) and shape[1] >= most
            require(good, f"boxes [{size}, at least {most}, 4]", shape)
            used = self.boxes[np.arange(shape[1]) < counts[:, None]]  # [objects, 4]
            good = np.all(np.isfinite(used)) and np.all(used[:, 2:] > 0)
            require(good, "finite boxes, wider and higher than 0, up to each count", "others")

    def __len__(self) -> int:
        return len(self.images)

    def read(self, start: int, stop: int) -> np.ndarray:
        """Scenes start .. stop-1 as float32 in [0, 1]."""
        return self.images[start:stop].astype(np.float32) / np.float32(self.white)


def _as_array(name: str, values) -> np.ndarray:
    try:
        array = np.asarray(values)
    except ValueError as error:
        raise ConfigError(f"expected {name} of one shape: {error}") from None
    require(array.dtype.kind in "buif", f"numbers as {name}", array.dtype)
    return array


def read_levels(images) -> tuple[np.ndarray, int]:
    """Scenes [n, height, width] of images [n, height, width] or [n, height, width, 1], and which
    number is white in them: 255 if they are uint8, 1 if bool or others in [0, 1], and 255 again if
    these are whole numbers up to there.  ConfigError if they are anything else."""
    images = _as_array("images", images)
    images = images[..., 0] if images.shape[3:] == (1,) else images
    require(images.ndim == 3, "scenes [n, side, side] or [n, side, side, 1]", images.shape)
    low, high = np.min(images, initial=0), np.max(images, initial=0)  # nan if there is one
    in_bytes = images.dtype == np.uint8 or (1 < high <= 255 and np.all(images == np.round(images)))
    expected = "grey levels in [0, 1], or whole ones up to 255"
    require(low >= 0 and (high <= 1 or in_bytes), expected, f"{low} to {high}")
    return images, 255 if in_bytes else 1


def require_side(images, side: int) -> None:
    """Refuse a batch of scenes of another size with a ConfigError."""
    require(images.shape[1:] == (side, side), f"scenes [batch, {side}, {side}]", images.shape)
