"""Pictures of scattered letters, for trying out images of one's own: colour, not square, dark on light paper."""

from __future__ import annotations

import csv
import functools
import os
import shutil
from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont
from tqdm import tqdm

from data.scenes import DataError

SIZE = 120, 90  # width and height in pixels
MAX_LETTERS = 3
LETTERS = "ABCDEFGHJKLMNPQRSTUVWXYZ"
_FONTS = ("DejaVuSans-Bold", "DejaVuSerif-Bold", "DejaVuSansMono-Bold")  # that Matplotlib brings along
_HEIGHTS = (34, 50)  # of the type in pixels


def draw_letters(rng: np.random.Generator) -> tuple[Image.Image, int]:
    """A picture with 0 to 3 capital letters that do not touch, in dark ink of any hue on tinted paper, and their number."""
    paper = rng.integers(200, 245) + rng.integers(-10, 11, 3)
    picture = Image.new("RGB", SIZE, tuple(map(int, paper)))
    pen = ImageDraw.Draw(picture)
    taken: list[tuple[float, float, float, float]] = []
    count = int(rng.integers(0, MAX_LETTERS + 1))
    while len(taken) < count:
        font = load_font(str(rng.choice(_FONTS)), int(rng.integers(*_HEIGHTS)))
        letter = str(rng.choice(list(LETTERS)))
        left, top, right, bottom = font.getbbox(letter)
        x, y = (int(rng.integers(2, int(room - length) - 2)) for room, length in zip(SIZE, (right - left, bottom - top)))
        box = (x, y, x + right - left, y + bottom - top)
        if all(box[0] > b[2] + 2 or b[0] > box[2] + 2 or box[1] > b[3] + 2 or b[1] > box[3] + 2 for b in taken):
            pen.text((x - left, y - top), letter, font=font, fill=tuple(int(level) for level in rng.integers(0, 110, 3)))
            taken.append(box)
    grain = rng.normal(0, 4, [SIZE[1], SIZE[0], 3])
    return Image.fromarray(np.clip(np.asarray(picture) + grain, 0, 255).astype(np.uint8)), count


@functools.cache
def load_font(name: str, height: int) -> ImageFont.FreeTypeFont:
    """One of Matplotlib's fonts."""
    return ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / f"{name}.ttf"), height)


def write_letters(directory: Path, sizes: tuple[int, int], seed: int) -> None:
    """Write `train/` and `test/` with pictures and their `counts.csv`, all or nothing.

    Raises:
      DataError: if the folder is there already.
    """
    if directory.exists():
        raise DataError(f"{directory}: is there already; delete it, or choose another")
    partial = directory.with_name(f"{directory.name}.{os.getpid()}.partial")
    try:
        for index, (part, size) in enumerate(zip(("train", "test"), sizes)):
            (partial / part).mkdir(parents=True)
            rng = np.random.default_rng([seed, index])
            with open(partial / part / "counts.csv", "w", newline="") as file:
                writer = csv.writer(file)
                writer.writerow(["image", "count"])
                for number in tqdm(range(size), desc=f"drawing {part}", unit="image", disable=None):
                    picture, count = draw_letters(rng)
                    name = f"{number:05d}.jpg"
                    picture.save(partial / part / name, quality=90)
                    writer.writerow([name, count])
        os.replace(partial, directory)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
