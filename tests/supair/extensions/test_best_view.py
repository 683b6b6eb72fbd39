"""Inference by the best of a scene's mirrored views."""

import numpy as np
import pytest
import tensorflow as tf
import tiny

from supair.extensions.best_view import BestView
from supair.extensions.exact import ExactSuPAIR
from supair.inference import SceneDescription
from supair.model import SuPAIR

IMAGES = tiny.scenes(8).read(0, 8)


@pytest.mark.parametrize("view, up_down, left_right", [(0, 0, 0), (1, 0, 1), (2, 1, 0), (3, 1, 1)])
def test_a_mirrored_scene_has_mirrored_boxes(view, up_down, left_right):
    model = SuPAIR(tiny.MODEL, seed=1)
    mirrored = IMAGES[:, :, ::-1] if left_right else IMAGES
    seen = model(mirrored[:, ::-1] if up_down else mirrored)
    expected = np.array(model.boxes(seen))
    for axis in np.flatnonzero([left_right, up_down]):  # its far edge becomes the near one
        expected[..., axis] = 12 - expected[..., axis] - expected[..., 2 + axis]
    found = SceneDescription(*(values[view] for values in BestView(model).views(IMAGES)))
    np.testing.assert_allclose(model.boxes(found), expected, atol=1e-5)
    np.testing.assert_array_equal(found.z_pres, seen.z_pres)


@pytest.mark.parametrize("kind", [SuPAIR, ExactSuPAIR])
def test_every_scene_gets_its_view_of_the_highest_bound(kind):
    model, noise = kind(tiny.MODEL, seed=1), np.zeros([8, 2, kind.noise_size], np.float32)
    model.inference.kernel.assign(20 * model.inference.kernel)  # so that views differ
    best = BestView(model)
    views = [SceneDescription(*view) for view in zip(*best.views(IMAGES))]
    bounds = [model.evaluate_description(IMAGES, view, noise).elbo.total for view in views]
    chosen = np.argmax(bounds, axis=0)
    assert len(set(chosen)) > 1
    expected = np.stack([view.where_loc for view in views])[chosen, np.arange(8)]
    found = tf.function(best, jit_compile=True)(IMAGES)
    np.testing.assert_allclose(found.where_loc, expected, atol=1e-6)
    found = best.evaluate_elbo(IMAGES, noise)
    np.testing.assert_allclose(found.elbo.total, np.max(bounds, axis=0), rtol=1e-5)
