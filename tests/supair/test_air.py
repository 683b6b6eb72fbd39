"""AIR: its windows, its bound and, above all, its gradient estimator, against exact enumeration."""

import itertools

import numpy as np
import pytest
import tensorflow as tf

from supair.air import AIR, draw_windows
from supair.config import AirConfig, AirWarmUp, TrainingConfig

TINY = AirConfig(8, 5, 2, lstm_units=4, hidden_units=6, head_units=3, what_size=2, count_ratio=0.4)
BATCH = 3
IMAGES = np.random.default_rng(1).random([BATCH, 8, 8]) * np.array([0.2, 0.6, 1.0])[:, None, None]
NOISE = np.random.default_rng(2).normal(size=[BATCH, 2, 6])


def with_z_pres(noise: np.ndarray, z_pres) -> np.ndarray:
    """The same noise for z_where and z_what, and such that z_pres comes out as given."""
    noise = noise.copy()
    noise[:, :, 0] = np.where(z_pres, -30.0, 30.0)
    return noise


NONE, ONE, BOTH = (with_z_pres(NOISE, z_pres) for z_pres in ([0, 0], [1, 0], [1, 1]))


@pytest.fixture(scope="module")
def air() -> AIR:
    """A tiny AIR in float64 whose z_pres is undecided and depends on scene and earlier steps."""
    model = AIR(TINY, seed=1, dtype="float64")
    rng = np.random.default_rng(0)
    for variable in model.trainable_variables:
        variable.assign(variable + rng.normal(0, 0.4, variable.shape))
    first, last = model.head.layers
    first.bias.assign(np.ones(3))  # rectifiers that let something through
    last.kernel.assign(last.kernel * ([7.5] + 6 * [3.0]))
    middle = np.median(model.evaluate_elbo(IMAGES, BOTH).description.pres_logit)
    last.bias.assign(last.bias - np.eye(7)[0] * middle)
    logits = np.asarray(model.evaluate_elbo(IMAGES, BOTH).description.pres_logit)
    assert np.ptp(logits, axis=0).min() > 0.3 and np.abs(logits).max() < 3
    return model


def guide_gradient(model: AIR, loss) -> np.ndarray:
    """The gradient of `loss()` by all weights but the baseline's, as one vector."""
    with tf.GradientTape() as tape:
        value = loss()
    return flat(tape.gradient(value, model.variables_by_part["air"]))


def flat(gradients) -> np.ndarray:
    return np.concatenate([np.ravel(gradient) for gradient in gradients])


def enumerated_loss(model: AIR):
    """The bound's negative, its expectation over z_pres written out as a sum over all values."""
    total = 0.0
    for noise, z_pres in ((NONE, [0, 0]), (ONE, [1, 0]), (BOTH, [1, 1])):
        evaluation = model.evaluate_elbo(IMAGES, noise)
        np.testing.assert_array_equal(evaluation.sample.z_pres, np.tile(z_pres, [BATCH, 1]))
        log_q = tf.reduce_sum(evaluation.log_q.z_pres, axis=1)
        total -= tf.reduce_mean(tf.exp(log_q) * evaluation.elbo.total)
    return total


def test_exact_gradient_is_the_difference_quotient(air):
    """Along a random direction: no derivative of TensorFlow's is taken on trust."""
    rng, variables = np.random.default_rng(0), air.variables_by_part["air"]
    direction = [rng.normal(size=variable.shape) for variable in variables]
    exact = guide_gradient(air, lambda: enumerated_loss(air))
    slope, step = float(exact @ flat(direction)), 1e-6
    values = []
    for move in (step, -2 * step, step):
        for variable, part in zip(variables, direction):
            variable.assign_add(move * part)
        values.append(float(enumerated_loss(air)))
    assert (values[0] - values[1]) / (2 * step) == pytest.approx(slope, rel=1e-5)


