"""SuPAIR with several object SPNs, as section 3.1 suggests: one for each step."""

from __future__ import annotations

import keras
import numpy as np
import tensorflow as tf

from supair.config import ModelConfig
from supair.geometry import SceneParts
from supair.model import SuPAIR, build_spn


@keras.saving.register_keras_serializable("supair")
class PerStepSuPAIR(SuPAIR):
    """SuPAIR with a list `object_spns`, one for each step, of which `object_spn` is the first."""

    def __init__(self, config: ModelConfig, seed: int = 0, dtype: str = "float32"):
        super().__init__(config, seed, dtype=dtype)
        states = np.random.SeedSequence([seed, 1]).generate_state(2 * (config.num_steps - 1)) >> 2
        self.object_spns = [self.object_spn]
        for index, seeds in enumerate(states.reshape(-1, 2).tolist()):
            name = f"object_spn_{index + 2}"
            spn = build_spn(config.object, config.patch_size, seeds, name, dtype)
            self.object_spns.append(spn)

    @property
    def variables_by_part(self):
        variables = [v for spn in self.object_spns for v in spn.trainable_variables]
        return {**super().variables_by_part, "object": variables}

    def log_p_objects(self, parts: SceneParts):
        by_step = (tf.split(values, self.config.num_steps) for values in parts.vectors)
        log_p = [spn.log_prob(*step) for spn, *step in zip(self.object_spns, *by_step)]
        return tf.stack(log_p, axis=1)

    def explain_objects(self, parts: SceneParts, explain, seed=None):
        number = self.config.num_steps
        by_step = (tf.split(values, number) for values in parts.vectors)  # [batch, A²] each
        seeds = [None] * number if seed is None else tf.unstack(tf.random.split(seed, number))
        return tf.stack([explain(*step) for step in zip(self.object_spns, *by_step, seeds)])
