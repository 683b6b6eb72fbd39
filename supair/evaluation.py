"""Measuring a model on a test set: count accuracy, boxes, and the ELBO's terms."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from supair import metrics
from supair.air import AIR
from supair.model import SuPAIR
from supair.together import Together

EVALUATION_BATCH = 250
EXAMPLES = 10  # first test scenes whose boxes are in the log, so that Figure 4 can be drawn from it
EVALUATION_SEED = 2**31  # noise on the test set, the same at every evaluation; above every run's seed


def sample_noise(model: SuPAIR | AIR | Together, seed: int, step: int, scenes: int) -> np.ndarray:
    """Standard normal noise [scenes, num_steps, noise_size], decided by seed and training step alone.

    From NumPy, because TensorFlow's own depends on the device and on whether it is compiled.
    """
    generator = np.random.Generator(np.random.Philox(key=[seed, step]))
    return generator.standard_normal([scenes, model.config.num_steps, model.noise_size], dtype=np.float32)


def grey(images, white: int):
    """Grey levels as the models want them, float32 in [0, 1]."""
    return tf.cast(images, tf.float32) / float(white)


class Evaluator:
    """Measures a model, or several together, on the test set; every result is a list with one for each member.

    Args:
      model: what to measure.
      scenes: has `images`, `white`, `counts` (None: not known, and what needs them is None), `boxes` and a length.
      compiled: whether to compile with XLA.
    """

    def __init__(self, model: SuPAIR | AIR | Together, scenes, compiled: bool = True):
        self.model, self.scenes = model, scenes
        self._batch = min(EVALUATION_BATCH, len(scenes))
        self._starts = range(0, len(scenes), self._batch)
        missing = len(self._starts) * self._batch - len(scenes)  # so that the last batch has the same shape
        images = np.pad(scenes.images[:], [(0, missing), (0, 0), (0, 0)])
        self._images = tf.constant(images.reshape(-1, self._batch, *images.shape[1:]))  # [batches, batch, B, B]

        def batch_by_batch(function):
            def of_batch(inputs):
                images, *others = inputs
                arguments = (grey(images, scenes.white), *others)
                return model.map(function, arguments) if isinstance(model, Together) else function(model, *arguments)[tf.newaxis]

            @tf.function(jit_compile=compiled, autograph=False)
            def of_all(*inputs):
                return tf.map_fn(of_batch, inputs, fn_output_signature=tf.float32)

            return of_all

        self._describe_all, self._evaluate_all = batch_by_batch(_describe), batch_by_batch(_elbo_terms)

    def _described(self) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Of every member z_pres [scenes, step], boxes [scenes, step, 4] and counts [scenes]."""
        found = np.moveaxis(self._describe_all(self._images).numpy(), 1, 0)  # [member, batches, batch, step, 5]
        found = found.reshape(len(found), -1, *found.shape[3:])[:, : len(self.scenes)]
        return [(of[..., 0], of[..., 1:], np.sum(np.round(of[..., 0]) == 1, axis=1)) for of in found]

    def quick(self, examples: bool = False) -> list[dict[str, Any]]:
        """Count accuracies and, if asked for, z_pres and boxes (pixels) of the first test scenes, rounded."""
        return [self._quick(*described, examples) for described in self._described()]

    def _quick(self, z_pres, boxes, counts, examples: bool) -> dict[str, Any]:
        measured: dict[str, Any] = {"test_accuracy": None}
        if self.scenes.counts is not None:
            measured["test_accuracy"] = metrics.count_accuracy(self.scenes.counts, counts)
        if examples:
            measured["test_examples"] = {
                "z_pres": np.round(z_pres[:EXAMPLES].astype(float), 3).tolist(),
                "boxes": np.round(boxes[:EXAMPLES].astype(float), 2).tolist(),
            }
        return measured

    def full(self) -> list[dict[str, Any]]:
        """Besides these, the confusion of counts, the mean IoU of matched boxes, and the ELBO's terms (means, nats)."""
        noise = [sample_noise(self.model, EVALUATION_SEED, start, self._batch) for start in self._starts]
        terms = self._evaluate_all(self._images, np.stack(noise)).numpy()  # [batches, member, term, batch]
        terms = np.transpose(terms, [1, 2, 0, 3]).reshape(terms.shape[1], terms.shape[2], -1)[..., : len(self.scenes)]
        return [
            self._full(*described, of_member) for described, of_member in zip(self._described(), terms.mean(axis=-1, dtype=float))
        ]

    def _full(self, z_pres, boxes, counts, terms) -> dict[str, Any]:
        num_steps, true_counts = self.model.config.num_steps, self.scenes.counts
        measured = {
            **self._quick(z_pres, boxes, counts, examples=True),
            "test_elbo": float(terms.sum()),
            "test_elbo_terms": dict(zip(self.model.elbo_terms, map(float, terms))),
        }
        if true_counts is None:
            return {**measured, "test_counts": np.bincount(counts, minlength=num_steps + 1).tolist()}
        iou = metrics.mean_matched_iou(self.scenes.boxes, true_counts, boxes, np.round(z_pres) == 1)
        confusion = metrics.count_confusion(true_counts, counts, num_steps)
        return {
            **measured,
            "test_confusion": confusion,
            "test_collapse": metrics.collapse(confusion),
            "test_mean_iou": None if np.isnan(iou) else iou,  # NaN is no JSON
        }


def _describe(model: SuPAIR | AIR, images):
    """z_pres and boxes of every step, [batch, step, 5]."""
    description = model(images)
    return tf.concat([description.z_pres[..., tf.newaxis], model.boxes(description)], axis=-1)


def _elbo_terms(model: SuPAIR | AIR, images, noise):
    return tf.stack(list(model.evaluate_elbo(images, noise).elbo))  # [term, batch]
