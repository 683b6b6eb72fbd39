"""How well scenes are understood: counts, and boxes (left, top, width, height)."""

from __future__ import annotations

import numpy as np
import scipy


def count_accuracy(true_counts: np.ndarray, counts: np.ndarray) -> float:
    """Share of scenes whose number of objects is right."""
    return float(np.mean(np.asarray(true_counts) == np.asarray(counts)))


def count_confusion(true_counts: np.ndarray, counts: np.ndarray, num_steps: int) -> list[list[int]]:
    """Scenes by true count (rows, 0 .. the largest) and reported one (columns, 0 .. num_steps)."""
    confusion = np.zeros([int(np.max(true_counts, initial=0)) + 1, num_steps + 1], int)
    np.add.at(confusion, (np.asarray(true_counts, int), np.asarray(counts, int)), 1)
    return confusion.tolist()


def box_iou(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Intersection over union of all pairs of boxes [..., m, 4] and [..., n, 4], [..., m, n]."""
    first, second = np.asarray(first)[..., :, None, :], np.asarray(second)[..., None, :, :]
    corner = np.maximum(first[..., :2], second[..., :2])
    opposite = np.minimum(first[..., :2] + first[..., 2:], second[..., :2] + second[..., 2:])
    intersection = np.prod(np.maximum(opposite - corner, 0), axis=-1)
    union = np.prod(first[..., 2:], axis=-1) + np.prod(second[..., 2:], axis=-1) - intersection
    return intersection / np.maximum(union, np.finfo(float).tiny)


def count_hits(true_boxes, boxes) -> int:
    """Boxes [n, 4] with an IoU of 0.5 or more with a true one of their own, over all scenes."""
    good = [box_iou(true, found) >= 0.5 for true, found in zip(true_boxes, boxes)]
    match = scipy.optimize.linear_sum_assignment
    return int(sum(pairs[match(pairs, maximize=True)].sum() for pairs in good))


def mean_matched_iou(
    true_boxes: np.ndarray, true_counts: np.ndarray, boxes: np.ndarray, present: np.ndarray
) -> float:
    """Mean IoU over the pairs of the best one-to-one match in every scene; nan without pairs.

    Objects without a partner do not count here: they are errors of the count.

    Args:
      true_boxes: [scenes, objects, 4], of which a scene's first `true_counts` [scenes] are there.
      boxes: [scenes, steps, 4], of which those are there that `present` [scenes, steps] says.
    """
    matched = []
    present = np.asarray(present, bool)
    for iou, count, there in zip(box_iou(true_boxes, boxes), true_counts, present):
        if count and there.any():
            iou = iou[:count, there]
            matched.extend(iou[scipy.optimize.linear_sum_assignment(iou, maximize=True)])
    return float(np.mean(matched)) if matched else float("nan")


def average_precision(
    true_boxes: np.ndarray, true_counts: np.ndarray, boxes: np.ndarray, confidence: np.ndarray
) -> float | None:
    """Area under the interpolated precision-recall curve of all scenes' boxes, in [0, 1].

    From the most confident one on, each box gets the true box of its scene that it overlaps most,
    of those still free, if their IoU reaches 0.5.  None if there are no true boxes.
    Arguments as above, but all `boxes` are there, each with its confidence [scenes, steps].
    """
    confidence, total = np.asarray(confidence), np.sum(true_counts)
    if not total:
        return None
    order = np.argsort(-confidence, axis=1, kind="stable")  # of a scene's boxes
    iou = box_iou(np.take_along_axis(np.asarray(boxes), order[..., None], axis=1), true_boxes)
    free = np.arange(iou.shape[2]) < np.asarray(true_counts)[:, None]  # [scenes, objects]
    scenes, hits = np.arange(len(iou)), []
    for overlaps in np.moveaxis(iou, 1, 0):  # [scenes, objects]
        overlaps = np.where(free, overlaps, -1.0)
        best = np.argmax(overlaps, axis=1)
        hits.append(overlaps[scenes, best] >= 0.5)
        free[scenes, best] &= ~hits[-1]
    confidence = np.take_along_axis(confidence, order, axis=1).ravel()
    rank = np.argsort(-confidence, kind="stable")
    found = np.cumsum(np.stack(hits, axis=1).ravel()[rank])
    # Equally confident boxes come in together, so that the order of the scenes does not matter.
    last = np.flatnonzero(np.append(np.diff(confidence[rank]) != 0, True))
    precision = found[last] / (last + 1)
    best_beyond = np.maximum.accumulate(precision[::-1])[::-1]
    return float(np.sum(np.diff(found[last], prepend=0) * best_beyond) / total)


COLLAPSE_SHARE, TOO_MANY_SHARE = 0.95, 0.5


def collapse(confusion: list[list[int]]) -> str | None:
    """How a model's counts have collapsed, in words, or None if they have not.

    They have if 95 % of the scenes that are not empty are given the same count, though fewer of
    them have it, or if half of them are given too high a count; see `count_confusion`.
    """
    table = np.asarray(confusion)[1:]  # by construction the columns end at N_max
    total = table.sum()
    if not total:
        return None
    count = int(np.argmax(table.sum(axis=0)))
    true_share = table[count - 1].sum() / total if 0 < count <= len(table) else 0.0
    if table[:, count].sum() < COLLAPSE_SHARE * total or true_share >= COLLAPSE_SHARE:
        too_many = np.triu(table, 2).sum()  # rows begin at one object
        return "too many" if too_many >= TOO_MANY_SHARE * total else None
    return {0: "all empty", table.shape[1] - 1: "always N_max"}.get(count, "all one count")
