"""Objects in images of one's own: counts, boxes, and pictures of both."""

from __future__ import annotations

import contextlib
import csv
import json
import math
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.colors import to_hex
from PIL import Image, ImageDraw
from tqdm import tqdm

from supair.config import ConfigError
from supair.figures import STEP_COLORS
from supair.images import Images, Preparation
from supair.model import SuPAIR

_BATCH = 250  # scenes at once
_RESULTS = ("boxes.csv", "boxes.json", "contact_sheet.png", "counts.csv", "overlays")
_SHEET = 6, 6  # rows and columns of the contact sheet
_SHEET_CELL = 160  # pixels
_OVERLAY_SIDE = 300  # pixels, at least, for the longer side of an overlay


class Detection(NamedTuple):
    """The objects found in one image."""

    boxes: np.ndarray  # [objects, 4] (left, top, width, height in pixels of the image), cut at its edges
    confidence: np.ndarray  # [objects], q(N >= i) of the step that found it
    step: np.ndarray  # [objects], which step of the model did, from 0

    @property
    def count(self) -> int:  # type: ignore[override]
        return len(self.boxes)


def detect(model: SuPAIR, preparation: Preparation, images: Images) -> list[Detection]:
    """Find the objects in every image, at the mean of q(z_where | x).

    Raises:
      ConfigError: if the images do not fit the preparation.
    """
    scenes, windows = preparation.scenes(images)
    found: list[list[tuple]] = [[] for _ in images.pictures]
    for start in tqdm(range(0, len(scenes), _BATCH), desc="detecting", unit="batch", disable=None):
        description = model(scenes[start : start + _BATCH].astype(np.float32) / 255)
        present, confidence = np.round(description.z_pres) == 1, description.at_least.numpy()
        for window, boxes, there, sure in zip(windows[start:], model.boxes(description).numpy(), present, confidence):
            in_image = window.to_image(boxes)
            for step in np.flatnonzero(there & window.owns(in_image)):
                found[window.image].append((in_image[step], sure[step], step))
    return [_detection(objects, picture.shape[:2]) for objects, picture in zip(found, images.pictures)]


def _detection(objects: list[tuple], size: tuple[int, int]) -> Detection:
    boxes = np.array([box for box, _, _ in objects]).reshape(-1, 4)
    corner, opposite = (np.clip(point, 0, size[::-1]) for point in (boxes[:, :2], boxes[:, :2] + boxes[:, 2:]))
    return Detection(
        np.concatenate([corner, opposite - corner], axis=1),
        np.array([sure for _, sure, _ in objects]),
        np.array([step for _, _, step in objects], int),
    )


def check_output(directory: Path, images: Path | None = None) -> None:
    """Refuse a folder that holds anything but a whole earlier result, or the images.

    Raises:
      ConfigError: naming what is there.
    """
    if images is not None and directory.resolve() in images.resolve().parents:
        raise ConfigError(
            f"--output {directory}: holds the images, and an earlier result in it would be replaced; choose another"
        )
    try:
        there = sorted(os.listdir(directory)) if directory.exists() else []
    except NotADirectoryError:
        raise ConfigError(f"--output {directory}: is a file; choose a folder") from None
    if there and there != sorted(_RESULTS):
        raise ConfigError(
            f"--output {directory}: holds other files than an earlier result's ({there[0]}, ...); choose a new or empty folder"
        )


def write_results(directory: Path, images: Images, detections: list[Detection]) -> None:
    """Write `counts.csv`, `boxes.csv`, `boxes.json`, `overlays/` and `contact_sheet.png`, all of them or none.

    Raises:
      ConfigError: if the folder holds anything but an earlier result, which is replaced.
    """
    check_output(directory)
    with _whole_directory(directory.resolve()) as partial:
        rows = [
            (name, *(round(float(value), 2) for value in box), round(float(sure), 4))
            for name, found in zip(images.names, detections)
            for box, sure in zip(found.boxes, found.confidence)
        ]
        _write_csv(partial / "counts.csv", ["image", "count"], zip(images.names, (found.count for found in detections)))
        _write_csv(partial / "boxes.csv", ["image", "left", "top", "width", "height", "confidence"], rows)
        keys = ("left", "top", "width", "height", "confidence")
        of_image: dict[object, list] = {name: [] for name in images.names}
        for name, *values in rows:
            of_image[name].append(dict(zip(keys, values)))
        content = [{"image": name, "count": len(boxes), "boxes": boxes} for name, boxes in of_image.items()]
        (partial / "boxes.json").write_text(json.dumps(content, indent=1) + "\n")
        (partial / "overlays").mkdir()
        sheet = Image.new("RGB", (_SHEET[1] * _SHEET_CELL, _SHEET[0] * _SHEET_CELL))
        places = np.ndindex(*_SHEET)
        pairs = zip(images.names, images.pictures, detections)
        for name, picture, found in tqdm(pairs, total=len(detections), desc="drawing", unit="image", disable=None):
            overlay = draw_overlay(picture, found)
            target = partial / "overlays" / name
            while target.suffix != ".png" or target.exists():  # a.jpg and a.jpg.png may both be there
                target = target.with_name(f"{target.name}.png")
            overlay.save(target)
            if (place := next(places, None)) is not None:
                overlay.thumbnail((_SHEET_CELL - 4, _SHEET_CELL - 4))
                sheet.paste(overlay, (place[1] * _SHEET_CELL + 2, place[0] * _SHEET_CELL + 2))
        rows_used = min(_SHEET[0], math.ceil(len(detections) / _SHEET[1]))
        sheet.crop((0, 0, sheet.width, rows_used * _SHEET_CELL)).save(partial / "contact_sheet.png")


def draw_overlay(picture: np.ndarray, found: Detection) -> Image.Image:
    """The image, enlarged if it is small, with the outlines of all boxes in step colours and their number in a corner."""
    levels = picture if picture.dtype == np.uint8 else np.round(255 * picture).astype(np.uint8)
    overlay = Image.fromarray(levels).convert("RGB")
    zoom = max(1, math.ceil(_OVERLAY_SIDE / max(overlay.size)))
    overlay = overlay.resize([zoom * length for length in overlay.size], Image.Resampling.NEAREST)
    pen = ImageDraw.Draw(overlay)
    line = max(2, max(overlay.size) // 200)
    for box, step in zip(found.boxes, found.step):
        left, top = zoom * box[:2]
        right, bottom = zoom * (box[:2] + box[2:]) - 1
        colour = to_hex(STEP_COLORS[step % len(STEP_COLORS)])
        pen.rectangle([left, top, max(left, right), max(top, bottom)], outline=colour, width=line)
    pen.text(
        (3, 3), str(found.count), fill="white", stroke_fill="black", stroke_width=2, font_size=max(14, max(overlay.size) // 16)
    )
    return overlay


def _write_csv(path: Path, header: list[str], rows) -> None:
    with open(path, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(rows)


@contextlib.contextmanager
def _whole_directory(directory: Path) -> Iterator[Path]:
    """Yields a folder beside the target, which takes its place when everything has been written."""
    partial, old = (directory.with_name(f"{directory.name}.{os.getpid()}.{kind}") for kind in ("partial", "old"))
    try:
        partial.mkdir(parents=True)
        yield partial
        if directory.exists():
            os.replace(directory, old)
        os.replace(partial, directory)
    finally:
        if old.exists() and not directory.exists():  # stopped between the two
            os.replace(old, directory)
        for leftover in (partial, old):
            shutil.rmtree(leftover, ignore_errors=True)
