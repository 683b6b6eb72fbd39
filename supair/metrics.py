"""How well scenes are understood: counts and boxes."""

from __future__ import annotations

import numpy as np
from scipy.optimize import linear_sum_assignment


def count_accuracy(true_counts: np.ndarray, counts: np.ndarray) -> float:
    """Share of scenes whose number of objects is right."""
    return float(np.mean(np.asarray(true_counts) == np.asarray(counts)))


def count_confusion(true_counts: np.ndarray, counts: np.ndarray, num_steps: int) -> list[list[int]]:
    """Scenes by true count (rows, 0 .. the largest) and reported count (columns, 0 .. num_steps)."""
    confusion = np.zeros([int(np.max(true_counts, initial=0)) + 1, num_steps + 1], int)
    np.add.at(confusion, (np.asarray(true_counts, int), np.asarray(counts, int)), 1)
    return confusion.tolist()


def box_iou(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Intersection over union of all pairs of boxes (left, top, width, height): [..., m, 4] and [..., n, 4] to [..., m, n]."""
    first, second = np.asarray(first)[..., :, None, :], np.asarray(second)[..., None, :, :]
    corner = np.maximum(first[..., :2], second[..., :2])
    opposite = np.minimum(first[..., :2] + first[..., 2:], second[..., :2] + second[..., 2:])
    intersection = np.prod(np.maximum(opposite - corner, 0), axis=-1)
    union = np.prod(first[..., 2:], axis=-1) + np.prod(second[..., 2:], axis=-1) - intersection
    return intersection / np.maximum(union, np.finfo(float).tiny)


def mean_matched_iou(true_boxes: np.ndarray, true_counts: np.ndarray, boxes: np.ndarray, present: np.ndarray) -> float:
    """Mean IoU over the pairs of the best one-to-one match in every scene; nan if no scene has a pair.

    Objects without a partner do not count here: they are errors of the count.

    Args:
      true_boxes: [scenes, objects, 4], of which each scene's first `true_counts` are there.
      true_counts: [scenes].
      boxes: [scenes, steps, 4].
      present: [scenes, steps], which of the boxes are there.
    """
    matched = []
    for iou, count, there in zip(box_iou(true_boxes, boxes), true_counts, np.asarray(present, bool)):
        if count and there.any():
            iou = iou[:count, there]
            matched.extend(iou[linear_sum_assignment(iou, maximize=True)])
    return float(np.mean(matched)) if matched else float("nan")


COLLAPSE_SHARE = 0.95
TOO_MANY_SHARE = 0.5


def collapse(confusion: list[list[int]]) -> str | None:
    """How a model's counts have collapsed, or None if they have not.

    They have if 95 % of the scenes that are not empty are given the same count, though fewer of them have it, or if half of
    them are given too high a count.

    Args:
      confusion: as `count_confusion` gives it.

    Returns:
      "all empty", "always N_max", "all one count", "too many", or None.
    """
    table = np.asarray(confusion)[1:]  # by construction the columns end at N_max
    total = table.sum()
    if not total:
        return None
    count = int(np.argmax(table.sum(axis=0)))
    true_share = table[count - 1].sum() / total if 0 < count <= len(table) else 0.0
    if table[:, count].sum() < COLLAPSE_SHARE * total or true_share >= COLLAPSE_SHARE:
        return "too many" if np.triu(table, 2).sum() >= TOO_MANY_SHARE * total else None  # rows begin at one object
    return {0: "all empty", table.shape[1] - 1: "always N_max"}.get(count, "all one count")
