"""Measuring a model on scenes: count accuracy, boxes, and the ELBO's terms."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from supair import metrics

EVALUATION_BATCH = 250
TRAIN_SCENES = 10_000  # of the training scenes, whose ELBO stands beside that of the test scenes
EXAMPLES = 10  # first test scenes whose boxes are in the log, so that Figure 4 can be drawn from it
EVALUATION_SEED = 2**31  # noise on the test scenes, always the same; above every run's seed


def sample_noise(noise_size: int, num_steps: int, seed: int, step: int, scenes: int) -> np.ndarray:
    """Standard normal noise [scenes, num_steps, noise_size], decided by seed and training step.

    From NumPy, because TensorFlow's own depends on the device and on whether it is compiled.
    """
    generator = np.random.Generator(np.random.Philox(key=[seed, step]))
    return generator.standard_normal([scenes, num_steps, noise_size], dtype=np.float32)


def grey(images, white: int):
    """Grey levels as the models want them, float32 in [0, 1]."""
    return tf.cast(images, tf.float32) / float(white)


class Evaluator:
    """Measures a model on scenes, as rows of a run's log.

    Args:
      scenes: has `images`, `white`, `counts` (None: not known), `boxes` and a length.
      noise_size: normal numbers a step of a scene, the model's own unless training needs more.
      train_scenes: scenes trained on, to measure the ELBO of the first `TRAIN_SCENES` too.
    """

    def __init__(
        self, model, scenes, compiled: bool = True, noise_size: int | None = None, train_scenes=None
    ):
        self.model, self.scenes = model, scenes
        self._noise_size = noise_size or model.noise_size
        self._batch = min(EVALUATION_BATCH, len(scenes))
        self._images = self._batches(scenes.images[:])
        self._train_size = min(TRAIN_SCENES, len(train_scenes or ()))
        if train_scenes is not None:
            self._train_images = self._batches(train_scenes.images[: self._train_size])

        def describe(images):
            description = model(grey(images, scenes.white))
            z_pres = description.z_pres[..., tf.newaxis]
            return tf.concat([z_pres, model.boxes(description)], axis=-1)  # [batch, step, 5]

        def elbo_terms(inputs):
            images, noise = inputs
            elbo = model.evaluate_elbo(grey(images, scenes.white), noise).elbo
            return tf.stack(list(elbo))  # [term, batch]

        def batch_by_batch(function):
            def of_all(batches):
                return tf.map_fn(function, batches, fn_output_signature=tf.float32)

            return tf.function(of_all, jit_compile=compiled, autograph=False)

        self._describe_all = batch_by_batch(describe)
        self._elbo_terms_of_all = batch_by_batch(elbo_terms)

    def _batches(self, images: np.ndarray) -> tf.Tensor:
        """Scenes [n, B, B] as [batches, batch, B, B], filled up with black, left out again."""
        images = np.pad(images, [(0, -len(images) % self._batch), (0, 0), (0, 0)])
        return tf.constant(images.reshape(-1, self._batch, *images.shape[1:]))

    def _elbo_terms(self, images: tf.Tensor, number: int) -> np.ndarray:
        """Every term of the ELBO of batches, mean over the first `number` scenes, nats."""
        shape = self._noise_size, self.model.config.num_steps
        starts = range(0, len(images) * self._batch, self._batch)
        noise = [sample_noise(*shape, EVALUATION_SEED, k, self._batch) for k in starts]
        terms = self._elbo_terms_of_all((images, np.stack(noise))).numpy()  # [batches, term, batch]
        terms = np.moveaxis(terms, 1, 0).reshape(terms.shape[1], -1)[:, :number]
        return terms.mean(axis=1, dtype=float)

    def quick(self, examples: bool = False) -> dict[str, Any]:
        """Count accuracy and, if asked for, z_pres and boxes (pixels) of the first scenes."""
        return self._describe(examples)[0]

    def _describe(self, examples: bool) -> tuple[Any, ...]:
        """The row, z_pres [scenes, step], boxes [scenes, step, 4] and counts [scenes]."""
        found = self._describe_all(self._images).numpy()  # [batches, batch, step, 5]
        found = found.reshape(-1, *found.shape[2:])[: len(self.scenes)]
        z_pres, boxes = found[..., 0], found[..., 1:]
        counts = np.sum(np.round(z_pres) == 1, axis=1)
        row: dict[str, Any] = {"accuracy": None}
        if self.scenes.counts is not None:
            row["accuracy"] = metrics.count_accuracy(self.scenes.counts, counts)
        if examples:
            row["examples"] = {
                "z_pres": np.round(z_pres[:EXAMPLES].astype(float), 3).tolist(),
                "boxes": np.round(boxes[:EXAMPLES].astype(float), 2).tolist(),
            }
        return row, z_pres, boxes, counts

    def full(self) -> dict[str, Any]:
        """Besides, the ELBO, its terms, `train_elbo_mean`, confusion of counts, how boxes fit."""
        row, z_pres, boxes, counts = self._describe(examples=True)
        terms = self._elbo_terms(self._images, len(self.scenes))
        row["elbo"] = float(terms.sum())
        row["elbo_terms"] = dict(zip(self.model.elbo_terms, map(float, terms)))
        if self._train_size:
            row["train_elbo_mean"] = self._elbo_terms(self._train_images, self._train_size).sum()
        num_steps, scenes = self.model.config.num_steps, self.scenes
        if scenes.counts is None:
            return {**row, "counts_found": np.bincount(counts, minlength=num_steps + 1).tolist()}
        row["confusion"] = metrics.count_confusion(scenes.counts, counts, num_steps)
        row["collapse"] = metrics.collapse(row["confusion"])
        if scenes.boxes is not None:
            truth = scenes.boxes, scenes.counts
            iou = metrics.mean_matched_iou(*truth, boxes, np.round(z_pres) == 1)
            row["mean_iou"] = None if np.isnan(iou) else iou  # NaN is no JSON
            confidence = np.cumprod(z_pres, axis=1)  # q(N >= i)
            row["average_precision"] = metrics.average_precision(*truth, boxes, confidence)
        return row
