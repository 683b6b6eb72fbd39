"""One object SPN a step, and a mixture of them."""

import numpy as np
import pytest
import tensorflow as tf
import tiny

from supair.extensions.object_models import MixtureSuPAIR, PerStepSuPAIR
from supair.geometry import SceneParts
from supair.model import SuPAIR


def parts_of(model) -> SceneParts:
    noise = np.random.default_rng(0).normal(size=[8, 2, 4]).astype("float32")
    return model.evaluate_elbo(tiny.scenes(8).read(0, 8), noise).parts


def tell_index(model):
    """An `explain` that gives an SPN's index in the model, whatever it is asked."""
    names = [spn.name for spn in model.object_spns]
    return lambda spn, patches, visible, seed: tf.fill([len(patches)], names.index(spn.name))


@pytest.mark.parametrize("kind, number", [(PerStepSuPAIR, 2), (MixtureSuPAIR, 3)])
def test_other_spns_have_structures_and_weights_of_their_own(kind, number):
    model, shared = kind(tiny.MODEL, seed=1), SuPAIR(tiny.MODEL, seed=1)
    assert len(model.object_spns) == number
    weights = [np.asarray(spn.leaf_layer.mean) for spn in (shared.object_spn, *model.object_spns)]
    np.testing.assert_array_equal(weights[0], weights[1])
    regions = [np.concatenate(spn.graph.regions) for spn in model.object_spns]
    for first in range(number):
        for second in range(first):
            assert not np.any(weights[1 + first] == weights[1 + second])
            assert not np.array_equal(regions[first], regions[second])


def test_every_step_has_its_own_object_model():
    model = PerStepSuPAIR(tiny.MODEL, seed=1)
    parts = parts_of(model)
    vectors = [np.reshape(values, [2, 8, 36]) for values in (parts.patches, parts.visible)]
    expected = [spn.log_prob(*step) for spn, *step in zip(model.object_spns, *vectors)]
    np.testing.assert_allclose(model.log_p_objects(parts), np.transpose(expected), rtol=1e-6)
    told = model.explain_objects(parts, tell_index(model))
    np.testing.assert_array_equal(told, np.repeat([[0], [1]], 8, axis=1))
    assert model.reconstruct_objects(parts).shape == (2, 8, 6, 6)


def test_every_step_has_noise_of_its_own():
    model = PerStepSuPAIR(tiny.MODEL, seed=1)
    nothing = tf.zeros([2, 50, 6, 6])
    parts = SceneParts(nothing, nothing, nothing, nothing)
    explain = lambda spn, x, observed, seed: spn.sample_conditional(x, observed, seed)  # noqa: E731
    first, second = np.asarray(model.explain_objects(parts, explain, seed=(1, 2)))
    assert abs(np.corrcoef(first.ravel(), second.ravel())[0, 1]) < 0.2


def test_mixture_by_hand():
    """log sum_k w_k p_k; explanations come from the likeliest class, or a sampled one."""
    model = MixtureSuPAIR(tiny.MODEL, seed=1)
    weights = np.array([0.5, 0.3, 0.2])
    model.class_logits.assign(np.log(weights))
    parts = parts_of(model)
    flat = [np.reshape(values, [-1, 36]) for values in (parts.patches, parts.visible)]
    densities = [np.exp(spn.log_prob(*flat)) for spn in model.object_spns]
    by_class = np.stack(densities) * weights[:, None]
    expected = np.log(by_class.sum(axis=0)).reshape(2, 8).T
    np.testing.assert_allclose(model.log_p_objects(parts), expected, rtol=1e-5, atol=1e-4)
    told = np.ravel(model.explain_objects(parts, tell_index(model)))
    np.testing.assert_array_equal(told, by_class.argmax(axis=0))
    reconstructions = np.stack([spn.reconstruct(*flat) for spn in model.object_spns])
    best = reconstructions[told, np.arange(16)]
    np.testing.assert_allclose(np.reshape(model.reconstruct_objects(parts), [-1, 36]), best)
    patches, visible = (tf.tile(values[:1, :1], [2, 8000, 1, 1]) for values in parts[:2])
    parts = parts._replace(patches=patches, visible=visible)
    told = model.explain_objects(parts, tell_index(model), seed=(1, 2))
    found = np.bincount(np.ravel(told), minlength=3) / 16000
    np.testing.assert_allclose(found, by_class[:, 0] / by_class[:, 0].sum(), atol=0.02)
