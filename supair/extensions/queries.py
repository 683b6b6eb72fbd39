"""Questions to a trained model, which it can answer because a marginal of an SPN is one pass.

Scenes are [batch, B, B] in [0, 1]; a `seed` is a pair of integers.  Samples follow the SPNs' sums;
their leaves give means unless `leaf_noise` is asked for, because the variances that make the model
work are far larger than those of clean images.  Patches are bilinear crops.
"""

from __future__ import annotations

import functools
import math

import numpy as np
import tensorflow as tf

from rat_spn import RatSpn
from supair.config import ConfigError
from supair.geometry import SceneParts, extract_patches
from supair.inference import SceneDescription
from supair.model import SuPAIR

# What of a patch pixel makes it evidence; and tries to place boxes that do not overlap.
_VISIBLE, _TRIES = 0.5, 1000


def complete_objects(model: SuPAIR, images, seed=None, leaf_noise: bool = False):
    """The patch of every step's box with its hidden pixels filled in, [step, batch, A, A]: the most
    probable explanation or, given a seed, a sample of p(hidden | visible)."""
    parts = extract_patches(images, model(images).where_loc, model.config.patch_size)
    return _fill(model, parts, seed, leaf_noise)


def _fill(model: SuPAIR, parts: SceneParts, seed, leaf_noise: bool):
    evidence = parts._replace(visible=tf.cast(parts.visible > _VISIBLE, parts.visible.dtype))
    explain = functools.partial(_explain, leaf_noise=leaf_noise)
    filled = model.explain_objects(evidence, explain, seed)  # [step, batch, A²]
    filled = tf.reshape(filled, tf.shape(parts.patches))
    return tf.where(evidence.visible > 0, parts.patches, filled)


def _explain(spn: RatSpn, x, observed, seed, leaf_noise: bool):
    if seed is None:
        return spn.reconstruct(x, observed)
    return spn.sample_conditional(x, tf.round(observed), seed, leaf_noise)


def sample_scenes(model: SuPAIR, number: int, seed, leaf_noise: bool = False):
    """Scenes from the generative model, [number, B, B], and their description.

    p(N) is truncated at N_max, p(z_where) uniform over boxes of the configured sizes in the scene;
    they are drawn until the overlap prior accepts them, or ConfigError says that there is no room.
    """
    config = model.config
    rng = np.random.default_rng(seed)
    weights = np.exp(model.log_p_count.numpy().astype(float))
    counts = rng.choice(len(weights), size=number, p=weights / weights.sum())
    present = np.arange(config.num_steps) < counts[:, None]
    where, pending = np.zeros([number, config.num_steps, 4], np.float32), np.arange(number)
    for _ in range(_TRIES):
        if not len(pending):
            break
        shape = [len(pending), config.num_steps]
        width = rng.uniform(config.scale_min, config.scale_max, shape)
        height = width * rng.uniform(config.aspect_min, config.aspect_max, shape)
        room = (config.scene_size - 1 - config.patch_size * side for side in (width, height))
        corners = [rng.uniform(0, np.maximum(0, length)) for length in room]
        where[pending] = np.stack([width, height, *corners], axis=-1)
        blank = tf.zeros([len(pending), config.scene_size, config.scene_size])
        overlap = extract_patches(blank, tf.constant(where[pending]), config.patch_size).overlap
        overlap = np.sum(overlap.numpy().T * present[pending], axis=1)
        accepted = rng.uniform(size=len(pending)) <= np.exp(-config.overlap_rate * overlap)
        pending = pending[~accepted]
    else:
        scene = f"a scene of {config.scene_size} pixels"
        raise ConfigError(f"no room for up to {config.num_steps} boxes of these sizes in {scene}")
    z_pres = tf.constant(present, tf.float32)
    description = SceneDescription(z_pres, tf.constant(where), tf.zeros_like(where))
    seeds = tf.unstack(tf.random.split(seed, 2))
    nothing = tf.zeros([config.num_steps, number, config.patch_size, config.patch_size])
    patches = _fill(model, SceneParts(nothing, nothing, nothing, nothing), seeds[0], leaf_noise)
    empty = tf.zeros([number, config.scene_size, config.scene_size])
    explain = functools.partial(_explain, seed=seeds[1], leaf_noise=leaf_noise)
    return model.compose(description, patches, empty, explain, known=empty), description


def importance_bound(model: SuPAIR, images, samples: int, seed: int = 0):
    """A tighter bound than the ELBO, [batch] in nats (Burda et al., 2016).

    log of the mean over samples of z_where ~ q of p(x, z_where) / q(z_where), N summed out.  It
    bounds what the ELBO does: log p(x), with p(N) not normalised, without p(z_where), and a density
    of pixels for an `ExactSuPAIR` alone (equation 7 has a scale).
    """
    log_ratios = []
    for index in range(samples):
        shape = [len(images), model.config.num_steps, model.noise_size]
        noise = np.random.default_rng([seed, index]).standard_normal(shape, np.float32)
        found = model.evaluate_elbo(images, noise)
        of_objects = tf.cumsum(found.log_p_objects + found.log_p_overlap, axis=1)
        of_objects = tf.pad(of_objects, [[0, 0], [1, 0]])  # [batch, step + 1], of the first n
        log_joint = model.log_p_count + of_objects + found.log_p_background
        log_joint = tf.reduce_logsumexp(log_joint, axis=1)
        log_ratios.append(log_joint - tf.reduce_sum(found.log_q_where, axis=1))
    return tf.reduce_logsumexp(tf.stack(log_ratios), axis=0) - math.log(samples)
