"""AIR: its windows, its bound and, above all, its gradient estimator, against exact enumeration."""

import dataclasses
import itertools

import numpy as np
import pytest
import tensorflow as tf
import tiny

from supair.air import AIR, AirSample, sample_at, scene_points, window_points
from supair.config import AirConfig, AirWarmUp, ConfigError, TrainingConfig, air_training
from supair.evaluation import sample_noise
from supair.files import read_log
from supair.together import Together
from supair.training import Optimizer, Run, make_train_steps

TINY = AirConfig(
    scene_size=8, window_size=5, num_steps=2, lstm_units=4, hidden_units=6, head_units=3, what_size=2, count_ratio=0.4
)
BATCH = 3


@pytest.fixture(scope="module")
def air() -> AIR:
    """A tiny AIR in float64 whose z_pres is undecided and depends on the scene and on the steps before."""
    model = AIR(TINY, seed=1, dtype="float64")
    rng = np.random.default_rng(0)
    for variable in model.trainable_variables:
        variable.assign(variable + rng.normal(0, 0.4, variable.shape))
    model.head.layers[0].bias.assign(np.ones(3))  # rectifiers that let something through
    model.head.layers[-1].kernel.assign(model.head.layers[-1].kernel * ([7.5] + 6 * [3.0]))
    middle = np.median(model.evaluate_elbo(_images(), with_z_pres(_noise(), [1, 1])).description.pres_logit)
    model.head.layers[-1].bias.assign(model.head.layers[-1].bias - np.eye(7)[0] * middle)
    logits = np.asarray(model.evaluate_elbo(_images(), with_z_pres(_noise(), [1, 1])).description.pres_logit)
    assert np.ptp(logits, axis=0).min() > 0.3 and np.abs(logits).max() < 3, logits
    return model


def _images() -> np.ndarray:
    return np.random.default_rng(1).random([BATCH, 8, 8]) * np.array([0.2, 0.6, 1.0])[:, None, None]


def _noise() -> np.ndarray:
    return np.random.default_rng(2).normal(size=[BATCH, 2, 6])


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return _images()


@pytest.fixture(scope="module")
def noise() -> np.ndarray:
    return _noise()


def with_z_pres(noise: np.ndarray, z_pres) -> np.ndarray:
    """The same noise for z_where and z_what, and such for z_pres that it comes out as given."""
    noise = noise.copy()
    noise[:, :, 0] = np.where(z_pres, -30.0, 30.0)
    return noise


def possible_z_pres(steps: int) -> list[list[int]]:
    return [[1] * count + [0] * (steps - count) for count in range(steps + 1)]


def guide_variables(model: AIR) -> list:
    baseline = {id(variable) for variable in model.baseline_variables}
    return [variable for variable in model.trainable_variables if id(variable) not in baseline]


def flat(gradients) -> np.ndarray:
    return np.concatenate([np.ravel(gradient) for gradient in gradients])


def enumerated_loss(model: AIR, images, noise):
    """The bound's negative, its expectation over z_pres written out as a sum over all values."""
    total = 0.0
    for z_pres in possible_z_pres(model.config.num_steps):
        evaluation = model.evaluate_elbo(images, with_z_pres(noise, z_pres))
        assert np.array_equal(evaluation.sample.z_pres, np.tile(z_pres, [BATCH, 1]))
        log_q = tf.reduce_sum(evaluation.log_q.z_pres, axis=1)
        total -= tf.reduce_mean(tf.exp(log_q) * evaluation.elbo.total)
    return total


def exact_gradient(model: AIR, images, noise) -> np.ndarray:
    with tf.GradientTape() as tape:
        total = enumerated_loss(model, images, noise)
    return flat(tape.gradient(total, guide_variables(model)))


@pytest.mark.parametrize("seed", range(3))
def test_exact_gradient_is_the_difference_quotient(air, images, noise, seed):
    """Along a random direction: no derivative of TensorFlow's is taken on trust."""
    rng = np.random.default_rng(seed)
    variables = guide_variables(air)
    direction = [rng.normal(size=variable.shape) for variable in variables]
    slope, step = float(exact_gradient(air, images, noise) @ flat(direction)), 1e-6
    values = []
    for move in (step, -2 * step, step):
        for variable, part in zip(variables, direction):
            variable.assign_add(move * part)
        values.append(float(enumerated_loss(air, images, noise)))
    assert (values[0] - values[1]) / (2 * step) == pytest.approx(slope, rel=1e-5)


