import dataclasses
import math

import numpy as np
import oracles
import pytest
import tensorflow as tf
import tiny

from rat_spn import RegionGraph, random_region_graph
from supair import ConfigError, ModelConfig, SpnConfig, SuPAIR, TrainingConfig, WarmUp, background_spn, object_spn, paper_model
from supair.geometry import take_apart
from supair.model import toss_coins
from supair.together import Together


def evaluate(model: SuPAIR, batch: int = 8):
    images = tiny.scenes(batch).read(0, batch)
    noise = np.random.default_rng(0).normal(size=[batch, model.config.num_steps, model.noise_size]).astype("float32")
    return model.evaluate_elbo(images, noise)


def test_parameter_counts_of_the_paper():
    model = SuPAIR(ModelConfig())
    parts = (model.inference, model.object_spn, model.background_spn, model)
    assert [part.count_params() for part in parts] == [2_836_477, 286_560, 90_108, 3_213_145]


@pytest.mark.parametrize(
    "changes",
    [{}, {"background": None}, {"downsampling": "exact"}, {"object_models": "per_step"}, {"object_models": "mixture"}],
    ids=["paper", "fixed background", "exact", "per step", "mixture"],
)
def test_every_weight_receives_a_gradient(changes):
    model = SuPAIR(dataclasses.replace(tiny.MODEL, **changes), seed=1)
    with tf.GradientTape() as tape:
        loss = -tf.reduce_mean(evaluate(model).elbo.total)
    for variable, gradient in zip(model.trainable_variables, tape.gradient(loss, model.trainable_variables)):
        assert gradient is not None, f"{variable.path} receives no gradient"
        assert np.all(np.isfinite(gradient)), f"the gradient of {variable.path} is not finite"
        assert np.any(np.asarray(gradient) != 0), f"the gradient of {variable.path} is zero"
    expected = sum(part.count_params() for part in (model.inference, *model.object_spns, model.background_spn) if part)
    expected += 3 * (model.config.object_models == "mixture")
    assert sum(int(np.prod(variable.shape)) for variable in model.trainable_variables) == expected
    assert len(model.object_spns) == {"shared": 1, "per_step": 2, "mixture": 3}[model.config.object_models]


def test_exact_likelihood_is_the_average_over_all_assignments():
    """Equation 6 for one box on a scene of 5 x 5, with every interval of shifts enumerated, and each pixel's leaf by loops."""
    config = dataclasses.replace(
        tiny.MODEL, scene_size=5, patch_size=3, num_steps=1, downsampling="exact", background=None, object=object_spn(depth=1)
    )
    model = SuPAIR(config, seed=1, dtype="float64")
    image, z_where = np.random.default_rng(4).uniform(size=[5, 5]), np.array([[0.61, 0.72, 1.2, 0.7]])

    def log_p(patches, visible, maps):
        objects = model.object_spn.log_prob(patches.reshape(-1, 9), visible.reshape(-1, 9))
        log_normal = -0.5 * (image / 0.35) ** 2 - math.log(0.35 * math.sqrt(2 * math.pi))
        return float(objects[0]) + np.sum(maps[-1] * log_normal)

    breaks = []  # of the shifts along rows and columns: where a pixel's patch coordinate passes an integer
    for scale, start in ((0.72, 0.7), (0.61, 1.2)):
        coordinates = (np.arange(5) - start) / scale * 2 / 3
        breaks.append(np.unique([0.0, 1.0, *np.mod(-coordinates, 1)]))
    expected = 0.0
    for row in zip(breaks[0], breaks[0][1:]):
        for column in zip(breaks[1], breaks[1][1:]):
            taken = oracles.take_apart_exactly(image, z_where, 3, np.array([[np.mean(row), np.mean(column)]]))
            expected += (row[1] - row[0]) * (column[1] - column[0]) * log_p(*taken)
    samples = 4000
    repeated = (np.repeat(values[None], samples, axis=0) for values in (image, z_where))
    parts = model.take_apart(*map(tf.constant, repeated), tf.constant(np.random.default_rng(5).normal(size=[samples, 1, 2])))
    log_p_background = model.log_p_background(tf.constant(np.repeat(image[None], samples, axis=0)), parts)
    found = np.asarray(model.log_p_objects(parts))[:, 0] + np.asarray(log_p_background)[:, 1]
    assert found.std() > 0.1
    assert found.mean() == pytest.approx(expected, abs=4 * found.std() / math.sqrt(samples))


