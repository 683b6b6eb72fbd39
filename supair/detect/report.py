"""What was found in images, as files: tables, pictures, and a page of both."""

from __future__ import annotations

import csv
import html
import io
import json
import os
import re
import shutil
import tempfile
from pathlib import Path
from urllib.parse import quote

import numpy as np
from PIL import Image, ImageDraw
from tqdm import tqdm

from supair.config import ConfigError
from supair.detect.images import Images, as_levels, level_step, luminance
from supair.run import locked, write_whole

# The first tells that all are ours, so it comes first and goes last.
_RESULTS = ["boxes.json", "boxes.csv", "contact_sheet.png", "counts.csv", "index.html", "overlays"]
_PARTIAL = ".supair-partial."  # begins the name of a folder of results that are being written
_FORMULA = tuple("=+-@\t\r")  # a cell that begins so would be run by a spreadsheet
_COLOURS = "#440154 #3b528b #21918c #5ec962 #fde725".split()  # of scores, by fifths from 0 to 1
_SHEET_SIDE, _CELL = 6, 160  # overlays along a side of the contact sheet, and their pixels there
_DRAWN_SIDES = 300, 2000  # pixels, least and most of the longer side of an overlay

_PAGE = """<!DOCTYPE html>
<html lang="en"><meta charset="utf-8"><title>Objects found</title><style>
body {{font: 15px/1.4 sans-serif; margin: 2em; color: #222; background: #fff}}
figure {{display: inline-block; width: 160px; margin: 4px; vertical-align: top}}
img {{max-width: 160px; max-height: 160px}}
figcaption {{font-size: 12px; overflow-wrap: anywhere}}
hr {{display: inline-block; height: 10px; margin: 0 1ex; background: #31688e}}
</style>
<h1>{objects} objects in {images} images</h1>
{doubts}
<h2>Images by their number of objects</h2>
{histogram}
<p>Tables: <a href="counts.csv">counts.csv</a>, <a href="boxes.csv">boxes.csv</a>,
<a href="boxes.json">boxes.json</a> (COCO)</p>
<h2>{drawn} of {images} images</h2>
<p>Colours of boxes, by their score from 0 to 1: {colours}</p>
{figures}
"""


def check_output(directory: Path, images: Path | None = None) -> None:
    """Raise ConfigError if a folder holds the images, or anything but an earlier result."""
    option = f"--output {directory}"
    holding = (images.resolve(), *images.resolve().parents) if images else ()
    if directory.resolve() in holding or os.path.lexists(directory) and not directory.is_dir():
        raise ConfigError(f"{option}: holds the images, or is no folder; choose another")
    try:
        content = json.loads((directory / "boxes.json").read_bytes())
        content["info"]["warnings"]  # which other programs do not write
        ours = {*_RESULTS, *(image.get("overlay") for image in content["images"])}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        ours = set()
    directory.mkdir(parents=True, exist_ok=True)
    folder = directory / "overlays"
    for path in sorted([*directory.glob("*"), *folder.glob("*")]):
        name, left = path.relative_to(directory).as_posix(), path.name.startswith(_PARTIAL)
        good = path.is_dir() if left or path == folder else path.is_file()
        if path.is_symlink() or not good or not (left or name in ours):
            raise ConfigError(f"{option}: holds {name}, which is no result; choose another folder")


def write_results(directory: Path, images: Images, detections, doubts=(), overlays=300) -> None:
    """Write what `results.detect` returns, all files in place of an earlier result's, with
    overlays of so many images, the first; raises as `check_output`."""
    check_output(directory)
    with locked(directory), tempfile.TemporaryDirectory(prefix=_PARTIAL, dir=directory) as beside:
        for left in {*directory.glob(f"{_PARTIAL}*")} - {Path(beside)}:  # by a killed process
            shutil.rmtree(left)
        new, old = Path(beside, "new"), Path(beside, "old")
        old.mkdir()
        (new / "overlays").mkdir(parents=True)
        drawn = _draw_pictures(new, images, detections[:overlays])
        _write_tables(new, images.names, detections, doubts, drawn)
        _write_page(new / "index.html", images.names, detections, doubts, drawn)
        check_output(directory)  # what came while pictures were drawn
        moves = [(directory / n, old / n) for n in _RESULTS[::-1] if (directory / n).exists()]
        moves += [(new / n, directory / n) for n in _RESULTS]
        try:
            for source, target in moves:
                os.replace(source, target)
        except BaseException:  # interrupted: the earlier result is put back
            for source, target in reversed(moves):
                if not source.exists():
                    os.replace(target, source)
            raise


