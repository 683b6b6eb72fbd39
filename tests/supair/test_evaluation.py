"""The measurements of a log's row, against direct ones."""

import numpy as np
import pytest
import tiny

from supair import evaluation
from supair.evaluation import EVALUATION_SEED, Evaluator, sample_noise
from supair.model import SuPAIR
from supair.scenes import InMemoryScenes


@pytest.mark.parametrize("batch", [8, 250])
def test_a_row_measures_all_scenes_and_no_others(monkeypatch, batch):
    """Also those of a last, smaller batch, which is filled up with black scenes."""
    monkeypatch.setattr(evaluation, "EVALUATION_BATCH", batch)
    model, scenes = SuPAIR(tiny.MODEL, 3), tiny.scenes(20, 1)
    row = Evaluator(model, scenes, compiled=False).full()
    description = model(scenes.read(0, 20))
    counts = np.sum(np.round(description.z_pres) == 1, axis=1)
    assert row["accuracy"] == np.mean(counts == scenes.counts)
    expected = np.zeros([2, 3], int)
    np.add.at(expected, (scenes.counts, counts), 1)
    assert row["confusion"] == expected.tolist()
    np.testing.assert_allclose(row["examples"]["boxes"], model.boxes(description)[:10], atol=0.006)
    np.testing.assert_allclose(row["examples"]["z_pres"], description.z_pres[:10], atol=0.0006)
    size = min(batch, 20)
    noise = [sample_noise(4, 2, EVALUATION_SEED, start, size) for start in range(0, 20, size)]
    elbo = model.evaluate_elbo(scenes.read(0, 20), np.concatenate(noise)[:20]).elbo
    assert row["elbo"] == pytest.approx(np.mean(elbo.total), rel=1e-5)
    for name, term in zip(elbo._fields, elbo):
        assert row["elbo_terms"][name] == pytest.approx(np.mean(term), rel=1e-4, abs=1e-4)


def test_scenes_without_counts_have_a_bound_and_the_counts_found():
    scenes = InMemoryScenes(tiny.scenes(20, 1).images)
    row = Evaluator(SuPAIR(tiny.MODEL, 3), scenes, compiled=False).full()
    assert row["accuracy"] is None and "confusion" not in row and "collapse" not in row
    assert sum(row["counts_found"]) == 20 and np.isfinite(row["elbo"])
