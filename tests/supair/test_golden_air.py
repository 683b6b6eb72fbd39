"""Equality with AIR's Pyro implementation: every output in every golden file."""

import numpy as np
import pytest
from golden_air_files import GoldenAir
from golden_files import assert_equal_outputs, golden_files

FILES = golden_files("golden_air", "SUPAIR_GOLDEN_AIR")
TOLERANCE = 1e-4


def outputs(golden: GoldenAir) -> dict[str, np.ndarray]:
    """What our model computes for the file's scenes and sample, under the file's names."""
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
        found[f"log_p_{name}"] = getattr(evaluation.log_p, name)
        found[f"log_q_{name}"] = getattr(evaluation.log_q, name)
    return {name: np.asarray(value) for name, value in found.items()}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_output_equals_the_original(path):
    golden = GoldenAir(path)
    found = outputs(golden)
    inputs = {"config", "images", *golden.sample._fields}
    computed = {name for name in golden.arrays if not name.startswith("weight/")}
    expected = computed - inputs
    assert_equal_outputs(found, golden.arrays, dict.fromkeys(expected, TOLERANCE))
    assert {"q_pres_prob", "elbo"} <= expected
