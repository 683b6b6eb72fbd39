"""The model: its crops and masks, its bound term by term, warm-up and gradients, its pictures."""

import dataclasses
import math

import numpy as np
import oracles
import pytest
import tensorflow as tf
import tiny

from supair.air import AIR
from supair.config import (
    AirConfig,
    ConfigError,
    ModelConfig,
    TrainingConfig,
    WarmUp,
    background_spn,
    object_spn,
)
from supair.extensions.exact import ExactSuPAIR
from supair.geometry import crop, extract_patches, patch_points
from supair.inference import SceneDescription
from supair.model import SuPAIR, mix_with_dropout

POON_DOMINGOS = dataclasses.replace(
    tiny.MODEL,
    object=object_spn(structure="poon_domingos", step=4, num_components=3, num_sums=2),
    background=background_spn(structure="poon_domingos", step=8, depth=2, num_components=2),
)
NO_BACKGROUND = dataclasses.replace(tiny.MODEL, background=None)
AIR_CONFIG = AirConfig(12, 5, 2, lstm_units=4, hidden_units=6, head_units=3, what_size=2)
MODELS = {
    "paper": (SuPAIR, tiny.MODEL),
    "poon_domingos": (SuPAIR, POON_DOMINGOS),
    "no background": (SuPAIR, NO_BACKGROUND),
    "exact": (ExactSuPAIR, tiny.MODEL),
    "air": (AIR, AIR_CONFIG),
}
every_model = pytest.mark.parametrize("kind, config", MODELS.values(), ids=MODELS)


def inputs(model, batch: int = 8):
    shape = [batch, model.config.num_steps, model.noise_size]
    noise = np.random.default_rng(0).normal(size=shape).astype("float32")
    return tiny.scenes(batch).read(0, batch), noise


def loss_and_gradients(model):
    with tf.GradientTape() as tape:
        loss, _ = model.training_loss(*inputs(model), 0)
    return loss, tape.gradient(loss, model.trainable_variables)


def test_parameter_counts_of_the_paper():
    model = SuPAIR(ModelConfig())
    parts = (model.inference, model.object_spn, model.background_spn, model)
    assert [part.count_params() for part in parts] == [2_836_477, 286_560, 90_108, 3_213_145]


@every_model
def test_every_weight_is_trained_in_one_part_and_has_a_path_of_its_own(kind, config):
    first, second = kind(config, 1), kind(config, 2)
    paths = [variable.path for variable in first.trainable_variables]
    assert len(set(paths)) == len(paths)
    assert paths == [variable.path for variable in second.trainable_variables]
    in_parts = {name: [v.path for v in part] for name, part in first.variables_by_part.items()}
    assert sorted(sum(in_parts.values(), [])) == sorted(paths)
    if kind is AIR:
        assert [name for name in paths if name.startswith("baseline")] == in_parts["baseline"]
        return
    names = ["inference", "object", "background"] if config.background else ["inference", "object"]
    assert list(in_parts) == names
    for name, found in in_parts.items():
        assert {path[: len(name)] for path in found if path != "supair/class_logits"} == {name}
    for variable, gradient in zip(first.trainable_variables, loss_and_gradients(first)[1]):
        assert gradient is not None, f"{variable.path} receives no gradient"
        assert np.all(np.isfinite(gradient)), f"the gradient of {variable.path} is not finite"
        assert np.any(np.asarray(gradient) != 0), f"the gradient of {variable.path} is zero"


