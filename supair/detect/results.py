"""Objects found in images of one's own: counts, boxes and scores, and the files that hold them."""

from __future__ import annotations

import csv
import io
import itertools
import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tensorflow as tf
from tqdm import tqdm

import supair
from supair.config import ConfigError
from supair.detect.images import Images, Preparation
from supair.detect.report import draw_pictures, write_index
from supair.detect.tiles import drop_doubles
from supair.run import write_whole

_BATCH = 250  # scenes at once
_LEAST_CONTRAST = 5  # grey levels of 255; below, a scene is uniform
_RESULTS = ["boxes.csv", "boxes.json", "contact_sheet.png", "counts.csv", "index.html", "overlays"]
_BOX = ("left", "top", "width", "height", "score", "log_ratio")
_PARTIAL = ".supair-partial."  # begins the name of a folder of results that are being written
_MOST, _FEW = 0.9, 10  # share of boxes or tiles, and least number of them, to have doubts about
_AT_LIMIT = 0.05  # of the range of a box's widths
_FORMULA = tuple("=+-@\t\r")  # a cell that begins so would be run by a spreadsheet


class Detection(NamedTuple):
    """The objects found in one image."""

    boxes: np.ndarray  # [objects, 4] (left, top, width, height), image pixels, cut at its edges
    # [objects] in [0, 1]: q(N >= i) of the step i that found the object, times the chance that it
    # is one by its log_ratio (at even odds).
    score: np.ndarray
    # [objects] nats: the log density of the object's patch, scaled as in the ELBO, less that of the
    # same pixels under the background; what earlier steps hide counts for neither.
    log_ratio: np.ndarray
    width: np.ndarray  # [objects], 0 for the least that the model can give a box, 1 for the largest
    confidence: float  # q(N = n) of the counts n in the image's scenes, their product
    scenes: int  # that the image was cut into
    empty: int  # scenes without objects
    uniform: bool  # whether there is nothing to be seen
    size: tuple[int, int]  # (width, height) in pixels


class Doubt(NamedTuple):
    """Why a result may be wrong, and the numbers of the images that it is about."""

    text: str
    images: Sequence[int]


def describe(model: supair.SuPAIR, scenes) -> tuple[tf.Tensor, tf.Tensor]:
    """What a model finds in scenes [batch, side, side] uint8, at the mean of q(z_where | x).

    Returns:
      Of each step z_pres, score, log_ratio, width (see `Detection`), left, top, width and height in
      pixels, [batch, step, 8]; and q(N), [batch, step + 1].
    """
    config = model.config
    noise = tf.zeros([len(scenes), config.num_steps, model.noise_size])
    evaluation = model.evaluate_elbo(tf.cast(scenes, tf.float32) / 255.0, noise)
    found, background = evaluation.description, evaluation.log_p_background
    log_ratio = evaluation.log_p_objects + background[:, 1:] - background[:, :-1]
    score = found.at_least * tf.sigmoid(log_ratio)
    width = (found.where_loc[..., 0] - config.scale_min) / (config.scale_max - config.scale_min)
    values = tf.stack([found.z_pres, score, log_ratio, width], axis=-1)
    return tf.concat([values, model.boxes(found)], axis=-1), found.q_count


def detect(
    model: supair.SuPAIR, preparation: Preparation, images: Images, min_score: float = 0.0
) -> list[Detection]:
    """Find the objects in every image, each of them once; those of a lower score are left out.

    Raises:
      ConfigError: if the images do not fit the preparation.
    """
    compiled = tf.function(lambda scenes: describe(model, scenes), jit_compile=True)
    pieces = preparation.scenes(images)
    parts: list[list] = [[] for _ in images.pictures]  # of every image's scenes
    with tqdm(desc="detecting", unit="scene", disable=None) as progress:
        while batch := list(itertools.islice(pieces, _BATCH)):
            scenes = np.stack([scene for scene, _ in batch])
            full = len(batch) == _BATCH  # compiling takes seconds; a few scenes do without
            values, q_count = compiled(scenes) if full else describe(model, scenes)
            values, seen = np.asarray(values), np.ptp(scenes, axis=(1, 2)) >= _LEAST_CONTRAST
            present = (np.round(values[..., 0]) == 1) & seen[:, None]
            sure = np.take_along_axis(np.asarray(q_count), present.sum(axis=1)[:, None], 1)
            sure = np.where(seen, sure[:, 0], 1.0)
            for k, (_, (number, window)) in enumerate(batch):
                in_image = window.to_image(values[k, :, 4:])
                boxes = window.clip(in_image)
                mine = present[k] & window.owns(in_image) & np.all(boxes[:, 2:] > 0, axis=1)
                part = boxes[mine], values[k, mine, 1:4], sure[k], seen[k], window.size
                parts[number].append(part)
            progress.update(len(batch))
    return [_put_together(of_image, min_score) for of_image in parts]


