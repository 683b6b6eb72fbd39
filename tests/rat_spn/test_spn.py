"""RAT-SPNs against the flat mixture that they stand for, in double precision."""

import doctest
import itertools
import logging

import keras
import numpy as np
import pytest
import tensorflow as tf
from absl import flags
from oracles import log_density, mixture_log_prob, spn_mixture
from tensorflow_probability.python.internal import test_util

import rat_spn
from rat_spn import RatSpn, RegionGraph, fit, poon_domingos_region_graph, random_region_graph
from rat_spn.distribution import RatSpnDistribution

# Leaves of unequal size, a region with two partitions, and one (region 5) that two parents share.
EXPLICIT = RegionGraph(
    4,
    [[0, 1, 2, 3], [0, 1, 2], [3], [0], [1, 2], [0, 1], [2], [2, 3]],
    [(0, 1, 2), (0, 5, 7), (1, 3, 4), (1, 5, 6)],
)
GRAPHS = {
    "random": random_region_graph(4, 2, 2, seed=0),
    "odd": random_region_graph(3, 1, 3, seed=1),
    "poon_domingos": poon_domingos_region_graph(2, 3, 1, depth=2),
    "explicit": EXPLICIT,
}
FLAT = RegionGraph(2, [[0, 1], [0], [1]], [(0, 1, 2)])
BOUNDS = {"variance_min": 0.1, "variance_max": 0.9}
KINDS = {  # a graph and options of each
    **{name: (graph, BOUNDS) for name, graph in GRAPHS.items()},
    "bernoulli": (EXPLICIT, {"leaves": "bernoulli"}),
    "classes": (GRAPHS["odd"], {**BOUNDS, "num_classes": 3}),
}
every_kind = pytest.mark.parametrize("name", KINDS)


def make(name: str, dtype="float64") -> RatSpn:
    graph, options = KINDS[name]
    spn = RatSpn(graph, 2, 3, **options, seed=4, dtype=dtype)
    rng = np.random.default_rng(5)
    for variable in spn.trainable_variables:  # far from uniform
        variable.assign(rng.normal(size=variable.shape))
    return spn


def evidence(spn: RatSpn):
    """Seven x, and how far each variable is observed: wholly or not at all, and in part."""
    rng, shape = np.random.default_rng(6), [7, spn.graph.num_variables]
    x, soft = rng.normal(size=shape), rng.uniform(size=shape)
    x = 1.0 * (x > 0) if spn.leaves == "bernoulli" else x
    return x, np.round(soft), soft


@every_kind
def test_log_prob_is_that_of_the_enumerated_mixture(name):
    spn = make(name)
    x, hard, soft = evidence(spn)
    x, observed = np.tile(x, [3, 1]), np.concatenate([np.ones_like(x), hard, soft])
    mixture = spn_mixture(spn)
    assert sum(weight for weight, _, _ in mixture) == pytest.approx(1, abs=1e-12)
    expected = [mixture_log_prob(spn, mixture, *row) for row in zip(x, observed)]
    np.testing.assert_allclose(spn.log_prob(x, observed), expected, rtol=1e-10, atol=1e-12)
    mixture = spn_mixture(spn, [spn.num_classes - 1])
    last = [mixture_log_prob(spn, mixture, *row) for row in zip(x, observed)]
    np.testing.assert_allclose(spn.class_log_prob(x, observed)[:, -1], last, rtol=1e-10)
    single = make(name, "float32").log_prob(x, observed)
    np.testing.assert_allclose(single, expected, rtol=2e-5, atol=2e-5)


def test_float32_is_exact_enough_for_the_narrowest_leaves_of_the_paper():
    """2,500 pixels at a variance of 0.002 to 0.002 nats; factors of 10 bits would be 0.8 off."""
    graph = random_region_graph(2500, 1, 3, seed=0)
    x = np.random.default_rng(0).normal(0.1, 0.03, size=[4, 2500]).clip(0, 1)
    single, double = (
        RatSpn(graph, 6, 3, variance_min=0.002, variance_max=0.003, seed=1, dtype=dtype)
        for dtype in ("float32", "float64")
    )
    for ours, theirs in zip(single.trainable_variables, double.trainable_variables, strict=True):
        theirs.assign(ours.numpy())
    np.testing.assert_allclose(single.log_prob(x), double.log_prob(x), atol=0.002)


