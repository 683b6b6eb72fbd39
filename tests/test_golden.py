"""Equality with the authors' implementation: every output in every golden file.

The files are those in the directory named by SUPAIR_GOLDEN (default: tests/golden/).
"""

import os
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from golden_files import GoldenFile, assert_equal_outputs

DIRECTORY = Path(os.environ.get("SUPAIR_GOLDEN", Path(__file__).parent / "golden"))
FILES = sorted(DIRECTORY.glob("*.npz"))
TOLERANCE = 1e-4
GRADIENT_TOLERANCE = 1e-3


def outputs(golden: GoldenFile) -> dict[str, np.ndarray]:
    """Everything that our model computes for the file's scenes and sample, under the file's names."""
    images, z_where = golden.arrays["images"], golden.arrays["z_where"]
    model = golden.model
    description = model(images)
    noise = (z_where - description.where_loc) / description.where_scale
    with tf.GradientTape() as tape:
        evaluation = model.evaluate_elbo(images, noise)
        loss = -tf.reduce_mean(evaluation.elbo.total)
    gradients = golden.by_original_name(tape.gradient(loss, model.trainable_variables))
    steps_last = {
        "patches": evaluation.parts.patches,
        "visible": evaluation.parts.visible,
        "background_maps": evaluation.parts.background_maps,
        "overlap_ratio": evaluation.parts.overlap,
        "object_reconstruction": model.reconstruct_objects(evaluation.parts),
    }
    found = {name: np.swapaxes(value, 0, 1) for name, value in steps_last.items()}
    found["object_reconstruction"] = found["object_reconstruction"][: len(golden.arrays["object_reconstruction"])]
    found |= {
        "z_pres": evaluation.description.z_pres,
        "q_where_loc": evaluation.description.where_loc,
        "q_where_scale": evaluation.description.where_scale,
        "log_q_where": evaluation.log_q_where,
        "log_p_objects": evaluation.log_p_objects,
        "log_p_background": evaluation.log_p_background,
        "elbo": evaluation.elbo.total,
    }
    return found | {f"grad/{name}": gradient for name, gradient in gradients.items()}


def test_there_are_golden_files():
    assert FILES, f"no golden files (*.npz) in {DIRECTORY}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_output_equals_the_original(path):
    golden = GoldenFile(path)
    found = outputs(golden)
    inputs = {"config", "images", "z_where"}
    weights = {name.removeprefix("grad/") for name in found if name.startswith("grad/")}
    structure = {f"{kind}/{name}" for kind in ("object", "background") for name in ("regions", "partitions")}
    expected = set(golden.arrays) - inputs - weights - structure
    limits = {name: GRADIENT_TOLERANCE if name.startswith("grad/") else TOLERANCE for name in expected}
    assert_equal_outputs(found, golden.arrays, limits)
    assert len([name for name in expected if not name.startswith("grad/")]) >= 11
