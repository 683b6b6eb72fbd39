"""Drawings of scenes: which outlines, in which colours, hidden where; and TensorBoard's."""

import numpy as np
import tensorflow as tf
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import ImageColor

from supair.figures import STEP_COLORS, draw_scene
from supair.scenes import InMemoryScenes
from supair.training import write_summaries

RGB = [list(ImageColor.getrgb(color)) for color in STEP_COLORS]


def test_boxes_are_drawn_in_the_colours_of_their_steps():
    axes = Figure().subplots()
    boxes = [(1, 2, 3, 4), (5, 5, 2, 2), (2, 3, 4, 5)]
    draw_scene(axes, np.zeros([12, 12]), boxes, present=[True, False, True], count=2)
    first, third = axes.lines
    assert (first.get_color(), third.get_color()) == (STEP_COLORS[0], STEP_COLORS[2])
    x, y = first.get_data()
    assert [min(x), min(y), max(x), max(y)] == [1, 2, 4, 6]
    assert first.zorder > third.zorder and axes.texts[0].get_text() == "2"
    axes = Figure().subplots()  # boxes larger than the scene run along its edge
    draw_scene(axes, np.zeros([12, 12]), [(-5, -1, 40, 40), (3, 3, 4, 4)], occlude=False)
    whole, inner = (line.get_xdata() for line in axes.lines)
    assert min(whole) > 0 and max(whole) < 12 and (min(inner), max(inner)) == (3, 7)


def test_an_outline_is_hidden_where_an_earlier_steps_box_is():
    canvas = FigureCanvasAgg(figure := Figure(figsize=(1, 1), dpi=120))  # ten dots a pixel
    for occlude, expected in ((True, 3 * [102]), (False, RGB[1])):
        axes = figure.add_axes((0, 0, 1, 1))
        draw_scene(axes, np.full([12, 12], 0.4), [(1, 1, 6, 6), (4, 4, 6, 6)], occlude=occlude)
        canvas.draw()
        drawn = np.asarray(canvas.buffer_rgba())[[70, 100, 55], [20, 40, 40], :3]
        assert drawn.tolist() == [RGB[0], RGB[1], expected]  # the last inside of the first box


def test_tensorboard_gets_the_bounds_terms_the_accuracy_and_scenes_with_boxes(tmp_path):
    writer = tf.summary.create_file_writer(str(tmp_path))
    boxes = [[2, 2, 4, 4], [3, 2, 4, 4], [9, 9, -1e12, -3]]
    examples = {"z_pres": [[0.9, 0.8, 0.7]], "boxes": [boxes]}
    row = {"step": 7, "accuracy": 0.5, "elbo_terms": {"objects": -3.0}, "examples": examples}
    write_summaries(writer, [row], InMemoryScenes(np.ones([3, 12, 12])))
    events = tf.compat.v1.train.summary_iterator(str(next(tmp_path.iterdir())))
    values = [value for event in events for value in event.summary.value]
    found = {value.tag: tf.make_ndarray(value.tensor) for value in values}
    picture = tf.image.decode_png(found.pop("test_scenes")[2]).numpy()
    assert found == {"accuracy": 0.5, "elbo_terms/objects": -3.0}
    assert picture.shape == (48, 48, 3) and picture[0, 0].tolist() == 3 * [255]
    assert picture[[8, 23, 8, 8], [8, 23, 20, 27]].tolist() == [*RGB[:1] * 3, RGB[1]]
