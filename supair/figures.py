"""Drawing scenes and what a model found in them."""

from __future__ import annotations

import numpy as np

STEP_COLORS = tuple(
    f"tab:{name}" for name in "red green blue orange purple cyan pink olive brown".split()
)


def draw_scene(
    axes,
    image: np.ndarray,
    boxes=None,
    present=None,
    count: int | None = None,
    occlude: bool = True,
) -> None:
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
    extent = 0, size, size, 0
    axes.imshow(image, cmap="gray", vmin=0, vmax=1, extent=extent, interpolation="nearest")
    axes.set(xlim=(0, size), ylim=(size, 0), xticks=[], yticks=[])
    in_front: list[np.ndarray] = []
    for step, box in enumerate([] if boxes is None else np.asarray(boxes)):
        if present is None or present[step]:
            inset = 0.4  # pixels, so that half of a line is not cut off
            left, top = np.clip(box[:2], inset, size - inset)
            right, bottom = np.clip(np.add(box[:2], box[2:]), inset, size - inset)
            box = np.array([left, top, right - left, bottom - top])
            points = outline(box, in_front)
            color, order = STEP_COLORS[step % len(STEP_COLORS)], 2 + 1 / (1 + step)
            axes.plot(*points.T, color=color, linewidth=1.5, zorder=order)
            if occlude:
                in_front.append(box)
    if count is not None:
        box = {"color": "black", "pad": 1, "alpha": 0.6}
        axes.text(2, 2, str(count), color="white", fontsize=8, va="top", bbox=box)


def outline(box: np.ndarray, in_front: list[np.ndarray], points_per_edge: int = 100) -> np.ndarray:
    """The outline of a box as points [n, 2] (x, y), nan where a box in front hides it."""
    left, top, width, height = box
    along = np.linspace(0, 1, points_per_edge)
    corners = np.array([(0, 0), (1, 0), (1, 1), (0, 1), (0, 0)])
    unit = np.concatenate(
        [start + along[:, None] * (end - start) for start, end in zip(corners, corners[1:])]
    )
    points = np.array([left, top]) + unit * np.array([width, height])
    for front in in_front:
        offset = points - front[:2]
        points[np.all((offset >= 0) & (offset <= front[2:]), axis=1)] = np.nan
    return points
