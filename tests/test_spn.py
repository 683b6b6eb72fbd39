"""RAT-SPNs against the flat mixture that they stand for, in double precision."""

import doctest

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


def make(name: str, dtype="float64") -> RatSpn:
    spn = RatSpn(GRAPHS[name], num_components=2, num_sums=3, variance_min=0.1, variance_max=0.9, seed=4, dtype=dtype)
    rng = np.random.default_rng(5)
    for variable in spn.trainable_variables:  # far from uniform
        variable.assign(rng.normal(size=variable.shape))
    return spn


def evidence(spn: RatSpn, batch: int = 7, soft: bool = False):
    rng = np.random.default_rng(6)
    shape = [batch, spn.graph.num_variables]
    return rng.normal(size=shape), rng.uniform(size=shape) if soft else rng.integers(0, 2, shape).astype(float)


def test_products_are_exact_enough_for_the_narrowest_leaves_of_the_paper():
    """2,500 pixels at a variance of 0.002: float32 within 0.002 nats (inputs rounded as for TensorFloat-32 would be 0.8 off)."""
    graph = random_region_graph(2500, 1, 3, seed=0)
    x = np.random.default_rng(0).normal(0.1, 0.03, size=[4, 2500]).clip(0, 1)
    single, double = (
        RatSpn(graph, 6, 3, variance_min=0.002, variance_max=0.003, seed=1, dtype=dtype) for dtype in ("float32", "float64")
    )
    for ours, theirs in zip(single.trainable_variables, double.trainable_variables, strict=True):
        theirs.assign(ours.numpy())
    exact = double.log_prob(x)
    np.testing.assert_allclose(single.log_prob(x), exact, atol=0.002)
    assert not tf.config.experimental.tensor_float_32_execution_enabled()


@pytest.mark.parametrize("name", GRAPHS)
@pytest.mark.parametrize("kind", ["all", "marginal", "soft"])
def test_log_prob_is_that_of_the_enumerated_mixture(name, kind):
    spn = make(name)
    x, observed = evidence(spn, soft=kind == "soft")
    if kind == "all":
        observed = np.ones_like(x)
    mixture = spn_mixture(spn)
    assert sum(weight for weight, _, _ in mixture) == pytest.approx(1, abs=1e-12)
    expected = [mixture_log_prob(mixture, *row) for row in zip(x, observed)]
    np.testing.assert_allclose(spn.log_prob(x, observed), expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", GRAPHS)
def test_float32_agrees_with_float64(name):
    x, observed = evidence(make(name))
    np.testing.assert_allclose(
        make(name, "float32").log_prob(x, observed), make(name).log_prob(x, observed), rtol=2e-5, atol=2e-5
    )


def test_density_integrates_to_one_and_marginals_are_integrals():
    spn = RatSpn(random_region_graph(3, 1, 2, seed=2), 2, 1, 0.05, 0.5, seed=1, dtype="float64")
    # Gauss-Hermite would be exact for one Gaussian; a plain grid serves any mixture of smooth ones.
    axis = np.linspace(-6, 6, 121)
    cell = (axis[1] - axis[0]) ** 3
    points = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), -1).reshape(-1, 3)
    density = np.exp(spn.log_prob(points)).reshape(121, 121, 121)
    assert density.sum() * cell == pytest.approx(1, abs=1e-9)
    marginal = density.sum(axis=(0, 2)) * cell ** (2 / 3)
    only_second = np.tile([0.0, 1.0, 0.0], [121, 1])
    np.testing.assert_allclose(np.exp(spn.log_prob(np.tile(axis[:, None], [1, 3]), only_second)), marginal, atol=1e-9)


def test_unobserved_values_do_not_matter():
    spn = make("random")
    x, observed = evidence(spn)
    other = np.where(observed == 1, x, 100.0)
    np.testing.assert_array_equal(spn.log_prob(x, observed), spn.log_prob(other, observed))
    np.testing.assert_allclose(spn.log_prob(x, np.zeros_like(x)), 0, atol=1e-12)


@pytest.mark.parametrize("dtype, value", [("float32", 30.0), ("float64", 1e3)])
def test_far_away_points_have_finite_densities_and_gradients(dtype, value):
    spn = make("explicit", dtype)
    x = tf.fill([2, 4], tf.constant(value, dtype))
    with tf.GradientTape() as tape:
        tape.watch(x)
        log_prob = spn.log_prob(x)
    gradient = tape.gradient(log_prob, x)
    assert np.all(np.isfinite(log_prob)) and np.all(np.isfinite(gradient)) and np.all(np.asarray(gradient) < 0)


