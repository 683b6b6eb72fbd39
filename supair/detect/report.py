"""What was found in images, to be looked at: overlays, a contact sheet and a page of both."""

from __future__ import annotations

import html
import math
import re
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

import numpy as np
from matplotlib import colormaps
from matplotlib.colors import to_hex
from PIL import Image, ImageDraw
from tqdm import tqdm

from supair.detect.images import Images, luminance
from supair.run import write_whole

if TYPE_CHECKING:
    from supair.detect.results import Detection

_COLOURS = colormaps["viridis"]  # of scores from 0 to 1
_SHEET_SIDE = 6  # overlays along each side of the contact sheet
_CELL = 160  # pixels of an overlay on the contact sheet and the page
_OVERLAY_SIDES = 300, 2000  # pixels, least and most of the longer side of an overlay
_LEAST_CONTRAST = 0.02  # below, grey levels are not stretched

_PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>Objects found</title><style>
body {{font: 15px/1.4 sans-serif; margin: 2em; color: #222; background: #fff}}
figure {{display: inline-block; width: {cell}px; margin: 4px; vertical-align: top}}
figure img {{max-width: {cell}px; max-height: {cell}px}}
figcaption {{font-size: 12px; overflow-wrap: anywhere}}
.doubt {{color: #a33}} .score {{height: 12px; width: {cell}px; background: {gradient}}}
</style></head><body>
<h1>{objects} objects in {images} images</h1>
{doubts}
<h2>Images by their number of objects</h2>
{histogram}
<p>Tables: <a href="counts.csv">counts.csv</a>, <a href="boxes.csv">boxes.csv</a>,
<a href="boxes.json">boxes.json</a> (COCO)</p>
<h2>{drawn} of {images} images</h2>
<p>Boxes by score, 0 to 1:</p><div class="score"></div>
{figures}
</body></html>
"""


def draw_pictures(
    directory: Path, images: Images, detections: list[Detection], most: int
) -> list[str]:
    """Draw `overlays/` of the first images and `contact_sheet.png` of some; returns their paths."""
    (directory / "overlays").mkdir()
    number = min(most, len(detections))
    drawn: list[str] = []
    thumbnails: list[Image.Image] = []
    for n in tqdm(range(number), "drawing", unit="image", disable=None):
        overlay = draw_overlay(images.pictures[n], detections[n])
        name = re.sub(r"[^\w.-]", "_", images.names[n])[:50]  # may be too long, or no file's
        drawn.append(f"overlays/{n:05d}_{name}.png")
        overlay.save(directory / drawn[-1])
        if n < _SHEET_SIDE**2:
            overlay.thumbnail((_CELL, _CELL))
            thumbnails.append(overlay)
    _contact_sheet(thumbnails).save(directory / "contact_sheet.png")
    return drawn


def _contact_sheet(thumbnails: list[Image.Image]) -> Image.Image:
    """As large as it must be, with a legend of the colours below."""
    width = max(image.width for image in thumbnails) + 4
    height = max(image.height for image in thumbnails) + 4
    columns = min(_SHEET_SIDE, len(thumbnails))
    rows, legend = math.ceil(len(thumbnails) / columns), 24
    sheet = Image.new("RGB", (max(columns * width, 200), rows * height + legend))
    for n, image in enumerate(thumbnails):
        sheet.paste(image, (n % columns * width + 2, n // columns * height + 2))
    colours = np.uint8(255 * _COLOURS(np.tile(np.linspace(0, 1, 100), [10, 1]))[..., :3])
    sheet.paste(Image.fromarray(colours), (60, rows * height + 7))
    text = ImageDraw.Draw(sheet).text
    for x, word in ((4, "score 0"), (166, "1")):
        text((x, rows * height + 5), word, fill="white", font_size=12)
    return sheet


def draw_overlay(picture: np.ndarray, found: Detection) -> Image.Image:
    """The image, enlarged if it is small and made smaller if it is large, its grey levels stretched
    to black and white, with all boxes in the colours of their scores and their number."""
    least, most = _OVERLAY_SIDES
    longer = max(picture.shape[:2])
    skip, zoom = -(-longer // most), max(1, -(-least // longer))
    few = picture[::skip, ::skip]
    levels = few.astype(np.float32) / np.float32(255 if few.dtype == np.uint8 else 1)
    black, white = np.min(luminance(few)), np.max(luminance(few))
    if white - black >= _LEAST_CONTRAST:
        levels = np.clip((levels - black) / (white - black), 0, 1)
    overlay = Image.fromarray(np.uint8(np.round(255 * levels))).convert("RGB")
    overlay = overlay.resize([zoom * length for length in overlay.size], Image.Resampling.NEAREST)
    longer, pen = max(overlay.size), ImageDraw.Draw(overlay)
    for box, score in zip(found.boxes * (zoom / skip), found.score):
        (left, top), (right, bottom) = box[:2], box[:2] + box[2:] - 1
        right, bottom = max(left, right), max(top, bottom)
        pen.rectangle([left - 1, top - 1, right + 1, bottom + 1], outline="black")
        colour, width = to_hex(_COLOURS(float(score))), max(2, longer // 200)
        pen.rectangle([left, top, right, bottom], outline=colour, width=width)
    style = {"fill": "white", "stroke_fill": "black", "stroke_width": 2}
    pen.text((3, 3), str(len(found.boxes)), font_size=max(14, longer // 16), **style)
    return overlay


def write_index(
    path: Path, names: list[str], detections: list[Detection], doubts: list[str], drawn: list[str]
) -> None:
    """A page of counts, their histogram and the overlays, which a browser shows without a server.

    Args:
      drawn: the overlays of the first images, beside the page.
    """
    counts = np.bincount([len(found.boxes) for found in detections])
    figures = (
        f'<figure><a href="{quote(overlay)}"><img src="{quote(overlay)}" loading="lazy" alt="">'
        f"</a><figcaption>{html.escape(name)}: <b>{len(found.boxes)}</b>, confidence "
        f"{found.confidence:.2f}{', uniform' * found.uniform}</figcaption></figure>"
        for overlay, name, found in zip(drawn, names, detections)
    )
    stops = ", ".join(to_hex(_COLOURS(level)) for level in np.linspace(0, 1, 9))
    page = _PAGE.format(
        cell=_CELL,
        gradient=f"linear-gradient(90deg, {stops})",
        objects=int(counts @ np.arange(len(counts))),
        images=len(names),
        doubts="\n".join(f'<p class="doubt">Warning: {html.escape(doubt)}</p>' for doubt in doubts),
        histogram=_histogram(counts),
        drawn=len(drawn),
        figures="\n".join(figures),
    )
    write_whole(path, page)


def _histogram(numbers: np.ndarray) -> str:
    """Bars of the numbers of images [largest count + 1], as SVG."""
    bar, height, most = max(3, min(40, 900 // len(numbers))), 120, numbers.max()
    every = math.ceil(24 / bar)  # of the bars has its count below
    parts = [f'<svg width="{bar * len(numbers) + 20}" height="{height + 40}" font-size="11">']
    for count, number in enumerate(numbers.tolist()):
        x, tall = 10 + bar * count, height * number / most
        parts.append(
            f'<rect x="{x}" y="{20 + height - tall:.1f}" width="{bar - 1}" height="{tall:.1f}" '
            f'fill="#31688e"><title>{number} with {count}</title></rect>'
        )
        middle = f'x="{x + bar / 2}" text-anchor="middle"'
        if count % every == 0:
            parts.append(f'<text {middle} y="{height + 34}">{count}</text>')
        if every == 1 and number:
            parts.append(f'<text {middle} y="{15 + height - tall:.1f}">{number}</text>')
    return "".join([*parts, "</svg>"])
