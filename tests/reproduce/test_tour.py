"""The notebook: its cells run in order, without Jupyter, and do what the texts beside them say."""

import json

import common
import matplotlib.pyplot as plt
import numpy as np


def test_the_tour_runs(capsys):
    notebook = json.loads((common.ROOT / "reproduce/tour.ipynb").read_text(encoding="utf-8"))
    assert notebook["nbformat"] == 4
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert not any(cell["outputs"] for cell in cells)
    code = "\n".join("".join(cell["source"]) for cell in cells)
    assert "DIGITS, EPOCHS = 10_000, 8" in code
    found = {}
    exec(code.replace("DIGITS, EPOCHS = 10_000, 8", "DIGITS, EPOCHS = 1000, 2"), found)
    plt.close("all")
    assert np.mean(found["counts"] == found["scenes"].counts) > 0.97
    assert len(found["behind"]) == 7 and np.all(found["visible"][found["behind"]].any(axis=(1, 2)))
    assert found["losses"][1] < found["losses"][0]
    upper, samples = found["observed"] > 0, found["samples"]
    assert all(np.array_equal(sample[upper], found["x"][upper]) for sample in samples)
    assert not np.array_equal(*samples)
