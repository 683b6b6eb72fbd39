"""The inference network q(N, z_where | x), an LSTM (paper, section 3.4)."""

from __future__ import annotations

import math
from typing import NamedTuple

import keras
import tensorflow as tf
from tensorflow_probability import distributions as tfd

from supair.config import ModelConfig
from supair.scenes import require_side

FORGET_GATE_BIAS = 1.0  # a constant, not a weight (code)
INITIAL_BIAS = 0.1  # of hidden units and outputs (code)


def as_uniform(noise):
    """Standard normal numbers as numbers uniform on [0, 1], by their distribution function."""
    return 0.5 * (1.0 + tf.math.erf(noise / math.sqrt(2.0)))


class SceneDescription(NamedTuple):
    """q(z | x) for a batch of scenes."""

    z_pres: tf.Tensor  # [batch, step], q(step finds an object | all earlier steps did)
    where_loc: tf.Tensor  # [batch, step, 4], mean of q(z_where): width / A, height / A, left, top
    where_scale: tf.Tensor  # [batch, step, 4], its standard deviation

    @property
    def q_where(self) -> tfd.Distribution:
        """q(z_where) with batch shape [batch, step] and event shape [4]."""
        return tfd.Independent(tfd.Normal(self.where_loc, self.where_scale), 1)

    @property
    def at_least(self):
        """q(N >= i) for i = 1 .. N_max, [batch, step]."""
        return tf.math.cumprod(self.z_pres, axis=1)

    @property
    def q_count(self):
        """q(N = n) for n = 0 .. N_max, [batch, step + 1] (equation 1; the last takes the rest)."""
        found = tf.concat([tf.ones_like(self.z_pres[:, :1]), self.at_least], axis=1)
        stop = tf.concat([1.0 - self.z_pres, tf.ones_like(self.z_pres[:, :1])], axis=1)
        return found * stop

    @property
    def count(self):
        """The number of objects reported, [batch] int32: steps whose z_pres rounds to 1 (code)."""
        return tf.reduce_sum(tf.cast(tf.round(self.z_pres), tf.int32), axis=1)


class InferenceNetwork(keras.layers.Layer):
    """LSTM, 50 sigmoid units, 9 outputs: one object's z_pres, means and standard deviations a step.

    Called with images [batch, scene_size, scene_size] in [0, 1].  Every step sees the same scene,
    so its product with the kernel is computed once.  The seed decides the initial weights.
    """

    def __init__(self, config: ModelConfig, seed: int, dtype: str = "float32", **kwargs):
        super().__init__(dtype=dtype, **kwargs)
        self.config = config
        units, pixels = config.lstm_units, config.scene_size**2
        # Glorot-uniform over [pixels + units, 4 units]: these are the upper and lower part.
        limit = math.sqrt(6 / (pixels + units + 4 * units))
        uniform = keras.initializers.RandomUniform
        upper, lower = (uniform(-limit, limit, seed=seed + k) for k in range(2))
        self.kernel = self.add_weight([pixels, 4 * units], upper, name="kernel")
        self.recurrent_kernel = self.add_weight([units, 4 * units], lower, name="recurrent_kernel")
        self.bias = self.add_weight([4 * units], "zeros", name="bias")
        self.hidden = self._dense(config.hidden_units, units, "sigmoid", seed + 2, "hidden")
        self.output_layer = self._dense(9, config.hidden_units, None, seed + 3, "output")
        self.built = True

    def _dense(self, size: int, inputs: int, activation: str | None, seed: int, name: str):
        initial = {
            "kernel_initializer": keras.initializers.GlorotUniform(seed=seed),
            "bias_initializer": keras.initializers.Constant(INITIAL_BIAS),
        }
        layer = keras.layers.Dense(size, activation, dtype=self.dtype_policy, name=name, **initial)
        with keras.name_scope(self.name):
            layer.build([None, inputs])
        return layer

    def call(self, images) -> SceneDescription:
        config = self.config
        require_side(images, config.scene_size)
        flat = tf.reshape(images - config.scene_mean, [-1, config.scene_size**2])  # [batch, B²]
        from_scene = tf.matmul(flat, self.kernel) + self.bias  # [batch, 4 units]
        cell, states = 0.0, []
        for _ in range(config.num_steps):
            gates = from_scene
            if states:
                gates = from_scene + tf.matmul(states[-1], self.recurrent_kernel)
            input_gate, candidate, forget, output = tf.split(gates, 4, axis=1)
            cell *= tf.sigmoid(forget + FORGET_GATE_BIAS)
            cell += tf.sigmoid(input_gate) * tf.tanh(candidate)
            states.append(tf.sigmoid(output) * tf.tanh(cell))
        states = tf.reshape(tf.stack(states, axis=1), [-1, config.lstm_units])
        outputs = self.output_layer(self.hidden(states))  # [batch * step, 9]
        squashed = tf.sigmoid(tf.reshape(outputs, [-1, config.num_steps, 9]))  # [batch, step, 9]
        width = config.scale_min + (config.scale_max - config.scale_min) * squashed[..., 1]
        aspect = config.aspect_min + (config.aspect_max - config.aspect_min) * squashed[..., 2]
        left_top = config.position_max * config.scene_size * squashed[..., 3:5]
        scales = tf.stack([width, width * aspect], axis=-1)  # [batch, step, 2]
        return SceneDescription(
            z_pres=squashed[..., 0],
            where_loc=tf.concat([scales, left_top], axis=-1),
            where_scale=config.where_scale_max * squashed[..., 5:9],
        )