def test_mixture_of_object_models_by_hand():
    """log sum_k w_k p_k; explanations come from the likeliest class, or a sampled one."""
    model = SuPAIR(dataclasses.replace(tiny.MODEL, object_models="mixture"), seed=1)
    weights = np.array([0.5, 0.3, 0.2])
    model.class_logits.assign(np.log(weights))
    parts = evaluate(model).parts
    flat = [np.asarray(values).reshape(-1, 36) for values in (parts.patches, parts.visible)]
    by_class = np.stack([np.exp(spn.log_prob(*flat)) for spn in model.object_spns]) * weights[:, None]
    expected = np.log(by_class.sum(axis=0)).reshape(2, 8).T
    np.testing.assert_allclose(model.log_p_objects(parts), expected, rtol=1e-5, atol=1e-4)
    reconstructions = np.stack([spn.reconstruct(*flat) for spn in model.object_spns])
    best = np.take_along_axis(reconstructions, by_class.argmax(axis=0)[None, :, None], axis=0)[0]
    np.testing.assert_allclose(np.reshape(model.reconstruct_objects(parts), [-1, 36]), best)
    indices = iter(range(3))
    tell = lambda spn, patches, visible, seed: tf.fill([len(patches)], next(indices))  # noqa: E731
    many = parts._replace(**{name: tf.repeat(getattr(parts, name)[:1, :1], 8000, axis=1) for name in ("patches", "visible")})
    many = many._replace(**{name: tf.repeat(getattr(many, name), 2, axis=0) for name in ("patches", "visible")})
    found = np.bincount(np.ravel(model.explain_objects(many, tell, class_seed=(1, 2))), minlength=3) / 16000
    np.testing.assert_allclose(found, by_class[:, 0] / by_class[:, 0].sum(), atol=0.02)


def test_every_step_has_its_own_object_model():
    model = SuPAIR(dataclasses.replace(tiny.MODEL, object_models="per_step"), seed=1)
    parts = evaluate(model).parts
    expected = [
        spn.log_prob(np.reshape(parts.patches[k], [8, 36]), np.reshape(parts.visible[k], [8, 36]))
        for k, spn in enumerate(model.object_spns)
    ]
    np.testing.assert_allclose(model.log_p_objects(parts), np.transpose(expected), rtol=1e-6)
    assert model.reconstruct_objects(parts).shape == (2, 8, 6, 6)


def test_terms_sum_to_the_written_out_bound():
    """Equation 9 as `supair.md`'s sum over n, against the terms that are summed over i."""
    model = SuPAIR(tiny.MODEL, seed=1)
    evaluation = evaluate(model)
    config = model.config
    z_pres = np.asarray(evaluation.description.z_pres, np.float64)
    overlap = np.asarray(evaluation.parts.overlap, np.float64).T
    expected = -np.sum(evaluation.log_q_where, axis=1, dtype=np.float64)
    for n in range(config.num_steps + 1):
        q = np.prod(z_pres[:, :n], axis=1) * (1 - z_pres[:, n] if n < config.num_steps else 1)
        objects = np.asarray(evaluation.log_p_objects)[:, :n] + math.log(120) - 120 * overlap[:, :n]
        log_joint = objects.sum(axis=1) + np.asarray(evaluation.log_p_background)[:, n] + math.log(0.7) - 0.7 * n
        expected += q * (log_joint - np.log(q))
    np.testing.assert_allclose(evaluation.elbo.total, expected, rtol=1e-5)
    assert evaluation.elbo._fields == ("objects", "background", "count_prior", "overlap", "entropy")


