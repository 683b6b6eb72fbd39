"""Density estimation on digits: the mixture of Gaussians that RAT-SPNs are compared with, and the script."""

import json

import digits
import numpy as np
import pytest
import tensorflow as tf
from scipy.special import logsumexp
from scipy.stats import norm

from data.scenes import load_mnist
from rat_spn import poon_domingos_region_graph, random_region_graph


@pytest.fixture
def mixture():
    rng = np.random.default_rng(0)
    weight = np.array([0.1, 0.6, 0.3])
    arrays = rng.normal(size=[3, 4]), rng.uniform(0.05, 0.5, [3, 4]), np.log(weight)
    return digits.Mixture(*(array.astype(np.float32) for array in arrays))


def log_likelihood(mixture, x):
    """In double precision, [batch]."""
    mean, variance, log_weight = (array.astype(float) for array in mixture)
    return logsumexp(log_weight + norm.logpdf(x[:, None], mean, np.sqrt(variance)).sum(axis=2), axis=1)


def test_mixture_density_is_that_of_scipy(mixture):
    x = np.random.default_rng(1).normal(size=[20, 4]).astype(np.float32)
    np.testing.assert_allclose(mixture.log_prob(x), log_likelihood(mixture, x), rtol=1e-5, atol=1e-4)
    assert digits.mean_log_prob(mixture, x) == pytest.approx(log_likelihood(mixture, x).mean(), rel=1e-5)


def test_em_finds_the_mixture_that_made_the_samples(mixture):
    x = mixture.sample(10_000, seed=2).astype(np.float32)
    fitted = [digits.fit_mixture(x, 3, (0.01, 1.0), steps, seed=1) for steps in (1, 2, 4, 60)]
    likelihoods = [log_likelihood(one, x).mean() for one in fitted]
    assert np.all(np.diff(likelihoods) > 0) and likelihoods[-1] == pytest.approx(log_likelihood(mixture, x).mean(), abs=0.005)
    ours, theirs = (np.argsort(one.log_weight) for one in (fitted[-1], mixture))
    np.testing.assert_allclose(np.exp(fitted[-1].log_weight[ours]), [0.1, 0.3, 0.6], atol=0.01)
    np.testing.assert_allclose(fitted[-1].mean[ours], mixture.mean[theirs], atol=0.05)
    np.testing.assert_allclose(fitted[-1].variance[ours], mixture.variance[theirs], atol=0.05)


def test_em_keeps_bounds_and_improves_within_them(mixture):
    x = mixture.sample(2_000, seed=2).astype(np.float32)
    fitted = [digits.fit_mixture(x, 5, (0.2, 0.3), steps, seed=1) for steps in range(6)]
    assert all(one.variance.min() >= np.float32(0.2) and one.variance.max() <= np.float32(0.3) for one in fitted)
    assert np.all(np.diff([log_likelihood(one, x).mean() for one in fitted]) > 0)


def test_the_script_on_a_few_digits(monkeypatch, tmp_path, capsys):
    """Small SPNs, not compiled: a mixture of the same size, bits, the figure, and equal numbers from equal seeds."""
    mnist = load_mnist()
    np.savez(tmp_path / "few.npz", x_train=mnist["x_train"][:256], x_test=mnist["x_test"][:2])
    small = {"SPN, random": (lambda seed: random_region_graph(784, 1, 1, seed), 2, 1)}
    monkeypatch.setattr(
        digits, "SPNS", small | {"SPN, rectangles": (lambda seed: poon_domingos_region_graph(28, 28, 14, 1), 2, 1)}
    )
    monkeypatch.setattr(digits, "COLUMNS", 2)
    options = ["--mnist", str(tmp_path / "few.npz"), "--output", str(tmp_path), "--json", str(tmp_path / "table.json")]
    tf.config.run_functions_eagerly(True)
    try:
        tables = []
        for _ in range(2):
            assert digits.main(["--quick", *options]) == 0
            tables.append(json.loads((tmp_path / "table.json").read_text())["table"])
    finally:
        tf.config.run_functions_eagerly(False)
    numbers = [[(row["train"], row["test"]) for row in table] for table in tables]
    assert numbers[0] == numbers[1]
    random, _, mixture = tables[0]
    assert abs(mixture["parameters"] / random["parameters"] - 1) < 0.05
    assert random["bits"] == pytest.approx(8 - np.log2(np.exp(1)) * random["test"] / 784)
    out = capsys.readouterr().out.splitlines()
    assert out[1].startswith("SPN, random") and f"{random['test']:.1f}" in out[1] and str(tmp_path / "digits.png") in out
    assert (tmp_path / "digits.pdf").stat().st_size > 1000


@pytest.mark.parametrize(
    "arguments, message",
    [(["--variance", "0.5", "0.1"], "expected 0 < MIN < MAX, found 0.5 0.1"), (["--variance", "nan", "1"], "found nan 1.0")],
)
def test_impossible_variances_are_refused(arguments, message, capsys):
    with pytest.raises(SystemExit):
        digits.main(arguments)
    assert message in capsys.readouterr().err
