"""SuPAIR: the joint density p(x, z) and its evidence lower bound (paper, section 3)."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf

from rat_spn import RatSpn, RegionGraph, poon_domingos_region_graph, random_region_graph
from supair.config import ConfigError, ModelConfig, SpnConfig
from supair.geometry import SceneParts, crop, take_apart, take_apart_exactly
from supair.inference import InferenceNetwork, SceneDescription, as_uniform


class Elbo(NamedTuple):
    """The evidence lower bound of a batch of scenes, one value [batch] in nats for each term (equation 9)."""

    objects: tf.Tensor  # sum_i q(N >= i) log p_obj(x_i) s_x s_y
    background: tf.Tensor  # sum_n q(n) log p_bg(x_bg | n)
    count_prior: tf.Tensor  # sum_n q(n) log p(n)
    overlap: tf.Tensor  # sum_i q(N >= i) log Gamma(overlap_i; 1, rate)
    entropy: tf.Tensor  # -sum_n q(n) log q(n) - sum_i log q(z_where_i)

    @property
    def total(self):
        """The bound itself, [batch]."""
        return sum(self)


class Evaluation(NamedTuple):
    """Everything computed on the way to the bound."""

    elbo: Elbo
    description: SceneDescription
    z_where: tf.Tensor  # [batch, step, 4], the sample
    parts: SceneParts
    log_q_where: tf.Tensor  # [batch, step]
    log_p_objects: tf.Tensor  # [batch, step], scaled by the area of the box unless downsampling is exact (equations 7, 6)
    log_p_background: tf.Tensor  # [batch, step + 1]
    log_p_overlap: tf.Tensor  # [batch, step], log Gamma(overlap; 1, rate)


def _region_graph(config: SpnConfig, side: int, seed: int) -> RegionGraph:
    if config.structure == "random":
        return random_region_graph(side**2, config.depth, config.repetitions, seed)
    return poon_domingos_region_graph(side, side, config.step, config.depth)


def _spn(config: SpnConfig, graph: RegionGraph, seed: int, dtype: str, name: str) -> RatSpn:
    return RatSpn(
        graph,
        config.num_components,
        config.num_sums,
        config.variance_min,
        config.variance_max,
        seed=seed,
        dtype=dtype,
        name=name,
    )


def toss_coins(z_pres, doubt: float, coin):
    """The chance that each step is there, [batch, step], where coins have a say (`WarmUp`): z_pres and they are mixed, not sampled.

    Args:
      z_pres: [batch, step].
      doubt: the chance that a coin says yes.  The last step's, unless it is the only one, says no.
      coin: the chance that one decides.
    """
    index = tf.range(z_pres.shape[1])
    doubt *= tf.cast(index < max(z_pres.shape[1] - 1, 1), z_pres.dtype)
    left_out = (1.0 - doubt) * z_pres * tf.cast(index > 0, z_pres.dtype)  # never the first
    return z_pres + coin * (doubt * (1.0 - z_pres) - left_out)


_REMEDY = "not every run recovers; the recipe robust (warm_up=WarmUp()) keeps most runs from it, or try another seed"


class SuPAIR(keras.Model):
    """Sum-Product Attend-Infer-Repeat.

    Args:
      config: the configuration.
      seed: decides structures and initial weights.
      object_graph, background_graph: region graphs to use instead of those that the configuration describes; the first for
        a shared object SPN.
      dtype: "float32" or "float64".

    Call arguments:
      images: [batch, scene_size, scene_size] in [0, 1].  Returns the `SceneDescription`.

    Raises:
      ConfigError: if the configuration's structures do not fit its sizes.
    """

    baseline_variables = ()
    elbo_terms = Elbo._fields
    collapse_hints = {
        "all empty": f"the first step's z_pres fell to 0 before its box meant anything; {_REMEDY}",
        "always N_max": "the background model explains too little, or nothing (background=None)",
        "all one count": f"a step's z_pres fell to 0 before its box meant anything; {_REMEDY}",
        "too many": f"steps share objects, or explain the background; {_REMEDY}",
    }

    def __init__(
        self,
        config: ModelConfig,
        seed: int = 0,
        object_graph: RegionGraph | None = None,
        background_graph: RegionGraph | None = None,
        dtype: str = "float32",
    ):
        super().__init__(dtype=dtype, name="supair")
        self.config, self.seed = config, seed
        # Standard normal numbers that a step of a scene needs: for z_where, and for the shifts of exact downsampling.
        self.noise_size = 6 if config.downsampling == "exact" else 4
        seeds = [int(s) for s in np.random.SeedSequence(seed).generate_state(5) >> 2]
        self.inference = InferenceNetwork(config, seeds[0], dtype=dtype, name="inference")
        try:
            object_graph = object_graph or _region_graph(config.object, config.patch_size, seeds[1])
            self.object_spns = [_spn(config.object, object_graph, seeds[2], dtype, "object_spn")]
            more = {"shared": 1, "per_step": config.num_steps, "mixture": config.object_classes}[config.object_models] - 1
            for index, state in enumerate(np.random.SeedSequence([seed, 1]).generate_state(2 * more).reshape(-1, 2) >> 2):
                graph = _region_graph(config.object, config.patch_size, int(state[0]))
                self.object_spns.append(_spn(config.object, graph, int(state[1]), dtype, f"object_spn_{index + 2}"))
            self.background_spn = None
            if config.background is not None:
                background_graph = background_graph or _region_graph(config.background, config.scene_size, seeds[3])
                self.background_spn = _spn(config.background, background_graph, seeds[4], dtype, "background_spn")
        except ValueError as error:
            raise ConfigError(f"the SPN's structure does not fit: {error}") from error
        if config.object_models == "mixture":
            self.class_logits = self.add_weight(shape=[config.object_classes], initializer="zeros", name="class_logits")
        self.built = True

    @property
    def object_spn(self) -> RatSpn:
        """The object model, if all objects share it."""
        (spn,) = self.object_spns
        return spn

    @property
    def log_p_count(self):
        """log p(N = n) for n = 0 .. N_max, not normalised (code), [step + 1]."""
        counts = tf.range(self.config.num_steps + 1, dtype=self.compute_dtype)
        return self.config.count_log_weight - self.config.count_penalty * counts

    def call(self, images) -> SceneDescription:
        return self.inference(images)

    def training_loss(self, images, noise, step):
        """The loss whose gradient is the training step, the negative mean ELBO, and the mean ELBO; both scalars.

        In the warm-up, if there is one (`ModelConfig.warm_up`), the bound is that of a description with other z_pres, and
        the loss, but not the bound, has the price of the last step added to it, unless that is the only one.

        Args:
          images, noise: as in `evaluate_elbo`.
          step: training steps made so far.
        """
        warm_up, steps = self.config.warm_up, self.config.num_steps
        description, price = self.inference(images), 0.0
        if warm_up is not None:
            coin = tf.nn.relu(1.0 - tf.cast(step, images.dtype) / warm_up.steps)
            if steps > 1:  # coins reach a last step beyond the third less often, so it costs less
                price = coin * warm_up.price * warm_up.doubt ** max(steps - 3, 0) * tf.reduce_mean(description.z_pres[:, -1])
            description = description._replace(z_pres=toss_coins(description.z_pres, warm_up.doubt, coin))
        elbo = tf.reduce_mean(self._evaluate(images, description, noise).elbo.total)
        return price - elbo, elbo

    def boxes(self, description: SceneDescription):
        """Every step's box [batch, step, 4] (left, top, width, height in pixels), at the mean of q(z_where).

        Edges lie between pixels as in the data's boxes, half a patch pixel outside of the outermost ones' centres.
        """
        size, where = self.config.patch_size, description.where_loc
        pitch = where[..., :2] * (size / (size - 1))  # of the patch's pixels in the scene
        return tf.concat([where[..., 2:] + 0.5 - pitch / 2, size * pitch], axis=-1)

    def evaluate_elbo(self, images, noise) -> Evaluation:
        """The bound with one reparameterised sample of z_where a scene.

        Args:
          images: [batch, scene_size, scene_size] in [0, 1].
          noise: [batch, step, noise_size], standard normal; zeros put the boxes at q's mean.
        """
        return self._evaluate(images, self.inference(images), noise)

    def _evaluate(self, images, description: SceneDescription, noise) -> Evaluation:
        config = self.config
        z_where = description.where_loc + description.where_scale * noise[..., :4]
        parts = self.take_apart(images, z_where, noise[..., 4:])
        log_p_objects = self.log_p_objects(parts)
        if config.downsampling == "area":
            log_p_objects *= z_where[..., 0] * z_where[..., 1]  # equation 7
        log_p_background = self.log_p_background(images, parts)
        log_q_where = description.q_where.log_prob(z_where)

        q_count, at_least = description.q_count, description.at_least
        log_p_overlap = math.log(config.overlap_rate) - config.overlap_rate * tf.transpose(parts.overlap)
        count_entropy = -tf.reduce_sum(q_count * tf.math.log(q_count + 1e-37), axis=1)
        elbo = Elbo(
            objects=tf.reduce_sum(at_least * log_p_objects, axis=1),
            background=tf.reduce_sum(q_count * log_p_background, axis=1),
            count_prior=tf.reduce_sum(q_count * self.log_p_count, axis=1),
            overlap=tf.reduce_sum(at_least * log_p_overlap, axis=1),
            entropy=count_entropy - tf.reduce_sum(log_q_where, axis=1),
        )
        return Evaluation(elbo, description, z_where, parts, log_q_where, log_p_objects, log_p_background, log_p_overlap)

    def take_apart(self, images, z_where, noise) -> SceneParts:
        """Crop all boxes, or share out the scene's pixels; `noise` [batch, step, 2] is for the latter alone."""
        if self.config.downsampling == "area":
            return take_apart(images, z_where, self.config.patch_size)
        return take_apart_exactly(images, z_where, self.config.patch_size, as_uniform(noise))

    def log_p_objects(self, parts: SceneParts):
        """log SPN_obj(patch | visible), [batch, step]."""
        if self.config.object_models == "per_step":
            patches, visible = (tf.unstack(_flat(values)) for values in (parts.patches, parts.visible))
            return tf.stack([spn.log_prob(*step) for spn, *step in zip(self.object_spns, patches, visible)], axis=1)
        return tf.transpose(tf.reduce_logsumexp(self._log_p_classes(parts), axis=0))

    def _log_p_classes(self, parts: SceneParts):
        """log p(class, patch | visible), [class, step, batch]; one class unless the object model is a mixture."""
        flat = [_flat(values, keep=0) for values in (parts.patches, parts.visible)]
        log_p = tf.reshape(
            tf.stack([spn.log_prob(*flat) for spn in self.object_spns]), [len(self.object_spns), self.config.num_steps, -1]
        )
        if self.config.object_models == "mixture":
            log_p += tf.nn.log_softmax(self.class_logits)[:, tf.newaxis, tf.newaxis]
        return log_p

    def log_p_background(self, images, parts: SceneParts):
        """log p(background | n) for n = 0 .. N_max, [batch, step + 1]."""
        maps = parts.background_maps
        if self.background_spn is None:
            scale = self.config.fixed_background_scale
            log_density = -0.5 * tf.square(images / scale) - math.log(scale * math.sqrt(2 * math.pi))
            return tf.einsum("nbrc,brc->bn", maps, log_density)
        pixels = self.config.scene_size**2
        repeated = tf.broadcast_to(images, tf.shape(maps))  # every n sees the same scene
        log_p = self.background_spn.log_prob(tf.reshape(repeated, [-1, pixels]), tf.reshape(maps, [-1, pixels]))
        return tf.transpose(tf.reshape(log_p, [self.config.num_steps + 1, -1]))

    def explain_objects(self, parts: SceneParts, explain: Callable[..., tf.Tensor], class_seed=None, seed=None):
        """What the object model has to say about every patch, given what is visible of it.

        Args:
          parts: the scenes, taken apart.
          explain: of a RatSpn, patches [n, A²], their visibility, and a seed; gives [n, ...].
          class_seed: a pair of integers to sample a mixture's class with; None takes the likeliest.
          seed: a pair of integers for `explain`, which gets another one with each SPN; None gives it None.

        Returns:
          [step, batch, ...].
        """
        seeds = [None if seed is None else tf.random.fold_in(seed, index) for index in range(len(self.object_spns))]
        if self.config.object_models == "per_step":
            patches, visible = (tf.unstack(_flat(values)) for values in (parts.patches, parts.visible))
            return tf.stack([explain(spn, *step) for spn, *step in zip(self.object_spns, patches, visible, seeds)])
        flat = [_flat(values, keep=0) for values in (parts.patches, parts.visible)]
        by_class = tf.stack([explain(spn, *flat, own) for spn, own in zip(self.object_spns, seeds)])  # [class, step * batch, ...]
        scores = tf.transpose(tf.reshape(self._log_p_classes(parts), [len(self.object_spns), -1]))
        chosen = tf.argmax(scores, axis=1)
        if class_seed is not None:
            chosen = tf.random.stateless_categorical(scores, 1, class_seed)[:, 0]
        of_chosen = tf.gather(tf.einsum("cn...->nc...", by_class), chosen, axis=1, batch_dims=1)
        return tf.reshape(of_chosen, [self.config.num_steps, -1, *of_chosen.shape[1:]])

    def reconstruct_objects(self, parts: SceneParts):
        """The most probable explanation of every patch given what is visible of it, [step, batch, A, A]."""
        return tf.reshape(self.explain_objects(parts, RatSpn.reconstruct), tf.shape(parts.patches))

    def reconstruct(self, images, leaf_seed=(0, 0)):
        """The scenes as the model explains them (paper, Figure 6), [batch, B, B] in [0, 1].

        The background's most probable explanation, sampled at its leaves (code), behind those of the objects found, the
        first in front.  What is hidden is filled in.  Patches are put back exactly where they were cropped, not rounded to
        whole pixels as in the code.
        """
        description = self.inference(images)
        parts = take_apart(images, description.where_loc, self.config.patch_size)
        explain = functools.partial(RatSpn.reconstruct, leaf_seed=leaf_seed)
        return self.compose(description, self.reconstruct_objects(parts), images, explain)

    def compose(self, description: SceneDescription, patches, images, explain=RatSpn.reconstruct, known=1.0):
        """Put objects into a scene, the first in front, and a background that explains what they leave of another one.

        Args:
          description: says where and which objects there are.
          patches: [step, batch, A, A].
          images: [batch, B, B], which the background is to explain.
          explain: of a RatSpn, scenes [batch, B²], and what is observed of them; gives scenes.
          known: [batch, B, B] in [0, 1], what to trust of the images.

        Returns:
          [batch, B, B] in [0, 1].
        """
        config = self.config
        present = tf.round(description.z_pres)[..., tf.newaxis, tf.newaxis]
        placed, free = [], []  # of every step: the patch in the scene, and what it leaves of the scene, [batch, B, B]
        for step, patch in enumerate(tf.unstack(patches)):
            width, height, left, top = tf.unstack(description.where_loc[:, step, :, tf.newaxis], axis=1)
            rows, columns = patch_points(top, height, config), patch_points(left, width, config)
            placed.append(present[:, step] * crop(patch, rows, columns))
            free.append(1.0 - present[:, step] * crop(tf.ones_like(patch), rows, columns))
        canvas = tf.zeros_like(images)
        if self.background_spn is not None:
            flat = [tf.reshape(values, [-1, config.scene_size**2]) for values in (images, math.prod(free) * known)]
            canvas = tf.reshape(explain(self.background_spn, *flat), tf.shape(images))
        for patch, around in zip(reversed(placed), reversed(free)):
            canvas = canvas * around + patch
        return tf.clip_by_value(canvas, 0.0, 1.0)


def _flat(values, keep: int = 1):
    """Images [step, batch, A, A] as vectors: [step, batch, A²], or [step * batch, A²] if no axis is kept."""
    return tf.reshape(values, [*values.shape[:keep], -1, values.shape[2] * values.shape[3]])


def patch_points(start, scale, config: ModelConfig):
    """Where in a patch the scene's pixels lie along one axis, [batch, B]: the inverse of the crop's points."""
    pixels = tf.range(config.scene_size, dtype=start.dtype)
    points = (pixels - start) / scale * ((config.patch_size - 1) / config.patch_size)
    return tf.clip_by_value(points, -1.0, float(config.patch_size))