def test_full_float32_is_required_where_there_is_a_gpu(monkeypatch, caplog):
    caplog.set_level(logging.INFO)
    precision = tf.config.experimental
    before = precision.tensor_float_32_execution_enabled()
    precision.enable_tensor_float_32_execution(True)
    try:
        for gpus, enabled in (([], True), (["GPU:0"], False), (["GPU:0"], False)):
            monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind, gpus=gpus: gpus)
            RatSpn(GRAPHS["odd"], 2, 2, 0.1, 0.9)
            assert precision.tensor_float_32_execution_enabled() == enabled
    finally:
        precision.enable_tensor_float_32_execution(before)
    assert [record.name for record in caplog.records] == ["rat_spn.layers"]


@pytest.mark.parametrize("dtype, value", [("float32", 30.0), ("float64", 1e3)])
def test_far_away_points_have_finite_densities_and_gradients(dtype, value):
    spn = make("explicit", dtype)
    x = tf.fill([2, 4], tf.constant(value, dtype))
    with tf.GradientTape() as tape:
        tape.watch(x)
        log_prob = spn.log_prob(x)
    gradient = np.asarray(tape.gradient(log_prob, x))
    assert np.all(np.isfinite(log_prob)) and np.all(np.isfinite(gradient)) and np.all(gradient < 0)


@every_kind
@pytest.mark.parametrize("given", [False, True], ids=["all", "given the first"])
def test_samples_have_the_moments_of_the_mixture(name, given):
    """Without evidence, and given variable 0, which stays; means and covariances are exact."""
    spn = make(name)
    value = 1.0 if spn.leaves == "bernoulli" else 0.7
    weights, means, variances = (np.array(part) for part in zip(*spn_mixture(spn)))
    start, x = int(given), np.full([30_000, means.shape[1]], np.nan)  # the first one sampled
    if given:
        x[:, 0] = value
        first = np.exp(log_density(spn, value, means[:, 0], variances[:, 0]))
        weights = weights * first / np.sum(weights * first)
    samples = np.asarray(spn.sample_conditional(x, None, seed=[3, 4]))
    np.testing.assert_array_equal(samples[:, :start], value)
    mean = weights @ means
    np.testing.assert_allclose(spn.conditional_mean(x[:1])[0, start:], mean[start:], rtol=1e-9)
    second = np.einsum("k,ki,kj->ij", weights, means, means) + np.diag(weights @ variances)
    covariance = (second - np.outer(mean, mean))[start:, start:]
    if not given:
        exact = RatSpnDistribution(spn).covariance()
        np.testing.assert_allclose(exact, covariance, rtol=1e-9, atol=1e-12)
    error = 5 * np.sqrt(np.diag(covariance) / len(samples))
    assert np.all(np.abs(samples.mean(axis=0) - mean)[start:] < error)
    found = np.cov(samples.T)[start:, start:]
    np.testing.assert_allclose(found, covariance, atol=0.08 * np.diag(covariance).max())


def test_explanations_by_hand():
    """x0 near component 1's mean: the best pair of the only partition is followed; so its code."""
    spn = RatSpn(FLAT, 2, 1, variance_min=0.1, variance_max=0.3, dtype="float64")
    # p(pair) = 0.4 (0, 0), 0.1 (0, 1), 0.2 (1, 0), 0.3 (1, 1)
    pairs = np.log([0.4, 0.1, 0.2, 0.3]).reshape([1, 1, 2, 2, 1])
    spn.set_weights([np.array([[0.0, 1.0], [5.0, 7.0]]), np.zeros([2, 2]), pairs])
    x = np.array([[0.95, 0.0], [0.1, 0.0], [0.0, 0.0], [0.0, 7.1]])
    observed = np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 0.0], [0.0, 1.0]])
    expected = [[1, 7], [0, 5], [0, 5], [1, 7]]
    np.testing.assert_allclose(spn.reconstruct(x, observed), expected)
    codes = spn.encode(x, observed)
    np.testing.assert_array_equal(codes, [[0, 1, 0, 1], [1, 0, 1, 0], [1, 0, 1, 0], [0, 1, 0, 1]])
    np.testing.assert_allclose(spn.decode(codes), expected)
    # With samples at the leaves, the same components: variance 0.2 around these means.
    many = (np.repeat(values[:1], 20_000, axis=0) for values in (x, observed))
    samples = spn.reconstruct(*many, leaf_seed=(1, 2))
    np.testing.assert_allclose(np.mean(samples, axis=0), [1, 7], atol=0.02)
    np.testing.assert_allclose(np.var(samples, axis=0), [0.2, 0.2], atol=0.01)