def test_expected_estimate_is_the_exact_gradient(air):
    """The expectation over z_pres as a sum, by scenes, whose weights these are: no sampling."""
    expected = 0.0
    for scene, noise in itertools.product(range(BATCH), (NONE, ONE, BOTH)):
        inputs = IMAGES[scene : scene + 1], noise[scene : scene + 1]
        log_q = tf.reduce_sum(air.evaluate_elbo(*inputs).log_q.z_pres)
        estimate = guide_gradient(air, lambda inputs=inputs: air.training_loss(*inputs, 0)[0])
        expected = expected + np.exp(log_q) * estimate / BATCH
    exact = guide_gradient(air, lambda: enumerated_loss(air))
    assert np.linalg.norm(exact) > 1
    np.testing.assert_allclose(expected, exact, atol=1e-9 * np.linalg.norm(exact))


def test_only_what_follows_a_decision_weighs_on_it(air):
    """The score's gradient by z_pres' bias by hand: sum_t d log q_t · (cost_t - baseline_t)."""
    bias = air.head.layers[-1].bias
    with tf.GradientTape() as tape:
        loss, _ = air.training_loss(IMAGES, BOTH, 0)
    evaluation = air.evaluate_elbo(IMAGES, BOTH)
    chance = np.asarray(evaluation.description.z_pres)  # d log sigmoid = 1 - sigmoid
    signal = costs(evaluation) - np.asarray(evaluation.baseline)
    expected = np.mean(np.sum((1 - chance) * signal, axis=1))
    assert float(tape.gradient(loss, bias)[0]) == pytest.approx(expected, rel=1e-9)


def costs(evaluation) -> np.ndarray:
    """What is expected of the baseline at both steps: minus all terms from there on, [batch, 2]."""
    first, second = np.transpose(sum(evaluation.log_p) - sum(evaluation.log_q))
    likelihood = np.asarray(evaluation.elbo.likelihood)
    return -np.stack([likelihood + first + second, likelihood + second], axis=1)


def test_z_pres_is_drawn_as_often_as_q_says_and_by_its_own_noise(air):
    """Which, with the sum above, makes the mean of sampled estimates the exact gradient."""
    many = [2000, 1, 1]
    noise, images = np.tile(NOISE, many), np.tile(IMAGES, many)
    noise[:, :, 0] = np.random.default_rng(3).normal(size=noise.shape[:2])
    evaluation = air.evaluate_elbo(images, noise)
    drawn = np.asarray(evaluation.sample.z_pres - evaluation.description.z_pres)
    drawn = drawn.reshape(2000, BATCH, 2)
    assert np.all(np.abs(drawn.mean(axis=0)) < 4 * drawn.std(axis=0) / np.sqrt(2000))
    where = np.reshape(evaluation.sample.z_where, [2000, BATCH, 2, 3])[:, :, 0]
    np.testing.assert_allclose(where, np.broadcast_to(where[0], where.shape), rtol=1e-12)


def test_baseline_loss_reaches_the_baseline_alone(air):
    """Neither does the guide's gradient depend on the fit, nor the baseline's on anything else."""
    baseline = air.variables_by_part["baseline"]
    with tf.GradientTape(persistent=True) as tape:
        evaluation = air.evaluate_elbo(IMAGES, NOISE)
        through_baseline = tf.reduce_sum(tf.square(evaluation.baseline))
        misfit = (costs(evaluation) - evaluation.baseline) / TINY.baseline_scale
        misfit = tf.reduce_sum(tf.square(misfit)) / BATCH
        loss, _ = air.training_loss(IMAGES, NOISE, 0)
    assert set(tape.gradient(through_baseline, air.variables_by_part["air"])) == {None}
    for ours, expected in zip(tape.gradient(loss, baseline), tape.gradient(misfit, baseline)):
        np.testing.assert_allclose(ours, expected, atol=1e-12)
        assert np.any(np.asarray(expected) != 0)


def test_absent_objects_do_not_count(air):
    none, one = (air.evaluate_elbo(IMAGES, noise) for noise in (NONE, ONE))
    for evaluation, absent in ((none, [0, 1]), (one, [1])):
        for density in (*evaluation.log_p[1:], *evaluation.log_q[1:]):
            assert np.all(np.asarray(density)[:, absent] == 0)
    assert np.all(np.asarray(none.scene_mean) == 0)
    assert np.all(np.asarray(none.log_q.z_pres)[:, 1] == 0)
    assert np.all(np.asarray(none.baseline)[:, 1] == 0)
    assert np.all(np.asarray(one.log_q.z_where)[:, 0] != 0) and np.any(one.scene_mean > 0)
    other = ONE.copy()
    other[:, 1, 1:] += 1.0  # what an absent object would have been
    changed = air.evaluate_elbo(IMAGES, other)
    np.testing.assert_allclose(changed.elbo.total, one.elbo.total, rtol=1e-12)


