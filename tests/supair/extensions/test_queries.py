"""Queries of a scene model, on tiny ones."""

import dataclasses

import numpy as np
import oracles
import pytest
import tiny

from supair.config import ConfigError
from supair.extensions import queries
from supair.extensions.exact import ExactSuPAIR
from supair.geometry import extract_patches
from supair.model import SuPAIR

IMAGES = tiny.scenes(6).read(0, 6)


@pytest.fixture
def model():
    return SuPAIR(tiny.MODEL, seed=1)


def test_completions_keep_what_is_visible_and_differ_where_it_is_not(model):
    parts = extract_patches(IMAGES, model(IMAGES).where_loc, 6)
    visible = np.asarray(parts.visible) > 0.5
    assert not visible.all() and visible.any()
    best, first, second = (
        np.asarray(queries.complete_objects(model, IMAGES, seed, seed is not None))
        for seed in (None, (0, 1), (0, 2))
    )
    for completed in (best, first, second):
        np.testing.assert_array_equal(completed[visible], np.asarray(parts.patches)[visible])
    assert not np.any(first[~visible] == second[~visible])
    np.testing.assert_array_equal(best, queries.complete_objects(model, IMAGES))


def test_a_completion_is_the_spns_own():
    """With one component a leaf the conditional is known: the leaves' means, and their noise."""
    spn = dataclasses.replace(tiny.MODEL.object, num_components=1, repetitions=1)
    model = SuPAIR(dataclasses.replace(tiny.MODEL, object=spn), seed=1)
    means = np.asarray(model.object_spn.decode(np.ones([1, 4], np.float32))[0])
    images = np.repeat(IMAGES[:1], 400, axis=0)
    hidden = np.asarray(extract_patches(images, model(images).where_loc, 6).visible) <= 0.5
    best = np.asarray(queries.complete_objects(model, images)).reshape(2, 400, 36)
    samples = np.asarray(queries.complete_objects(model, images, (3, 4), leaf_noise=True))
    samples = samples.reshape(2, 400, 36)
    for step, pixel in np.argwhere(hidden[:, 0].reshape(2, 36))[:10]:
        assert best[step, 0, pixel] == pytest.approx(means[pixel], abs=1e-6)
        assert samples[step, :, pixel].mean() == pytest.approx(means[pixel], abs=0.1)
        assert 0.1 < samples[step, :, pixel].var() < 0.4


def test_sampled_scenes_follow_the_prior(model):
    scenes, description = queries.sample_scenes(model, 600, (1, 2))
    assert scenes.shape == (600, 12, 12) and np.all((scenes >= 0) & (scenes <= 1))
    # Boxes are drawn again until they hardly overlap, and their number is not.
    shares, weights = np.bincount(description.count, minlength=3) / 600, np.exp(-0.7 * np.arange(3))
    np.testing.assert_allclose(shares, weights / weights.sum(), atol=0.06)
    present = np.asarray(description.z_pres) == 1
    overlap = np.asarray(extract_patches(scenes, description.where_loc, 6).overlap).T[present]
    widths = np.asarray(description.where_loc[..., 0])
    assert overlap.mean() < 0.03 and 0.3 <= widths.min() and widths.max() <= 0.9
    np.testing.assert_array_equal(scenes, queries.sample_scenes(model, 600, (1, 2))[0])


def test_scenes_without_room_are_refused(monkeypatch):
    monkeypatch.setattr(queries, "_TRIES", 20)
    config = dataclasses.replace(tiny.MODEL, num_steps=6, scale_min=0.9, count_penalty=-9.0)
    with pytest.raises(ConfigError, match="6 boxes.*12 pixels"):
        queries.sample_scenes(SuPAIR(config), 3, (1, 2))


@pytest.mark.parametrize("kind", [SuPAIR, ExactSuPAIR])
def test_importance_weighted_bound_by_hand(kind):
    """N summed out one by one in double precision; above the ELBO."""
    model = kind(tiny.MODEL, seed=1)
    log_ratios, elbos = [], []
    for index in range(3):
        noise = np.random.default_rng([7, index]).standard_normal([6, 2, model.noise_size], "f")
        evaluation = model.evaluate_elbo(IMAGES, noise)
        elbos.append(evaluation.elbo.total)
        log_p = np.logaddexp.reduce(oracles.log_joint(evaluation), axis=1)
        log_ratios.append(log_p - np.sum(evaluation.log_q_where, axis=1))
    expected = np.logaddexp.reduce(log_ratios, axis=0) - np.log(3)
    found = queries.importance_bound(model, IMAGES, 3, seed=7)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert np.all(np.asarray(log_ratios) >= np.asarray(elbos) - 1e-3)