def test_warm_up_keeps_z_pres_from_certainty():
    """The loss by hand from a description with other z_pres; afterwards it is the paper's."""
    model = SuPAIR(dataclasses.replace(tiny.MODEL, num_steps=3, warm_up=WarmUp(doubt=0.3, price=25.0, steps=10)), seed=1)
    images, noise = tf.constant(tiny.scenes(8).read(0, 8)), np.zeros([8, 3, 4], np.float32)
    paper = model.evaluate_elbo(images, noise)
    losses = [float(model.training_loss(images, noise, step)[0]) for step in (0, 2, 5, 10, 99)]
    for loss, coin in zip(losses, (1.0, 0.8, 0.5, 0.0, 0.0)):
        first, second, last = np.transpose(paper.description.z_pres.numpy().astype(float))
        first = 1 - (1 - first) * (1 - 0.3 * coin)  # there if z_pres or the coin says so
        second = (1 - coin) * second + coin * 0.3
        z_pres = np.stack([first, second, (1 - coin) * last], axis=1)
        at_least = np.cumprod(z_pres, axis=1)
        q_count = np.concatenate([np.ones([8, 1]), at_least], 1) * np.concatenate([1 - z_pres, np.ones([8, 1])], 1)
        penalty = np.log(120.0) - 120.0 * np.transpose(paper.parts.overlap)
        bound = np.sum(at_least * (paper.log_p_objects + penalty) - paper.log_q_where, axis=1)
        log_p_count = np.log(0.7) - 0.7 * np.arange(4)
        bound += np.sum(q_count * (paper.log_p_background + log_p_count - np.log(q_count + 1e-37)), axis=1)
        assert loss == pytest.approx(25 * coin * last.mean() - bound.mean(), rel=1e-4)
    assert losses[0] != pytest.approx(losses[2], rel=1e-3)


@pytest.mark.parametrize("seen", [[0.6], [0.6, 0.1], [0.6, 0.3, 0.1], [0.6, 0.3, 0.3, 0.1], [0.6, 0.3, 0.3, 0.3, 0.1]])
def test_in_a_warm_up_a_last_step_that_is_not_the_first_is_left_out_and_has_a_price(seen):
    np.testing.assert_allclose(toss_coins(tf.fill([2, len(seen)], 0.5), 0.25, 0.8), [seen, seen], rtol=1e-6)
    images, noise = tiny.scenes(8).read(0, 8), np.zeros([8, len(seen), 4], np.float32)
    share = [0.0, 1.0, 1.0, 0.25, 0.0625][len(seen) - 1]  # of the price; a quarter for every step beyond the third
    losses = []
    for price in (0.0, 40.0):
        model = SuPAIR(dataclasses.replace(tiny.MODEL, num_steps=len(seen), warm_up=WarmUp(0.25, price)), seed=1)
        loss, elbo = model.training_loss(images, noise, 0)
        losses.append(float(loss))
        expected = price * share * float(np.mean(model(images).z_pres[:, -1]))
        assert float(loss + elbo) == pytest.approx(expected, abs=1e-5 * abs(losses[0]))  # the bound has no price in it
        assert losses[-1] - losses[0] == pytest.approx(expected, abs=1e-5 * abs(losses[0]))
        assert (float(loss + elbo) > 0.1) == (price > 0 and len(seen) > 1)
    assert (losses[1] > losses[0] + 0.1) == (len(seen) > 1)


@pytest.mark.parametrize("downsampling", ["area", "exact"])
def test_double_precision_in_a_graph(downsampling):
    """Graphs do not convert Python numbers as eager calls do."""
    model = SuPAIR(dataclasses.replace(tiny.MODEL, downsampling=downsampling), seed=1, dtype="float64")
    images = tf.constant(tiny.scenes(4).read(0, 4), tf.float64)
    noise = tf.zeros([4, model.config.num_steps, model.noise_size], tf.float64)
    in_graph = tf.function(model.training_loss)(images, noise, tf.constant(0))[0]
    assert float(in_graph) == pytest.approx(float(model.training_loss(images, noise, 0)[0]), rel=1e-12)


def test_q_count_is_stick_breaking_and_count_rounds():
    from supair.inference import SceneDescription

    description = SceneDescription(tf.constant([[0.9, 0.2, 0.6], [0.1, 0.7, 0.8]]), None, None)
    np.testing.assert_allclose(description.q_count, [[0.1, 0.72, 0.072, 0.108], [0.9, 0.03, 0.014, 0.056]], rtol=1e-5)
    np.testing.assert_allclose(description.at_least[0], [0.9, 0.18, 0.108], rtol=1e-5)
    assert description.count.numpy().tolist() == [2, 2]


def test_q_where_is_a_diagonal_normal():
    model = SuPAIR(tiny.MODEL, seed=1)
    evaluation = evaluate(model)
    loc, scale = (np.asarray(part, np.float64) for part in evaluation.description[1:])
    log_q = -0.5 * ((np.asarray(evaluation.z_where) - loc) / scale) ** 2 - np.log(scale) - 0.5 * math.log(2 * math.pi)
    np.testing.assert_allclose(evaluation.log_q_where, log_q.sum(axis=-1), rtol=1e-4)
    assert np.all(scale <= 0.3) and np.all(loc[..., 2:] <= 0.9 * 12)


