"""Queries of a scene model, on tiny ones."""

import dataclasses
import json
import math

import numpy as np
import pytest
import queries as script
import tensorflow as tf
import tiny

import data
from supair import ConfigError, SuPAIR
from supair import queries as supair_queries
from supair.geometry import SceneParts, take_apart
from supair.queries import complete_objects, importance_bound, inpaint, object_log_probs, sample_scenes
from supair.saved import write_weights

IMAGES = tiny.scenes(6).read(0, 6)


@pytest.fixture
def model():
    return SuPAIR(dataclasses.replace(tiny.MODEL, object_models="mixture", object_classes=2), seed=1)


def test_completions_keep_what_is_visible_and_differ_where_it_is_not(model):
    parts = take_apart(IMAGES, model(IMAGES).where_loc, 6)
    visible = np.asarray(parts.visible) > 0.5
    assert not visible.all() and visible.any()
    best, first, second = (np.asarray(complete_objects(model, IMAGES, seed, seed is not None)) for seed in (None, (0, 1), (0, 2)))
    for completed in (best, first, second):
        np.testing.assert_array_equal(completed[visible], np.asarray(parts.patches)[visible])
    assert not np.any(first[~visible] == second[~visible])
    np.testing.assert_array_equal(best, complete_objects(model, IMAGES))


def test_a_completion_is_the_spns_own():
    """With one component a leaf the conditional is known: the means of the leaves, and noise of their variance around them."""
    spn = dataclasses.replace(tiny.MODEL.object, num_components=1, repetitions=1)
    model = SuPAIR(dataclasses.replace(tiny.MODEL, object=spn), seed=1)
    means = model.object_spn.decode(np.ones([1, 4], np.float32))[0]
    images = np.repeat(IMAGES[:1], 400, axis=0)
    hidden = np.asarray(take_apart(images, model(images).where_loc, 6).visible) <= 0.5
    best = np.asarray(complete_objects(model, images)).reshape(2, 400, 36)
    samples = np.asarray(complete_objects(model, images, (3, 4), leaf_noise=True)).reshape(2, 400, 36)
    for step, pixel in np.argwhere(hidden[:, 0].reshape(2, 36))[:10]:
        assert best[step, 0, pixel] == pytest.approx(float(means[pixel]), abs=1e-6)
        assert samples[step, :, pixel].mean() == pytest.approx(float(means[pixel]), abs=0.1)
        assert 0.1 < samples[step, :, pixel].var() < 0.4


def test_inpainting_keeps_what_is_known_and_does_not_look_into_the_hole(model):
    known = np.ones_like(IMAGES)
    known[:, 3:8, 3:8] = 0
    for seed in (None, (1, 2)):
        filled = np.asarray(inpaint(model, IMAGES, known, seed))
        np.testing.assert_array_equal(filled[known > 0], IMAGES[known > 0])
        np.testing.assert_array_equal(filled, inpaint(model, np.where(known > 0, IMAGES, 0.7), known, seed))
        assert np.all((filled >= 0) & (filled <= 1))


def test_sampled_scenes_follow_the_prior(model):
    scenes, description = sample_scenes(model, 600, (1, 2))
    assert scenes.shape == (600, 12, 12) and np.all((scenes >= 0) & (scenes <= 1))
    weights = np.exp(-0.7 * np.arange(3))
    # Boxes are drawn again until they hardly overlap, and their number is not, so it keeps the prior's shares.
    np.testing.assert_allclose(np.bincount(description.count, minlength=3) / 600, weights / weights.sum(), atol=0.06)
    present = np.asarray(description.z_pres) == 1
    overlap = np.asarray(take_apart(scenes, description.where_loc, 6).overlap).T[present]
    assert overlap.mean() < 0.03 and 0.3 <= np.min(description.where_loc[..., 0]) and np.max(description.where_loc[..., 0]) <= 0.9
    np.testing.assert_array_equal(scenes, sample_scenes(model, 600, (1, 2))[0])


def test_steps_with_spns_of_their_own_have_noise_of_their_own():
    model = SuPAIR(dataclasses.replace(tiny.MODEL, object_models="per_step"), seed=1)
    nothing = tf.zeros([2, 50, 6, 6])
    parts = SceneParts(nothing, nothing, nothing, nothing)
    explain = lambda spn, x, observed, seed: spn.sample_conditional(x, observed, seed)  # noqa: E731
    first, second = np.asarray(model.explain_objects(parts, explain, seed=(1, 2)))
    assert abs(np.corrcoef(first.ravel(), second.ravel())[0, 1]) < 0.2


