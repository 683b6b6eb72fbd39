import numpy as np
import oracles
import pytest
import tensorflow as tf

from supair.geometry import crop, hat, take_apart, take_apart_exactly

BOXES = {
    "inside": [[0.5, 0.6, 3.3, 2.1], [0.7, 0.5, 5.2, 6.4], [0.4, 0.4, 4.0, 4.5]],
    "leaving": [[0.9, 0.9, -3.4, 12.7], [0.9, 1.1, 14.2, -2.6], [0.8, 0.8, 9.3, 9.9]],
    "outside": [[0.5, 0.5, 40.0, 3.0], [0.5, 0.5, -30.0, -30.0], [0.5, 0.5, 2.2, 60.0]],
    "stacked": [[0.6, 0.6, 4.3, 4.3]] * 3,
    "upscaled": [[0.1, 0.15, 7.7, 8.8], [0.05, 0.9, 3.3, 3.3], [1.6, 1.4, 1.1, 2.2]],
}


@pytest.mark.parametrize("name", BOXES)
def test_scenes_are_taken_apart_like_by_loops(name):
    image = np.random.default_rng(0).uniform(size=[16, 16])
    z_where = np.array(BOXES[name])
    parts = take_apart(tf.constant(image[None]), tf.constant(z_where[None]), patch_size=8)
    patches, visible, maps = oracles.take_apart(image, z_where, 8)
    np.testing.assert_allclose(parts.patches[:, 0], patches, atol=1e-9)
    np.testing.assert_allclose(parts.visible[:, 0], visible, atol=1e-9)
    np.testing.assert_allclose(parts.background_maps[:, 0], maps, atol=1e-9)
    np.testing.assert_allclose(parts.overlap[:, 0], 1 - visible.mean(axis=(1, 2)), atol=1e-9)


def test_masks_are_within_zero_and_one_and_the_first_object_hides_a_copy_of_itself():
    z_where = tf.constant([[[0.6, 0.6, 4.3, 4.3]] * 2])
    parts = take_apart(tf.ones([1, 16, 16]), z_where, patch_size=8)
    for mask in (parts.visible, parts.background_maps):
        assert np.all(np.asarray(mask) >= 0) and np.all(np.asarray(mask) <= 1 + 1e-6)
    np.testing.assert_allclose(parts.overlap[0], 0, atol=1e-6)
    assert float(parts.overlap[1, 0]) > 0.9


def test_crop_of_a_box_by_hand():
    # 2 x 2 samples half way between pixels 0 and 1, and on pixel 2, of rows and columns
    image = np.arange(9.0).reshape(1, 3, 3)
    points = np.array([[0.5, 2.0]])
    expected = [[(0 + 1 + 3 + 4) / 4, (2 + 5) / 2], [(6 + 7) / 2, 8]]
    np.testing.assert_allclose(crop(image, points, points)[0], expected)


def test_gradient_of_crop_is_right():
    rng = np.random.default_rng(1)
    images = tf.constant(rng.normal(size=[2, 6, 6]))
    rows, columns = (tf.constant(rng.uniform(-0.5, 5.5, size=[2, 4])) for _ in range(2))
    weights = rng.normal(size=[2, 4, 4])
    theory, numeric = tf.test.compute_gradient(lambda *a: tf.reduce_sum(weights * crop(*a)), [images, rows, columns], 1e-6)
    for ours, differences in zip(theory, numeric):
        np.testing.assert_allclose(ours, differences, atol=1e-6)


