"""Drawings of scenes: which outlines, in which colours, hidden where."""

import numpy as np
from matplotlib.figure import Figure

from supair.figures import STEP_COLORS, draw_scene, outline


def test_outlines_are_hidden_behind_boxes_in_front():
    """A box of 4 x 4 whose right half lies behind another one."""
    points = outline((0, 0, 4, 4), [np.array([2, -1, 9, 9])])
    shown = points[~np.isnan(points[:, 0])]
    assert shown[:, 0].max() <= 2 and shown[:, 0].min() == 0
    assert 0.4 < np.mean(np.isnan(points[:, 0])) < 0.6  # the right edge and half of two others
    assert not np.any(np.isnan(outline((0, 0, 4, 4), [])))


def test_boxes_are_drawn_in_the_colours_of_their_steps():
    axes = Figure().subplots()
    boxes = [(1, 2, 3, 4), (5, 5, 2, 2), (2, 3, 4, 5)]
    draw_scene(axes, np.zeros([12, 12]), boxes, present=[True, False, True], count=2)
    first, third = axes.lines
    assert (first.get_color(), third.get_color()) == (STEP_COLORS[0], STEP_COLORS[2])
    x, y = first.get_xdata(), first.get_ydata()
    assert [x.min(), y.min(), x.max(), y.max()] == [1, 2, 4, 6]
    assert first.zorder > third.zorder and axes.texts[0].get_text() == "2"
    hidden = np.isnan(third.get_xdata())
    assert hidden.any() and not hidden.all() and not np.isnan(x).any()


def test_boxes_larger_than_the_scene_run_along_its_edge():
    axes = Figure().subplots()
    draw_scene(axes, np.zeros([12, 12]), [(-5, -1, 40, 40), (3, 3, 4, 4)], occlude=False)
    whole, inner = (line.get_xdata() for line in axes.lines)
    assert whole.min() > 0 and whole.max() < 12 and not np.isnan(inner).any()
