"""What was found in images, in numbers and pictures."""

import csv
import json
import os

import numpy as np
import pytest
import tensorflow as tf
import tiny
from PIL import Image, ImageColor

from supair.config import ConfigError
from supair.detect.images import Images, Preparation
from supair.detect.results import Detection, check_output, detect, draw_overlay, write_results
from supair.figures import STEP_COLORS
from supair.inference import SceneDescription

SQUARES = tiny.scenes(60)
IMAGES = Images([f"{n}.jpg" for n in range(60)], SQUARES.images, None)


class Finder:
    """In place of a model: a box around what is bright, and one that is never there."""

    def __init__(self, margin: int = 0):
        self._margin = np.array([-1, -1, 2, 2]) * margin

    def __call__(self, scenes):
        self._boxes = np.zeros([len(scenes), 2, 4])
        z_pres = np.tile(np.float32([0, 0.2]), [len(scenes), 1])
        for scene, boxes, present in zip(scenes, self._boxes, z_pres):
            if found := Image.fromarray(np.uint8(scene > 0.5)).getbbox():
                boxes[0] = *found[:2], found[2] - found[0], found[3] - found[1]
                present[0] = 0.9
        zeros = np.zeros([len(scenes), 2, 4], np.float32)
        return SceneDescription(tf.constant(z_pres), zeros, zeros)

    def boxes(self, description):
        return tf.constant(self._boxes + self._margin)


def test_objects_of_several_tiles_are_put_together_and_cut_at_the_edges():
    picture = np.zeros([10, 40], np.uint8)
    picture[3:6, [1, 2, 30, 31]] = 255
    images = Images(["a"], [picture], None)
    (found,) = detect(Finder(margin=2), Preparation(20, "tile", overlap=8), images)
    np.testing.assert_array_equal(found.boxes, [[0, 1, 5, 7], [28, 1, 6, 7]])
    assert found.step.tolist() == [0, 0]


def test_results_are_what_was_found(tmp_path):
    out = tmp_path / "deep" / "out"
    write_results(out, IMAGES, detect(Finder(), Preparation(side=12), IMAGES))
    rows = list(csv.DictReader((out / "counts.csv").read_text().splitlines()))
    assert [row["image"] for row in rows] == IMAGES.names
    assert [int(row["count"]) for row in rows] == SQUARES.counts.tolist()
    content = json.loads((out / "boxes.json").read_text())
    keys = ("left", "top", "width", "height", "confidence")
    boxes = [[box[key] for key in keys] for entry in content for box in entry["boxes"]]
    true = SQUARES.boxes[SQUARES.counts > 0, 0]
    np.testing.assert_array_equal(boxes, np.hstack([true, np.full([len(true), 1], 0.9)]))
    rows = csv.DictReader((out / "boxes.csv").read_text().splitlines())
    np.testing.assert_array_equal([[float(row[key]) for key in keys] for row in rows], boxes)
    assert len(list((out / "overlays").iterdir())) == 60
    assert Image.open(out / "contact_sheet.png").size == (960, 960)


def test_only_a_whole_result_is_replaced(tmp_path):
    out, found = tmp_path / "out", detect(Finder(), Preparation(side=12), IMAGES)
    write_results(out, IMAGES, found)
    write_results(out, IMAGES, found)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    with pytest.raises(ConfigError, match="--output"):
        check_output(out, out / "overlays")
    (out / "boxes.csv").rename(out / "mine.csv")
    with pytest.raises(ConfigError, match="--output"):
        write_results(out, IMAGES, found)
    assert (out / "mine.csv").exists()


@pytest.mark.parametrize("fails_at", [0, 1])
def test_an_earlier_result_survives_an_interruption(fails_at, tmp_path, monkeypatch):
    images = Images(["a.jpg", "a.jpg.png"], SQUARES.images[:2], None)
    found = detect(Finder(), Preparation(side=12), images)
    write_results(tmp_path / "out", images, found)
    assert len(os.listdir(tmp_path / "out" / "overlays")) == 2  # of names that collide
    counts = (tmp_path / "out" / "counts.csv").read_text()
    calls, replace = iter(range(3)), os.replace

    def interrupted(source, target):
        if next(calls) == fails_at:
            raise KeyboardInterrupt
        replace(source, target)

    monkeypatch.setattr(os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_results(tmp_path / "out", images, found[::-1])
    assert (tmp_path / "out" / "counts.csv").read_text() == counts
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_overlays_outline_the_boxes_in_the_colour_of_their_step():
    found = Detection(np.array([[2.0, 3.0, 4.0, 5.0]]), np.array([0.9]), np.array([1]))
    overlay = np.asarray(draw_overlay(np.zeros([10, 12]), found))
    assert overlay.shape == (250, 300, 3)
    second = (overlay == ImageColor.getrgb(STEP_COLORS[1])).all(axis=2)
    rows, columns = np.flatnonzero(second.any(axis=1)), np.flatnonzero(second.any(axis=0))
    assert (rows[0], rows[-1], columns[0], columns[-1]) == (75, 199, 50, 149)
