"""Other pictures than the paper's, counted and boxed without labels: by SuPAIR with the defaults of
`python -m supair`; by Otsu's threshold, a distance transform and a watershed; and by the Laplacian
of Gaussians.  Usage: python reproduce/pictures.py [--quick] [--json FILE]

The last two, of scikit-image, get the settings of a grid that are best on the first training
pictures, by labels.  A single picture is trained and tested on.  Called again, the script goes on.
"""

from __future__ import annotations

import importlib.util
import itertools
import json
import subprocess
import sys
import time
from pathlib import Path

import common
import numpy as np
from PIL import Image
from scipy import ndimage

import supair
from data.letters import draw_letters
from data.scenes import ink_boxes
from supair.config import ConfigError, require
from supair.metrics import box_iou, count_hits
from supair.run import read_rows

SETS = "digits", "lawn", "blobs", "letters", "coins", "print", "galaxies"
TUNING = 40  # training pictures that settings are chosen on
SIDE, LARGEST_IOU = 50, 0.15  # of pictures drawn here, in pixels, and of the objects in them
COINS = """22 35 45 39 132 28 47 46 192 30 48 43 255 34 42 38 305 16 60 56 25 104 42 41 81 39 39 35
84 108 38 37 134 110 39 35 186 105 40 39 245 95 51 49 317 106 39 39 26 179 37 38 80 175 44 42
135 179 39 38 189 170 48 47 251 172 46 45 315 156 65 62 18 233 57 55 93 245 43 42 144 236 57 52
220 240 49 48 276 239 50 50 336 248 46 41"""  # drawn by hand: left, top, width, height


def lay_out(rng: np.random.Generator, stamps: np.ndarray, ground: np.ndarray, share=0.0):
    """A picture [SIDE, SIDE] with 0 to 3 of the stamps [n, edge, edge], and their boxes, of what is
    above 0.1 and the share of the stamp's peak."""
    boxes, edge = np.zeros([0, 4]), stamps.shape[1]
    for _ in range(rng.integers(4)):
        stamp, (left, top) = rng.choice(stamps), rng.integers(0, SIDE - edge + 1, 2)
        box = ink_boxes(stamp[np.newaxis] > max(0.1, share * stamp.max())) + [left, top, 0.0, 0.0]
        if np.all(box_iou(box, boxes) <= LARGEST_IOU):
            here = ground[top : top + edge, left : left + edge]
            np.maximum(here, stamp, out=here)
            boxes = np.concatenate([boxes, box])
    return np.uint8(np.round(255 * np.clip(ground, 0, 1))), boxes


def make_sets(sizes: tuple[int, int]) -> dict[str, list]:
    """Of each set pictures to train and to test on, with the boxes in each, or their number."""
    from skimage import data
    from sklearn.datasets import load_digits

    digits = ndimage.zoom(load_digits().images / 16, (1, 2.25, 2.25), order=1)  # [1797, 18, 18]
    lawn = 0.8 * data.grass()[:SIDE, :SIDE] / 255
    rng = np.random.default_rng(2)
    y, x = np.linspace(-8, 8, 16) / rng.uniform(2, 4, [2, 500, 1])  # in standard deviations
    blobs = rng.uniform(0.5, 1, [500, 1, 1]) * np.exp(-0.5 * (y[:, :, None] ** 2 + x[:, None] ** 2))
    drawn = {
        "digits": lambda rng: lay_out(rng, digits, np.zeros([SIDE, SIDE])),
        "lawn": lambda rng: lay_out(rng, digits, lawn.copy()),
        "blobs": lambda rng: lay_out(rng, blobs, rng.normal(0.1, 0.05, [SIDE, SIDE]), 0.5),
        "letters": draw_letters,
    }
    photographs = {
        "coins": (data.coins(), np.array(COINS.split(), float).reshape(-1, 4)),
        "print": (data.page()[46:140], 198),  # letters and stops, by a transcript
        "galaxies": (data.hubble_deep_field()[400:600, 600:850], 50),  # that stand out, about
    }
    rngs, sets = [np.random.default_rng(seed) for seed in range(2)], {}
    for name, draw in drawn.items():
        parts = [[draw(rng) for _ in range(size)] for rng, size in zip(rngs, sizes)]
        sets[name] = [[(np.asarray(picture), true) for picture, true in part] for part in parts]
    return sets | {name: [[pair]] * 2 for name, pair in photographs.items()}


def watershed(grey, contrast: float, sigma: float, distance: int, area: int) -> np.ndarray:
    """Boxes [n, 4] of what is brighter than Otsu's threshold, taken apart where it is narrow."""
    from skimage import filters, measure, segmentation
    from skimage.feature import peak_local_max

    smooth = ndimage.gaussian_filter(grey, sigma)
    mask = (smooth > filters.threshold_otsu(smooth)) & (np.ptp(smooth) > contrast)
    depth = ndimage.distance_transform_edt(ndimage.binary_fill_holes(mask))
    peaks = peak_local_max(depth, min_distance=distance, labels=depth > 0)
    markers = np.zeros(grey.shape, int)
    markers[tuple(peaks.T)] = 1 + np.arange(len(peaks))
    regions = measure.regionprops(segmentation.watershed(-depth, markers, mask=depth > 0))
    found = [region.bbox for region in regions if region.area >= area]
    return np.array([(x, y, right - x, end - y) for y, x, end, right in found]).reshape(-1, 4)