@every_kind
def test_explanations_are_trees(name):
    """A code names a leaf for every variable, and sampled trees end in means of the mixture."""
    spn = make(name)
    codes = np.asarray(spn.encode(*evidence(spn)[:2]))
    scopes = np.repeat([len(spn.graph.regions[leaf]) for leaf in spn.graph.leaves], 2)
    np.testing.assert_array_equal(codes @ scopes, spn.graph.num_variables)
    means = {tuple(np.round(mean, 9)) for _, mean, _ in spn_mixture(spn)}
    if spn.leaves == "bernoulli":  # whose leaves give modes
        means = {tuple(np.round(mean)) for mean in means}
    samples = np.asarray(spn.sample(50, [1, 2], leaf_noise=False))
    found = {tuple(row) for row in np.round(np.concatenate([samples, spn.decode(codes)]), 9)}
    assert found <= means and len(found) > 2


def test_seed_decides_weights_and_samples():
    spns = [RatSpn(GRAPHS["random"], 2, 3, 0.1, 0.9, seed=seed) for seed in (1, 1, 2)]
    for a, b, c in zip(*([*spn.weights, spn.sample(5, [0, 1])] for spn in spns)):
        np.testing.assert_array_equal(a, b)
        assert not np.array_equal(a, c)
    assert not np.array_equal(spns[0].sample(5, [0, 1]), spns[0].sample(5, [0, 2]))


def test_impossible_arguments_and_wrong_shapes_are_refused():
    fitting = {"num_components": 2, "num_sums": 2, "variance_min": 0.1, "variance_max": 0.9}
    for name, value in (("variance_min", 1.5), ("variance_min", 0.0), ("num_components", 0)):
        with pytest.raises(ValueError, match=f"{name}.*{value}"):
            RatSpn(GRAPHS["random"], **{**fitting, name: value})
    spn = make("random")
    for labels, method in (([0, 1], "em"), (None, keras.optimizers.Adam())):
        with pytest.raises(ValueError, match="labels"):
            fit(spn, np.zeros([2, 4]), labels, method, discriminative=float(labels is None))
    with pytest.raises(ValueError, match=r"\[batch, 4\].*\(2, 5\)"):
        spn.log_prob(np.zeros([2, 5]))
    with pytest.raises(ValueError, match=r"\(2, 4\).*\(2, 3\)"):
        spn.log_prob(np.zeros([2, 4]), np.zeros([2, 3]))


def test_densities_integrate_to_one():
    """By quadrature, with and without a variable marginalised; of bits by enumeration."""
    spn = RatSpn(FLAT, 2, 3, **BOUNDS, dtype="float64", num_classes=2)
    line = np.arange(-8, 8, 0.05)
    grid = np.stack(np.meshgrid(line, line), axis=-1).reshape(-1, 2)
    np.testing.assert_allclose(np.sum(np.exp(spn.class_log_prob(grid)), 0) * 0.05**2, 1)
    grid = np.stack([line, np.full_like(line, np.nan)], axis=-1)
    np.testing.assert_allclose(np.sum(np.exp(spn.log_prob(grid))) * 0.05, 1)
    bits = np.array(list(itertools.product([0.0, 1.0], repeat=4)))
    assert np.sum(np.exp(make("bernoulli").log_prob(bits))) == pytest.approx(1)


def test_nan_is_not_observed():
    spn = make("explicit")
    x, observed, _ = evidence(spn)
    missing = np.where(observed, x, np.nan)
    for function in (spn.log_prob, spn.conditional_mean, spn.reconstruct):
        np.testing.assert_array_equal(function(missing), function(x, observed))


def test_samples_moments_and_densities_agree_by_the_helpers_of_tfp():
    flags.FLAGS(["tests"])
    bases = test_util.VectorDistributionTestHelpers, test_util.TestCase
    spn, helpers = RatSpn(FLAT, 2, 3, **BOUNDS, num_classes=2), type("Helpers", bases, {})()
    options = {"dist": RatSpnDistribution(spn), "seed": 1}
    options["sess_run_fn"] = lambda values: [np.asarray(value) for value in values or []]
    helpers.run_test_sample_consistent_mean_covariance(**options, atol=0.02)
    for radius, center in ((0.7, 0.0), (1.0, 0.4)):
        ball = {"radius": radius, "center": center, "rtol": 0.02}
        helpers.run_test_sample_consistent_log_prob(**options, **ball)


