"""A RatSpn as a distribution of TensorFlow Probability."""

from __future__ import annotations

import numpy as np
import tensorflow as tf
from tensorflow_probability import distributions as tfd
from tensorflow_probability.python.internal import samplers

from rat_spn.spn import RatSpn


class RatSpnDistribution(tfd.Distribution):
    """p(x) of a RatSpn: events [D], no batch, all classes together.

    In `log_prob` NaN is not observed.  `mean`, `variance` and `covariance` are exact; `mode` is the
    most probable explanation of no evidence, which is approximate (`RatSpn.reconstruct`).  Samples
    have gradients by the weights of Gaussian leaves, given the trees drawn, but none by those of
    sums; so they count as not reparameterised.
    """

    def __init__(self, spn: RatSpn, name: str = "RatSpn"):
        parameters = dict(locals())
        self.spn = spn
        self._weights = [weight.value for weight in spn.trainable_weights]  # found as `variables`
        kind, dtype = tfd.NOT_REPARAMETERIZED, tf.as_dtype(spn.compute_dtype)
        super().__init__(dtype, kind, False, True, parameters=parameters, name=name)

    @classmethod
    def _parameter_properties(cls, dtype, num_classes=None):
        return {}

    def _event_shape(self):
        return tf.TensorShape([self.spn.graph.num_variables])

    def _log_prob(self, x):
        shape = tf.shape(x)
        return tf.reshape(self.spn.log_prob(tf.reshape(x, [-1, x.shape[-1]])), shape[:-1])

    def _sample_n(self, n, seed=None):
        return self.spn.sample(n, samplers.sanitize_seed(seed))

    def _nothing(self):
        return tf.fill([1, self.spn.graph.num_variables], tf.constant(np.nan, self.dtype))

    def _mean(self):
        return self.spn.conditional_mean(self._nothing())[0]

    def _covariance(self):
        tilt = tf.zeros([1, self.spn.graph.num_variables], self.dtype)
        with tf.GradientTape() as tape:
            tape.watch(tilt)
            mean = self.spn.conditional_mean(self._nothing(), tilt=tilt)
        return tape.batch_jacobian(mean, tilt)[0]

    def _variance(self):
        return tf.linalg.diag_part(self._covariance())

    def _mode(self):
        return self.spn.reconstruct(self._nothing())[0]
