"""SuPAIR: the joint density p(x, z) and its evidence lower bound (paper, section 3)."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf

from rat_spn import RatSpn, RegionGraph, poon_domingos_region_graph, random_region_graph
from supair.config import ConfigError, ModelConfig, SpnConfig, TrainingConfig, model_from_settings
from supair.geometry import SceneParts, crop, extract_patches, patch_points
from supair.inference import InferenceNetwork, SceneDescription
from supair.scenes import read_levels


class Elbo(NamedTuple):
    """The evidence lower bound (equation 9) of scenes, one value [batch] in nats for each term."""

    objects: tf.Tensor  # sum_i q(N >= i) log p_obj(x_i) s_x s_y, where s_x s_y = W_i H_i / A²
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
    log_p_objects: tf.Tensor  # [batch, step], scaled as in equation 7
    log_p_background: tf.Tensor  # [batch, step + 1]
    log_p_overlap: tf.Tensor  # [batch, step], log Gamma(overlap; 1, rate)


def build_spn(
    config: SpnConfig,
    side: int,
    seeds: Sequence[int],
    name: str,
    dtype: str = "float32",
    graph: RegionGraph | None = None,
) -> RatSpn:
    """An SPN over images of `side` x `side` pixels, in the structure of a configuration or graph.

    The seeds decide structure and initial weights.  ConfigError if the structure does not fit.
    """
    try:
        if graph is None and config.structure == "random":
            graph = random_region_graph(side**2, config.depth, config.repetitions, seeds[0])
        elif graph is None:
            graph = poon_domingos_region_graph(side, side, config.step, config.depth)
        bounds = config.variance_min, config.variance_max
        sizes = config.num_components, config.num_sums
        return RatSpn(graph, *sizes, *bounds, seed=seeds[1], dtype=dtype, name=name)
    except ValueError as error:
        raise ConfigError(f"the {name}'s structure does not fit: {error}") from error


def mix_with_dropout(z_pres, keep_prob: float, weight):
    """What takes the place of z_pres in a warm-up (`WarmUp`), [batch, step].

    Dropout has this weight beside z_pres, and keeps a step with this chance, but for the first,
    which it always keeps, and the last, which it never does unless that is the only one.
    """
    index = tf.range(z_pres.shape[1])
    keep_prob *= tf.cast(index < max(z_pres.shape[1] - 1, 1), z_pres.dtype)
    dropped = (1.0 - keep_prob) * z_pres * tf.cast(index > 0, z_pres.dtype)
    return z_pres + weight * (keep_prob * (1.0 - z_pres) - dropped)


@keras.saving.register_keras_serializable("supair")
class SuPAIR(keras.Model):
    """Sum-Product Attend-Infer-Repeat.

    Called with images [batch, scene_size, scene_size] (see `read_levels`), it returns the
    `SceneDescription`, as does `predict`.  Once compiled, `fit(images)` or `fit(images, noise)`
    trains by the paper's objective.  Scenes out of a data set must be in [0, 1].

    Args:
      seed: decides structures and initial weights.
      object_graph, background_graph: structures to use instead of the configuration's.

    Raises:
      ConfigError: if the configuration's structures do not fit its sizes.
    """

    noise_size = 4  # standard normal numbers that a step of a scene needs
    elbo_terms = Elbo._fields

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
        self._graphs = {"object_graph": object_graph, "background_graph": background_graph}
        seeds = [int(s) for s in np.random.SeedSequence(seed).generate_state(5) >> 2]
        self.inference = InferenceNetwork(config, seeds[0], dtype=dtype, name="inference")
        details = seeds[1:3], "object_spn", dtype, object_graph
        self.object_spn = build_spn(config.object, config.patch_size, *details)
        self.background_spn = None
        if config.background is not None:
            details = seeds[3:], "background_spn", dtype, background_graph
            self.background_spn = build_spn(config.background, config.scene_size, *details)
        self.built = True

    def get_config(self):
        config = {"config": dataclasses.asdict(self.config), "seed": self.seed}
        graphs = {name: graph.get_config() for name, graph in self._graphs.items() if graph}
        return {**config, "dtype": self.compute_dtype, **graphs}

    @classmethod
    def from_config(cls, config):
        graphs = {k: RegionGraph(**v) for k, v in config.items() if k.endswith("_graph")}
        return cls(**{**config, "config": model_from_settings(config["config"]), **graphs})

    @property
    def variables_by_part(self) -> dict[str, list[keras.Variable]]:
        """The trainable variables of inference network, object model and background model."""
        parts = {"inference": self.inference, "object": self.object_spn}
        if self.background_spn is not None:
            parts["background"] = self.background_spn
        return {name: part.trainable_variables for name, part in parts.items()}

    @property
    def log_p_count(self):
        """log p(N = n) for n = 0 .. N_max, not normalised (code), [step + 1]."""
        counts = tf.range(self.config.num_steps + 1, dtype=self.compute_dtype)
        return self.config.count_log_weight - self.config.count_penalty * counts

    def _as_scenes(self, images):
        """Arrays as scenes; what has no values yet (data sets, tensors in a graph) as it is."""
        if not hasattr(images, "shape") or tf.is_symbolic_tensor(images):
            return images
        levels, white = read_levels(images)
        return tf.cast(tf.reshape(images, levels.shape), self.compute_dtype) / white

    def call(self, images) -> SceneDescription:
        return self.inference(self._as_scenes(images))

    def fit(self, x=None, *arguments, **options):
        return super().fit(self._as_scenes(x), *arguments, **options)

    def predict(self, x, *arguments, **options):
        return super().predict(self._as_scenes(x), *arguments, **options)

    def compute_loss(self, x, y=None, *_, **options):
        """`training_loss` of images x and noise y, by default as seed and step decide."""
        step = tf.cast(self.optimizer.iterations, tf.int32)
        if y is None:
            shape = [tf.shape(x)[0], self.config.num_steps, self.noise_size]
            y = tf.random.stateless_normal(shape, [self.seed, step], dtype=x.dtype)
        return self.training_loss(x, y, step)[0]

    def training_loss(self, images, noise, training_step, config: TrainingConfig | None = None):
        """The loss whose gradient is the training step, the negative mean ELBO, and the mean ELBO.

        In a warm-up the bound is that of a description with other z_pres.  The loss, but not the
        bound, has added to it the warm-up's penalty for the last step, unless that is the only one,
        and afterwards the price of objects.  `images` and `noise` are as in `evaluate_elbo`;
        `training_step` steps have been made.
        """
        steps, config = self.config.num_steps, config or TrainingConfig()
        description, penalty, weight = self.inference(images), 0.0, 0.0
        if (warm_up := config.warm_up) is not None:
            weight = tf.nn.relu(1.0 - tf.cast(training_step, images.dtype) / warm_up.steps)
            if steps > 1:
                # Dropout keeps a last step beyond the third less often, so it costs less.
                penalty = weight * warm_up.last_step_penalty
                penalty *= warm_up.keep_prob ** max(steps - 3, 0)
                penalty *= tf.reduce_mean(description.z_pres[:, -1])
            z_pres = mix_with_dropout(description.z_pres, warm_up.keep_prob, weight)
            description = description._replace(z_pres=z_pres)
        terms = self.evaluate_description(images, description, noise).elbo
        elbo = tf.reduce_mean(terms.total)
        if config.object_price:
            of_a_pixel = tf.nn.relu(tf.reduce_mean(terms.background)) / self.config.scene_size**2
            middle = self.config.patch_size * (self.config.scale_min + self.config.scale_max) / 2
            price = config.object_price * middle**2 * tf.stop_gradient(of_a_pixel)
            expected_count = tf.reduce_mean(tf.reduce_sum(description.at_least, axis=1))
            penalty += (1.0 - weight) * price * expected_count
        return penalty - elbo, elbo

    def boxes(self, description: SceneDescription):
        """Every step's box (left, top, width, height) in pixels at q's mean, [batch, step, 4].

        Edges lie between pixels as in the data's boxes, half a patch pixel outside of the outermost
        ones' centres.
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
        return self.evaluate_description(images, self.inference(images), noise)

    def evaluate_description(self, images, description: SceneDescription, noise) -> Evaluation:
        """The same of another q(z | x) than the inference network's."""
        config = self.config
        z_where = description.where_loc + description.where_scale * noise[..., :4]
        with tf.name_scope("crops"):  # the names are those of a profile's rows
            parts = self.extract_patches(images, z_where, noise[..., 4:])
        with tf.name_scope("object_spn"):
            log_p_objects = self.log_p_objects(parts) * self.object_scale(z_where)
        with tf.name_scope("background_spn"):
            log_p_background = self.log_p_background(images, parts)
        log_q_where = description.q_where.log_prob(z_where)

        q_count, at_least = description.q_count, description.at_least
        overlap = tf.transpose(parts.overlap)  # [batch, step]
        log_p_overlap = math.log(config.overlap_rate) - config.overlap_rate * overlap
        count_entropy = -tf.reduce_sum(q_count * tf.math.log(q_count + 1e-37), axis=1)
        elbo = Elbo(
            objects=tf.reduce_sum(at_least * log_p_objects, axis=1),
            background=tf.reduce_sum(q_count * log_p_background, axis=1),
            count_prior=tf.reduce_sum(q_count * self.log_p_count, axis=1),
            overlap=tf.reduce_sum(at_least * log_p_overlap, axis=1),
            entropy=count_entropy - tf.reduce_sum(log_q_where, axis=1),
        )
        log_densities = log_q_where, log_p_objects, log_p_background, log_p_overlap
        return Evaluation(elbo, description, z_where, parts, *log_densities)

    def extract_patches(self, images, z_where, noise) -> SceneParts:
        """Take the scenes apart; `noise` [batch, step, noise_size - 4] is for subclasses."""
        return extract_patches(images, z_where, self.config.patch_size)

    def object_scale(self, z_where):
        """What multiplies the objects' log densities, W_i H_i / A² (equation 7), [batch, step]."""
        return z_where[..., 0] * z_where[..., 1]

    def log_p_objects(self, parts: SceneParts):
        """log SPN_obj(patch | visible), [batch, step]."""
        log_p = self.object_spn.log_prob(*parts.vectors)  # [step * batch]
        return tf.transpose(tf.reshape(log_p, [self.config.num_steps, -1]))

    def log_p_background(self, images, parts: SceneParts):
        """log p(background | n) for n = 0 .. N_max, [batch, step + 1]."""
        maps = parts.background_maps
        if self.background_spn is None:
            scale = self.config.fixed_background_scale
            log_norm = math.log(scale * math.sqrt(2 * math.pi))
            log_density = -0.5 * tf.square(images / scale) - log_norm
            return tf.einsum("nbrc,brc->bn", maps, log_density)
        pixels = self.config.scene_size**2
        repeated = tf.broadcast_to(images, tf.shape(maps))  # every n sees the same scene
        flat = [tf.reshape(values, [-1, pixels]) for values in (repeated, maps)]
        log_p = self.background_spn.log_prob(*flat)  # [(step + 1) * batch]
        return tf.transpose(tf.reshape(log_p, [self.config.num_steps + 1, -1]))

    def explain_objects(self, parts: SceneParts, explain: Callable[..., tf.Tensor], seed=None):
        """What the object model says about every patch, given what is visible, [step, batch, ...].

        `explain` is a function of a RatSpn, patches [n, A²], their visibility and the seed, a pair
        of integers or None, that gives [n, ...].
        """
        explained = explain(self.object_spn, *parts.vectors, seed)  # [step * batch, ...]
        return tf.reshape(explained, [self.config.num_steps, -1, *explained.shape[1:]])

    def reconstruct_objects(self, parts: SceneParts):
        """The likeliest explanation of every patch given what is visible, [step, batch, A, A]."""
        patches = self.explain_objects(parts, RatSpn.reconstruct)  # [step, batch, A²]
        return tf.reshape(patches, tf.shape(parts.patches))

    def reconstruct(self, images, leaf_seed=(0, 0)):
        """The scenes as the model explains them (paper, Figure 6), [batch, B, B] in [0, 1].

        The background's most probable explanation, sampled at its leaves (code), behind those of
        the objects found, the first in front.  What is hidden is filled in.  Patches are put back
        exactly where they were cropped, not rounded to whole pixels as in the code.
        """
        description = self.inference(images)
        parts = extract_patches(images, description.where_loc, self.config.patch_size)
        explain = functools.partial(RatSpn.reconstruct, leaf_seed=leaf_seed)
        return self.compose(description, self.reconstruct_objects(parts), images, explain)

    def compose(
        self, description: SceneDescription, patches, images, explain=RatSpn.reconstruct, known=1.0
    ):
        """Put objects into a scene, the first in front, and a background behind, [batch, B, B].

        Args:
          description: says where and which objects there are.
          patches: [step, batch, A, A].
          images: [batch, B, B]; the background explains what the objects leave of these.
          explain: of a RatSpn, scenes [batch, B²], and what is observed of them; gives scenes.
          known: [batch, B, B] in [0, 1], what to trust of the images.
        """
        sides = self.config.patch_size, self.config.scene_size
        present = tf.round(description.z_pres)[..., tf.newaxis, tf.newaxis]
        placed, free = [], []  # [batch, B, B] of each step: the patch, and what it leaves
        for step, patch in enumerate(tf.unstack(patches)):
            where = description.where_loc[:, step, :, tf.newaxis]
            width, height, left, top = tf.unstack(where, axis=1)  # [batch, 1] each
            rows, columns = patch_points(top, height, *sides), patch_points(left, width, *sides)
            placed.append(present[:, step] * crop(patch, rows, columns))
            free.append(1.0 - present[:, step] * crop(tf.ones_like(patch), rows, columns))
        canvas = tf.zeros_like(images)
        if self.background_spn is not None:
            evidence = images, math.prod(free) * known
            flat = [tf.reshape(values, [-1, sides[1] ** 2]) for values in evidence]
            canvas = tf.reshape(explain(self.background_spn, *flat), tf.shape(images))
        for patch, around in zip(reversed(placed), reversed(free)):
            canvas = canvas * around + patch
        return tf.clip_by_value(canvas, 0.0, 1.0)
