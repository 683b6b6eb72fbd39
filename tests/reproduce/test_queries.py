"""queries.py on a tiny model and few scenes."""

import dataclasses
import json

import numpy as np
import pytest
import queries
import tiny

import data
from data.scenes import load_mnist
from supair.config import resolve
from supair.model import SuPAIR
from supair.run import write_weights

MODEL = SuPAIR(dataclasses.replace(tiny.MODEL, scene_size=50, patch_size=28), 3)
DIGITS = load_mnist()["x_test"][:20]
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
    images = queries.single_objects(DIGITS[:4], np.random.default_rng(0))
    elbo = MODEL.evaluate_elbo(images, np.zeros([4, 2, 4], np.float32)).elbo
    bits = np.mean(elbo.objects + elbo.background) / (50 * 50 * np.log(2))
    found = queries.likelihoods(MODEL, images)["log p(x | z), equation 7, bits a pixel"]
    assert found == pytest.approx(bits, rel=1e-5)
