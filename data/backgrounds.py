"""Backgrounds for finished scenes: Gaussian noise and a grid (paper, section 4.4)."""

from __future__ import annotations

import numpy as np

from data.scenes import CHUNK, Scenes


def noisy(scenes: Scenes, rng: np.random.Generator) -> Scenes:
    """clip(0.8 x + 0.1 + N(0, 0.2), 0, 1) in float16, in steps of 1/400 of the noise or less."""
    images = np.empty(scenes.images.shape, np.float16)
    for start in range(0, len(images), CHUNK):
        chunk = scenes.images[start : start + CHUNK]
        noise = rng.standard_normal(chunk.shape, dtype=np.float32)
        noise *= 0.2
        noise += chunk * np.float32(0.8 / scenes.white) + np.float32(0.1)
        images[start : start + CHUNK] = np.clip(noise, 0, 1, out=noise)
    return scenes._replace(images=images, white=1)


def grid(scenes: Scenes, rng: np.random.Generator) -> Scenes:
    """Every fifth row and column, from an offset a scene and axis, raised to at least 0.4."""
    size = scenes.images.shape[1]
    offsets = rng.integers(0, 5, (2, len(scenes.images), 1))
    on_row, on_column = (np.arange(size) - offsets) % 5 == 0  # [scenes, size] each
    lines = on_row[:, :, None] | on_column[:, None, :]
    grey = np.uint8(round(0.4 * scenes.white))
    return scenes._replace(images=np.maximum(scenes.images, lines * grey))
