"""AIR: Attend, Infer, Repeat (Eslami et al., 2016), the baseline, as Pyro implements it.

Steps t = 1 .. T of a recurrent guide q each say whether there is one more object (z_pres), where
(z_where = (s, x, y), s an inverse scale) and what it looks like (z_what).  A scene is the sum of
the decoded windows, plus noise.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf
from tensorflow_probability import distributions as tfd

from rat_spn.layers import require_full_float32
from supair.config import AirConfig, AirWarmUp, TrainingConfig
from supair.geometry import crop
from supair.inference import as_uniform
from supair.scenes import require_side


class AirElbo(NamedTuple):
    """The evidence lower bound of a batch of scenes, one value [batch] in nats for each term.

    Not comparable with SuPAIR's: there the density of the pixels is another one.
    """

    likelihood: tf.Tensor  # log N(x; scene mean, scale²)
    count: tf.Tensor  # sum_t log p(z_pres_t) - log q(z_pres_t)
    where: tf.Tensor  # sum_t z_pres_t (log p(z_where_t) - log q(z_where_t))
    what: tf.Tensor  # sum_t z_pres_t (log p(z_what_t) - log q(z_what_t))

    @property
    def total(self):
        """The bound itself, [batch]."""
        return sum(self)


class AirLatents(NamedTuple):
    """A sample of q(z | x); or its log densities, [batch, step] each, 0 where z_pres is."""

    z_pres: tf.Tensor  # [batch, step], 0 or 1; 0 ever after a step without object
    z_where: tf.Tensor  # [batch, step, 3], (s, x, y)
    z_what: tf.Tensor  # [batch, step, what_size]


class AirDescription(NamedTuple):
    """q(z | x) for a batch of scenes, every step given a sample of the steps before."""

    pres_logit: tf.Tensor  # [batch, step], of q(z_pres = 1 | the step before found an object)
    previous: tf.Tensor  # [batch, step], z_pres of the step before
    where_loc: tf.Tensor  # [batch, step, 3]
    where_scale: tf.Tensor  # [batch, step, 3]
    what_loc: tf.Tensor  # [batch, step, what_size]
    what_scale: tf.Tensor  # [batch, step, what_size]

    @property
    def z_pres(self):
        """q(z_pres = 1 | earlier steps), [batch, step]."""
        return tf.sigmoid(self.pres_logit) * self.previous


class AirEvaluation(NamedTuple):
    """Everything computed on the way to the bound."""

    elbo: AirElbo
    description: AirDescription
    sample: AirLatents
    scene_mean: tf.Tensor  # [batch, scene_size, scene_size]
    log_p: AirLatents
    log_q: AirLatents
    baseline: tf.Tensor  # [batch, step], the cost in nats that the baseline expects from step t on


def window_points(z_where, window_size: int, scene_size: int):
    """Scene pixels at which a window's pixels lie: rows, columns [..., window_size].

    Scene and window both span [-1, 1], from the centre of the first pixel to that of the last;
    z_where maps a position u of the scene to s u + (x, y) in the window, so this is the inverse of
    `scene_points`.
    """
    window = tf.linspace(tf.constant(-1.0, z_where.dtype), 1.0, window_size)
    return tuple(
        (((window - z_where[..., k : k + 1]) / z_where[..., :1]) + 1.0) * (scene_size - 1) / 2
        for k in (2, 1)
    )


def scene_points(z_where, window_size: int, scene_size: int):
    """Window pixels at which the scene's pixels lie: rows, columns [..., scene_size]."""
    scene = tf.linspace(tf.constant(-1.0, z_where.dtype), 1.0, scene_size)
    return tuple(
        (z_where[..., :1] * scene + z_where[..., k : k + 1] + 1.0) * (window_size - 1) / 2
        for k in (2, 1)
    )


def sample_at(images, points):
    """Bilinear samples of images [..., B, B] at points (rows, columns), zero outside."""
    return crop(images, *(tf.clip_by_value(axis, -1.0, float(images.shape[-1])) for axis in points))


def draw_windows(noise, training_step, warm_up: AirWarmUp, num_steps: int):
    """How many windows each scene may have in a warm-up, [batch], by noise [batch]."""
    share = warm_up.share * tf.nn.relu(1.0 - tf.cast(training_step, noise.dtype) / warm_up.steps)
    uniform = as_uniform(noise)
    fewer = 1.0 + tf.floor((num_steps - 1) * tf.math.divide_no_nan(uniform, share))
    return tf.where(uniform < share, fewer, float(num_steps))


def _uniform(fan_in: int, seed: int):
    """The initial weights of a linear layer or LSTM in PyTorch."""
    limit = 1 / math.sqrt(fan_in)
    return keras.initializers.RandomUniform(-limit, limit, seed=seed)