def _write_tables(directory: Path, names, detections, doubts, drawn) -> None:
    """The CSV files, and boxes.json, from which `check_output` knows which overlays are ours."""
    warnings: list[list[str]] = [[] for _ in names]
    for doubt in doubts:
        for number in doubt.images:
            warnings[number].append(doubt.text)
    counts: list = [("image", "count", "confidence", "warning")]
    boxes: list = [("image", "left", "top", "width", "height", "score", "log_ratio")]
    pictures, annotations = [], []
    for n, (name, found) in enumerate(zip(names, detections)):
        counts.append((name, len(found.boxes), round(found.confidence, 4), "; ".join(warnings[n])))
        width, height = map(int, found.size)
        pictures.append({"id": n, "file_name": name, "width": width, "height": height})
        if n < len(drawn):
            pictures[n]["overlay"] = drawn[n]
        values = np.column_stack([found.boxes.round(2), found.score, found.log_ratio])
        for *box, score, log_ratio in values.round(4).tolist():
            boxes.append((name, *box, score, log_ratio))
            here = {"id": len(annotations), "image_id": n, "category_id": 1, "iscrowd": 0}
            scores = {"score": score, "log_ratio": log_ratio}
            annotations.append({**here, "bbox": box, "area": box[2] * box[3], **scores})
    for file, rows in (("counts.csv", counts), ("boxes.csv", boxes)):
        text = io.StringIO(newline="")
        for row in rows:
            formula = (isinstance(x, str) and x.startswith(_FORMULA) for x in row)
            csv.writer(text).writerow([f"'{x}" if run else x for x, run in zip(row, formula)])
        write_whole(directory / file, text.getvalue())
    content = {"info": {"warnings": [doubt.say(names) for doubt in doubts]}, "images": pictures}
    content |= {"categories": [{"id": 1, "name": "object"}], "annotations": annotations}
    write_whole(directory / "boxes.json", json.dumps(content, indent=1) + "\n")


def _draw_pictures(directory: Path, images: Images, detections) -> list[str]:
    """Draw overlays and a contact sheet of the first; returns the overlays' paths."""
    drawn, thumbnails = [], []
    for number, found in enumerate(tqdm(detections, "drawing", unit="image", disable=None)):
        colours = [_COLOURS[min(4, int(5 * score))] for score in found.score]
        text = str(len(found.boxes))
        overlay = draw_boxes(images.pictures[number], found.boxes, colours, text)
        name = re.sub(r"[^\w.-]", "_", images.names[number])[:50]  # may be too long, or no file's
        drawn.append(f"overlays/{number:05d}_{name}.png")
        overlay.save(directory / drawn[-1])
        if number < _SHEET_SIDE**2:
            overlay.thumbnail((_CELL, _CELL))
            thumbnails.append(overlay)
    cell = np.max([image.size for image in thumbnails], axis=0) + 4
    rows = -(-len(thumbnails) // _SHEET_SIDE)
    width, height = cell * [min(_SHEET_SIDE, len(thumbnails)), rows]
    sheet = Image.new("RGB", (width, height))
    for number, image in enumerate(thumbnails):
        sheet.paste(image, tuple(cell * [number % _SHEET_SIDE, number // _SHEET_SIDE] + 2))
    sheet.save(directory / "contact_sheet.png")
    return drawn


def draw_boxes(picture: np.ndarray, boxes: np.ndarray, colours: list, text="") -> Image.Image:
    """An image, enlarged if it is small and made smaller if it is large, its grey levels stretched
    to black and white, with boxes [n, 4] in their colours, and a text."""
    least, most = _DRAWN_SIDES
    longer = max(picture.shape[:2])
    skip, zoom = -(-longer // most), max(1, -(-least // longer))
    levels = picture[::skip, ::skip]
    grey = luminance(levels)
    contrast = max(np.ptp(grey), 10 * level_step(levels), 1e-6 * np.abs(grey).max(), 1e-30)
    stretched = np.clip((as_levels(levels) - grey.min()) / contrast, 0, 1)
    overlay = Image.fromarray(np.uint8(np.round(255 * stretched))).convert("RGB")
    overlay = overlay.resize([zoom * length for length in overlay.size], Image.Resampling.NEAREST)
    longer, pen = max(overlay.size), ImageDraw.Draw(overlay)
    for box, colour in zip(boxes * (zoom / skip), colours):
        corners = [*box[:2], *np.maximum(box[:2], box[:2] + box[2:] - 1)]
        pen.rectangle(corners, outline=colour, width=max(2, longer // 200))
    style = {"fill": "white", "stroke_fill": "black", "stroke_width": 2}
    pen.text((3, 3), text, font_size=max(14, longer // 16), **style)
    return overlay


def _write_page(path: Path, names, detections, doubts, drawn) -> None:
    """Counts, their histogram and the overlays, for a browser without a server."""
    numbers = np.bincount([len(found.boxes) for found in detections])  # of images by their count
    bars = (
        f'{count}<hr style="width: {400 * number / numbers.max():.0f}px">{number}<br>'
        for count, number in enumerate(numbers)
    )
    figures = (
        f'<figure><a href="{quote(overlay)}"><img src="{quote(overlay)}" loading="lazy" alt="">'
        f"</a><figcaption>{html.escape(name)}: <b>{len(found.boxes)}</b>, confidence "
        f"{found.confidence:.2f}{', uniform' * found.uniform}</figcaption></figure>"
        for overlay, name, found in zip(drawn, names, detections)
    )
    page = _PAGE.format(
        objects=sum(len(found.boxes) for found in detections),
        images=len(names),
        doubts="".join(f"<p>Warning: {html.escape(doubt.say(names))}</p>" for doubt in doubts),
        histogram="\n".join(bars),
        drawn=len(drawn),
        colours="".join(f'<hr style="width: 20px; background: {colour}">' for colour in _COLOURS),
        figures="\n".join(figures),
    )
    write_whole(path, page)
