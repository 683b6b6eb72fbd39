"""Equality with AIR's Pyro implementation: every output in every golden file.

The files are those in the directory named by SUPAIR_GOLDEN_AIR (default: tests/golden_air/).
"""

import os
from pathlib import Path

import numpy as np
import pytest
from golden_air_files import GoldenAir
from golden_files import assert_equal_outputs

DIRECTORY = Path(os.environ.get("SUPAIR_GOLDEN_AIR", Path(__file__).parent / "golden_air"))
FILES = sorted(DIRECTORY.glob("*.npz"))
TOLERANCE = 1e-4


def outputs(golden: GoldenAir) -> dict[str, np.ndarray]:
    """Everything that our model computes for the file's scenes and sample, under the file's names."""
    sample = golden.sample
    noise = np.zeros([*sample.z_pres.shape, golden.model.noise_size], np.float32)
    evaluation = golden.model.evaluate_elbo(golden.arrays["images"], noise, sample)
    description = evaluation.description
    found = {
        "q_pres_prob": description.z_pres,
        "q_z_where_loc": description.where_loc,
        "q_z_where_scale": description.where_scale,
        "q_z_what_loc": description.what_loc,
        "q_z_what_scale": description.what_scale,
        "log_likelihood": evaluation.elbo.likelihood,
        "scene_mean": evaluation.scene_mean,
        "baseline": evaluation.baseline,
        "elbo": evaluation.elbo.total,
    }
    for name in sample._fields:
        found[f"log_p_{name}"], found[f"log_q_{name}"] = getattr(evaluation.log_p, name), getattr(evaluation.log_q, name)
    return {name: np.asarray(value) for name, value in found.items()}


def test_there_are_golden_files():
    assert FILES, f"no golden files (*.npz) in {DIRECTORY}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_output_equals_the_original(path):
    golden = GoldenAir(path)
    found = outputs(golden)
    inputs = {"config", "images", *golden.sample._fields}
    expected = {name for name in golden.arrays if name not in inputs and not name.startswith("weight/")}
    assert_equal_outputs(found, golden.arrays, dict.fromkeys(expected, TOLERANCE))
    assert {"q_pres_prob", "elbo"} <= expected
