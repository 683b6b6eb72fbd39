import numpy as np
import oracles
import pytest
import tensorflow as tf

from supair.geometry import crop, take_apart

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
