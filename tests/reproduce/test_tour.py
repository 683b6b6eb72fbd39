"""The notebook: its cells run in order, without Jupyter, and do what the texts beside them say."""

import json

import common
import matplotlib.pyplot as plt
import numpy as np


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