def test_scenes_without_room_are_refused(monkeypatch):
    monkeypatch.setattr(supair_queries, "_TRIES", 20)
    with pytest.raises(ConfigError, match="no room for up to 6 boxes"):
        sample_scenes(SuPAIR(dataclasses.replace(tiny.MODEL, num_steps=6, scale_min=0.9, count_penalty=-9.0)), 3, (1, 2))


def test_object_log_probs_are_those_of_the_patches():
    model = SuPAIR(tiny.MODEL, seed=1)
    parts = take_apart(IMAGES, model(IMAGES).where_loc, 6)
    visible = np.asarray(parts.visible).reshape(2, 6, 36)
    expected = [
        np.asarray(model.object_spn.log_prob(np.reshape(parts.patches[k], [6, 36]), visible[k])) / visible[k].sum(axis=1)
        for k in range(2)
    ]
    np.testing.assert_allclose(object_log_probs(model, IMAGES), np.transpose(expected), rtol=1e-4)


@pytest.mark.parametrize("downsampling", ["area", "exact"])
def test_importance_weighted_bound_by_hand(downsampling):
    """N summed out one by one in double precision; above the ELBO."""
    model = SuPAIR(dataclasses.replace(tiny.MODEL, downsampling=downsampling), seed=1)
    log_ratios, elbos = [], []
    for index in range(3):
        noise = np.random.default_rng([7, index]).standard_normal([6, 2, model.noise_size], np.float32)
        found = model.evaluate_elbo(IMAGES, noise)
        elbos.append(found.elbo.total)
        for_n = []
        for n in range(3):
            objects = (
                np.asarray(found.log_p_objects, float)[:, :n]
                + math.log(120)
                - 120 * np.asarray(found.parts.overlap, float).T[:, :n]
            )
            for_n.append(math.log(0.7) - 0.7 * n + objects.sum(axis=1) + np.asarray(found.log_p_background, float)[:, n])
        log_ratios.append(np.logaddexp.reduce(for_n, axis=0) - np.sum(found.log_q_where, axis=1))
    expected = np.logaddexp.reduce(log_ratios, axis=0) - math.log(3)
    np.testing.assert_allclose(importance_bound(model, IMAGES, 3, seed=7), expected, rtol=1e-5)
    assert np.all(np.asarray(log_ratios) >= np.asarray(elbos) - 1e-3)


def test_the_script_on_a_tiny_model(small, tmp_path, capsys, monkeypatch):
    """All of its tables and its figure; the numbers mean nothing."""
    for name, value in (("SCENES", 4), ("SHIFTS", 2), ("ANOMALIES", 10), ("PROBE", (30, 20)), ("COLUMNS", 2), ("BOUNDS", (1, 3))):
        monkeypatch.setattr(script, name, value)
    config = dataclasses.replace(tiny.MODEL, scene_size=50, patch_size=28)
    write_weights(SuPAIR(config, 3), tmp_path)
    settings = {"model": json.loads(json.dumps(dataclasses.asdict(config))), "training": {"seed": 3}}
    (tmp_path / "config.json").write_text(json.dumps(settings))
    options = ["--model", str(tmp_path), "--output", str(tmp_path / "figures"), "--json", str(tmp_path / "a.json")]
    assert script.main([*options, *small[:4]]) == 0
    found = json.loads((tmp_path / "a.json").read_text())
    assert found["likelihoods"]["ELBO"] < found["likelihoods"]["importance-weighted bound, 3"]
    assert f"from codes {found['probe']['codes']:.1%}" in capsys.readouterr().out
    assert (tmp_path / "figures" / "queries.png").stat().st_size > 10_000


def test_letters_are_as_large_as_digits():
    digits = data.scenes.load_mnist()["x_test"][:20]
    letters = script.letter_glyphs(digits, np.random.default_rng(0))
    for digit, letter in zip(digits, letters):
        for axis in (0, 1):
            extents = [np.flatnonzero(image.any(axis=axis))[[0, -1]] for image in (np.where(digit > 64, digit, 0), letter)]
            np.testing.assert_allclose(*extents, atol=3)  # thin strokes fade
    assert len({letter.tobytes() for letter in letters}) == 20


def test_the_same_weights_with_another_likelihood():
    model = SuPAIR(tiny.MODEL, seed=5)
    other = script.with_downsampling(model, "exact")
    np.testing.assert_array_equal(model(IMAGES).where_loc, other(IMAGES).where_loc)
    patches = tf.random.stateless_uniform([3, 36], (0, 1))
    np.testing.assert_array_equal(model.object_spn.log_prob(patches), other.object_spn.log_prob(patches))
    assert other.config.downsampling == "exact" and other.noise_size == 6