def estimate(model: AIR, images, noise) -> np.ndarray:
    """The estimator's gradient with one sample of z_pres."""
    with tf.GradientTape() as tape:
        loss, _ = model.training_loss(images, noise, 0)
    return flat(tape.gradient(loss, guide_variables(model)))


def test_expected_estimate_is_the_exact_gradient(air, images, noise):
    """The expectation over z_pres as a sum: no sampling, so equal to rounding.

    One scene at a time, because the weights of the sum are the scene's.
    """
    expected = 0.0
    for scene in range(BATCH):
        image, scene_noise = images[scene : scene + 1], noise[scene : scene + 1]
        for z_pres in possible_z_pres(2):
            fixed = with_z_pres(scene_noise, z_pres)
            log_q = tf.reduce_sum(air.evaluate_elbo(image, fixed).log_q.z_pres)
            expected = expected + np.exp(log_q) * estimate(air, image, fixed) / BATCH
    exact = exact_gradient(air, images, noise)
    assert np.linalg.norm(exact) > 1
    np.testing.assert_allclose(expected, exact, atol=1e-9 * np.linalg.norm(exact))


def test_only_what_follows_a_decision_weighs_on_it(air, images, noise):
    """The score's gradient by the bias of z_pres' logit by hand: sum_t d log q_t · (cost_t - baseline_t)."""
    fixed = with_z_pres(noise, [1, 1])
    bias = air.head.layers[-1].bias
    with tf.GradientTape() as tape:
        loss, _ = air.training_loss(images, fixed, 0)
    evaluation = air.evaluate_elbo(images, fixed)
    terms = np.asarray(sum(evaluation.log_p) - sum(evaluation.log_q))
    likelihood = np.asarray(evaluation.elbo.likelihood)
    cost = -np.stack([likelihood + terms[:, 0] + terms[:, 1], likelihood + terms[:, 1]], axis=1)
    chance = np.asarray(evaluation.description.z_pres)  # d log sigmoid(logit) = 1 - sigmoid(logit), for z_pres = 1
    expected = np.mean(np.sum((1 - chance) * (cost - np.asarray(evaluation.baseline)), axis=1))
    assert float(tape.gradient(loss, bias)[0]) == pytest.approx(expected, rel=1e-9)


def estimator(model: AIR, images):
    """A function (noise, number) -> estimates [number, weights], with z_pres drawn anew each time and all other noise fixed."""

    @tf.function(autograph=False)
    def one(noise):
        with tf.GradientTape() as tape:
            loss, _ = model.training_loss(images, noise, 0)
        return tf.concat([tf.reshape(part, [-1]) for part in tape.gradient(loss, guide_variables(model))], axis=0)

    def estimates(noise, number: int) -> np.ndarray:
        drawn = np.tile(noise, [number, 1, 1, 1])
        drawn[..., 0] = np.random.default_rng(3).normal(size=drawn.shape[:-1])
        return np.stack([one(each) for each in tf.constant(drawn)])

    return estimates


def test_average_of_many_estimates_is_the_exact_gradient(air, images, noise):
    estimates = estimator(air, images)(noise, 1500)
    exact = exact_gradient(air, images, noise)
    error = estimates.mean(axis=0) - exact
    standard_error = estimates.std(axis=0, ddof=1) / np.sqrt(len(estimates))
    varied = standard_error > 1e-9 * np.linalg.norm(exact)
    z = error[varied] / standard_error[varied]
    assert varied.sum() > 100 and np.abs(z).max() < 5 and 0.2 < np.mean(z**2) < 3
    assert np.linalg.norm(error[~varied]) < 1e-7 * np.linalg.norm(exact)


