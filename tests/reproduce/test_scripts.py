"""digits.py, queries.py and the notebook run."""

import dataclasses
import json

import common
import digits
import numpy as np
import pytest
import queries
import tiny

import data
import rat_spn
from supair.config import resolve
from supair.model import SuPAIR
from supair.run import write_weights

TWO_HALVES = rat_spn.random_region_graph(784, 1, 1, seed=0)


def test_digits_are_modelled_filled_in_and_classified(monkeypatch, tmp_path, small):
    rng, table, mnist = np.random.default_rng(0), tmp_path / "table.json", {}
    for part, size in (("train", 256), ("test", 30)):
        mnist[f"x_{part}"] = rng.integers(0, 256, [size, 28, 28], np.uint8)
        mnist[f"y_{part}"] = np.arange(size) % 10
    np.savez(tmp_path / "mnist.npz", **mnist)
    monkeypatch.setattr(digits, "EPOCHS", 2)
    monkeypatch.setattr(digits, "SIZES", (2, 1))
    monkeypatch.setattr(rat_spn, "random_region_graph", lambda *_, seed, **__: TWO_HALVES)
    where = ["--mnist", str(tmp_path / "mnist.npz"), "--output", str(tmp_path)]
    assert digits.main([*where, "--json", str(table), "--seeds", "3"]) == 0
    found = json.loads(table.read_text())
    assert [row["method"] for row in found["densities"]] == ["Adam", "EM"]
    assert found["filled in"][0]["squared error of the mean"] == pytest.approx(1 / 12, rel=0.1)
    assert [0 <= row["0.0"] <= 1 for row in found["classes"]] == [True]


MODEL = SuPAIR(dataclasses.replace(tiny.MODEL, scene_size=50, patch_size=28), 3)
FEW = {"SCENES": 4, "BOUNDS": (1, 3), "SHIFTS": 2, "SHOWN": ("multi_mnist",)}


def test_the_script_runs_on_weights_of_ones_own(tmp_path, monkeypatch):
    for name, value in FEW.items():
        monkeypatch.setattr(queries, name, value)
    monkeypatch.setitem(data.SIZES, "multi_mnist", (40, 60))
    write_weights(MODEL, tmp_path, resolve("SuPAIR", MODEL.config, tiny.TRAINING, {}))
    options = ["--model", str(tmp_path), "--data", str(tmp_path), "--output", str(tmp_path)]
    assert queries.main([*options, "--json", str(tmp_path / "a.json")]) == 0
    numbers = json.loads((tmp_path / "a.json").read_text())
    assert numbers["ELBO, nats"] < numbers["bound of 3 samples, nats"]
    assert (tmp_path / "parts.png").stat().st_size > 10_000


def test_the_tour_runs():
    notebook = json.loads((common.ROOT / "reproduce/tour.ipynb").read_text(encoding="utf-8"))
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert notebook["nbformat"] == 4 and not any(cell["outputs"] for cell in cells)
    code, sizes = "\n".join("".join(cell["source"]) for cell in cells), "DIGITS, EPOCHS = 10_000, 8"
    assert sizes in code
    exec(code.replace(sizes, "DIGITS, EPOCHS = 1000, 2"), found := {})
    assert np.mean(found["counts"] == found["scenes"].counts) > 0.97 and len(found["behind"]) == 7
    assert found["losses"][1] < found["losses"][0]
    upper, x, (first, second) = found["observed"] > 0, found["x"], found["samples"]
    assert np.array_equal(first[upper], x[upper]) and not np.array_equal(first, second)
