"""Inference by the best of a scene's mirrored views (ours).

The inference network takes objects in an order, such as from right to left.  Where two are nearly a
tie, the first box lies between both, or the last object is left out, though the right description
is much likelier.  Mirrored, the scene is another one to the network, which mostly errs elsewhere;
and the terms of the bound tell which description is better.
"""

from __future__ import annotations

import itertools

import tensorflow as tf

from supair.inference import SceneDescription
from supair.model import Evaluation, SuPAIR


class BestView:
    """A trained SuPAIR for `Evaluator` and detection, with the q(z | x) of the best view."""

    def __init__(self, model: SuPAIR):
        self.config, self.inference, self.boxes = model.config, model.inference, model.boxes
        self.noise_size, self.elbo_terms = model.noise_size, model.elbo_terms
        self.evaluate_description = model.evaluate_description

    def views(self, images) -> SceneDescription:
        """What the network says of scenes [batch, B, B] as they are and mirrored along either or
        both axes, its boxes told of the scenes as they are; [view, batch, ...]."""
        views = []
        for up_down, left_right in itertools.product((1, -1), repeat=2):
            seen = self.inference(images[:, ::up_down, ::left_right])
            size, corner = tf.split(seen.where_loc, 2, axis=-1)
            opposite = self.config.scene_size - 1 - self.config.patch_size * size - corner
            corner = tf.where([left_right < 0, up_down < 0], opposite, corner)
            views.append(seen._replace(where_loc=tf.concat([size, corner], axis=-1)))
        return SceneDescription(*map(tf.stack, zip(*views)))

    def __call__(self, images) -> SceneDescription:
        """Of every scene's views the description with the highest ELBO, boxes at q's mean."""
        views, size = self.views(images), tf.shape(images)[0]
        nothing = tf.zeros([size, self.config.num_steps, self.noise_size], images.dtype)

        def bound(view):
            return self.evaluate_description(images, view, nothing).elbo.total

        bounds = tf.map_fn(bound, views, fn_output_signature=images.dtype)  # [view, batch]
        best = tf.stack([tf.argmax(bounds, output_type=tf.int32), tf.range(size)], axis=1)
        return SceneDescription(*(tf.gather_nd(values, best) for values in views))

    def evaluate_elbo(self, images, noise) -> Evaluation:
        return self.evaluate_description(images, self(images), noise)
