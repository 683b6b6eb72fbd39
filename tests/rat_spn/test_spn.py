"""RAT-SPNs against the flat mixture that they stand for, in double precision."""

import doctest
import logging

import numpy as np
import pytest
import tensorflow as tf
from oracles import mixture_log_prob, spn_mixture

import rat_spn
from rat_spn import RatSpn, RegionGraph, poon_domingos_region_graph, random_region_graph

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
every_graph = pytest.mark.parametrize("name", GRAPHS)


def make(name: str, dtype="float64") -> RatSpn:
    spn = RatSpn(GRAPHS[name], 2, 3, variance_min=0.1, variance_max=0.9, seed=4, dtype=dtype)
    rng = np.random.default_rng(5)
    for variable in spn.trainable_variables:  # far from uniform
        variable.assign(rng.normal(size=variable.shape))
    return spn


def evidence(spn: RatSpn):
    """Seven x, and how far each variable is observed: wholly or not at all, and in part."""
    rng, shape = np.random.default_rng(6), [7, spn.graph.num_variables]
    x, soft = rng.normal(size=shape), rng.uniform(size=shape)
    return x, np.round(soft), soft


@every_graph
def test_log_prob_is_that_of_the_enumerated_mixture(name):
    spn = make(name)
    x, hard, soft = evidence(spn)
    x, observed = np.tile(x, [3, 1]), np.concatenate([np.ones_like(x), hard, soft])
    mixture = spn_mixture(spn)
    assert sum(weight for weight, _, _ in mixture) == pytest.approx(1, abs=1e-12)
    expected = [mixture_log_prob(mixture, *row) for row in zip(x, observed)]
    np.testing.assert_allclose(spn.log_prob(x, observed), expected, rtol=1e-10, atol=1e-12)
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


@every_graph
def test_gradients_are_difference_quotients(name):
    spn = make(name)
    x, _, observed = evidence(spn)
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(spn.log_prob(x, observed))
    rng = np.random.default_rng(7)
    gradients = tape.gradient(loss, spn.trainable_variables)
    for variable, gradient in zip(spn.trainable_variables, gradients):
        assert np.any(np.asarray(gradient) != 0), f"{variable.path} receives no gradient"
        direction, value, step = rng.normal(size=variable.shape), variable.numpy(), 1e-6
        sides = []
        for sign in (1, -1):
            variable.assign(value + sign * step * direction)
            sides.append(float(tf.reduce_sum(spn.log_prob(x, observed))))
        variable.assign(value)
        numeric = (sides[0] - sides[1]) / (2 * step)
        assert float(np.sum(gradient * direction)) == pytest.approx(numeric, rel=1e-5, abs=1e-6)


@every_graph
@pytest.mark.parametrize("given", [False, True], ids=["all", "given the first"])
def test_samples_have_the_moments_of_the_mixture(name, given):
    """Without evidence, and given that variable 0 is 0.7, which stays."""
    spn = make(name)
    weights, means, variances = (np.array(part) for part in zip(*spn_mixture(spn)))
    start = int(given)  # the first variable sampled
    if given:
        x = np.tile([0.7] + [0.0] * (means.shape[1] - 1), [30_000, 1])
        observed = (np.arange(means.shape[1]) < 1) * np.ones_like(x)
        samples = np.asarray(spn.sample_conditional(x, observed, seed=[3, 4]))
        np.testing.assert_array_equal(samples[:, 0], 0.7)
        first = np.exp(-0.5 * (0.7 - means[:, 0]) ** 2 / variances[:, 0]) / np.sqrt(variances[:, 0])
        weights = weights * first / np.sum(weights * first)
    else:
        samples = np.asarray(spn.sample(30_000, seed=[1, 2]))
    mean = weights @ means
    second = np.einsum("k,ki,kj->ij", weights, means, means) + np.diag(weights @ variances)
    covariance = (second - np.outer(mean, mean))[start:, start:]
    error = 5 * np.sqrt(np.diag(covariance) / len(samples))
    assert np.all(np.abs(samples.mean(axis=0) - mean)[start:] < error)
    found = np.cov(samples.T)[start:, start:]
    np.testing.assert_allclose(found, covariance, atol=0.08 * np.diag(covariance).max())


def test_explanations_by_hand():
    """x0 near component 1's mean: the best pair of the only partition is followed; so its code."""
    graph = RegionGraph(2, [[0, 1], [0], [1]], [(0, 1, 2)])
    spn = RatSpn(graph, 2, 1, variance_min=0.1, variance_max=0.3, dtype="float64")
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


@every_graph
def test_explanations_are_trees(name):
    """A code names a leaf for every variable, and sampled trees end in means of the mixture."""
    spn = make(name)
    codes = np.asarray(spn.encode(*evidence(spn)[:2]))
    scopes = np.repeat([len(spn.graph.regions[leaf]) for leaf in spn.graph.leaves], 2)
    np.testing.assert_array_equal(codes @ scopes, spn.graph.num_variables)
    means = {tuple(np.round(mean, 9)) for _, mean, _ in spn_mixture(spn)}
    samples = np.asarray(spn.sample(50, [1, 2], leaf_noise=False))
    found = {tuple(row) for row in np.round(np.concatenate([samples, spn.decode(codes)]), 9)}
    assert found <= means and len(found) > 3


def test_seed_decides_weights_and_samples():
    first, same, other = (RatSpn(GRAPHS["random"], 2, 3, 0.1, 0.9, seed=seed) for seed in (1, 1, 2))
    for a, b, c in zip(first.weights, same.weights, other.weights):
        np.testing.assert_array_equal(a, b)
        assert not np.array_equal(a, c)
    np.testing.assert_array_equal(first.sample(5, [0, 1]), same.sample(5, [0, 1]))
    assert not np.array_equal(first.sample(5, [0, 1]), first.sample(5, [0, 2]))


def test_impossible_arguments_and_wrong_shapes_are_refused():
    fitting = {"num_components": 2, "num_sums": 2, "variance_min": 0.1, "variance_max": 0.9}
    for name, value in (("variance_min", 1.5), ("variance_min", 0.0), ("num_components", 0)):
        with pytest.raises(ValueError, match=f"{name}.*{value}"):
            RatSpn(GRAPHS["random"], **{**fitting, name: value})
    spn = make("random")
    with pytest.raises(ValueError, match=r"\[batch, 4\].*\(2, 5\)"):
        spn.log_prob(np.zeros([2, 5]))
    with pytest.raises(ValueError, match=r"\(2, 4\).*\(2, 3\)"):
        spn.log_prob(np.zeros([2, 4]), np.zeros([2, 3]))


def test_the_example_in_the_documentation_runs():
    failed, attempted = doctest.testmod(rat_spn)
    assert attempted > 0 and not failed