def test_baseline_changes_the_variance_and_not_the_mean(images, noise):
    """With the best constant baseline the estimates vary less than with one far off, about the same mean."""
    model = AIR(TINY, seed=1, dtype="float64")
    cost = -float(tf.reduce_mean(model.evaluate_elbo(images, noise).elbo.total))
    results, sample = {}, estimator(model, images)
    for name, constant in (("good", cost), ("bad", cost + 1000.0)):
        model.baseline_head.layers[-1].kernel.assign(model.baseline_head.layers[-1].kernel * 0)
        model.baseline_head.layers[-1].bias.assign([constant / TINY.baseline_scale])
        results[name] = sample(noise, 500)
    variance = {name: estimates.var(axis=0).sum() for name, estimates in results.items()}
    assert variance["good"] < 0.1 * variance["bad"]
    exact = exact_gradient(model, images, noise)
    for estimates in results.values():
        error = np.linalg.norm(estimates.mean(axis=0) - exact)
        assert error < 3 * np.sqrt(estimates.var(axis=0).sum() / len(estimates))


def test_baseline_loss_reaches_the_baseline_alone(air, images, noise):
    """The guide's gradient does not depend on the fit of the baseline, nor the baseline's on anything but the fit."""
    with tf.GradientTape(persistent=True) as tape:
        evaluation = air.evaluate_elbo(images, noise)
        through_baseline = tf.reduce_sum(tf.square(evaluation.baseline))
        loss, _ = air.training_loss(images, noise, 0)
    assert all(gradient is None for gradient in tape.gradient(through_baseline, guide_variables(air)))
    elbo, log_p, log_q = evaluation.elbo, evaluation.log_p, evaluation.log_q
    terms = np.asarray(sum(log_p) - sum(log_q))
    cost = -(np.asarray(elbo.likelihood)[:, None] + np.stack([terms.sum(axis=1), terms[:, 1]], axis=1))
    with tf.GradientTape() as fit_tape:
        baseline = air.evaluate_elbo(images, noise).baseline
        misfit = tf.reduce_sum(tf.square((cost - baseline) / TINY.baseline_scale)) / BATCH
    for ours, expected in zip(tape.gradient(loss, air.baseline_variables), fit_tape.gradient(misfit, air.baseline_variables)):
        np.testing.assert_allclose(ours, expected, atol=1e-12)
        assert np.any(np.asarray(expected) != 0)


def test_absent_objects_do_not_count(air, images, noise):
    none, one = (air.evaluate_elbo(images, with_z_pres(noise, z_pres)) for z_pres in ([0, 0], [1, 0]))
    for evaluation, absent in ((none, [0, 1]), (one, [1])):
        for density in (*evaluation.log_p[1:], *evaluation.log_q[1:]):
            assert np.all(np.asarray(density)[:, absent] == 0)
    assert np.all(np.asarray(none.scene_mean) == 0) and np.all(np.asarray(none.log_q.z_pres)[:, 1] == 0)
    assert np.all(np.asarray(none.baseline)[:, 1] == 0)
    assert np.all(np.asarray(one.log_q.z_where)[:, 0] != 0) and np.any(np.asarray(one.scene_mean) > 0)
    other = noise.copy()
    other[:, 1, 1:] += 1.0  # what an absent object would have been
    changed = air.evaluate_elbo(images, with_z_pres(other, [1, 0]))
    np.testing.assert_allclose(changed.elbo.total, one.elbo.total, rtol=1e-12)


def test_every_weight_receives_a_gradient(air, images, noise):
    with tf.GradientTape() as tape:
        loss, _ = air.training_loss(images, with_z_pres(noise, [1, 1]), 0)
    for variable, gradient in zip(air.trainable_variables, tape.gradient(loss, air.trainable_variables)):
        assert gradient is not None and np.any(np.asarray(gradient) != 0), f"{variable.path} receives no gradient"


def bilinear(image: np.ndarray, row: float, column: float) -> float:
    """One sample, with zeros outside, pixel by pixel."""
    total = 0.0
    for r, c in itertools.product(range(image.shape[0]), range(image.shape[1])):
        total += image[r, c] * max(0.0, 1 - abs(row - r)) * max(0.0, 1 - abs(column - c))
    return total


def place(image: np.ndarray, size: int, scale: float, x: float, y: float) -> np.ndarray:
    """NumPy twin of both transforms: output position u in [-1, 1] reads the image at scale u + (x, y)."""
    result, at = np.zeros([size, size]), np.linspace(-1, 1, size)
    for r, c in itertools.product(range(size), range(size)):
        row, column = ((scale * at[k] + shift + 1) / 2 * (len(image) - 1) for k, shift in ((r, y), (c, x)))
        result[r, c] = bilinear(image, row, column)
    return result


