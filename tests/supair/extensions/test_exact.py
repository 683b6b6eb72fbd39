"""The exact likelihood: its assignment of pixels by loops, on average, and by enumeration."""

import math

import numpy as np
import oracles
import pytest
import tensorflow as tf
import tiny

from supair.config import ModelConfig, object_spn
from supair.extensions.exact import ExactSuPAIR, downsample
from supair.geometry import extract_patches


@pytest.mark.parametrize("name", oracles.BOXES)
def test_pixels_are_assigned_as_by_loops(name):
    """... and every scene pixel is explained once: by one patch or by the background."""
    rng = np.random.default_rng(3)
    image, shifts = rng.uniform(size=[16, 16]), rng.uniform(size=[3, 2])
    z_where = np.array(oracles.BOXES[name])
    images, boxes = tf.constant(image[None]), tf.constant(z_where[None])
    parts = downsample(images, boxes, 8, tf.constant(shifts[None]))
    patches, visible, maps = oracles.downsample(image, z_where, 8, shifts)
    np.testing.assert_allclose(parts.visible[:, 0], visible, atol=1e-12)
    np.testing.assert_allclose(parts.background_maps[:, 0], maps, atol=1e-12)
    content = parts.patches[:, 0] * parts.visible[:, 0]
    np.testing.assert_allclose(content, patches * visible, atol=1e-12)
    explained = np.sum(parts.visible) + np.sum(parts.background_maps[-1])
    assert explained == pytest.approx(16 * 16, abs=1e-9)
    np.testing.assert_allclose(parts.overlap, extract_patches(images, boxes, 8).overlap)


@pytest.mark.parametrize("scales", [(0.5, 0.6), (0.6, 1.05)], ids=["shrunk", "enlarged"])
def test_gradient_of_masks_is_that_of_their_average(scales):
    """How many pixels a box gets, and leaves, against differences of averages over shifts."""
    rng = np.random.default_rng(6)
    shifts = tf.constant(rng.uniform(size=[4000, 1, 2]))
    corners = rng.uniform(5, 7, [4000, 2])
    z_where = np.concatenate([np.tile(scales, [4000, 1]), corners], axis=1)[:, None]

    def given_and_left(where):
        parts = downsample(tf.zeros([4000, 24, 24], tf.float64), where, 8, shifts)
        return tf.reduce_sum(parts.visible) / 4000, tf.reduce_sum(parts.background_maps[-1]) / 4000

    where = tf.constant(z_where)
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(where)
        values = given_and_left(where)
    for axis in range(4):
        step = np.eye(4)[axis] * 0.04
        sides = [given_and_left(tf.constant(z_where + sign * step)) for sign in (1, -1)]
        for value, above, below in zip(values, *sides):
            gradient = np.sum(tape.gradient(value, where)[..., axis])  # of some 40 to 75, or 0
            assert gradient == pytest.approx(float(above - below) / 0.08, abs=4)


def test_likelihood_is_the_average_over_all_downsamplings():
    """Equation 6 for one box on 5 x 5 pixels, every interval of shifts enumerated, by loops."""
    sizes = {"scene_size": 5, "patch_size": 3, "num_steps": 1}
    config = ModelConfig(**sizes, background=None, object=object_spn(depth=1))
    model = ExactSuPAIR(config, seed=1, dtype="float64")
    image = np.random.default_rng(4).uniform(size=[5, 5])
    z_where = np.array([[0.61, 0.72, 1.2, 0.7]])

    def log_p(patches, visible, maps):
        objects = model.object_spn.log_prob(patches.reshape(-1, 9), visible.reshape(-1, 9))
        log_normal = -0.5 * (image / 0.35) ** 2 - math.log(0.35 * math.sqrt(2 * math.pi))
        return float(objects[0]) + np.sum(maps[-1] * log_normal)

    breaks = []  # of the shifts along rows and columns: where patch coordinates pass integers
    for scale, start in ((0.72, 0.7), (0.61, 1.2)):
        coordinates = (np.arange(5) - start) / scale * 2 / 3
        breaks.append(np.unique([0.0, 1.0, *np.mod(-coordinates, 1)]))
    expected = 0.0
    for row in zip(breaks[0], breaks[0][1:]):
        for column in zip(breaks[1], breaks[1][1:]):
            middle = np.array([[np.mean(row), np.mean(column)]])
            share = (row[1] - row[0]) * (column[1] - column[0])
            expected += share * log_p(*oracles.downsample(image, z_where, 3, middle))
    images, boxes = (tf.constant(np.repeat(v[None], 4000, axis=0)) for v in (image, z_where))
    noise = tf.constant(np.random.default_rng(5).normal(size=[4000, 1, 2]))
    parts = model.extract_patches(images, boxes, noise)
    log_p_background = np.asarray(model.log_p_background(images, parts))[:, 1]
    found = np.asarray(model.log_p_objects(parts))[:, 0] + log_p_background
    assert found.std() > 0.1
    assert found.mean() == pytest.approx(expected, abs=4 * found.std() / math.sqrt(4000))


def test_objects_are_not_scaled_by_their_area():
    model = ExactSuPAIR(tiny.MODEL, seed=1)
    noise = np.random.default_rng(0).normal(size=[8, 2, model.noise_size]).astype("float32")
    evaluation = model.evaluate_elbo(tiny.scenes(8).read(0, 8), noise)
    expected = model.log_p_objects(evaluation.parts)
    np.testing.assert_allclose(evaluation.log_p_objects, expected, rtol=1e-6)
    z_pres = np.asarray(evaluation.description.z_pres, np.float64)
    np.testing.assert_allclose(evaluation.elbo.total, oracles.elbo(evaluation, z_pres), rtol=1e-5)