def test_a_distribution_has_shapes_a_mode_and_gradients_through_the_leaves_noise():
    spn = make("explicit")
    distribution, nothing = RatSpnDistribution(spn), np.full([1, 4], np.nan)
    assert distribution.event_shape == [4] and distribution.batch_shape == []
    assert distribution.log_prob(np.zeros([2, 3, 4])).shape == [2, 3]
    np.testing.assert_array_equal(distribution.mode(), spn.reconstruct(nothing)[0])
    np.testing.assert_array_equal(distribution.mean(), spn.conditional_mean(nothing)[0])
    with tf.GradientTape() as tape:
        samples = distribution.sample([50, 2], seed=[1, 2])
    mean, logit, *of_sums = tape.gradient(samples, distribution.trainable_variables)
    assert samples.shape == [50, 2, 4] and of_sums == [None] * len(of_sums)
    assert np.sum(mean) == pytest.approx(400) and np.all(np.isfinite(logit)) and np.any(logit)


@every_kind
def test_full_batch_em_never_lowers_the_likelihood(name):
    """With values missing and, of several classes, labels; all weights stay finite."""
    spn, rng = make(name), np.random.default_rng(0)
    x = rng.normal(size=[200, spn.graph.num_variables]) + rng.choice([-1, 1], [200, 1])
    x = np.where(rng.random(x.shape) < 0.2, np.nan, x > 0 if name == "bernoulli" else x)
    labels = rng.integers(0, 3, 200) if name == "classes" else None
    history = fit(spn, x, labels, epochs=30, batch_size=200, decay=0)
    assert np.all(np.diff(history) > -1e-9) and history[-1] > history[0] + 0.1
    assert np.all([np.all(np.isfinite(weight)) for weight in spn.get_weights()])


def test_an_em_step_by_hand():
    """Of one Gaussian for each variable: means and, within bounds, variances of the rows."""
    spn = RatSpn(FLAT, 1, 1, **BOUNDS, dtype="float64")
    x = np.random.default_rng(0).normal([1, 2], [0.6, 3], [50, 2])
    fit(spn, x, epochs=1, batch_size=50, decay=0)
    np.testing.assert_allclose(spn.leaf_layer.mean[:, 0], x.mean(axis=0))
    np.testing.assert_allclose(spn.leaf_layer.variance[:, 0], [x[:, 0].var(), 0.9], rtol=1e-4)


@pytest.mark.parametrize("method", ["em", "adam"])
def test_fit_learns_classes(method):
    """Whether two signs are equal; by stochastic EM, and discriminatively by gradients."""
    rng = np.random.default_rng(0)
    signs, spn = rng.choice([-1, 1], [1000, 4]), RatSpn(EXPLICIT, 4, 4, **BOUNDS, num_classes=2)
    x, labels = rng.normal(signs, 0.4), signs[:, 1] == signs[:, 2]
    spn.leaf_layer.mean.assign(rng.normal(size=spn.leaf_layer.mean.shape))
    options = {"method": keras.optimizers.Adam(0.05), "discriminative": 1.0}
    history = fit(spn, x, labels, batch_size=100, **(options if method == "adam" else {}))
    guess = np.argmax(spn.class_log_prob(x), axis=1)
    assert history[-1] > history[0] and np.mean(guess == labels) > 0.95


@pytest.mark.parametrize("name", ["explicit", "bernoulli", "classes"])
def test_a_loaded_copy_and_a_compiled_function_give_the_same(name, tmp_path):
    spn = make(name)
    x, observed, _ = evidence(spn)
    keras.Sequential([keras.Input(x.shape[1:]), spn]).save(tmp_path / "a.keras")
    copy = keras.models.load_model(tmp_path / "a.keras").layers[0]
    expected = spn.class_log_prob(x, observed)
    np.testing.assert_array_equal(copy.class_log_prob(x, observed), expected)
    compiled = tf.function(spn.class_log_prob, jit_compile=True)(x, observed)
    np.testing.assert_allclose(compiled, expected, rtol=1e-12)


def test_the_example_in_the_documentation_runs():
    failed, attempted = doctest.testmod(rat_spn)
    assert attempted > 0 and not failed