@pytest.mark.parametrize(
    "z_where", [(3.0, 0.0, 0.0), (2.0, 0.7, -0.4), (1.0, 0.0, 0.0), (0.8, 3.0, 0.5), (4.0, -5.0, 2.0)], ids=str
)
def test_windows_match_the_numpy_twin(z_where):
    rng = np.random.default_rng(0)
    scene, window = rng.random([9, 9]), rng.random([5, 5])
    where = tf.constant([z_where], tf.float64)
    s, x, y = z_where
    cut = sample_at(tf.constant(scene[None]), window_points(where, 5, 9))[0]
    np.testing.assert_allclose(cut, place(scene, 5, 1 / s, -x / s, -y / s), atol=1e-12)
    placed = sample_at(tf.constant(window[None]), scene_points(where, 5, 9))[0]
    np.testing.assert_allclose(placed, place(window, 9, s, x, y), atol=1e-12)


def test_transform_and_inverse_are_inverse():
    """The scene's point under window pixel k, sent to the window, is k.  Both are linear in the pixel."""
    rng = np.random.default_rng(0)
    where = tf.constant(np.stack([rng.uniform(0.5, 4, 50), *rng.normal(size=[2, 50])], axis=1))
    for to_scene, to_window in zip(window_points(where, 5, 9), scene_points(where, 5, 9)):
        first, second = np.asarray(to_window)[:, :1], np.asarray(to_window)[:, 1:2]
        back = first + (second - first) * np.asarray(to_scene)
        np.testing.assert_allclose(back, np.tile(np.arange(5.0), [50, 1]), atol=1e-9)


def test_an_exact_window_comes_back():
    """With s = (scene - 1) / (window - 1) pixels coincide: placing a cut window restores its part of the scene."""
    scene = np.random.default_rng(0).random([1, 9, 9])
    where = tf.constant([[2.0, -0.5, 0.5]], tf.float64)
    window = sample_at(tf.constant(scene), window_points(where, 5, 9))
    placed = np.asarray(sample_at(window, scene_points(where, 5, 9)))[0]
    np.testing.assert_allclose(placed[1:6, 3:8], scene[0, 1:6, 3:8], atol=1e-12)
    assert placed.sum() == pytest.approx(scene[0, 1:6, 3:8].sum())


def test_boxes_are_where_the_window_lands(air):
    where = tf.constant([[[2.0, -0.5, 0.5], [1.0, 0.0, 0.0]]], tf.float64)
    description = air(np.zeros([1, 8, 8]))._replace(where_loc=where)
    # u = (±1 - x) / s: centres of columns from -0.25 to 0.75, of rows from -0.75 to 0.25, 3.5 pixels to 1.  The window's
    # 5 pixels are 3.5 / 4 scene pixels wide, and the box begins half of one before the first centre; +0.5: edges.
    half = 3.5 / 4 / 2
    expected = [[[0.75 * 3.5 + 0.5 - half, 0.25 * 3.5 + 0.5 - half, 5 * 2 * half, 5 * 2 * half], [-0.375, -0.375, 8.75, 8.75]]]
    np.testing.assert_allclose(air.boxes(description), expected)
    same_size = 7.0 / 4.0  # window pixels as large as the scene's: the box of an object of 5 x 5 pixels at (0, 0)
    corner = tf.constant([[[same_size, same_size - 1, same_size - 1]]], tf.float64)
    np.testing.assert_allclose(air.boxes(description._replace(where_loc=corner)), [[[0, 0, 5, 5]]], atol=1e-12)


def test_prior_over_counts():
    """p(N=n) proportional to k^n, as chances of going on; the formula for three steps is Pyro's."""
    k = 0.01
    u = 1 / (1 + k + k**2 + k**3)
    p0 = 1 - u
    p1 = 1 - k * u / p0
    p2 = 1 - k**2 * u / (p0 * p1)
    np.testing.assert_allclose(AirConfig(count_ratio=k).prior_chances, [p0, p1, p2], rtol=1e-9)


