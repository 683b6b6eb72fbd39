"""Configurations: what is refused, naming the field, and that all others work."""

import dataclasses
import json
import math

import numpy as np
import pytest

from supair import config as c
from supair.config import ConfigError, ModelConfig, background_spn, object_spn
from supair.extensions.exact import ExactSuPAIR
from supair.model import SuPAIR

OF_AN_SPN = dataclasses.asdict(object_spn())


@pytest.mark.parametrize(
    "kind, fields, names",
    [
        (ModelConfig, {"patch_size": 60}, "patch_size.*50.*60"),
        (ModelConfig, {"num_steps": 0}, "num_steps.*1.*0"),
        (ModelConfig, {"num_steps": True}, "num_steps"),
        (ModelConfig, {"scale_min": 0.95}, "scale_min.*0.95, 0.9"),
        (ModelConfig, {"overlap_rate": math.nan}, "overlap_rate.*nan"),
        (ModelConfig, {"position_max": 1.5}, "position_max.*1.5"),
        (ModelConfig, {"object": None}, "object.*None"),
        (c.AirConfig, {"window_size": 1}, "window_size.*1"),
        (c.AirConfig, {"head_units": -1}, "head_units"),
        (c.AirConfig, {"count_ratio": 0.0}, "count_ratio.*0.0"),
        (c.WarmUp, {"keep_prob": 1.1}, "keep_prob.*1.1"),
        (c.WarmUp, {"last_step_penalty": math.inf}, "last_step_penalty.*inf"),
        (c.WarmUp, {"initial_learning_rate_factor": 0.0}, "initial_learning_rate_factor"),
        (c.AirWarmUp, {"share": 1.5}, "share.*1.5"),
        (c.AirWarmUp, {"steps": 0}, "steps.*0"),
        (c.SpnConfig, {"variance_min": 0.3, "variance_max": 0.1}, "variance_min.*0.3 and 0.1"),
        (object_spn, {"structure": "tree"}, "structure.*tree"),
        (background_spn, {"depth": 0}, "depth.*0"),
        (c.TrainingConfig, {"batch_size": 0}, "batch_size.*0"),
        (c.TrainingConfig, {"learning_rates": {"object": -1.0}}, "learning rate.*object.*-1.0"),
        (c.TrainingConfig, {"seed": 2**31}, "seed"),
    ],
)
def test_what_cannot_be_configured_is_refused_by_name(kind, fields, names):
    with pytest.raises(ConfigError, match=names):
        kind(**fields)


def test_variance_bounds_of_the_four_data_sets():
    bounds = {
        name: (spn.variance_min, spn.variance_max, ground.variance_min, ground.variance_max)
        for name, config in c.PAPER_MODELS.items()
        for spn, ground in [(config.object, config.background)]
    }
    assert bounds["multi_mnist"] == bounds["grid_mnist"] == (0.12, 0.35, 0.002, 0.12)
    assert bounds["sprites"] == (0.12, 0.35, 0.002, 0.16)
    assert bounds["noisy_mnist"] == (0.25, 0.35, 0.002, 0.06)


@pytest.mark.parametrize("config", [*c.PAPER_MODELS.values(), ModelConfig(background=None)])
def test_a_configuration_comes_back_from_its_settings(config):
    written = json.loads(json.dumps(dataclasses.asdict(config)))
    assert c.model_from_settings({"class": "SuPAIR", **written}) == config


WRONG = [{"zoom": 1}, {"num_steps": "two"}, {"scale_min": "x"}, {"scale_max": None}, {"object": {}}]
WRONG += [{"object": {**OF_AN_SPN, **wrong}} for wrong in ({"zoom": 1}, {"variance_min": None})]


@pytest.mark.parametrize("wrong", [*WRONG, {"object": {"depth": 2}}, {"background": 3}])
def test_settings_of_another_form_are_refused(wrong):
    with pytest.raises(ConfigError):
        c.model_from_settings({**dataclasses.asdict(ModelConfig()), **wrong})


@pytest.mark.parametrize(
    "kind, scene, patch, steps, repetitions, background",
    [
        (SuPAIR, 4, 2, 1, 1, True),
        (SuPAIR, 5, 5, 3, 2, False),
        (ExactSuPAIR, 9, 3, 2, 1, True),
    ],
)
def test_a_configuration_that_is_accepted_works(kind, scene, patch, steps, repetitions, background):
    few = {"num_components": 2, "repetitions": 1}
    config = ModelConfig(
        *(scene, patch, steps),
        lstm_units=2,
        hidden_units=2,
        object=object_spn(num_components=2, num_sums=2, depth=1, repetitions=repetitions),
        background=background_spn(**few) if background else None,
    )
    model, rng = kind(config), np.random.default_rng(0)
    noise = np.float32(rng.normal(size=[3, steps, model.noise_size]))
    evaluation = model.evaluate_elbo(np.float32(rng.random([3, scene, scene])), noise)
    assert np.all(np.isfinite(evaluation.elbo.total))
    assert evaluation.parts.patches.shape[2:] == [config.patch_size] * 2
    np.testing.assert_allclose(np.sum(evaluation.description.q_count, axis=1), 1, rtol=1e-5)