@pytest.mark.parametrize("name", GRAPHS)
def test_every_weight_receives_the_right_gradient(name):
    spn = make(name)
    x, observed = evidence(spn, soft=True)
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(spn.log_prob(x, observed))
    rng = np.random.default_rng(7)
    for variable, gradient in zip(spn.trainable_variables, tape.gradient(loss, spn.trainable_variables)):
        assert gradient is not None and np.any(np.asarray(gradient) != 0), f"{variable.path} receives no gradient"
        direction, value, step = rng.normal(size=variable.shape), variable.numpy(), 1e-6
        sides = []
        for sign in (1, -1):
            variable.assign(value + sign * step * direction)
            sides.append(float(tf.reduce_sum(spn.log_prob(x, observed))))
        variable.assign(value)
        numeric = (sides[0] - sides[1]) / (2 * step)
        assert float(np.sum(gradient * direction)) == pytest.approx(numeric, rel=1e-5, abs=1e-6), variable.path


@pytest.mark.parametrize("name", GRAPHS)
def test_samples_have_the_mixtures_moments(name):
    spn = make(name)
    mixture = spn_mixture(spn)
    mean = sum(weight * mu for weight, mu, _ in mixture)
    second = sum(weight * (np.outer(mu, mu) + np.diag(variance)) for weight, mu, variance in mixture)
    covariance = second - np.outer(mean, mean)
    samples = np.asarray(spn.sample(40_000, seed=[1, 2]))
    error = 5 * np.sqrt(np.diag(covariance) / len(samples))
    assert np.all(np.abs(samples.mean(axis=0) - mean) < error)
    np.testing.assert_allclose(np.cov(samples.T), covariance, atol=0.08 * np.diag(covariance).max())


@pytest.mark.parametrize("name", GRAPHS)
def test_conditional_samples_follow_the_conditional(name):
    """Given variable 0 the others' mean is a ratio of mixtures; observed values stay."""
    spn = make(name)
    mixture = spn_mixture(spn)
    x = np.zeros([30_000, spn.graph.num_variables])
    x[:, 0] = 0.7
    observed = np.zeros_like(x)
    observed[:, 0] = 1
    samples = np.asarray(spn.sample_conditional(x, observed, seed=[3, 4]))
    weights = np.array([w * np.exp(-0.5 * (0.7 - mu[0]) ** 2 / var[0]) / np.sqrt(var[0]) for w, mu, var in mixture])
    expected = weights @ np.array([mu for _, mu, _ in mixture]) / weights.sum()
    np.testing.assert_array_equal(samples[:, 0], 0.7)
    second = sum(w * (np.outer(mu, mu) + np.diag(var)) for w, (_, mu, var) in zip(weights / weights.sum(), mixture))
    covariance = (second - np.outer(expected, expected))[1:, 1:]
    np.testing.assert_allclose(np.cov(samples.T)[1:, 1:], covariance, atol=0.08 * np.diag(covariance).max())
    error = 5 * samples.std(axis=0)[1:] / np.sqrt(len(samples))
    assert np.all(np.abs(samples.mean(axis=0)[1:] - expected[1:]) < error)


def test_conditional_is_the_ratio_of_marginals():
    """log p(x0, x1, x2) - log p(x0) is the density of the conditional mixture."""
    spn = make("odd")
    x = np.array([[0.3, -0.2, 0.5]])
    first = np.array([[1.0, 0.0, 0.0]])
    weights, densities = [], []
    for w, mu, var in spn_mixture(spn):
        log_normal = -0.5 * ((x[0] - mu) ** 2 / var + np.log(2 * np.pi * var))
        weights.append(w * np.exp(log_normal[0]))
        densities.append(np.exp(log_normal[1:].sum()))
    expected = np.log(np.dot(weights, densities) / np.sum(weights))
    assert float((spn.log_prob(x) - spn.log_prob(x, first))[0]) == pytest.approx(expected, abs=1e-10)


def test_reconstruction_by_hand():
    """x0 near component 1's mean: the best pair of the only partition is followed, evidence or none."""
    graph = RegionGraph(2, [[0, 1], [0], [1]], [(0, 1, 2)])
    spn = RatSpn(graph, num_components=2, num_sums=1, variance_min=0.1, variance_max=0.3, dtype="float64")
    leaves = {1: (np.array([[0.0, 1.0]]), np.zeros([1, 2])), 2: (np.array([[5.0, 7.0]]), np.zeros([1, 2]))}
    # p(pair) = 0.4 (0, 0), 0.1 (0, 1), 0.2 (1, 0), 0.3 (1, 1)
    spn.assign(leaves, {0: np.log([[0.4, 0.1], [0.2, 0.3]])[..., None]})
    x = np.array([[0.95, 0.0], [0.1, 0.0], [0.0, 0.0], [0.0, 7.1]])
    observed = np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 0.0], [0.0, 1.0]])
    np.testing.assert_allclose(spn.reconstruct(x, observed), [[1, 7], [0, 5], [0, 5], [1, 7]])
    # With samples at the leaves, the same components: variance 0.2 around these means.
    many = spn.reconstruct(np.repeat(x[:1], 20_000, axis=0), np.repeat(observed[:1], 20_000, axis=0), leaf_seed=(1, 2))
    np.testing.assert_allclose(np.mean(many, axis=0), [1, 7], atol=0.02)
    np.testing.assert_allclose(np.var(many, axis=0), [0.2, 0.2], atol=0.01)


