"""Backgrounds for finished scenes: Gaussian noise and a grid (paper, section 4.4)."""

from __future__ import annotations

import numpy as np

from data.scenes import Scenes

_CHUNK = 4096  # scenes whose noise is in memory at once


def noisy(scenes: Scenes, rng: np.random.Generator) -> Scenes:
    """clip(0.8 x + 0.1 + N(0, 0.2), 0, 1), in half precision: its steps are 1/400 of the noise or less."""
    images = np.empty(scenes.images.shape, np.float16)
    for start in range(0, len(images), _CHUNK):
        chunk = scenes.images[start : start + _CHUNK]
        noise = rng.standard_normal(chunk.shape, dtype=np.float32)
        noise *= 0.2
        noise += chunk * np.float32(0.8 / scenes.white) + np.float32(0.1)
        images[start : start + _CHUNK] = np.clip(noise, 0, 1, out=noise)
    return scenes._replace(images=images, white=1)


def grid(scenes: Scenes, rng: np.random.Generator, spacing: int = 5, level: float = 0.4) -> Scenes:
    """Every fifth row and column, from a random offset for each scene and axis, raised to at least 0.4."""
    size = scenes.images.shape[1]
    row_offset, column_offset = rng.integers(0, spacing, (2, len(scenes.images), 1))
    on_row, on_column = ((np.arange(size) - offset) % spacing == 0 for offset in (row_offset, column_offset))
    lines = on_row[:, :, None] | on_column[:, None, :]
    grey = np.uint8(round(level * scenes.white))
    return scenes._replace(images=np.maximum(scenes.images, lines * grey))