def test_boxes_reach_half_a_patch_pixel_beyond_the_outermost_samples():
    """Patches of 6 x 6: six samples over a width of 3 pixels are 0.6 apart, the first at the centre of column 3, x = 3.5."""
    from supair.inference import SceneDescription

    model = SuPAIR(tiny.MODEL)
    description = SceneDescription(None, tf.constant([[[0.5, 0.25, 3.0, 4.0], [1.0, 1.0, 7.0, 8.0]]]), None)
    np.testing.assert_allclose(model.boxes(description), [[[3.2, 4.35, 3.6, 1.8], [6.9, 7.9, 7.2, 7.2]]], rtol=1e-6)


def test_fixed_background_by_hand():
    model = SuPAIR(dataclasses.replace(tiny.MODEL, background=None), seed=1)
    evaluation = evaluate(model)
    images = tiny.scenes(8).read(0, 8).astype(np.float64)
    log_density = -0.5 * (images / 0.35) ** 2 - math.log(0.35) - 0.5 * math.log(2 * math.pi)
    expected = np.einsum("nbrc,brc->bn", np.asarray(evaluation.parts.background_maps, np.float64), log_density)
    np.testing.assert_allclose(evaluation.log_p_background, expected, rtol=1e-5)


@pytest.mark.parametrize("structure", ["random", "poon_domingos"])
def test_eager_equals_compiled(structure):
    """ELBO and gradients, to rounding."""
    config = dataclasses.replace(
        tiny.MODEL,
        object=object_spn(structure=structure, step=2, num_components=3, num_sums=2),
        background=background_spn(structure=structure, step=8, num_components=2),
    )
    model = SuPAIR(config, seed=1)

    def elbo_and_gradients():
        with tf.GradientTape() as tape:
            elbo = tf.reduce_mean(evaluate(model).elbo.total)
        return elbo, tape.gradient(elbo, model.trainable_variables)

    eager_elbo, eager = elbo_and_gradients()
    compiled_elbo, compiled = tf.function(elbo_and_gradients, jit_compile=True)()
    assert float(compiled_elbo) == pytest.approx(float(eager_elbo), rel=1e-5)
    for variable, a, b in zip(model.trainable_variables, eager, compiled):
        assert np.linalg.norm(a - b) <= 1e-4 * np.linalg.norm(a), variable.path


def test_seed_decides_the_model():
    first, same, other = (SuPAIR(tiny.MODEL, seed) for seed in (1, 1, 2))
    assert float(tf.reduce_mean(evaluate(first).elbo.total)) == float(tf.reduce_mean(evaluate(same).elbo.total))
    assert float(tf.reduce_mean(evaluate(first).elbo.total)) != float(tf.reduce_mean(evaluate(other).elbo.total))
    graphs = [model.object_spn.graph.regions for model in (first, other)]
    assert any(not np.array_equal(a, b) for a, b in zip(*graphs))


def test_initial_weights_follow_the_paper():
    model = SuPAIR(ModelConfig(), seed=0)
    limit = math.sqrt(6 / (2500 + 256 + 1024))
    for kernel in (model.inference.kernel, model.inference.recurrent_kernel):
        values = np.asarray(kernel)
        assert np.abs(values).max() <= limit and values.std() == pytest.approx(limit / math.sqrt(3), rel=0.01)
    assert not np.any(np.asarray(model.inference.bias))
    assert np.all(np.asarray(model.inference.output_layer.bias) == np.float32(0.1))
    # Cut off at two standard deviations, a normal's standard deviation shrinks to 0.88 of what it was.
    for weight, stddev in ((model.object_spn.leaf_layer.mean, 0.1), (model.object_spn.sum_layers[0].weight_logits[0], 0.5)):
        values = np.asarray(weight)
        assert np.abs(values).max() <= 2 * stddev and values.std() == pytest.approx(0.88 * stddev, rel=0.01)


