"""SuPAIR with several object SPNs, as section 3.1 suggests: one for each step, or a mixture."""

from __future__ import annotations

import keras
import numpy as np
import tensorflow as tf

from supair.config import ModelConfig
from supair.geometry import SceneParts
from supair.model import SuPAIR, build_spn


class _SeveralSpns(SuPAIR):
    """SuPAIR with a list `object_spns`, of which `object_spn` is the first."""

    def __init__(self, config: ModelConfig, seed: int, number: int, dtype: str):
        super().__init__(config, seed, dtype=dtype)
        states = np.random.SeedSequence([seed, 1]).generate_state(2 * (number - 1)) >> 2
        self.object_spns = [self.object_spn]
        for index, seeds in enumerate(states.reshape(-1, 2).tolist()):
            name = f"object_spn_{index + 2}"
            spn = build_spn(config.object, config.patch_size, seeds, name, dtype)
            self.object_spns.append(spn)

    @property
    def variables_by_part(self):
        variables = [v for spn in self.object_spns for v in spn.trainable_variables]
        return {**super().variables_by_part, "object": variables}


@keras.saving.register_keras_serializable("supair")
class PerStepSuPAIR(_SeveralSpns):
    """SuPAIR with an object SPN for each step."""

    def __init__(self, config: ModelConfig, seed: int = 0, dtype: str = "float32"):
        super().__init__(config, seed, config.num_steps, dtype)

    def log_p_objects(self, parts: SceneParts):
        by_step = (tf.split(values, self.config.num_steps) for values in parts.vectors)
        log_p = [spn.log_prob(*step) for spn, *step in zip(self.object_spns, *by_step)]
        return tf.stack(log_p, axis=1)

    def explain_objects(self, parts: SceneParts, explain, seed=None):
        number = self.config.num_steps
        by_step = (tf.split(values, number) for values in parts.vectors)  # [batch, A²] each
        seeds = [None] * number if seed is None else tf.unstack(tf.random.split(seed, number))
        return tf.stack([explain(*step) for step in zip(self.object_spns, *by_step, seeds)])


@keras.saving.register_keras_serializable("supair")
class MixtureSuPAIR(_SeveralSpns):
    """SuPAIR whose objects are of `object_classes` classes, each with an SPN.

    An explanation is that of the likeliest class, or, given a seed, of a sampled one.
    """

    def __init__(self, config: ModelConfig, seed=0, object_classes=3, dtype="float32"):
        super().__init__(config, seed, object_classes, dtype)
        self.class_logits = self.add_weight([object_classes], "zeros", name="class_logits")

    def get_config(self):
        return {**super().get_config(), "object_classes": len(self.object_spns)}

    @property
    def variables_by_part(self):
        parts = super().variables_by_part
        return {**parts, "object": [*parts["object"], self.class_logits]}

    def _log_p_classes(self, parts: SceneParts):
        """log p(class, patch | visible), [class, step * batch]."""
        log_p = tf.stack([spn.log_prob(*parts.vectors) for spn in self.object_spns])
        return log_p + tf.nn.log_softmax(self.class_logits)[:, tf.newaxis]

    def log_p_objects(self, parts: SceneParts):
        log_p = tf.reduce_logsumexp(self._log_p_classes(parts), axis=0)
        return tf.transpose(tf.reshape(log_p, [self.config.num_steps, -1]))

    def explain_objects(self, parts: SceneParts, explain, seed=None):
        log_p = tf.transpose(self._log_p_classes(parts))  # [step * batch, class]
        number = len(self.object_spns)
        seeds, chosen = [None] * number, tf.argmax(log_p, axis=1)
        if seed is not None:
            class_seed, *seeds = tf.unstack(tf.random.split(seed, 1 + number))
            chosen = tf.random.stateless_categorical(log_p, 1, class_seed)[:, 0]
        by_class = [explain(spn, *parts.vectors, s) for spn, s in zip(self.object_spns, seeds)]
        explained = tf.gather(tf.stack(by_class, axis=1), chosen, axis=1, batch_dims=1)
        return tf.reshape(explained, [self.config.num_steps, -1, *explained.shape[1:]])