def test_without_noise_the_likelier_z_pres(air, images):
    bias = air.head.layers[-1].bias
    before = bias.numpy()
    bias.assign(
        before - np.eye(7)[0] * np.median(air(images).pres_logit[:, 0])
    )  # the middle scene undecided, one above, one below
    description = air(images)
    bias.assign(before)
    likely = np.asarray(tf.sigmoid(description.pres_logit)) > 0.5
    assert len(set(description.count.numpy())) > 1
    np.testing.assert_array_equal(description.count, likely[:, 0] * (1 + likely[:, 1]))
    assert np.all(np.asarray(description.z_pres)[~likely[:, 0], 1] == 0)


def test_eager_equals_compiled(images):
    model = AIR(TINY, seed=1)
    noise = np.random.default_rng(2).normal(size=[BATCH, 2, model.noise_size]).astype(np.float32)

    def loss_and_gradients():
        with tf.GradientTape() as tape:
            loss, _ = model.training_loss(images.astype(np.float32), noise, 0)
        return loss, tape.gradient(loss, model.trainable_variables)

    eager_loss, eager = loss_and_gradients()
    compiled_loss, compiled = tf.function(loss_and_gradients, jit_compile=True)()
    assert float(compiled_loss) == pytest.approx(float(eager_loss), rel=1e-5)
    for variable, a, b in zip(model.trainable_variables, eager, compiled):
        assert np.linalg.norm(a - b) <= 1e-4 * np.linalg.norm(a) + 1e-6, variable.path


def test_two_learning_rates(tmp_path):
    """The first step of Adam moves every weight by its learning rate."""
    model = AIR(dataclasses.replace(TINY, scene_size=12), seed=1)
    optimizer = Optimizer(model, TrainingConfig(learning_rate=1e-4, baseline_learning_rate=1e-2, epsilon=1e-12))
    baseline = {id(variable) for variable in model.baseline_variables}
    before = [variable.numpy() for variable in model.trainable_variables]
    with tf.GradientTape() as tape:
        images, noise = tiny.scenes(4).read(0, 4), np.random.default_rng(0).normal(size=[4, 2, 6]).astype(np.float32)
        loss, _ = model.training_loss(images, noise, 0)
    gradients = tape.gradient(loss, model.trainable_variables)
    optimizer.apply(gradients)
    assert optimizer.step == 1
    for variable, old, gradient in zip(model.trainable_variables, before, gradients):
        moved = np.abs(variable.numpy() - old)[np.abs(gradient) > 1e-5]
        np.testing.assert_allclose(moved, 1e-2 if id(variable) in baseline else 1e-4, rtol=1e-2, err_msg=variable.path)
    with pytest.raises(ConfigError, match="baseline_learning_rate for a model with a baseline.*found None for air"):
        Optimizer(model, TrainingConfig())


def test_the_trainer_trains_it(tmp_path):
    config = TrainingConfig(seed=3, batch_size=8, learning_rate=1e-3, baseline_learning_rate=1e-2, log_every=3)
    scenes = {"train": tiny.scenes(), "test": tiny.scenes(20, 1)}
    model = AIR(dataclasses.replace(TINY, scene_size=12), config.seed)
    before = [variable.numpy() for variable in model.trainable_variables]
    with Run(tmp_path, model, config, scenes, {"scenes": "squares"}, compiled=False) as run:
        run.train(1)
    lines = read_log(tmp_path / "log.jsonl")
    assert [line["step"] for line in lines] == [3, 5]
    assert list(lines[-1]["test_elbo_terms"]) == ["likelihood", "count", "where", "what"]
    for variable, old in zip(model.trainable_variables, before):
        assert np.any(variable.numpy() != old), f"{variable.path} has not moved"


@pytest.mark.parametrize(
    "change, message",
    [
        ({"num_steps": 0}, "num_steps to be an integer of at least 1, found 0"),
        ({"window_size": 1}, "window_size of at least 2"),
        ({"head_units": -1}, "head_units to be an integer of at least 0"),
        ({"count_ratio": 0.0}, "count_ratio from 1e-12 to 1e6, found 0.0"),
        ({"scale_prior": (3.0, 0.0)}, "scale_prior .mean, standard deviation above 0., found"),
        ({"decoder_bias": float("nan")}, "a finite decoder_bias"),
        ({"baseline_scale": -1.0}, "baseline_scale above 0"),
        ({"warm_up": 0.5}, "warm_up to be an AirWarmUp or None, found 0.5"),
    ],
)
def test_impossible_configurations_are_refused(change, message):
    with pytest.raises(ConfigError, match=message):
        AirConfig(**change)


