"""Keras's conventions: configurations, copies, files, compile, fit and predict."""

import copy
import dataclasses
import pickle

import keras
import numpy as np
import pytest
import tensorflow as tf
import tiny

from rat_spn import RatSpn, poon_domingos_region_graph, random_region_graph
from supair.config import SUPAIR_RECIPES, ConfigError
from supair.evaluation import sample_noise
from supair.extensions.exact import ExactSuPAIR
from supair.extensions.object_models import MixtureSuPAIR, PerStepSuPAIR
from supair.model import SuPAIR

IMAGES = tiny.scenes().read(0, 40)
GRAPHS = poon_domingos_region_graph(6, 6, 3, 1), random_region_graph(144, 1, 2, 5)
MODELS = {
    "paper": lambda: SuPAIR(tiny.MODEL, 1),
    "graphs": lambda: SuPAIR(tiny.MODEL, 1, *GRAPHS, dtype="float64"),
    "exact": lambda: ExactSuPAIR(tiny.MODEL, 1),
    "per step": lambda: PerStepSuPAIR(tiny.MODEL, 1),
    "mixture": lambda: MixtureSuPAIR(tiny.MODEL, 1, object_classes=2),
    "spn": lambda: RatSpn(GRAPHS[1], 3, 2, 0.1, 0.5, seed=7, dtype="float64", name="mine"),
}


def outputs(model):
    if isinstance(model, RatSpn):
        return [model.log_prob(IMAGES[:8].reshape(8, 144))]
    images = tf.constant(IMAGES[:8], model.compute_dtype)
    return [model.evaluate_elbo(images, tf.ones([8, 2, 6], images.dtype)).elbo.total]


@pytest.mark.parametrize("build", MODELS.values(), ids=MODELS)
def test_copies_and_files_give_the_same_outputs(build, tmp_path):
    """Of weights that are not those of the seed."""
    model = build()
    model.set_weights([w + np.random.default_rng(0).random(w.shape) for w in model.get_weights()])
    is_model = isinstance(model, keras.Model)
    whole = model if is_model else keras.Sequential([keras.Input([144], dtype="float64"), model])
    whole.save(tmp_path / "a.keras")
    loaded = keras.models.load_model(tmp_path / "a.keras")
    pickled = pickle.loads(pickle.dumps(model))
    for found in (copy.deepcopy(model), pickled, loaded if is_model else loaded.layers[0]):
        assert type(found) is type(model) and found.name == model.name
        np.testing.assert_array_equal(outputs(found), outputs(model))
        assert [v.path for v in found.variables] == [v.path for v in model.variables]


def test_fit_takes_the_steps_of_the_loop(tmp_path):
    """Ten of recipe `paper`, on the same batches of images and noise."""
    recipe = dataclasses.replace(SUPAIR_RECIPES["paper"], seed=1, batch_size=8)
    expected, rows = tiny.train(tmp_path, 2, recipe)
    noise = np.concatenate([sample_noise(4, 2, 1, step, 8) for step in range(rows[-1]["step"])])
    model, start = SuPAIR(tiny.MODEL, 1), SuPAIR(tiny.MODEL, 1)
    model.compile(keras.optimizers.Adam(1e-3, epsilon=1e-8), run_eagerly=True)
    model.fit(np.tile(IMAGES, [2, 1, 1]), noise, batch_size=8, shuffle=False, verbose=0)
    for old, variable, found in zip(start.variables, expected.variables, model.variables):
        np.testing.assert_allclose(found, variable, atol=1e-6, err_msg=variable.path)
        assert not np.allclose(found, old, atol=1e-6)


def test_fit_draws_noise_by_the_seed_and_learns_with_any_optimizer():
    losses = []
    for seed in (1, 1, 2):
        model = SuPAIR(tiny.MODEL, seed)
        model.compile(keras.optimizers.RMSprop(1e-2), run_eagerly=True)
        history = model.fit(IMAGES, batch_size=20, epochs=3, shuffle=False, verbose=0)
        losses.append(history.history["loss"])
    assert losses[0] == losses[1] != losses[2]
    assert losses[0][2] < losses[0][0] - 10


LEVELS = np.round(255 * np.random.default_rng(0).random([4, 12, 12]))
NAN = np.where(LEVELS == LEVELS[0, 0, 0], np.nan, LEVELS / 255)


def test_images_without_doubt_are_converted_and_others_refused():
    model = SuPAIR(tiny.MODEL, 1)
    expected = model(np.float32(LEVELS) / np.float32(255))
    channel = LEVELS[..., np.newaxis] / 255
    for images in (np.uint8(LEVELS), LEVELS, LEVELS.astype(int), channel, tf.constant(LEVELS)):
        for found in (model(images), model.predict(images, verbose=0)):
            np.testing.assert_allclose(found.where_loc, expected.where_loc, rtol=1e-5)
    np.testing.assert_array_equal(found.count, expected.count)
    np.testing.assert_allclose(model.boxes(found), model.boxes(expected), rtol=1e-5)
    np.testing.assert_array_equal(model(LEVELS > 99).z_pres, model(1.0 * (LEVELS > 99)).z_pres)
    model.compile("adam")
    for images in (NAN, LEVELS / 200, LEVELS * 2, np.stack([LEVELS] * 3, axis=-1), LEVELS[0]):
        for use in (model, model.fit, model.predict):
            with pytest.raises(ConfigError):
                use(images)
