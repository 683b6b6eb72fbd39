import numpy as np
import pytest

from supair import metrics


def test_count_accuracy_and_confusion_by_hand():
    true, found = np.array([0, 1, 2, 2, 1]), np.array([0, 1, 1, 2, 3])
    assert metrics.count_accuracy(true, found) == pytest.approx(3 / 5)
    assert metrics.count_confusion(true, found, num_steps=3) == [[1, 0, 0, 0], [0, 1, 0, 1], [0, 1, 1, 0]]


def test_box_iou_by_hand():
    boxes = [[0, 0, 4, 4]]
    others = [[0, 0, 4, 4], [2, 0, 4, 4], [4, 0, 4, 4], [1, 1, 2, 2]]
    np.testing.assert_allclose(metrics.box_iou(boxes, others)[0], [1, 8 / 24, 0, 4 / 16])


def test_matching_maximises_the_total_iou():
    true = [[[0, 0, 4, 4], [10, 0, 4, 4]], [[0, 0, 4, 4], [0, 0, 9, 9]]]
    found = [[[10, 0, 4, 4], [0, 0, 4, 2], [30, 30, 4, 4]], [[0, 0, 9, 9], [0, 0, 4, 4], [0, 0, 2, 2]]]
    present = [[True, True, True], [False, False, True]]
    assert metrics.mean_matched_iou(true[:1], [2], found[:1], present[:1]) == pytest.approx((1 + 0.5) / 2)
    assert metrics.mean_matched_iou(true, [2, 1], found, present) == pytest.approx((1 + 0.5 + 0.25) / 3)
    assert np.isnan(metrics.mean_matched_iou(true, [0, 1], found, np.zeros([2, 3])))


@pytest.mark.parametrize(
    "confusion, kind",
    [
        ([[9, 0, 0], [1, 9, 0], [0, 1, 9]], None),
        ([[9, 0, 0], [10, 0, 0], [10, 0, 0]], "all empty"),
        ([[9, 0, 0], [0, 10, 0], [0, 10, 0]], "all one count"),
        ([[9, 0, 0, 0], [0, 0, 0, 10], [0, 0, 1, 29]], "always N_max"),
        ([[9, 0, 0, 0], [0, 0, 0, 0], [0, 3, 18, 0], [0, 0, 18, 1]], None),  # 90 %, mostly too low
        ([[9, 0, 0, 0], [0, 5, 4, 1], [0, 0, 5, 5]], "too many"),
        ([[9, 0, 0, 0], [0, 6, 3, 1], [0, 0, 5, 5]], None),  # 9 of 20 too many
        ([[9, 0, 0], [0, 10, 0]], None),  # every scene with objects has one
        ([[9, 0, 0], [0, 0, 10]], "always N_max"),
        ([[9, 0, 0]], None),  # nothing to tell
    ],
)
def test_collapse_is_named(confusion, kind):
    assert metrics.collapse(confusion) == kind
