"""Measures of counts and boxes, worked by hand; and those of a log's row, against direct ones."""

import numpy as np
import pytest
import tiny

from supair import evaluation, metrics
from supair.evaluation import EVALUATION_SEED, Evaluator, sample_noise
from supair.model import SuPAIR
from supair.scenes import InMemoryScenes


def test_count_accuracy_and_confusion_by_hand():
    true, found = np.array([0, 1, 2, 2, 1]), np.array([0, 1, 1, 2, 3])
    assert metrics.count_accuracy(true, found) == pytest.approx(3 / 5)
    expected = [[1, 0, 0, 0], [0, 1, 0, 1], [0, 1, 1, 0]]
    assert metrics.count_confusion(true, found, num_steps=3) == expected


def test_box_iou_by_hand():
    others = [[0, 0, 4, 4], [2, 0, 4, 4], [4, 0, 4, 4], [1, 1, 2, 2]]
    np.testing.assert_allclose(metrics.box_iou([[0, 0, 4, 4]], others)[0], [1, 8 / 24, 0, 4 / 16])


def test_matching_maximises_the_total_iou():
    true = [[[0, 0, 4, 4], [10, 0, 4, 4]], [[0, 0, 4, 4], [0, 0, 9, 9]]]
    found = [[[10, 0, 4, 4], [0, 0, 4, 2], [30, 30, 4, 4]]]
    found += [[[0, 0, 9, 9], [0, 0, 4, 4], [0, 0, 2, 2]]]
    present = [[True, True, True], [False, False, True]]
    first = metrics.mean_matched_iou(true[:1], [2], found[:1], present[:1])
    assert first == pytest.approx((1 + 0.5) / 2)
    both = metrics.mean_matched_iou(true, [2, 1], found, present)
    assert both == pytest.approx((1 + 0.5 + 0.25) / 3)
    assert np.isnan(metrics.mean_matched_iou(true, [0, 1], found, np.zeros([2, 3])))


A, B, FAR = [0, 0, 4, 4], [10, 0, 4, 4], [30, 30, 4, 4]
HALF, A_THIRD = [0, 0, 4, 2], [2, 0, 4, 4]  # IoU 1/2 and 1/3 with A


@pytest.mark.parametrize(
    "counts, boxes, confidence, expected",
    [
        # Precision 1 to recall 1/3, then 3/4 (not 1/2, the lower one before it) to recall 1.
        ([2, 1], [[A, FAR, B], [FAR, A, FAR]], [[0.9, 0.8, 0.6], [0.2, 0.7, 0.1]], 2.5 / 3),
        # A true box is found once, by the more confident box, though the other one fits better.
        ([1], [[A, HALF, FAR]], [[0.5, 0.9, 0.1]], 1.0),
        ([1], [[A, A_THIRD, FAR]], [[0.5, 0.9, 0.1]], 1 / 2),
        # The first takes the better of two; the second the one that is left.
        ([2], [[A, HALF, B]], [[0.9, 0.8, 0.7]], (1 + 2 / 3) / 2),
        # What is not found is missing from recall; boxes beyond a scene's count are not true.
        ([2], [[A, FAR, FAR]], [[0.9, 0.8, 0.7]], 1 / 2),
        ([1], [[B, A, FAR]], [[0.9, 0.8, 0.7]], 1 / 2),
        # Equally confident boxes are found together, whatever their order.
        ([1], [[A, FAR, FAR]], [[0.5, 0.5, 0.5]], 1 / 3),
        ([1], [[FAR, FAR, A]], [[0.5, 0.5, 0.5]], 1 / 3),
        ([2], [[FAR, FAR, FAR]], [[0.9, 0.8, 0.7]], 0.0),
        ([0], [[A, B, FAR]], [[0.9, 0.8, 0.7]], None),
    ],
)
def test_average_precision_by_hand(counts, boxes, confidence, expected):
    found = metrics.average_precision([[A, B]] * len(counts), counts, boxes, confidence)
    assert found == (None if expected is None else pytest.approx(expected))


@pytest.mark.parametrize(
    "confusion, kind",
    [
        ([[9, 0, 0], [1, 9, 0], [0, 1, 9]], None),
        ([[9, 0, 0], [10, 0, 0], [10, 0, 0]], "all empty"),
        ([[9, 0, 0], [0, 10, 0], [0, 10, 0]], "all one count"),
        ([[9, 0, 0, 0], [0, 0, 0, 10], [0, 0, 1, 29]], "always N_max"),
        ([[9, 0, 0, 0], [0, 0, 0, 0], [0, 3, 18, 0], [0, 0, 18, 1]], None),  # 90 %
        ([[9, 0, 0, 0], [0, 5, 4, 1], [0, 0, 5, 5]], "too many"),
        ([[9, 0, 0, 0], [0, 6, 3, 1], [0, 0, 5, 5]], None),  # 9 of 20 too many
        ([[9, 0, 0], [0, 10, 0]], None),  # every scene with objects has one
        ([[9, 0, 0], [0, 0, 10]], "always N_max"),
        ([[9, 0, 0]], None),  # nothing to tell
    ],
)
def test_collapse_is_named(confusion, kind):
    assert metrics.collapse(confusion) == kind


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