def test_codes_name_the_leaves_of_the_best_tree():
    """By hand as above: leaf regions 1 and 2, two components each; decoding gives the reconstruction back."""
    graph = RegionGraph(2, [[0, 1], [0], [1]], [(0, 1, 2)])
    spn = RatSpn(graph, num_components=2, num_sums=1, variance_min=0.1, variance_max=0.3, dtype="float64")
    leaves = {1: (np.array([[0.0, 1.0]]), np.zeros([1, 2])), 2: (np.array([[5.0, 7.0]]), np.zeros([1, 2]))}
    spn.assign(leaves, {0: np.log([[0.4, 0.1], [0.2, 0.3]])[..., None]})
    x = np.array([[0.95, 7.2], [0.1, 4.0]])
    codes = spn.encode(x)
    np.testing.assert_array_equal(codes, [[0, 1, 0, 1], [1, 0, 1, 0]])
    np.testing.assert_allclose(spn.decode(codes), [[1, 7], [0, 5]])
    wide = make("random")
    codes = np.asarray(wide.encode(*evidence(wide)))
    np.testing.assert_array_equal(codes.sum(axis=1), 4)  # a repetition of depth 2 has four leaf regions
    np.testing.assert_array_equal(wide.decode(codes), wide.reconstruct(*evidence(wide)))


def test_sampled_trees_without_the_leaves_noise_give_means():
    spn = make("random")
    means = {tuple(np.round(mean, 9)) for _, mean, _ in spn_mixture(spn)}
    samples = {tuple(row) for row in np.round(np.asarray(spn.sample(50, [1, 2], leaf_noise=False)), 9)}
    assert samples <= means and len(samples) > 3


def test_seed_decides_weights_and_samples():
    first, same, other = (RatSpn(GRAPHS["random"], 2, 3, 0.1, 0.9, seed=seed) for seed in (1, 1, 2))
    for a, b, c in zip(first.weights, same.weights, other.weights):
        np.testing.assert_array_equal(a, b)
        assert not np.array_equal(a, c)
    np.testing.assert_array_equal(first.sample(5, [0, 1]), same.sample(5, [0, 1]))
    assert not np.array_equal(first.sample(5, [0, 1]), first.sample(5, [0, 2]))


@pytest.mark.parametrize("components, sums", [(20, 20), (6, 3)])
def test_parameter_count(components, sums):
    graph = random_region_graph(784, 2, 6, seed=0)
    spn = RatSpn(graph, components, sums, 0.1, 0.3)
    leaves = 2 * 6 * 784 * components  # means and variances, every pixel once a repetition
    assert spn.count_params() == leaves + 12 * components**2 * sums + 6 * sums**2


def test_variances_stay_within_bounds():
    spn = RatSpn(GRAPHS["random"], 2, 1, 0.1, 0.3)
    spn.leaf_layer.variance_logit.assign(np.where(np.arange(2) == 0, -50.0, 50.0) * np.ones(spn.leaf_layer.variance_logit.shape))
    np.testing.assert_allclose(spn.leaf_layer.variance[0], [0.1, 0.3], rtol=1e-6)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"variance_min": 0.5, "variance_max": 0.1}, "variance_min < variance_max, found 0.5 and 0.1"),
        ({"variance_min": 0.0}, "0 < variance_min"),
        ({"num_components": 0}, "num_components >= 1, found 0"),
        ({"num_sums": 0}, "num_sums >= 1, found 0"),
    ],
)
def test_impossible_arguments_are_refused(change, message):
    arguments = {"num_components": 2, "num_sums": 2, "variance_min": 0.1, "variance_max": 0.9, **change}
    with pytest.raises(ValueError, match=message):
        RatSpn(GRAPHS["random"], **arguments)


def test_wrong_shapes_are_refused():
    spn = make("random")
    with pytest.raises(ValueError, match=r"shape \[batch, 4\], found \(2, 5\)"):
        spn.log_prob(np.zeros([2, 5]))
    with pytest.raises(ValueError, match="observed of the same shape"):
        spn.log_prob(np.zeros([2, 4]), np.zeros([2, 3]))


@pytest.mark.parametrize("module", [rat_spn, rat_spn.spn], ids=lambda module: module.__name__)
def test_examples_in_the_documentation_run(module):
    names = {"np": np, "RatSpn": RatSpn, "random_region_graph": random_region_graph}
    failed, attempted = doctest.testmod(module, globs=names)
    assert attempted > 0 and not failed
