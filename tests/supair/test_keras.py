"""Keras's conventions: configurations, copies, files, compile, fit and predict."""

import copy
import dataclasses
import pickle

import keras
import numpy as np
import pytest
import tensorflow as tf
import tiny

from rat_spn import poon_domingos_region_graph, random_region_graph
from supair.config import SUPAIR_RECIPES, ConfigError
from supair.evaluation import sample_noise
from supair.extensions.exact import ExactSuPAIR
from supair.model import SuPAIR

IMAGES = tiny.scenes(80).read(0, 80)
GRAPHS = poon_domingos_region_graph(6, 6, 3, 1), random_region_graph(144, 1, 2, 5)
MODELS = [
    SuPAIR(tiny.MODEL, 1),
    SuPAIR(tiny.MODEL, 1, *GRAPHS, dtype="float64"),
    ExactSuPAIR(tiny.MODEL, 1),
]


def copies(model, path):
    model.save(path)
    pickled = pickle.loads(pickle.dumps(model))
    return copy.deepcopy(model), pickled, keras.models.load_model(path)


@pytest.mark.parametrize("model", MODELS)
def test_copies_and_files_give_the_same_outputs(model, tmp_path):
    """Of weights that are not those of the seed: whole models, and an SPN as a layer."""
    model.set_weights([w + np.random.default_rng(0).random(w.shape) for w in model.get_weights()])
    images = tf.constant(IMAGES[:8], model.compute_dtype)
    noise, x = tf.ones([8, 2, 6], images.dtype), tf.reshape(images, [8, 144])
    expected, spn = model.evaluate_elbo(images, noise).elbo, model.background_spn
    for found in copies(model, tmp_path / "a.keras"):
        assert type(found) is type(model) and found.config == model.config and found.seed == 1
        np.testing.assert_array_equal(found.evaluate_elbo(images, noise).elbo, expected)
        assert [v.path for v in found.variables] == [v.path for v in model.variables]
    for found in copies(keras.Sequential([keras.Input([144]), spn]), tmp_path / "b.keras"):
        np.testing.assert_array_equal(found.layers[0].log_prob(x), spn.log_prob(x))


def test_fit_takes_the_steps_of_the_loop(tmp_path):
    """Ten of recipe `paper`, on the same batches of images and noise."""
    recipe = dataclasses.replace(SUPAIR_RECIPES["paper"], seed=1, batch_size=8)
    scenes = {"train": tiny.scenes(80), "test": tiny.scenes(1)}
    expected, rows = tiny.train(tmp_path, 1, recipe, data=scenes)
    noise = np.concatenate([sample_noise(4, 2, 1, step, 8) for step in range(rows[-1]["step"])])
    model, start = SuPAIR(tiny.MODEL, 1), SuPAIR(tiny.MODEL, 1)
    model.compile(keras.optimizers.Adam(1e-3, epsilon=1e-8), run_eagerly=True)
    model.fit(IMAGES, noise, batch_size=8, shuffle=False, verbose=0)
    for old, variable, found in zip(start.variables, expected.variables, model.variables):
        np.testing.assert_allclose(found, variable, atol=1e-6, err_msg=variable.path)
        assert not np.allclose(found, old, atol=1e-6)


LEVELS = np.round(255 * np.random.default_rng(0).random([4, 12, 12]))
BYTES, CHANNEL, COLOURS = np.uint8(LEVELS), LEVELS[..., np.newaxis], np.stack(3 * [LEVELS], -1)
NAN = np.where(LEVELS == LEVELS[0, 0, 0], np.nan, LEVELS / 255)


def test_images_without_doubt_are_converted_and_others_refused():
    model = SuPAIR(tiny.MODEL, 1)
    expected = model(BYTES / np.float32(255))
    for images in (BYTES, LEVELS, LEVELS.astype(int), CHANNEL, CHANNEL / 255, tf.constant(LEVELS)):
        for found in (model(images), model.predict(images, verbose=0)):
            np.testing.assert_allclose(found.where_loc, expected.where_loc, rtol=1e-5)
    np.testing.assert_array_equal(found.count, expected.count)
    np.testing.assert_allclose(model.boxes(found), model.boxes(expected), rtol=1e-5)
    np.testing.assert_array_equal(model(LEVELS > 99).z_pres, model(1.0 * (LEVELS > 99)).z_pres)
    model.compile("adam")
    for images in (NAN, LEVELS / 200, LEVELS * 2, COLOURS, LEVELS[0]):
        for use in (model, model.fit, model.predict):
            with pytest.raises(ConfigError):
                use(images)