def _mlp(sizes: list[int], seed: int, dtype: str, name: str) -> keras.Sequential:
    """Linear layers of the given sizes, the first being the input's, with rectifiers in between."""
    layers = [
        keras.layers.Dense(
            size,
            activation="relu" if index < len(sizes) - 2 else None,
            kernel_initializer=_uniform(fan_in, seed + 2 * index),
            bias_initializer=_uniform(fan_in, seed + 2 * index + 1),
            dtype=dtype,
            name=f"layer_{index + 1}",
        )
        for index, (fan_in, size) in enumerate(zip(sizes, sizes[1:]))
    ]
    return keras.Sequential([keras.Input([sizes[0]], dtype=dtype), *layers], name=name)


class SceneLstm(keras.layers.Layer):
    """An LSTM that at every step sees the same scene, and the latent variables of the step before.

    The scene's product with the kernel is computed once, not every step.  Gates are in the order
    input, forget, candidate, output; there are two bias vectors, and the initial state is trained,
    all as in PyTorch.
    """

    def __init__(self, pixels: int, latents: int, units: int, seed: int, dtype: str, name: str):
        super().__init__(dtype=dtype, name=name)
        shapes = {
            "scene_kernel": [pixels, 4 * units],
            "latent_kernel": [latents, 4 * units],
            "recurrent_kernel": [units, 4 * units],
            "bias": [4 * units],
            "recurrent_bias": [4 * units],
        }
        for index, (name, shape) in enumerate(shapes.items()):
            setattr(self, name, self.add_weight(shape, _uniform(units, seed + index), name=name))
        self.initial_state = self.add_weight([1, units], "zeros", name="initial_state")
        self.initial_cell = self.add_weight([1, units], "zeros", name="initial_cell")
        self.built = True

    def from_scene(self, flat):
        """The part of the gates that is the same at every step, [batch, 4 units]."""
        return tf.matmul(flat, self.scene_kernel) + self.bias + self.recurrent_bias

    def call(self, from_scene, latents, state, cell):
        """One step: the new state and cell, [batch, units]."""
        gates = from_scene + tf.matmul(latents, self.latent_kernel)
        gates += tf.matmul(state, self.recurrent_kernel)
        input_gate, forget, candidate, output = tf.split(gates, 4, axis=1)
        cell = tf.sigmoid(forget) * cell + tf.sigmoid(input_gate) * tf.tanh(candidate)
        return tf.sigmoid(output) * tf.tanh(cell), cell