def test_boxes_are_where_the_window_lands(air):
    where = tf.constant([[[2.0, -0.5, 0.5], [1.0, 0.0, 0.0]]], tf.float64)
    description = air(np.zeros([1, 8, 8]))._replace(where_loc=where)
    # u = (±1 - x) / s: centres of columns from -0.25 to 0.75, of rows from -0.75 to 0.25, 3.5
    # pixels to 1.  The window's 5 pixels are 3.5 / 4 scene pixels wide, and the box begins half of
    # one before the first centre; +0.5: edges.
    half = 3.5 / 4 / 2
    first = [0.75 * 3.5 + 0.5 - half, 0.25 * 3.5 + 0.5 - half, 5 * 2 * half, 5 * 2 * half]
    np.testing.assert_allclose(air.boxes(description), [[first, [-0.375, -0.375, 8.75, 8.75]]])


def test_prior_over_counts():
    """p(N = n) in proportion to k^n: 1000, 100, 10 and 1 of 1111; these are chances of going on."""
    chances = AirConfig(count_ratio=0.1).prior_chances
    np.testing.assert_allclose(chances, [111 / 1111, 11 / 111, 1 / 11], rtol=1e-9)


def test_without_noise_the_likelier_z_pres(air):
    bias = air.head.layers[-1].bias
    before = bias.numpy()
    # The middle scene undecided, one above, one below.
    bias.assign(before - np.eye(7)[0] * np.median(air(IMAGES).pres_logit[:, 0]))
    description = air(IMAGES)
    bias.assign(before)
    likely = np.asarray(tf.sigmoid(description.pres_logit)) > 0.5
    counts = np.sum(np.round(description.z_pres) == 1, axis=1)
    assert len(set(counts)) > 1
    np.testing.assert_array_equal(counts, likely[:, 0] * (1 + likely[:, 1]))
    assert np.all(np.asarray(description.z_pres)[~likely[:, 0], 1] == 0)


def test_warm_up_trains_some_scenes_with_fewer_windows():
    """In half of the scenes 1 or 2 windows out of 3, and fewer scenes the longer it has lasted."""
    noise = np.random.default_rng(0).normal(size=20_000).astype(np.float32)
    for step, share in ((0, 0.5), (5, 0.25), (10, 0.0), (99, 0.0)):
        windows = np.asarray(draw_windows(noise, step, AirWarmUp(0.5, 10), 3)).astype(int)
        shares = np.bincount(windows, minlength=4) / 20_000
        expected = [0, share / 2, share / 2, 1 - share]
        np.testing.assert_allclose(shares, expected, atol=0.015 if share else 0)


def test_with_fewer_windows_the_steps_beyond_do_not_count():
    """Nothing is decided, found or expected there; after the warm-up the loss is as without."""
    model, config = AIR(TINY, seed=1, dtype="float64"), TrainingConfig(warm_up=AirWarmUp(1.0, 10))
    noise = np.concatenate([BOTH, np.zeros([BATCH, 2, 1])], axis=-1)
    one, both = (model.evaluate_elbo(IMAGES, noise) for noise in (ONE, BOTH))
    of_one = one.elbo.total - (one.log_p.z_pres - one.log_q.z_pres)[:, 1]
    warm = model.evaluate_elbo(IMAGES, noise, windows=tf.ones([BATCH]))
    np.testing.assert_allclose(warm.elbo.total, of_one, rtol=1e-12)
    assert not np.any(np.asarray(warm.baseline)[:, 1])
    assert not np.any(np.asarray(warm.description.z_pres)[:, 1])
    for step, expected in ((0, of_one), (10, both.elbo.total)):
        elbo = model.training_loss(IMAGES, noise, step, config)[1]
        assert float(elbo) == pytest.approx(np.mean(expected), rel=1e-12)
    after = model.training_loss(IMAGES, noise, 10, config)
    without = model.training_loss(IMAGES, BOTH, 10)
    np.testing.assert_allclose(after, without, rtol=1e-12)