def test_gradient_of_boxes_is_right():
    rng = np.random.default_rng(2)
    images = tf.constant(rng.uniform(size=[1, 16, 16]))
    z_where = tf.constant([[[0.53, 0.61, 3.31, 2.17], [0.72, 0.58, 5.23, 6.41]]], tf.float64)
    weights = [rng.normal(size=[2, 1, 8, 8]), rng.normal(size=[2, 1, 8, 8]), rng.normal(size=[3, 1, 16, 16])]

    def scalar(where):
        parts = take_apart(images, where, 8)
        return sum(tf.reduce_sum(weight * part) for weight, part in zip(weights, parts))

    (theory,), (numeric,) = tf.test.compute_gradient(scalar, [z_where], 1e-6)
    np.testing.assert_allclose(theory, numeric, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", BOXES)
def test_scenes_are_taken_apart_exactly_like_by_loops(name):
    """... and every scene pixel is explained once: by one patch or by the background."""
    rng = np.random.default_rng(3)
    image, z_where, shifts = rng.uniform(size=[16, 16]), np.array(BOXES[name]), rng.uniform(size=[3, 2])
    parts = take_apart_exactly(*(tf.constant(values[None]) for values in (image, z_where)), 8, tf.constant(shifts[None]))
    patches, visible, maps = oracles.take_apart_exactly(image, z_where, 8, shifts)
    np.testing.assert_allclose(parts.visible[:, 0], visible, atol=1e-12)
    np.testing.assert_allclose(parts.background_maps[:, 0], maps, atol=1e-12)
    np.testing.assert_allclose(parts.patches[:, 0] * parts.visible[:, 0], patches * visible, atol=1e-12)
    assert np.sum(parts.visible) + np.sum(parts.background_maps[-1]) == pytest.approx(16 * 16, abs=1e-9)
    np.testing.assert_allclose(parts.overlap, take_apart(image[None], z_where[None], 8).overlap)


def test_exact_masks_are_bilinear_on_average():
    """A patch pixel's chance to be taken, row and column, is the hat weight of the scene's pixels around it."""
    z_where, size = np.array([[[0.6, 0.55, 2.3, 3.4]]]), 8
    shifts = (np.stack(np.meshgrid(*[np.arange(50) / 50 + 0.01] * 2), -1).reshape(-1, 1, 2)).astype(float)
    many = tf.constant(np.repeat(z_where, len(shifts), axis=0))
    # The scene pixel in row r and column c alone is white, so the visible content is where it went.
    for r, c in ((4, 3), (5, 5), (3, 4), (0, 0)):
        image = np.zeros([len(shifts), 16, 16])
        image[:, r, c] = 1
        parts = take_apart_exactly(tf.constant(image), many, size, tf.constant(shifts))
        u, v = (r - 3.4) / 0.55 * 7 / 8, (c - 2.3) / 0.6 * 7 / 8
        expected = np.outer(hat(u - np.arange(size)), hat(v - np.arange(size)))
        np.testing.assert_allclose(np.mean(parts.patches[0] * parts.visible[0], axis=0), expected, atol=0.03)


@pytest.mark.parametrize("scales", [(0.5, 0.6), (0.6, 1.05)], ids=["shrunk", "enlarged"])
def test_gradient_of_exact_masks_is_that_of_their_average(scales):
    """How many pixels a box takes, and leaves to the background, against differences of averages over shifts and places."""
    rng = np.random.default_rng(6)
    shifts = tf.constant(rng.uniform(size=[4000, 1, 2]))
    z_where = np.concatenate([np.tile(scales, [4000, 1]), rng.uniform(5, 7, [4000, 2])], axis=1)[:, None]

    def taken_and_left(where):
        parts = take_apart_exactly(tf.zeros([4000, 24, 24], tf.float64), where, 8, shifts)
        return tf.reduce_sum(parts.visible) / 4000, tf.reduce_sum(parts.background_maps[-1]) / 4000

    where = tf.constant(z_where)
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(where)
        values = taken_and_left(where)
    for place in range(4):
        step = np.eye(4)[place] * 0.04
        sides = [taken_and_left(tf.constant(z_where + sign * step)) for sign in (1, -1)]
        for value, above, below in zip(values, *sides):
            gradient = np.sum(tape.gradient(value, where)[..., place])
            assert gradient == pytest.approx(float(above - below) / 0.08, abs=4), place  # of some 40 to 75, or 0
