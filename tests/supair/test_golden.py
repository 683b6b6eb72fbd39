"""Equality with the authors' implementation, and with AIR's in Pyro: outputs of golden files."""

import numpy as np
import pytest
import tensorflow as tf
from golden_files import GoldenAir, GoldenFile, assert_equal_outputs, golden_files

FILES = golden_files("golden", "SUPAIR_GOLDEN")
AIR_FILES = golden_files("golden_air", "SUPAIR_GOLDEN_AIR")
TOLERANCE = 1e-4
GRADIENT_TOLERANCE = 1e-3


def outputs(golden: GoldenFile) -> dict[str, np.ndarray]:
    """What our model computes for the file's scenes and sample, under the file's names."""
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
    stored = len(golden.arrays["object_reconstruction"])
    found["object_reconstruction"] = found["object_reconstruction"][:stored]
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


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_output_equals_the_original(path):
    golden = GoldenFile(path)
    found = outputs(golden)
    inputs = {"config", "images", "z_where"}
    weights = {name.removeprefix("grad/") for name in found if name.startswith("grad/")}
    kinds = ("object", "background")
    structure = {f"{kind}/{name}" for kind in kinds for name in ("regions", "partitions")}
    expected = set(golden.arrays) - inputs - weights - structure
    gradients = {name for name in expected if name.startswith("grad/")}
    limits = dict.fromkeys(expected, TOLERANCE) | dict.fromkeys(gradients, GRADIENT_TOLERANCE)
    assert_equal_outputs(found, golden.arrays, limits)
    assert len(expected - gradients) >= 11 and len(gradients) >= 10


def air_outputs(golden: GoldenAir) -> dict[str, np.ndarray]:
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


@pytest.mark.parametrize("path", AIR_FILES, ids=lambda path: path.stem)
def test_every_output_of_air_equals_the_original(path):
    golden = GoldenAir(path)
    inputs = {"config", "images", *golden.sample._fields}
    computed = {name for name in golden.arrays if not name.startswith("weight/")} - inputs
    assert_equal_outputs(air_outputs(golden), golden.arrays, dict.fromkeys(computed, TOLERANCE))
    assert {"q_pres_prob", "elbo"} <= computed
