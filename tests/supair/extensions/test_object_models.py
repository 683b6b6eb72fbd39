"""One object SPN a step."""

import numpy as np
import tensorflow as tf
import tiny

from supair.extensions.object_models import PerStepSuPAIR
from supair.geometry import SceneParts
from supair.model import SuPAIR


def parts_of(model) -> SceneParts:
    noise = np.random.default_rng(0).normal(size=[8, 2, 4]).astype("float32")
    return model.evaluate_elbo(tiny.scenes(8).read(0, 8), noise).parts


def tell_index(model):
    """An `explain` that gives an SPN's index in the model, whatever it is asked."""
    names = [spn.name for spn in model.object_spns]
    return lambda spn, patches, visible, seed: tf.fill([len(patches)], names.index(spn.name))


def test_other_spns_have_structures_and_weights_of_their_own():
    model, shared = PerStepSuPAIR(tiny.MODEL, seed=1), SuPAIR(tiny.MODEL, seed=1)
    spns = [shared.object_spn, *model.object_spns]
    of_shared, *weights = (np.asarray(spn.leaf_layer.mean) for spn in spns)
    np.testing.assert_array_equal(of_shared, weights[0])
    assert len(weights) == 2 and not np.any(weights[0] == weights[1])
    assert not np.array_equal(*(np.concatenate(spn.graph.regions) for spn in model.object_spns))


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
