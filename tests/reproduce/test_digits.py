"""Density estimation on digits: the mixture of Gaussians, and the script."""

import json

import digits
import numpy as np
import pytest
from scipy.special import logsumexp
from scipy.stats import norm

RNG = np.random.default_rng(0)
ARRAYS = RNG.normal(size=[3, 4]), RNG.uniform(0.05, 0.5, [3, 4]), np.log([0.1, 0.6, 0.3])
MIXTURE = digits.Mixture(*map(np.float32, ARRAYS))


def log_likelihood(mixture, x):
    mean, variance, log_weight = map(np.float64, mixture)
    log_joint = log_weight + norm.logpdf(x[:, None], mean, np.sqrt(variance)).sum(axis=2)
    return logsumexp(log_joint, axis=1)


def test_the_mixtures_density_is_that_of_scipy():
    x = np.random.default_rng(1).normal(size=[20, 4]).astype(np.float32)
    np.testing.assert_allclose(MIXTURE.log_prob(x), log_likelihood(MIXTURE, x), rtol=1e-5)


def test_em_finds_the_mixture_that_made_the_samples(monkeypatch):
    monkeypatch.setattr(digits, "VARIANCES", (0.04, 0.6))
    fitted = digits.fit_mixture(np.float32(MIXTURE.sample(10_000, 2)), 3, steps=60, seed=1)
    ours, theirs = (np.argsort(one.log_weight) for one in (fitted, MIXTURE))
    np.testing.assert_allclose(np.exp(fitted.log_weight[ours]), [0.1, 0.3, 0.6], atol=0.01)
    np.testing.assert_allclose(fitted.mean[ours], MIXTURE.mean[theirs], atol=0.05)
    np.testing.assert_allclose(fitted.variance[ours], MIXTURE.variance[theirs], atol=0.05)


def test_the_script_fits_a_mixture_as_large_as_its_spn(monkeypatch, tmp_path):
    levels = RNG.integers(0, 256, [260, 28, 28], np.uint8)
    monkeypatch.setattr(digits, "load_mnist", lambda _: {"train": levels[4:], "test": levels[:4]})
    monkeypatch.setattr(digits, "EPOCHS", 1)
    monkeypatch.setattr(digits, "EM_STEPS", 5)
    monkeypatch.setattr(digits, "SPNS", {"SPN, random": (1, 1), "SPN, rectangles": (2, 1)})
    table = tmp_path / "table.json"
    assert digits.main(["--output", str(tmp_path), "--json", str(table)]) == 0
    random, _, mixture = json.loads(table.read_text())["table"]
    assert mixture["parameters"] == pytest.approx(random["parameters"], rel=0.05)
    assert random["bits"] == pytest.approx(8 - np.log2(np.e) * random["test"] / 784)
