"""What is found in images, once, and how sure it is."""

from dataclasses import replace

import numpy as np
import pytest
import tensorflow as tf
import tiny
from PIL import Image

from supair.detect import results
from supair.detect.images import Images, Preparation
from supair.detect.results import Detection, describe, detect, find_doubts
from supair.extensions.best_view import BestView
from supair.model import SuPAIR

SQUARES = tiny.scenes(60)


def finder(margin=0, log_ratio=5.0):
    """In place of `describe`: a box around what is bright, and one that is never there."""

    def find(model, scenes):
        values = np.zeros([len(scenes), 2, 8])
        for scene, (first, absent) in zip(scenes, values):
            found = Image.fromarray(np.uint8(scene > 99)).getbbox() or (0, 0, 1, 1)
            sides = found[2] - found[0], found[3] - found[1]
            box = np.array([*found[:2], *sides]) + [-margin, -margin, 2 * margin, 2 * margin]
            first[:] = scene.max() > 99, *box, 0.9, log_ratio, 0.5
            absent[0] = 0.2
        return values, np.tile([0.3, 0.8, 0.1], [len(scenes), 1])

    return find


def test_objects_of_several_tiles_are_put_together_once_and_cut_at_the_edges(monkeypatch):
    monkeypatch.setattr(results, "describe", finder(margin=2))
    picture = np.zeros([36, 40], np.uint8)
    picture[3:6, [1, 2, 30, 31]] = picture[30:33, 11:13] = 255  # the last between two tiles' cores
    images, preparation = Images(["a"], [picture], None), Preparation(20, "tile", overlap=8)
    model = SuPAIR(replace(tiny.MODEL, scene_size=20))
    ((found,), _) = detect(model, preparation, images)
    np.testing.assert_array_equal(found.boxes, [[0, 1, 5, 7], [28, 1, 6, 7], [9, 28, 6, 7]])
    assert found.size == (40, 36)
    assert found.confidence == pytest.approx(0.8**4)  # uniform scenes are sure to be empty
    assert not len(detect(model, preparation, images, min_score=0.95)[0][0].boxes)
    picture[2::6, 2::6] = 98  # not found by the finder
    _, [doubt] = detect(model, preparation, images)
    assert doubt.text.endswith("pieces stand out in images in which 3 objects are found")


def test_full_batches_and_the_rest_find_what_the_model_does(monkeypatch):
    """Compiled for the first 16 scenes, which takes the time, and not for the last 4."""
    monkeypatch.setattr(results, "_BATCH", 8)
    model, scenes = SuPAIR(replace(tiny.MODEL, num_steps=1), seed=3), SQUARES.images[:20]
    model.inference.output_layer.bias.assign(tf.one_hot(0, 9))  # so that the object is there
    found, _ = detect(model, Preparation(12), Images(list("a" * 20), scenes))
    values, q_count = map(np.asarray, describe(model, scenes))
    assert [one.uniform for one in found] == (scenes.max(axis=(1, 2)) == 0).tolist()
    for one, ((_, *corner, _, _, score, _, _),), q in zip(found, values, q_count):
        assert len(one.boxes) == (not one.uniform)
        if not one.uniform:
            np.testing.assert_allclose(one.boxes[0, :2], np.clip(corner, 0, 12), atol=1e-4)
            assert (one.score[0], one.confidence) == pytest.approx((score, q[1]), rel=1e-4)


def test_where_mirrored_views_disagree_the_best_is_described(monkeypatch):
    monkeypatch.setattr(results, "_BATCH", 8)
    model, scenes = SuPAIR(tiny.MODEL, seed=1), SQUARES.images[:40]
    model.inference.kernel.assign(20 * model.inference.kernel)
    best, levels = BestView(model), tf.constant(scenes / np.float32(255))
    usual = np.median(best.views(levels).z_pres)
    bias = np.full(9, 0.1) - np.log(usual / (1 - usual)) * np.eye(9)[0]  # so that z_pres is 1/2
    model.inference.output_layer.bias.assign(bias)
    counts = np.round(best.views(levels).z_pres).sum(axis=2)
    ambiguous = np.ptp(counts, axis=0) > 0
    assert 8 < ambiguous.sum() < 32
    q_counts = [describe(kind, scenes)[1].numpy() for kind in (model, best)]
    found, _ = detect(model, Preparation(12), Images(list("a" * 40), scenes))
    for n in np.flatnonzero(scenes.max(axis=(1, 2)) > 0):
        expected = q_counts[int(ambiguous[n])][n]
        assert np.min(np.abs(found[n].confidence - expected)) < 1e-5


def test_the_log_ratio_is_by_how_much_an_object_explains_the_scene_better():
    """Each object's density and the backgrounds with and without its pixels, one by one."""
    model, scenes = SuPAIR(tiny.MODEL, seed=3), SQUARES.images[:3]
    values, _ = describe(model, scenes)
    levels = tf.constant(scenes / np.float32(255))
    where = model(levels).where_loc
    parts = model.extract_patches(levels, where, None)
    flat = tf.reshape(levels, [3, -1])
    background = [model.background_spn.log_prob(flat, tf.reshape(m, [3, -1])) for m in parts[2]]
    for step in range(2):
        evidence = (tf.reshape(part[step], [3, -1]) for part in parts[:2])
        scaled = where[:, step, 0] * where[:, step, 1] * model.object_spn.log_prob(*evidence)
        expected = scaled + background[step + 1] - background[step]
        np.testing.assert_allclose(values[:, step, 6], expected, rtol=1e-4, atol=1e-3)


def found(number=1, width=0.5, uniform=False):
    ones, boxes = np.ones(number), np.tile([1.0, 2, 3, 4], [number, 1])
    return Detection(boxes, ones, ones, width * ones, 1.0, 0.0, 0.0, uniform, (12, 12))


@pytest.mark.parametrize(
    "detections, named, numbers",
    [
        ([found(1), found(0, uniform=True), found(2)], "uniform", [1]),
        ([found(3, width=0.01)] * 2 + [found(4, width=0.02)], "smaller", range(3)),
        ([found(3, width=0.99)] * 2 + [found(4, width=0.98)], "larger", range(3)),
        ([found(2)] * 10, "2", range(10)),
        ([found(0), found(0)], "0", range(2)),
        ([found(1), found(2)._replace(full=1.0)], "as many as the model can", [1]),
        ([found(1), found(2), found(0)], None, []),
    ],
)
def test_what_is_doubtful_is_said(detections, named, numbers):
    doubts = find_doubts(detections)
    assert [list(doubt.images) for doubt in doubts] == [list(numbers)] * bool(named)
    assert all(named in doubt.text for doubt in doubts)