def _put_together(parts: list, min_score: float) -> Detection:
    """What was found in one image's scenes: boxes, values, confidence, whether there is contrast,
    and the image's size."""
    boxes, values = (np.concatenate(column) for column in list(zip(*parts))[:2])
    numbers = np.array([len(part[0]) for part in parts])
    score, log_ratio, width = values.T
    scene = np.repeat(np.arange(len(parts)), numbers)
    keep = drop_doubles(boxes, scene, log_ratio) & (score >= min_score)
    return Detection(
        *(column[keep] for column in (boxes, score, log_ratio, width)),
        confidence=float(np.prod([part[2] for part in parts])),
        scenes=len(parts),
        empty=int(np.sum(numbers == 0)),
        uniform=not any(part[3] for part in parts),
        size=parts[0][4],
    )


def find_doubts(detections: list[Detection]) -> list[Doubt]:
    """Why a result may be wrong, as far as it shows."""
    everywhere = range(len(detections))
    uniform = [n for n in everywhere if detections[n].uniform]
    sparse = [n for n in everywhere if detections[n].empty > _MOST * detections[n].scenes]
    sparse = [n for n in sparse if detections[n].scenes >= _FEW and not detections[n].uniform]
    counts = {len(found.boxes) for found in detections if not found.uniform}
    width = np.concatenate([found.width for found in detections])
    least, largest = np.mean([width < _AT_LIMIT, width > 1 - _AT_LIMIT], axis=1) > _MOST
    many = len(width) >= _FEW
    same = len(counts) == 1 and (counts == {0} or len(detections) - len(uniform) >= _FEW)
    size = "boxes have the {} width that the model knows; see --object-size of train"
    doubts = [
        Doubt("uniform, so without objects", uniform),
        Doubt("most tiles are empty; objects may be larger or smaller than a box", sparse),
        Doubt(size.format("least"), everywhere if many and least else []),
        Doubt(size.format("largest"), everywhere if many and largest else []),
        Doubt(f"the same count, {max(counts, default=0)}, everywhere", everywhere if same else []),
    ]
    return [doubt for doubt in doubts if doubt.images]


def say(doubt: Doubt, names: list[str]) -> str:
    """A doubt in one line that names images."""
    if len(doubt.images) == len(names):
        return doubt.text
    few = ", ".join(names[number] for number in doubt.images[:3])
    more = f" and {len(doubt.images) - 3} others" * (len(doubt.images) > 3)
    return f"{few}{more}: {doubt.text}"


def check_output(directory: Path, images: Path | None = None) -> None:
    """Raise ConfigError unless a folder is new, empty or an earlier result's, and nothing else is
    in it; or if it holds the images."""
    option = f"--output {directory}"
    if images is not None and directory.resolve() in (images.resolve(), *images.resolve().parents):
        raise ConfigError(f"{option}: holds the images; choose another folder")
    if os.path.lexists(directory) and not directory.is_dir():
        raise ConfigError(f"{option}: is there and is no folder; choose another")
    try:
        content = json.loads((directory / "boxes.json").read_bytes())
        drawn = {image.get("overlay") for image in content["images"]}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        drawn = set()
    folder, ours = directory / "overlays", {*_RESULTS, *drawn}
    for path in sorted([*directory.glob("*"), *folder.glob("*")]):
        name = path.relative_to(directory).as_posix()
        good = path.is_dir() if path == folder or _PARTIAL in name else path.is_file()
        if path.is_symlink() or not good or (name not in ours and _PARTIAL not in name):
            raise ConfigError(f"{option}: would be written over {name}, which is no result's")


