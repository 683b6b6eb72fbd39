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
    true = [[0, 0, 4, 4], [10, 0, 4, 4]]
    found = [[10, 0, 4, 4], [0, 0, 4, 2], [30, 30, 4, 4]]
    assert metrics.mean_matched_iou([true], [found]) == pytest.approx((1 + 0.5) / 2)
    assert np.isnan(metrics.mean_matched_iou([[]], [found]))


def test_present_boxes_are_those_of_steps_that_round_to_one():
    z_pres = np.array([[0.9, 0.4, 0.6]])
    boxes = np.arange(12.0).reshape(1, 3, 4)
    (present,) = metrics.present_boxes(z_pres, boxes)
    np.testing.assert_array_equal(present, [[0, 1, 2, 3], [8, 9, 10, 11]])


@pytest.mark.parametrize(
    "confusion, kind",
    [
        ([[9, 0, 0], [1, 9, 0], [0, 1, 9]], None),
        ([[9, 0, 0], [10, 0, 0], [10, 0, 0]], "all empty"),
        ([[9, 0, 0], [0, 10, 0], [0, 10, 0]], "all one count"),
        ([[9, 0, 0, 0], [0, 0, 0, 10], [0, 0, 1, 29]], "always N_max"),
        ([[9, 0, 0, 0], [0, 0, 1, 9], [0, 0, 1, 9]], None),  # 90 %
        ([[9, 0, 0], [0, 10, 0]], None),  # every scene with objects has one
        ([[9, 0, 0], [0, 0, 10]], "always N_max"),
        ([[9, 0, 0]], None),  # nothing to tell
    ],
)
def test_collapse_is_named(confusion, kind):
    assert metrics.collapse(confusion) == kind
