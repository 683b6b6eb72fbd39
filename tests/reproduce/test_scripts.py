"""digits.py, queries.py and the notebook: the first's mixture of Gaussians, and that they run."""

import dataclasses
import json

import common
import digits
import matplotlib.pyplot as plt
import numpy as np
import pytest
import queries
import tiny
from scipy.special import logsumexp
from scipy.stats import norm

import data
from data.scenes import load_mnist
from supair.config import resolve
from supair.model import SuPAIR
from supair.run import write_weights

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


MODEL = SuPAIR(dataclasses.replace(tiny.MODEL, scene_size=50, patch_size=28), 3)
IMAGES = load_mnist()["x_test"][:20]
FEW = {"SCENES": 4, "BOUNDS": (1, 3), "SHIFTS": 2, "COLUMNS": 2, "SHOWN": ("multi_mnist",)}


def test_the_script_runs_on_weights_of_ones_own(tmp_path, monkeypatch):
    for name, value in {**FEW, "PROBE": {"train": 30, "test": 20}}.items():
        monkeypatch.setattr(queries, name, value)
    monkeypatch.setitem(data.SIZES, "multi_mnist", (40, 60))
    write_weights(MODEL, tmp_path, resolve("SuPAIR", MODEL.config, tiny.TRAINING, {}))
    options = ["--model", str(tmp_path), "--data", str(tmp_path), "--output", str(tmp_path)]
    assert queries.main([*options, "--json", str(tmp_path / "a.json")]) == 0
    numbers = json.loads((tmp_path / "a.json").read_text())
    assert numbers["ELBO, nats"] < numbers["bound of 3 samples, nats"]
    shares = [numbers[name] for name in numbers if name.startswith("accuracy")]
    assert len(shares) == 2 and 0 <= min(shares) and max(shares) <= 1
    assert (tmp_path / "queries.png").stat().st_size > 10_000
    assert (tmp_path / "parts.png").stat().st_size > 10_000


def test_likelihoods_are_bits_a_pixel_at_the_boxes_means():
    images = queries.single_objects(IMAGES[:4], np.random.default_rng(0))
    elbo = MODEL.evaluate_elbo(images, np.zeros([4, 2, 4], np.float32)).elbo
    bits = np.mean(elbo.objects + elbo.background) / (50 * 50 * np.log(2))
    found = queries.likelihoods(MODEL, images)["log p(x | z), equation 7, bits a pixel"]
    assert found == pytest.approx(bits, rel=1e-5)


def test_the_tour_runs():
    notebook = json.loads((common.ROOT / "reproduce/tour.ipynb").read_text(encoding="utf-8"))
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert notebook["nbformat"] == 4 and not any(cell["outputs"] for cell in cells)
    code, sizes = "\n".join("".join(cell["source"]) for cell in cells), "DIGITS, EPOCHS = 10_000, 8"
    assert sizes in code
    exec(code.replace(sizes, "DIGITS, EPOCHS = 1000, 2"), found := {})
    plt.close("all")
    assert np.mean(found["counts"] == found["scenes"].counts) > 0.97 and len(found["behind"]) == 7
    assert found["losses"][1] < found["losses"][0]
    upper, x, (first, second) = found["observed"] > 0, found["x"], found["samples"]
    assert np.array_equal(first[upper], x[upper]) and not np.array_equal(first, second)