def test_warm_up_mixes_z_pres_with_dropout_and_keeps_it_from_certainty():
    """The loss by hand from a description with other z_pres; afterwards it is the paper's."""
    model = SuPAIR(dataclasses.replace(tiny.MODEL, num_steps=3), seed=1)
    warm_up = WarmUp(keep_prob=0.3, last_step_penalty=25.0, steps=10)
    config = TrainingConfig(warm_up=warm_up)
    images, noise = tf.constant(tiny.scenes(8).read(0, 8)), np.zeros([8, 3, 4], np.float32)
    paper = model.evaluate_elbo(images, noise)
    first, second, last = np.transpose(paper.description.z_pres.numpy().astype(float))
    for step, weight in ((0, 1.0), (2, 0.8), (5, 0.5), (10, 0.0), (99, 0.0)):
        kept = 1 - (1 - first) * (1 - 0.3 * weight)  # unless z_pres and dropout both leave it out
        mixed = (1 - weight) * second + weight * 0.3
        bound = oracles.elbo(paper, np.stack([kept, mixed, (1 - weight) * last], axis=1)).mean()
        loss, elbo = model.training_loss(images, noise, step, config)
        assert float(elbo) == pytest.approx(bound, rel=1e-4)
        assert float(loss) == pytest.approx(25 * weight * last.mean() - bound, rel=1e-4)
    plain = model.training_loss(images, noise, 0)
    np.testing.assert_allclose(plain, model.training_loss(images, noise, 10, config), rtol=1e-6)


def test_the_price_of_an_object_is_a_share_of_a_box_of_background_after_the_warm_up():
    changes = {"num_steps": 3, "scale_min": 0.2, "scale_max": 0.8}
    model = SuPAIR(dataclasses.replace(tiny.MODEL, **changes), seed=1)
    images, noise = tf.constant(tiny.scenes(8).read(0, 8)), np.zeros([8, 3, 4], np.float32)
    config = TrainingConfig(warm_up=WarmUp(last_step_penalty=0.0, steps=10), object_price=7.0)
    paper = model.evaluate_elbo(images, noise)
    of_a_pixel = float(np.mean(paper.elbo.background)) / 12**2
    number = float(np.mean(np.sum(paper.description.at_least, axis=1)))
    assert of_a_pixel > 0
    loss, elbo = model.training_loss(images, noise, 10, config)
    assert float(elbo) == pytest.approx(np.mean(paper.elbo.total), rel=1e-5)
    assert float(loss + elbo) == pytest.approx(7.0 * 3.0**2 * of_a_pixel * number, rel=1e-3)
    loss, elbo = model.training_loss(images, noise, 0, config)
    assert float(loss) == pytest.approx(-float(elbo), rel=1e-6)


LAST_STEPS = [([0.6], 0.0), ([0.6, 0.1], 1.0), ([0.6, 0.3, 0.1], 1.0), ([0.6, 0.3, 0.3, 0.1], 0.25)]


@pytest.mark.parametrize("seen, share", LAST_STEPS)
def test_a_last_step_that_is_not_the_first_is_dropped_and_penalised(seen, share):
    """The penalty is a quarter (keep_prob) for every step beyond the third."""
    z_pres = tf.fill([2, len(seen)], 0.5)
    np.testing.assert_allclose(mix_with_dropout(z_pres, 0.25, 0.8), [seen, seen], rtol=1e-6)
    model = SuPAIR(dataclasses.replace(tiny.MODEL, num_steps=len(seen)), seed=1)
    images, noise = tiny.scenes(8).read(0, 8), np.zeros([8, len(seen), 4], np.float32)
    config = TrainingConfig(warm_up=WarmUp(0.25, 40.0))
    loss, elbo = model.training_loss(images, noise, 0, config)
    penalty = 40.0 * share * float(np.mean(model(images).z_pres[:, -1]))
    assert float(loss + elbo) == pytest.approx(penalty, abs=1e-5 * abs(float(loss)))


@every_model
def test_double_precision_in_a_graph(kind, config):
    """Graphs do not convert Python numbers as eager calls do."""
    model = kind(config, seed=1, dtype="float64")
    images, noise = (tf.constant(values, tf.float64) for values in inputs(model, 4))
    in_graph = tf.function(model.training_loss)(images, noise, tf.constant(0))[0]
    eager = model.training_loss(images, noise, 0)[0]
    assert float(in_graph) == pytest.approx(float(eager), rel=1e-12)