def blob_log(grey, smallest: float, ratio: float, threshold: float) -> np.ndarray:
    """Boxes [n, 4] of blobs with standard deviations from `smallest` to `ratio` times that."""
    from skimage.feature import blob_log as find_blobs

    y, x, deviation = find_blobs(grey, smallest, smallest * ratio, 6, threshold).T
    side = deviation * np.sqrt(8)
    return np.stack([x - side / 2, y - side / 2, side, side], axis=1)


GRIDS = {  # of the arguments
    watershed: ((0.1, 0.2, 0.4), (0, 1, 2, 4), (4, 8, 16, 32), (10, 40, 160)),
    blob_log: ((1, 2, 4, 8, 16), (1.5, 3), (0.02, 0.05, 0.1, 0.2, 0.4)),
}


def score(found, truth) -> dict:
    """The counts' mean absolute error, and F1 at an IoU of 0.5 where there are true boxes."""
    numbers, true = list(map(len, found)), [t if np.isscalar(t) else len(t) for t in truth]
    result = {"count_error": round(float(np.mean(np.abs(np.subtract(numbers, true)))), 3)}
    if not any(map(np.isscalar, truth)):
        result["f1"] = round(2 * count_hits(truth, found) / max(1, sum(numbers) + sum(true)), 3)
    return result


def classical(method, pairs: list, settings: tuple) -> dict:
    """A method's result, with settings: whether objects are dark, and its arguments."""
    pictures, truth = zip(*pairs)
    grey = [np.asarray(Image.fromarray(picture).convert("L")) / 255 for picture in pictures]
    began = time.perf_counter()
    found = [method(1 - x if settings[0] else x, *settings[1:]) for x in grey]
    seconds = round(time.perf_counter() - began, 2)
    return {**score(found, truth), "seconds": seconds, "settings": settings}


def detect(train: list, test: list, folder: Path, seed: int, options: list[str]) -> dict:
    """SuPAIR's result after training, which goes on where it was."""
    folder.mkdir(parents=True, exist_ok=True)
    images, run = folder.resolve() / "images.npz", folder.resolve() / f"seed{seed}"
    np.savez(images, images=[picture for picture, _ in train])
    call = ["--images", images, "--output", run, "--seed", str(seed), *options]
    if subprocess.run([sys.executable, "-m", "supair", "train", *call], cwd=common.ROOT).returncode:
        raise ConfigError(f"{run}: training failed, see above")
    pictures, truth = zip(*test)
    began, trained = time.perf_counter(), round(read_rows(run)[-1]["train_seconds"])
    found = supair.load(run).detect(list(pictures)).boxes
    took = {"seconds": round(time.perf_counter() - began, 2), "train_seconds": trained}
    return {**score(found, truth), **took}


def main(argv: list[str] | None = None) -> int:
    parser = common.parser(__doc__)
    parser.add_argument("--quick", action="store_true", help="few pictures, one seed, 250 steps")
    parser.add_argument("--runs", type=Path, default=common.ROOT / "runs/pictures", metavar="DIR")
    parser.add_argument("--sets", nargs="+", choices=SETS, default=SETS, help="default: all")
    common.add_json(parser, "the results, beside those of other sets,")
    options = parser.parse_args(argv)
    missing = [name for name in ("skimage", "sklearn") if not importlib.util.find_spec(name)]
    require(not missing, "pip install scikit-image scikit-learn", f"no {' '.join(missing)}")
    more = "--steps 1 --batch-size 16 --no-xla".split() if options.quick else []
    sets, before = make_sets((40, 10) if options.quick else (2000, 200)), options.json
    results = json.loads(before.read_text())["sets"] if before and before.exists() else {}
    for name in options.sets:
        (train, test), rows = sets[name], {}
        for method, grid in GRIDS.items():
            every = itertools.product((False, True), *grid)
            tried = [classical(method, train[:TUNING], settings) for settings in every]
            best = max(tried, key=lambda row: (row.get("f1", 0), -row["count_error"]))
            rows[method.__name__] = classical(method, test, best["settings"])
        for seed in range(1 if options.quick else 3):
            rows[f"SuPAIR {seed}"] = detect(train, test, options.runs / name, seed, more)
        for method, row in rows.items():
            print(f"{name:10}{method:12}{row}", flush=True)
        results[name] = {"commit": common.commit(), **rows}
        if options.json:
            common.write_json(options.json, {"sets": results})
    return 0


if __name__ == "__main__":
    common.run(main)
