"""q(N | x) by hand, and the network's initial weights; the golden files have q(z_where | x)."""

import math

import numpy as np
import pytest
import tensorflow as tf

from supair.config import ModelConfig
from supair.inference import SceneDescription
from supair.model import SuPAIR


def test_q_count_is_stick_breaking_and_count_rounds():
    z_pres = tf.constant([[0.9, 0.2, 0.6], [0.1, 0.7, 0.8]])
    description = SceneDescription(z_pres, None, None)
    expected = [[0.1, 0.72, 0.072, 0.108], [0.9, 0.03, 0.014, 0.056]]
    np.testing.assert_allclose(description.q_count, expected, rtol=1e-5)
    np.testing.assert_allclose(description.at_least[0], [0.9, 0.18, 0.108], rtol=1e-5)
    assert description.count.numpy().tolist() == [2, 2]


def test_initial_weights_follow_the_paper():
    model = SuPAIR(ModelConfig(), seed=0)
    limit = math.sqrt(6 / (2500 + 256 + 1024))
    for kernel in (model.inference.kernel, model.inference.recurrent_kernel):
        values = np.asarray(kernel)
        assert np.abs(values).max() <= limit
        assert values.std() == pytest.approx(limit / math.sqrt(3), rel=0.01)
    assert not np.any(np.asarray(model.inference.bias))
    assert np.all(np.asarray(model.inference.output_layer.bias) == np.float32(0.1))
    # Cut off at two standard deviations, a normal's shrinks to 0.88 of what it was.
    spn = model.object_spn
    for weight, stddev in ((spn.leaf_layer.mean, 0.1), (spn.sum_layers[0].weight_logits[0], 0.5)):
        values = np.asarray(weight)
        assert np.abs(values).max() <= 2 * stddev
        assert values.std() == pytest.approx(0.88 * stddev, rel=0.01)