@pytest.mark.parametrize(
    "kind, config, changes",
    [(SuPAIR, POON_DOMINGOS, {"background": None}), (AIR, AIR_CONFIG, {"num_steps": 1})],
)
def test_eager_equals_compiled(kind, config, changes):
    """Loss and gradients, to rounding, of what test_training.py does not compile."""
    model = kind(dataclasses.replace(config, **changes), seed=1)
    eager_loss, eager = loss_and_gradients(model)
    compiled_loss, compiled = tf.function(lambda: loss_and_gradients(model), jit_compile=True)()
    assert float(compiled_loss) == pytest.approx(float(eager_loss), rel=1e-5)
    for variable, a, b in zip(model.trainable_variables, eager, compiled):
        assert np.linalg.norm(a - b) <= 1e-4 * np.linalg.norm(a) + 1e-6, variable.path


def test_boxes_reach_half_a_patch_pixel_beyond_the_outermost_samples():
    """Six samples over 3 pixels are 0.6 apart, the first at the centre of column 3, x = 3.5."""
    where = tf.constant([[[0.5, 0.25, 3.0, 4.0], [1.0, 1.0, 7.0, 8.0]]])
    boxes = SuPAIR(tiny.MODEL).boxes(SceneDescription(None, where, None))
    np.testing.assert_allclose(boxes, [[[3.2, 4.35, 3.6, 1.8], [6.9, 7.9, 7.2, 7.2]]], rtol=1e-6)


def test_scenes_and_structures_that_do_not_fit_are_refused():
    with pytest.raises(ConfigError, match=r"12, 12.*\(2, 24, 24\)"):
        SuPAIR(tiny.MODEL)(np.zeros([2, 24, 24], "float32"))
    with pytest.raises(ConfigError, match="object_spn.*8 variables, found 4"):
        SuPAIR(ModelConfig(patch_size=2, object=object_spn(depth=3)))


@pytest.mark.parametrize("config", [tiny.MODEL, NO_BACKGROUND], ids=["background", "fixed"])
def test_reconstruction_puts_the_first_object_in_front(config, monkeypatch):
    """Both boxes at the same place, step 1 white and step 2 grey: white inside."""
    model = SuPAIR(config, seed=1)
    output = model.inference.output_layer
    output.kernel.assign(tf.zeros_like(output.kernel))
    patches = tf.stack([tf.fill([4, 6, 6], 1.0), tf.fill([4, 6, 6], 0.5)])
    monkeypatch.setattr(model, "reconstruct_objects", lambda parts: patches)
    images = tiny.scenes(4).read(0, 4)
    output.bias.assign([9.0] + 8 * [0.0])  # boxes in the middle, columns and rows 5.4 .. 9
    scene = model.reconstruct(images).numpy()
    assert scene.shape == (4, 12, 12) and scene.min() >= 0 and scene.max() <= 1
    np.testing.assert_allclose(scene[:, 6:9, 6:9], 1.0, rtol=1e-6)
    assert np.all(scene[:, :4] == 0) == (config.background is None)
    output.bias.assign([-9.0] + 8 * [0.0])  # no object: the background's explanation alone
    ground = np.zeros([4, 144])
    if config.background:
        evidence = images.reshape(4, 144), np.ones([4, 144])
        ground = np.clip(model.background_spn.reconstruct(*evidence, (3, 4)), 0, 1)
    found = np.reshape(model.reconstruct(images, (3, 4)), [4, 144])
    np.testing.assert_allclose(found, ground, atol=1e-6)


def test_q_count_is_stick_breaking_and_count_rounds():
    z_pres = tf.constant([[0.9, 0.2, 0.6], [0.1, 0.7, 0.8]])
    description = SceneDescription(z_pres, None, None)
    expected = [[0.1, 0.72, 0.072, 0.108], [0.9, 0.03, 0.014, 0.056]]
    np.testing.assert_allclose(description.q_count, expected, rtol=1e-5)
    np.testing.assert_allclose(description.at_least[0], [0.9, 0.18, 0.108], rtol=1e-5)
    assert description.count.numpy().tolist() == [2, 2]