def test_position_bias_decides_where_boxes_begin():
    plain, moved = (SuPAIR(dataclasses.replace(tiny.MODEL, position_bias=bias), seed=1) for bias in (None, -3.0))
    expected = np.asarray(plain.inference.output_layer.bias) - np.float32(3.1) * np.isin(np.arange(9), (3, 4))
    np.testing.assert_allclose(moved.inference.output_layer.bias, expected, rtol=1e-6)
    before, after = (np.asarray(model(tiny.scenes().images[:8] / np.float32(255)).where_loc) for model in (plain, moved))
    assert np.all(after[..., 2:] < before[..., 2:] / 3)
    np.testing.assert_array_equal(after[..., :2], before[..., :2])


@pytest.mark.parametrize(
    "change, message",
    [
        ({"patch_size": 60}, "patch_size at most scene_size 50.*found 60"),
        ({"num_steps": 0}, "num_steps to be an integer of at least 1, found 0"),
        ({"num_steps": 2.5}, "num_steps to be an integer"),
        ({"scale_min": 0.95}, "0 < scale_min <= scale_max, found .0.95, 0.9"),
        ({"overlap_rate": float("nan")}, "overlap_rate above 0, found nan"),
        ({"position_max": 1.5}, "position_max of at most 1"),
        ({"position_bias": math.inf}, "a finite position_bias or None, found inf"),
        ({"num_steps": True}, "num_steps to be an integer"),
        ({"count_penalty": float("nan")}, "a finite count_penalty"),
        ({"object": None}, "object to be an SpnConfig, found None"),
        ({"warm_up": 0.2}, "warm_up to be a WarmUp or None, found 0.2"),
        ({"scene_size": 0}, "scene_size to be an integer of at least 1, found 0"),
    ],
)
def test_impossible_models_are_refused(change, message):
    with pytest.raises(ConfigError, match=message):
        ModelConfig(**change)


@pytest.mark.parametrize(
    "build, message",
    [
        (lambda: WarmUp(doubt=1.1), "a doubt from 0 to 1, found 1.1"),
        (lambda: WarmUp(doubt=float("nan")), "a doubt from 0 to 1, found nan"),
        (lambda: WarmUp(price=-1.0), "a finite price of at least 0, found -1.0"),
        (lambda: WarmUp(price=float("inf")), "a finite price of at least 0, found inf"),
        (lambda: WarmUp(price=float("nan")), "a finite price of at least 0, found nan"),
        (lambda: WarmUp(early_rate=0.0), "an early_rate above 0, found 0.0"),
        (lambda: WarmUp(early_rate=float("nan")), "an early_rate above 0, found nan"),
        (lambda: WarmUp(steps=0), "steps to be an integer of at least 1, found 0"),
        (lambda: SpnConfig(0.3, 0.1), "0 < variance_min < variance_max, found 0.3 and 0.1"),
        (lambda: object_spn(structure="tree"), "structure random or poon_domingos, found tree"),
        (lambda: background_spn(depth=0), "depth to be an integer of at least 1, found 0"),
        (lambda: TrainingConfig(batch_size=0), "batch_size to be an integer of at least 1, found 0"),
        (lambda: TrainingConfig(learning_rate=-1.0), "learning_rate above 0"),
        (lambda: TrainingConfig(seed=2**31), "seed below"),
        (lambda: TrainingConfig(beta_1=1.5), "beta_1 in .0, 1., found 1.5"),
        (lambda: TrainingConfig(epsilon=-1.0), "epsilon above 0"),
        (lambda: SuPAIR(tiny.MODEL)(np.zeros([2, 24, 24], "float32")), r"scenes \[batch, 12, 12\], found \(2, 24, 24\)"),
        (lambda: paper_model("mnist"), "a data set out of multi_mnist, sprites"),
        (lambda: SuPAIR(ModelConfig(patch_size=2, object=object_spn(depth=3))), "structure does not fit.*at least 8 variables"),
    ],
)
def test_other_impossible_configurations_are_refused(build, message):
    with pytest.raises(ConfigError, match=message):
        build()


def test_variance_bounds_of_the_four_data_sets():
    bounds = {
        name: (
            config.object.variance_min,
            config.object.variance_max,
            config.background.variance_min,
            config.background.variance_max,
        )
        for name in ("multi_mnist", "sprites", "noisy_mnist", "grid_mnist")
        if (config := paper_model(name))
    }
    assert bounds == {
        "multi_mnist": (0.12, 0.35, 0.002, 0.12),
        "sprites": (0.12, 0.35, 0.002, 0.16),
        "noisy_mnist": (0.25, 0.35, 0.002, 0.06),
        "grid_mnist": (0.12, 0.35, 0.002, 0.12),
    }


