"""Objects found in images of one's own: counts, boxes, and pictures of both."""

from __future__ import annotations

import csv
import json
import math
import os
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw
from tqdm import tqdm

import supair
from supair.config import ConfigError
from supair.detect.images import Images, Preparation
from supair.figures import STEP_COLORS

_BATCH = 250  # scenes at once
_RESULTS = ["boxes.csv", "boxes.json", "contact_sheet.png", "counts.csv", "overlays"]
_BOX = ("left", "top", "width", "height", "confidence")
_SHEET_SIDE = 6  # overlays along each side of the contact sheet
_SHEET_CELL = 160  # pixels
_OVERLAY_SIDE = 300  # pixels, at least, for the longer side of an overlay


class Detection(NamedTuple):
    """The objects found in one image."""

    boxes: np.ndarray  # [objects, 4] (left, top, width, height), image pixels, cut at its edges
    confidence: np.ndarray  # [objects], q(N >= i) of the step that found it
    step: np.ndarray  # [objects], which step of the model did, from 0


def detect(model: supair.SuPAIR, preparation: Preparation, images: Images) -> list[Detection]:
    """Find the objects in every image, at the mean of q(z_where | x).

    Raises:
      ConfigError: if the images do not fit the preparation.
    """
    scenes, places = preparation.scenes(images)
    found: list[list[Detection]] = [[] for _ in images.pictures]  # of every image's scenes
    for start in tqdm(range(0, len(scenes), _BATCH), desc="detecting", unit="batch", disable=None):
        description = model(scenes[start : start + _BATCH].astype(np.float32) / 255)
        present, sure = np.round(description.z_pres) == 1, description.at_least.numpy()
        boxes = model.boxes(description).numpy()  # [batch, step, 4]
        for k, (number, window) in enumerate(places[start : start + _BATCH]):
            in_image = window.to_image(boxes[k])
            steps = np.flatnonzero(present[k] & window.owns(in_image))
            visible = _clip(in_image[steps], images.pictures[number].shape[:2])
            found[number].append(Detection(visible, sure[k, steps], steps))
    return [Detection(*map(np.concatenate, zip(*of_image))) for of_image in found]


def _clip(boxes: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The parts of boxes [n, 4] that lie in an image of a size (height, width)."""
    corner = np.clip(boxes[:, :2], 0, size[::-1])
    opposite = np.clip(boxes[:, :2] + boxes[:, 2:], 0, size[::-1])
    return np.hstack([corner, opposite - corner])


def check_output(directory: Path, images: Path | None = None) -> None:
    """Raise ConfigError if a folder holds the images, or anything but a whole result."""
    if images is not None and directory.resolve() in images.resolve().parents:
        raise ConfigError(f"--output {directory}: would replace the folder that holds the images")
    there = sorted(os.listdir(directory)) if directory.exists() else []
    if there not in ([], _RESULTS):
        raise ConfigError(f"--output {directory}: holds other files than a result's, as {there[0]}")


def write_results(directory: Path, images: Images, detections: list[Detection]) -> None:
    """Write `counts.csv`, `boxes.csv`, `boxes.json`, `overlays/` and `contact_sheet.png`, all of
    them or none, in place of an earlier result; raises as `check_output`."""
    check_output(directory)
    directory = directory.resolve()
    directory.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f"{directory.name}.", dir=directory.parent) as beside:
        new, old = Path(beside, "new"), Path(beside, "old")
        new.mkdir()
        _write_tables(new, images.names, detections)
        _draw_pictures(new, images, detections)
        try:
            if directory.exists():
                os.replace(directory, old)
            os.replace(new, directory)
        finally:
            if old.exists() and not directory.exists():  # stopped between the two
                os.replace(old, directory)


def _write_tables(directory: Path, names: list[str], detections: list[Detection]) -> None:
    boxes_of = [
        np.column_stack([found.boxes.round(2), found.confidence.astype(float).round(4)]).tolist()
        for found in detections
    ]
    _write_csv(directory / "counts.csv", ["image", "count"], zip(names, map(len, boxes_of)))
    rows = ([name, *box] for name, boxes in zip(names, boxes_of) for box in boxes)
    _write_csv(directory / "boxes.csv", ["image", *_BOX], rows)
    content = [
        {"image": name, "count": len(boxes), "boxes": [dict(zip(_BOX, box)) for box in boxes]}
        for name, boxes in zip(names, boxes_of)
    ]
    (directory / "boxes.json").write_text(json.dumps(content, indent=1) + "\n")


def _write_csv(path: Path, header: list[str], rows: Iterable) -> None:
    with open(path, "w", newline="") as file:
        csv.writer(file).writerows([header, *rows])


def _draw_pictures(directory: Path, images: Images, detections: list[Detection]) -> None:
    (directory / "overlays").mkdir()
    rows = min(_SHEET_SIDE, math.ceil(len(detections) / _SHEET_SIDE))
    sheet = Image.new("RGB", (_SHEET_SIDE * _SHEET_CELL, rows * _SHEET_CELL))
    results = zip(images.names, images.pictures, detections)
    progress = tqdm(results, "drawing", len(detections), unit="image", disable=None)
    for number, (name, picture, found) in enumerate(progress):
        overlay = draw_overlay(picture, found)
        target = directory / "overlays" / name
        while target.suffix != ".png" or target.exists():  # a.jpg and a.jpg.png may both be there
            target = target.with_name(f"{target.name}.png")
        overlay.save(target)
        if number < _SHEET_SIDE**2:
            row, column = divmod(number, _SHEET_SIDE)
            overlay.thumbnail((_SHEET_CELL - 4, _SHEET_CELL - 4))
            sheet.paste(overlay, (column * _SHEET_CELL + 2, row * _SHEET_CELL + 2))
    sheet.save(directory / "contact_sheet.png")


def draw_overlay(picture: np.ndarray, found: Detection) -> Image.Image:
    """The image, enlarged if it is small, with all boxes in step colours and their number."""
    levels = picture if picture.dtype == np.uint8 else np.round(255 * picture).astype(np.uint8)
    overlay = Image.fromarray(levels).convert("RGB")
    zoom = max(1, math.ceil(_OVERLAY_SIDE / max(overlay.size)))
    overlay = overlay.resize([zoom * length for length in overlay.size], Image.Resampling.NEAREST)
    longer = max(overlay.size)
    pen = ImageDraw.Draw(overlay)
    for box, step in zip(found.boxes, found.step):
        left, top = zoom * box[:2]
        right, bottom = zoom * (box[:2] + box[2:]) - 1
        colour = STEP_COLORS[step % len(STEP_COLORS)]
        corners = [left, top, max(left, right), max(top, bottom)]
        pen.rectangle(corners, outline=colour, width=max(2, longer // 200))
    style = {"fill": "white", "stroke_fill": "black", "stroke_width": 2}
    pen.text((3, 3), str(len(found.boxes)), font_size=max(14, longer // 16), **style)
    return overlay