def test_initial_weights_follow_the_paper():
    model = SuPAIR(ModelConfig(), seed=0)
    limit = math.sqrt(6 / (2500 + 256 + 1024))
    for kernel in (model.inference.kernel, model.inference.recurrent_kernel):
        values = np.asarray(kernel)
        assert np.abs(values).max() <= limit
        assert values.std() == pytest.approx(limit / math.sqrt(3), rel=0.01)
    assert not np.any(np.asarray(model.inference.bias))
    assert np.all(np.asarray(model.inference.output_layer.bias) == np.float32(0.1))
    # Cut off at two standard deviations, a normal's shrinks to 0.88 of what it was.
    spn = model.object_spn
    for weight, stddev in ((spn.leaf_layer.mean, 0.1), (spn.sum_layers[0].weight_logits[0], 0.5)):
        values = np.asarray(weight)
        assert np.abs(values).max() <= 2 * stddev
        assert values.std() == pytest.approx(0.88 * stddev, rel=0.01)


@pytest.mark.parametrize("name", oracles.BOXES)
def test_patches_and_masks_are_those_of_loops(name):
    image = np.random.default_rng(0).uniform(size=[16, 16])
    z_where = np.array(oracles.BOXES[name])
    parts = extract_patches(tf.constant(image[None]), tf.constant(z_where[None]), patch_size=8)
    patches, visible, maps = oracles.extract_patches(image, z_where, 8)
    np.testing.assert_allclose(parts.patches[:, 0], patches, atol=1e-9)
    np.testing.assert_allclose(parts.visible[:, 0], visible, atol=1e-9)
    np.testing.assert_allclose(parts.background_maps[:, 0], maps, atol=1e-9)
    np.testing.assert_allclose(parts.overlap[:, 0], 1 - visible.mean(axis=(1, 2)), atol=1e-9)


def test_gradient_of_boxes_is_right():
    rng = np.random.default_rng(2)
    images = tf.constant(rng.uniform(size=[1, 16, 16]))
    z_where = tf.constant([[[0.53, 0.61, 3.31, 2.17], [0.72, 0.58, 5.23, 6.41]]], tf.float64)
    weights = [rng.normal(size=[n, 1, side, side]) for n, side in ((2, 8), (2, 8), (3, 16))]

    def scalar(where):
        parts = extract_patches(images, where, 8)
        return sum(tf.reduce_sum(weight * part) for weight, part in zip(weights, parts))

    (theory,), (numeric,) = tf.test.compute_gradient(scalar, [z_where], 1e-6)
    np.testing.assert_allclose(theory, numeric, rtol=1e-4, atol=1e-4)


def test_patches_are_put_back_where_they_were_cropped():
    """A linear ramp, cropped and put back, is itself inside the box and nothing outside."""
    image = np.add.outer(np.arange(20.0), 2 * np.arange(20.0))[np.newaxis]
    left, top, width, height = 3.3, 5.6, 1.25, 1.5  # columns 3.3 .. 13.3, rows 5.6 .. 17.6
    z_where = tf.constant([[[width, height, left, top]]], tf.float64)
    patch = extract_patches(image, z_where, 8).patches[0]
    rows, columns = (
        patch_points(tf.constant([[start]], tf.float64), scale, 8, 20)
        for start, scale in ((top, height), (left, width))
    )
    put_back = crop(patch, rows, columns)[0].numpy()
    np.testing.assert_allclose(put_back[6:18, 4:14], image[0, 6:18, 4:14], atol=1e-9)
    assert not put_back[:4].any() and not put_back[:, :2].any() and not put_back[:, 16:].any()