class AIR(keras.Model):
    """Attend, Infer, Repeat.

    Called with images [batch, scene_size, scene_size] in [0, 1], it returns the `AirDescription` in
    which every step is given the most probable values (z_pres) and means (z_where, z_what) of the
    steps before.  The seed decides the initial weights; dtype is "float32" or "float64".
    """

    elbo_terms = AirElbo._fields

    def __init__(self, config: AirConfig, seed: int = 0, dtype: str = "float32"):
        super().__init__(dtype=dtype, name="air")
        require_full_float32()
        self.config, self.seed = config, seed
        seeds = [int(s) for s in np.random.SeedSequence(seed).generate_state(6) >> 2]
        pixels, window = config.scene_size**2, config.window_size**2
        units, hidden, what = config.lstm_units, config.hidden_units, config.what_size
        head = [config.head_units] if config.head_units else []
        lstm = pixels, 3 + what + 1, units
        self.lstm = SceneLstm(*lstm, seeds[0], dtype, "lstm")
        self.head = _mlp([units, *head, 7], seeds[1], dtype, "head")
        self.encoder = _mlp([window, hidden, 2 * what], seeds[2], dtype, "encoder")
        self.decoder = _mlp([what, hidden, window], seeds[3], dtype, "decoder")
        self.baseline_lstm = SceneLstm(*lstm, seeds[4], dtype, "baseline_lstm")
        self.baseline_head = _mlp([units, *head, 1], seeds[5], dtype, "baseline_head")
        self.initial_where = self.add_weight([1, 3], "zeros", name="initial_where")
        self.initial_what = self.add_weight([1, what], "zeros", name="initial_what")
        self.built = True

    @property
    def variables_by_part(self) -> dict[str, list[keras.Variable]]:
        """The trainable variables of the model, and of the baseline, which its own loss trains."""
        baseline = self.baseline_lstm.trainable_variables + self.baseline_head.trainable_variables
        others = {id(v) for v in baseline}
        air = [variable for variable in self.trainable_variables if id(variable) not in others]
        return {"air": air, "baseline": baseline}

    @property
    def noise_size(self) -> int:
        """Standard normal numbers that a step of a scene needs: for z_pres, z_where and z_what."""
        return 1 + 3 + self.config.what_size

    def call(self, images) -> AirDescription:
        return self._infer_means(images)[0]

    def _infer(
        self, images, noise, sample: AirLatents | None = None, windows=None
    ) -> tuple[AirDescription, AirLatents, tf.Tensor]:
        """Run the guide and the baseline; arguments as in `evaluate_elbo`."""
        config = self.config
        require_side(images, config.scene_size)
        images = tf.convert_to_tensor(images)
        flat = tf.reshape(images, [-1, config.scene_size**2])
        rows = tf.ones_like(flat[:, :1])  # [batch, 1]
        where_prior_loc, where_prior_scale = self._where_prior
        from_scene = self.lstm.from_scene(flat)
        baseline_from_scene = self.baseline_lstm.from_scene(flat)
        state, cell = rows * self.lstm.initial_state, rows * self.lstm.initial_cell
        baseline_state = rows * self.baseline_lstm.initial_state
        baseline_cell = rows * self.baseline_lstm.initial_cell
        z_pres, z_where, z_what = rows, rows * self.initial_where, rows * self.initial_what
        descriptions, samples, baselines = [], [], []
        for step in range(config.num_steps):
            previous = z_pres
            if windows is not None:
                previous = tf.where(windows[:, tf.newaxis] > step, z_pres, 0.0)
            latents = tf.concat([z_where, z_what, z_pres], axis=1)
            state, cell = self.lstm(from_scene, latents, state, cell)
            baseline_state, baseline_cell = self.baseline_lstm(
                baseline_from_scene, tf.stop_gradient(latents), baseline_state, baseline_cell
            )
            baselines.append(config.baseline_scale * self.baseline_head(baseline_state) * previous)
            logit, loc, raw_scale = tf.split(self.head(state), [1, 3, 3], axis=1)
            where_loc = loc + where_prior_loc
            where_scale = tf.nn.softplus(raw_scale) * where_prior_scale
            sizes = [1, 3, config.what_size]
            for_pres, for_where, for_what = tf.split(noise[:, step, : sum(sizes)], sizes, axis=1)
            if sample is None:
                chance = tf.sigmoid(logit) * previous
                # Without noise the likelier one.
                z_pres = tf.cast(as_uniform(for_pres) < chance, images.dtype)
                z_where = where_loc + where_scale * for_where
            else:
                z_pres, z_where = sample.z_pres[:, step, tf.newaxis], sample.z_where[:, step]
            points = window_points(z_where, config.window_size, config.scene_size)
            window = sample_at(images, points)  # [batch, window_size, window_size]
            encoded = self.encoder(tf.reshape(window, [-1, config.window_size**2]))
            what_loc, raw_scale = tf.split(encoded, 2, axis=1)
            what_scale = tf.nn.softplus(raw_scale)
            z_what = what_loc + what_scale * for_what if sample is None else sample.z_what[:, step]
            descriptions.append(
                (logit[:, 0], previous[:, 0], where_loc, where_scale, what_loc, what_scale)
            )
            samples.append((z_pres[:, 0], z_where, z_what))
        description = AirDescription(*(tf.stack(values, axis=1) for values in zip(*descriptions)))
        sample = AirLatents(*(tf.stack(values, axis=1) for values in zip(*samples)))
        return description, sample, tf.concat(baselines, axis=1)

    @property
    def _where_prior(self):
        """Mean and standard deviation of p(z_where), [3] each."""
        scale_prior, position_prior = self.config.scale_prior, self.config.position_prior
        loc, scale = zip(scale_prior, position_prior, position_prior)
        return tf.constant(loc, self.compute_dtype), tf.constant(scale, self.compute_dtype)

    def evaluate_elbo(
        self, images, noise, sample: AirLatents | None = None, windows=None
    ) -> AirEvaluation:
        """The bound with one sample of z a scene.

        Args:
          images: [batch, scene_size, scene_size] in [0, 1].
          noise: [batch, step, at least noise_size], standard normal.
          sample: use these values of z instead of drawing them.
          windows: [batch], how many windows each scene may have; None: N_max.  Nothing is drawn,
            found or weighed at the steps beyond, and a given sample must be empty there.
        """
        config = self.config
        description, sample, baseline = self._infer(images, noise, sample, windows)
        chances = tf.constant(config.prior_chances, self.compute_dtype)
        prior_logit = tf.math.log(chances) - tf.math.log1p(-chances)

        def log_bernoulli(logit):  # nothing to decide after a step without object
            return description.previous * -tf.nn.sigmoid_cross_entropy_with_logits(
                labels=sample.z_pres, logits=tf.broadcast_to(logit, tf.shape(sample.z_pres))
            )

        # An absent object's window is not in the scene, so nothing about it may count.
        def log_normal(value, loc, scale):
            return sample.z_pres * tf.reduce_sum(tfd.Normal(loc, scale).log_prob(value), axis=-1)

        zero, one = tf.zeros([], self.compute_dtype), tf.ones([], self.compute_dtype)
        log_p = AirLatents(
            log_bernoulli(prior_logit),
            log_normal(sample.z_where, *self._where_prior),
            log_normal(sample.z_what, zero, one),
        )
        log_q = AirLatents(
            log_bernoulli(description.pres_logit),
            log_normal(sample.z_where, description.where_loc, description.where_scale),
            log_normal(sample.z_what, description.what_loc, description.what_scale),
        )
        scene_mean = self.render(sample)
        log_likelihood = tfd.Normal(scene_mean, config.likelihood_scale).log_prob(images)
        elbo = AirElbo(
            tf.reduce_sum(log_likelihood, axis=[1, 2]),
            *(tf.reduce_sum(p - q, axis=1) for p, q in zip(log_p, log_q)),
        )
        return AirEvaluation(elbo, description, sample, scene_mean, log_p, log_q, baseline)

    def render(self, sample: AirLatents):
        """The scene's mean, the sum of the present objects' windows, [batch, B, B]."""
        config, size = self.config, self.config.window_size
        codes = tf.reshape(sample.z_what, [-1, config.what_size])  # [batch * step, what_size]
        windows = tf.sigmoid(self.decoder(codes) + config.decoder_bias)
        windows = tf.reshape(windows, [-1, config.num_steps, size, size])  # [batch, step, ...]
        placed = sample_at(windows, scene_points(sample.z_where, size, config.scene_size))
        return tf.reduce_sum(placed * sample.z_pres[..., tf.newaxis, tf.newaxis], axis=1)

    def reconstruct(self, images):
        """The objects found, at the means of the rest of z, [batch, B, B] in [0, 1]."""
        return tf.clip_by_value(self.render(self._infer_means(images)[1]), 0.0, 1.0)

    def _infer_means(self, images):
        """`_infer` without noise: the likelier value of every z_pres, and means."""
        shape = [tf.shape(images)[0], self.config.num_steps, self.noise_size]
        return self._infer(images, tf.zeros(shape, self.compute_dtype))

    def training_loss(self, images, noise, training_step, config: TrainingConfig | None = None):
        """The loss whose gradient trains guide, decoder and baseline, and the mean ELBO.

        z_where and z_what are reparameterised.  The gradient by q(z_pres_t) is the score
        function's, grad log q(z_pres_t) · (cost_t - baseline_t), where cost_t holds only those
        terms of the negative bound that z_pres_t can change: its own, those of later steps, and the
        likelihood.  The baseline is fitted to cost_t by squared error.

        In a warm-up the bound is that of fewer windows for some scenes, which one more number at
        the end of the noise decides.  `training_step` steps have been made so far.
        """
        windows = None
        if config and (warm_up := config.warm_up):
            windows = draw_windows(noise[:, 0, -1], training_step, warm_up, self.config.num_steps)
        evaluation = self.evaluate_elbo(images, noise, windows=windows)
        elbo, log_p, log_q = evaluation.elbo, evaluation.log_p, evaluation.log_q
        step_terms = sum(log_p) - sum(log_q)  # [batch, step]
        cost = -(elbo.likelihood[:, tf.newaxis] + tf.cumsum(step_terms, axis=1, reverse=True))
        cost = tf.stop_gradient(cost)  # [batch, step]
        signal = tf.stop_gradient(cost - evaluation.baseline)
        # The pathwise gradient of log q(z_pres) itself has mean zero and is left out.
        pathwise = elbo.total + tf.reduce_sum(log_q.z_pres - tf.stop_gradient(log_q.z_pres), axis=1)
        score = tf.reduce_sum(log_q.z_pres * signal, axis=1)
        # In units of baseline_scale, so that the learning rate does not depend on it.
        misfit = (cost - evaluation.baseline) / self.config.baseline_scale
        misfit = tf.reduce_sum(tf.square(misfit), axis=1)
        return tf.reduce_mean(score - pathwise + misfit), tf.reduce_mean(elbo.total)

    def boxes(self, description: AirDescription):
        """Every step's box (left, top, width, height) in pixels at q's mean, [batch, step, 4].

        Edges lie between pixels as in the data's boxes, half a window pixel outside of the
        outermost ones' centres.
        """
        size = self.config.window_size
        rows, columns = window_points(description.where_loc, size, self.config.scene_size)
        pitch = columns[..., 1:2] - columns[..., :1]  # of the window's pixels in the scene
        left_top = tf.concat([columns[..., :1], rows[..., :1]], axis=-1) + 0.5 - pitch / 2
        return tf.concat([left_top, size * pitch, size * pitch], axis=-1)
