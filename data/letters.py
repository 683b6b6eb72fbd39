"""Pictures of letters, an example of images of one's own: colour, not square, dark on light."""

from __future__ import annotations

import csv
import functools
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from tqdm import tqdm

from data.scenes import DataError, check
from data.store import replacing

SIZES = 20_000, 1000  # pictures in train/ and test/
LETTERS = "ABCDEFGHJKLMNPQRSTUVWXYZ"
_WIDTH, _HEIGHT = 120, 90  # of a picture in pixels
_MAX_LETTERS = 3
_FONTS = ("DejaVuSans-Bold", "DejaVuSerif-Bold", "DejaVuSansMono-Bold")
_TYPE_HEIGHTS = (34, 50)  # in pixels
_GAP = 2  # pixels between letters, and to the picture's edge


def draw_letters(rng: np.random.Generator) -> tuple[Image.Image, int]:
    """A picture with 0 to 3 letters apart, in dark ink on tinted paper, and their number."""
    paper = rng.integers(200, 245) + rng.integers(-10, 11, 3)
    picture = Image.new("RGB", (_WIDTH, _HEIGHT), tuple(map(int, paper)))
    taken = np.zeros([_HEIGHT, _WIDTH], bool)
    drawn, tries, count = 0, 0, int(rng.integers(0, _MAX_LETTERS + 1))
    while drawn < count:
        if (tries := tries + 1) > 1000:  # no room is left
            return draw_letters(rng)
        font = load_font(str(rng.choice(_FONTS)), int(rng.integers(*_TYPE_HEIGHTS)))
        letter = str(rng.choice(list(LETTERS)))
        left, top, right, bottom = map(int, font.getbbox(letter))
        width, height = right - left, bottom - top
        x = int(rng.integers(_GAP, _WIDTH - width - _GAP))
        y = int(rng.integers(_GAP, _HEIGHT - height - _GAP))
        around = np.s_[y - _GAP : y + height + _GAP + 1, x - _GAP : x + width + _GAP + 1]
        if not taken[around].any():
            ink = tuple(map(int, rng.integers(0, 110, 3)))
            ImageDraw.Draw(picture).text((x - left, y - top), letter, font=font, fill=ink)
            taken[y : y + height + 1, x : x + width + 1] = True
            drawn += 1
    grain = rng.normal(0, 4, [_HEIGHT, _WIDTH, 3])
    return Image.fromarray(np.clip(np.asarray(picture) + grain, 0, 255).astype(np.uint8)), count


@functools.cache
def load_font(name: str, height: int) -> ImageFont.FreeTypeFont:
    """One of the fonts that Matplotlib brings along."""
    import matplotlib  # takes long

    path = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / f"{name}.ttf"
    return ImageFont.truetype(str(path), height)


def write_letters(directory: Path, sizes: tuple[int, int], seed: int) -> None:
    """Write `train/` and `test/` with pictures and their `counts.csv`, all or nothing.

    Raises:
      DataError: if the folder is there already, or the seed or a size is not usable.
    """
    check(seed, sizes)
    if directory.exists():
        raise DataError(f"{directory}: is there already; delete it, or choose another")
    with replacing(directory) as partial:
        for index, (part, size) in enumerate(zip(("train", "test"), sizes)):
            (partial / part).mkdir(parents=True)
            rng = np.random.default_rng([seed, index])
            rows = [("image", "count")]
            for number in tqdm(range(size), f"drawing {part}", unit="image", disable=None):
                picture, count = draw_letters(rng)
                rows.append((f"{number:05d}.jpg", count))
                picture.save(partial / part / rows[-1][0], quality=90)
            with open(partial / part / "counts.csv", "w", newline="") as file:
                csv.writer(file).writerows(rows)
