"""Inference by the best of a scene's mirrored views (ours).

The inference network takes objects in an order, such as from right to left.  Where two are nearly a
tie, the first box lies between both, or the last object is left out, though the right description
is likelier by hundreds of nats.  Mirrored, the scene is another one to the network, which mostly
errs elsewhere; and the bound tells which description is better.
"""

from __future__ import annotations

import itertools
from typing import Any

import tensorflow as tf

from supair.inference import SceneDescription
from supair.model import Evaluation, SuPAIR


class BestView:
    """A trained SuPAIR as `Evaluator` and detection want a model, its descriptions the best views'.

    No label is used, and what is reported stays a bound: q(z | x) is that of one of the views.
    """

    def __init__(self, model: SuPAIR):
        self._model = model

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def __call__(self, images) -> SceneDescription:
        """Of the descriptions of scenes [batch, B, B] as they are and mirrored along either or both
        axes, told of the scenes as they are, that of the highest bound at q's mean."""
        axes = itertools.product((False, True), repeat=2)
        views = SceneDescription(*map(tf.stack, zip(*(self._describe(images, *a) for a in axes))))
        shape = [tf.shape(images)[0], self.config.num_steps, self.noise_size]
        nothing = tf.zeros(shape, images.dtype)

        def bound(view):
            return self.evaluate_description(images, view, nothing).elbo.total

        bounds = tf.map_fn(bound, views, fn_output_signature=images.dtype)  # [view, batch]
        best = tf.stack([tf.argmax(bounds, output_type=tf.int32), tf.range(shape[0])], axis=1)
        return SceneDescription(*(tf.gather_nd(values, best) for values in views))

    def evaluate_elbo(self, images, noise) -> Evaluation:
        return self.evaluate_description(images, self(images), noise)

    def _describe(self, images, left_right: bool, up_down: bool) -> SceneDescription:
        mirrored = images[:, :: -1 if up_down else 1, :: -1 if left_right else 1]
        seen = self.inference(mirrored)
        size, corner = tf.split(seen.where_loc, 2, axis=-1)
        opposite = self.config.scene_size - 1 - self.config.patch_size * size - corner
        corner = tf.where([left_right, up_down], opposite, corner)
        return seen._replace(where_loc=tf.concat([size, corner], axis=-1))