def test_impossible_warm_ups_are_refused():
    for change, message in (({"share": 1.5}, "a share from 0 to 1, found 1.5"), ({"steps": 0}, "steps to be an integer of")):
        with pytest.raises(ConfigError, match=message):
            AirWarmUp(**change)


def test_given_samples_are_used(air, images, noise):
    drawn = air.evaluate_elbo(images, noise)
    again = air.evaluate_elbo(images, np.zeros_like(noise), AirSample(*(tf.convert_to_tensor(part) for part in drawn.sample)))
    np.testing.assert_allclose(again.elbo.total, drawn.elbo.total, rtol=1e-12)


def test_warm_up_trains_some_scenes_with_fewer_windows():
    """In half of the scenes 1 or 2 windows out of 3, and fewer scenes the longer it has lasted."""
    model = AIR(dataclasses.replace(TINY, num_steps=3, warm_up=AirWarmUp(share=0.5, steps=10)), seed=1)
    noise = sample_noise(model, 0, 0, 20_000)
    for step, share in ((0, 0.5), (5, 0.25), (10, 0.0), (99, 0.0)):
        shares = np.bincount(np.asarray(model._windows(noise, step)).astype(int), minlength=4) / 20_000
        np.testing.assert_allclose(shares, [0, share / 2, share / 2, 1 - share], atol=0.015 if share else 0)


def test_with_fewer_windows_the_steps_beyond_do_not_count(images):
    """Nothing is decided, found or expected at the steps beyond; after the warm-up the loss is as without."""
    plain, model = (AIR(dataclasses.replace(TINY, warm_up=w), seed=1, dtype="float64") for w in (None, AirWarmUp(1.0, steps=10)))
    noise = np.concatenate([with_z_pres(_noise(), [1, 1]), np.zeros([BATCH, 2, 1])], axis=-1)
    one, both = (plain.evaluate_elbo(images, with_z_pres(_noise(), z_pres)) for z_pres in ([1, 0], [1, 1]))
    of_one = one.elbo.total - (one.log_p.z_pres - one.log_q.z_pres)[:, 1]
    warm = model.evaluate_elbo(images, noise, windows=tf.ones([BATCH]))
    np.testing.assert_allclose(warm.elbo.total, of_one, rtol=1e-12)
    assert not np.any(np.asarray(warm.baseline)[:, 1]) and not np.any(np.asarray(warm.description.z_pres)[:, 1])
    for step, expected in ((0, of_one), (10, both.elbo.total)):
        assert float(model.training_loss(images, noise, step)[1]) == pytest.approx(np.mean(expected), rel=1e-12)
    losses = [float(m.training_loss(images, n, 10)[0]) for m, n in ((model, noise), (plain, with_z_pres(_noise(), [1, 1])))]
    assert losses[0] == pytest.approx(losses[1], rel=1e-12)


def test_seeds_together_are_trained_as_alone():
    """Two steps of both optimizers, the baseline's included."""
    training = dataclasses.replace(air_training(0), batch_size=4)
    images = np.random.default_rng(0).integers(0, 256, [8, *_images().shape[1:]]).astype(np.uint8)

    def weights_after(model, seeds):
        noise = np.stack([[sample_noise(model, seed, step, 4) for seed in seeds] for step in range(2)])
        steps = make_train_steps(model, Optimizer(model, training), 4, 255, compiled=False)
        steps(tf.constant(images), noise, tf.constant(0), tf.constant(2))
        return [variable.numpy() for variable in model.trainable_variables]

    config = dataclasses.replace(TINY, warm_up=AirWarmUp())
    together = weights_after(Together([AIR(config, seed) for seed in (0, 1)]), (0, 1))
    for ours, expected in zip(together, weights_after(AIR(config, 1), [1]), strict=True):
        np.testing.assert_allclose(ours[1], expected, atol=1e-5)
