"""Crops and occlusion against loops in double precision, and their gradients."""

import numpy as np
import oracles
import pytest
import tensorflow as tf

from supair.geometry import crop, extract_patches, patch_points


@pytest.mark.parametrize("name", oracles.BOXES)
def test_patches_and_masks_are_those_of_loops(name):
    image = np.random.default_rng(0).uniform(size=[16, 16])
    z_where = np.array(oracles.BOXES[name])
    parts = extract_patches(tf.constant(image[None]), tf.constant(z_where[None]), patch_size=8)
    patches, visible, maps = oracles.extract_patches(image, z_where, 8)
    np.testing.assert_allclose(parts.patches[:, 0], patches, atol=1e-9)
    np.testing.assert_allclose(parts.visible[:, 0], visible, atol=1e-9)
    np.testing.assert_allclose(parts.background_maps[:, 0], maps, atol=1e-9)
    np.testing.assert_allclose(parts.overlap[:, 0], 1 - visible.mean(axis=(1, 2)), atol=1e-9)


def test_gradient_of_boxes_is_right():
    rng = np.random.default_rng(2)
    images = tf.constant(rng.uniform(size=[1, 16, 16]))
    z_where = tf.constant([[[0.53, 0.61, 3.31, 2.17], [0.72, 0.58, 5.23, 6.41]]], tf.float64)
    weights = [rng.normal(size=[n, 1, side, side]) for n, side in ((2, 8), (2, 8), (3, 16))]

    def scalar(where):
        parts = extract_patches(images, where, 8)
        return sum(tf.reduce_sum(weight * part) for weight, part in zip(weights, parts))

    (theory,), (numeric,) = tf.test.compute_gradient(scalar, [z_where], 1e-6)
    np.testing.assert_allclose(theory, numeric, rtol=1e-4, atol=1e-4)


def test_patches_are_put_back_where_they_were_cropped():
    """A linear ramp, cropped and put back, is itself inside the box and nothing outside."""
    image = np.add.outer(np.arange(20.0), 2 * np.arange(20.0))[np.newaxis]
    left, top, width, height = 3.3, 5.6, 1.25, 1.5  # columns 3.3 .. 13.3, rows 5.6 .. 17.6
    z_where = tf.constant([[[width, height, left, top]]], tf.float64)
    patch = extract_patches(image, z_where, 8).patches[0]
    rows, columns = (
        patch_points(tf.constant([[start]], tf.float64), scale, 8, 20)
        for start, scale in ((top, height), (left, width))
    )
    put_back = crop(patch, rows, columns)[0].numpy()
    np.testing.assert_allclose(put_back[6:18, 4:14], image[0, 6:18, 4:14], atol=1e-9)
    assert not put_back[:4].any() and not put_back[:, :2].any() and not put_back[:, 16:].any()
