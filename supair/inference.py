"""The inference network q(N, z_where | x): an LSTM that looks at the scene once a step (paper, section 3.4)."""

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


def count_present(z_pres):
    """How many of [batch, step] chances round to 1, [batch] int32."""
    return tf.reduce_sum(tf.cast(tf.round(z_pres), tf.int32), axis=1)


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
        """q(N = n) for n = 0 .. N_max, [batch, step + 1] (equation 1; the last takes what remains)."""
        found = tf.concat([tf.ones_like(self.z_pres[:, :1]), self.at_least], axis=1)
        stop = tf.concat([1.0 - self.z_pres, tf.ones_like(self.z_pres[:, :1])], axis=1)
        return found * stop

    @property
    def count(self):
        """The number of objects reported, [batch] int32: steps whose z_pres rounds to 1 (code)."""
        return count_present(self.z_pres)


class InferenceNetwork(keras.layers.Layer):
    """LSTM, 50 sigmoid units, 9 outputs: one object's z_pres, means and standard deviations a step.

    Every step sees the same scene, so its product with the kernel is computed once and not once a step.

    Args:
      config: the model's configuration.
      seed: decides the initial weights.

    Call arguments:
      images: [batch, scene_size, scene_size] in [0, 1].
    """

    def __init__(self, config: ModelConfig, seed: int, dtype: str = "float32", **kwargs):
        super().__init__(dtype=dtype, **kwargs)
        self.config = config
        units, pixels = config.lstm_units, config.scene_size**2
        # Glorot-uniform over the whole [pixels + units, 4 units] matrix, of which these are the upper and lower part.
        limit = math.sqrt(6 / (pixels + units + 4 * units))
        uniform = [keras.initializers.RandomUniform(-limit, limit, seed=seed + k) for k in range(2)]
        self.kernel = self.add_weight(shape=[pixels, 4 * units], initializer=uniform[0], name="kernel")
        self.recurrent_kernel = self.add_weight(shape=[units, 4 * units], initializer=uniform[1], name="recurrent_kernel")
        self.bias = self.add_weight(shape=[4 * units], initializer="zeros", name="bias")
        self.hidden, self.output_layer = (
            keras.layers.Dense(
                size,
                activation=activation,
                kernel_initializer=keras.initializers.GlorotUniform(seed=seed + k),
                bias_initializer=keras.initializers.Constant(INITIAL_BIAS),
                dtype=dtype,
                name=name,
            )
            for k, size, activation, name in ((2, config.hidden_units, "sigmoid", "hidden"), (3, 9, None, "output"))
        )
        self.hidden.build([None, units])
        self.output_layer.build([None, config.hidden_units])
        if config.position_bias is not None:
            self.output_layer.bias.assign([*[INITIAL_BIAS] * 3, *[config.position_bias] * 2, *[INITIAL_BIAS] * 4])
        self.built = True

    def call(self, images) -> SceneDescription:
        config = self.config
        require_side(images, config.scene_size)
        flat = tf.reshape(images, [-1, config.scene_size**2])
        from_scene = tf.matmul(flat, self.kernel) + self.bias  # [batch, 4 units]
        state, cell, states = None, 0.0, []
        for _ in range(config.num_steps):
            gates = from_scene if state is None else from_scene + tf.matmul(state, self.recurrent_kernel)
            enter, candidate, forget, output = tf.split(gates, 4, axis=1)
            cell = tf.sigmoid(forget + FORGET_GATE_BIAS) * cell + tf.sigmoid(enter) * tf.tanh(candidate)
            state = tf.sigmoid(output) * tf.tanh(cell)
            states.append(state)
        outputs = self.output_layer(self.hidden(tf.reshape(tf.stack(states, axis=1), [-1, config.lstm_units])))
        squashed = tf.sigmoid(tf.reshape(outputs, [-1, config.num_steps, 9]))  # [batch, step, 9]
        width = config.scale_min + (config.scale_max - config.scale_min) * squashed[..., 1]
        height = width * (config.aspect_min + (config.aspect_max - config.aspect_min) * squashed[..., 2])
        left_top = config.position_max * config.scene_size * squashed[..., 3:5]
        return SceneDescription(
            z_pres=squashed[..., 0],
            where_loc=tf.concat([width[..., tf.newaxis], height[..., tf.newaxis], left_top], axis=-1),
            where_scale=config.where_scale_max * squashed[..., 5:9],
        )
