"""Drawing scenes and what a model found in them."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw

# By Okabe and Ito, which the colour-blind tell apart; the first three are the brightest on black.
STEP_COLORS = "#D55E00 #56B4E9 #F0E442 #009E73 #CC79A7 #E69F00 #0072B2".split()


def draw_scene(axes, image, boxes=None, present=None, count=None, occlude: bool = True) -> None:
    """Draw one scene and the outlines of the boxes found, a colour for each step.

    Step 1 is in front: where it covers another step's box, that box's outline is hidden.  What lies
    outside of the scene is cut off, so the outline of a box that is larger than the scene runs
    along its edge.

    Args:
      image: [B, B] in [0, 1].
      boxes: [step, 4] (left, top, width, height in pixels), all or those `present` [step].
      count: a number for the upper left corner.
      occlude: False for a model without occlusion (AIR): every outline is drawn whole.
    """
    size = len(image)
    pixels = {"cmap": "gray", "vmin": 0, "vmax": 1, "extent": (0, size, size, 0)}
    axes.imshow(image, interpolation="nearest", **pixels)
    for step, box in enumerate([] if boxes is None else boxes):
        if present is None or present[step]:
            inset = 0.4  # pixels, so that half of a line is not cut off
            left, top = np.clip(box[:2], inset, size - inset)
            right, bottom = np.clip(np.add(box[:2], box[2:]), inset, size - inset)
            color, order = STEP_COLORS[step % len(STEP_COLORS)], 2 + 1 / (1 + step)
            corners = [left, right, right, left, left], [top, top, bottom, bottom, top]
            [line] = axes.plot(*corners, color=color, linewidth=1.5, zorder=order)
            if occlude:  # what is in the box again, above the outlines of later steps
                inside = axes.imshow(image, interpolation="nearest", zorder=order - 1e-3, **pixels)
                inside.set_clip_path(line.get_path(), axes.transData)
    axes.set(xlim=(0, size), ylim=(size, 0), xticks=[], yticks=[])
    if count is not None:
        box = {"color": "black", "pad": 1, "alpha": 0.6}
        axes.text(2, 2, str(count), color="white", fontsize=10, va="top", bbox=box)


def paint_boxes(image: np.ndarray, boxes, present, zoom: int = 4) -> np.ndarray:
    """A scene and whole outlines, without Matplotlib, [zoom B, zoom B, 3] uint8."""
    picture = Image.fromarray(np.kron(255 * image, np.ones([zoom, zoom])).astype(np.uint8))
    pen = ImageDraw.Draw(picture := picture.convert("RGB"))
    for step in np.flatnonzero(present)[::-1]:  # the first is in front
        corner, size = np.split(np.multiply(zoom, boxes[step]), 2)
        corners = np.sort([corner, corner + size - 1], axis=0)  # AIR's may be mirrored, and huge
        corners, color = corners.clip(-9, picture.width + 9), STEP_COLORS[step % len(STEP_COLORS)]
        pen.rectangle(corners.ravel().tolist(), outline=color, width=2)
    return np.asarray(picture)