def test_patches_are_put_back_where_they_were_cropped():
    """A linear ramp, cropped and put back, is itself inside the box and nothing outside."""
    from supair.geometry import crop, take_apart
    from supair.model import patch_points

    config = ModelConfig(scene_size=20, patch_size=8)
    image = np.add.outer(np.arange(20.0), 2 * np.arange(20.0))[np.newaxis]
    left, top, width, height = 3.3, 5.6, 1.25, 1.5  # widths in patches: columns 3.3 .. 13.3, rows 5.6 .. 17.6
    z_where = tf.constant([[[width, height, left, top]]], tf.float64)
    patch = take_apart(image, z_where, 8).patches[0]
    rows, columns = (
        patch_points(tf.constant([[a]], tf.float64), tf.constant([[b]], tf.float64), config)
        for a, b in ((top, height), (left, width))
    )
    put_back = crop(patch, rows, columns)[0].numpy()
    np.testing.assert_allclose(put_back[6:18, 4:14], image[0, 6:18, 4:14], atol=1e-9)
    assert np.all(put_back[:4] == 0) and np.all(put_back[:, :2] == 0) and np.all(put_back[:, 16:] == 0)


@pytest.mark.parametrize("background", [tiny.MODEL.background, None], ids=["background", "fixed"])
def test_reconstruction_puts_the_first_object_in_front(background, monkeypatch):
    """Both boxes at the same place, step 1 white and step 2 grey: white inside, the background's explanation outside."""
    model = SuPAIR(dataclasses.replace(tiny.MODEL, background=background), seed=1)
    output = model.inference.output_layer
    output.kernel.assign(tf.zeros_like(output.kernel))
    patches = tf.stack([tf.fill([4, 6, 6], 1.0), tf.fill([4, 6, 6], 0.5)])
    monkeypatch.setattr(model, "reconstruct_objects", lambda parts: patches)
    images = tiny.scenes(4).read(0, 4)
    for logit, inside in ((9.0, 1.0), (-9.0, None)):
        output.bias.assign([logit] + 8 * [0.0])  # boxes in the middle of their ranges, columns and rows 5.4 .. 9
        scene = model.reconstruct(images).numpy()
        assert scene.shape == (4, 12, 12)
        assert scene.min() >= 0 and scene.max() <= 1
        if inside is not None:
            np.testing.assert_allclose(scene[:, 6:9, 6:9], inside, rtol=1e-6)
        elif background is None:
            assert np.all(scene == 0)
        assert np.all(scene[:, :4] == 0) == (background is None)


def test_composed_scenes_have_no_seams():
    """White patches on a white background, at places between pixels: white everywhere."""
    model = SuPAIR(tiny.MODEL, seed=1)
    model.inference.output_layer.bias.assign([9.0, 0.3, -0.2, 0.4, -0.6, 0.0, 0.0, 0.0, 0.0])
    images = tiny.scenes(4).read(0, 4)
    white = model.compose(model(images), tf.ones([2, 4, 6, 6]), images, lambda spn, x, observed: tf.ones_like(x))
    np.testing.assert_allclose(white, 1.0, rtol=1e-6)


def test_reconstructions_are_composed_of_what_the_spns_explain():
    model = SuPAIR(tiny.MODEL, seed=1)
    images = tiny.scenes(4).read(0, 4)
    patches = model.reconstruct_objects(take_apart(images, model(images).where_loc, 6))
    expected = model.compose(model(images), patches, images, lambda spn, x, observed: spn.reconstruct(x, observed, (3, 4)))
    np.testing.assert_array_equal(model.reconstruct(images, (3, 4)), expected)


def test_only_models_of_one_structure_go_together():
    Together([SuPAIR(tiny.MODEL, seed) for seed in (0, 1)])
    graph = random_region_graph(36, 2, 2, seed=0)
    swapped = RegionGraph(36, graph.regions, [(p.parent, p.right, p.left) for p in graph.partitions])
    others = [SuPAIR(tiny.MODEL, 0, object_graph=swapped), SuPAIR(dataclasses.replace(tiny.MODEL, count_penalty=1.0), 0)]
    for other in others:
        with pytest.raises(ConfigError, match="one configuration and one structure"):
            Together([SuPAIR(tiny.MODEL, 0), other])