def write_results(
    directory: Path,
    images: Images,
    detections: list[Detection],
    doubts: Sequence[Doubt] = (),
    overlays: int = 300,
) -> None:
    """Write `counts.csv`, `boxes.csv`, `boxes.json` (COCO) and `index.html`, `overlays/` of the
    first images and `contact_sheet.png`, all or none, in place of an earlier result's; raises as
    `check_output`."""
    check_output(directory)
    directory.mkdir(parents=True, exist_ok=True)
    for left in directory.glob(f"{_PARTIAL}*"):  # by a process that was killed
        shutil.rmtree(left)
    with tempfile.TemporaryDirectory(prefix=_PARTIAL, dir=directory) as beside:
        new, old = Path(beside, "new"), Path(beside, "old")
        new.mkdir()
        old.mkdir()
        drawn = draw_pictures(new, images, detections, overlays)
        _write_tables(new, images.names, detections, doubts, drawn)
        said = [say(doubt, images.names) for doubt in doubts]
        write_index(new / "index.html", images.names, detections, said, drawn)
        check_output(directory)  # what came while pictures were drawn
        there = [name for name in _RESULTS if (directory / name).exists()]
        moves = [(directory / name, old / name) for name in there]
        moves += [(new / name, directory / name) for name in _RESULTS]
        try:
            for source, target in moves:
                os.replace(source, target)
        except BaseException:
            for source, target in reversed(moves):
                if not source.exists():
                    os.replace(target, source)
            raise


def _write_tables(
    directory: Path,
    names: list[str],
    detections: list[Detection],
    doubts: Sequence[Doubt],
    drawn: list[str],
) -> None:
    """The CSV files, and boxes.json, from which `check_output` knows which overlays are ours."""
    warnings: list[list[str]] = [[] for _ in names]
    for doubt in doubts:
        for number in doubt.images:
            warnings[number].append(doubt.text)
    boxes_of = [
        np.column_stack([found.boxes.round(2), *np.round([found.score, found.log_ratio], 4)])
        for found in detections
    ]
    counts = (
        [name, len(found.boxes), round(found.confidence, 4), "; ".join(warning)]
        for name, found, warning in zip(names, detections, warnings)
    )
    boxes = ([name, *box] for name, boxes in zip(names, boxes_of) for box in boxes.tolist())
    _write_csv(directory / "counts.csv", ("image", "count", "confidence", "warning"), counts)
    _write_csv(directory / "boxes.csv", ("image", *_BOX), boxes)
    pictures = [
        {"id": n, "file_name": name, "width": int(found.size[0]), "height": int(found.size[1])}
        for n, (name, found) in enumerate(zip(names, detections))
    ]
    for picture, overlay in zip(pictures, drawn):
        picture["overlay"] = overlay
    found = [(n, box) for n, boxes in enumerate(boxes_of) for box in boxes.tolist()]
    annotations = [
        {"id": k, "image_id": n, "category_id": 1, "bbox": box[:4], "area": box[2] * box[3]}
        | {"iscrowd": 0, "score": box[4], "log_ratio": box[5]}
        for k, (n, box) in enumerate(found)
    ]
    content = {
        "info": {"description": "SuPAIR", "warnings": [say(doubt, names) for doubt in doubts]},
        "images": pictures,
        "categories": [{"id": 1, "name": "object"}],
        "annotations": annotations,
    }
    write_whole(directory / "boxes.json", json.dumps(content, indent=1) + "\n")


def _write_csv(path: Path, header: Sequence[str], rows: Iterable[list]) -> None:
    """Text that a spreadsheet would run as a formula gets an apostrophe before it."""
    text = io.StringIO(newline="")
    for row in (header, *rows):
        escaped = [f"'{x}" if isinstance(x, str) and x.startswith(_FORMULA) else x for x in row]
        csv.writer(text).writerow(escaped)
    write_whole(path, text.getvalue())
