"""Slow, obviously right twins of what the model computes: NumPy loops in double precision."""

from __future__ import annotations

import math

import numpy as np

from rat_spn import RatSpn


def spn_mixture(spn: RatSpn) -> list[tuple[float, np.ndarray, np.ndarray]]:
    """An SPN as the flat mixture of all its induced trees: (weight, mean [D], variance [D]) of each.

    Only for tiny SPNs: the number of trees is exponential.
    """
    graph = spn.graph
    weights = {}
    for layer in spn.sum_layers:
        for block, log_weight in zip(layer.blocks, layer.log_weights()):
            for row, partitions in enumerate(block.partitions):
                for column, partition in enumerate(partitions):
                    weights[partition] = np.exp(np.asarray(log_weight[row, column], np.float64))
    means, variances, start = {}, {}, 0
    for region in graph.leaves:
        size = len(graph.regions[region])
        means[region] = np.asarray(spn.leaf_layer.mean)[start : start + size]
        variances[region] = np.asarray(spn.leaf_layer.variance)[start : start + size]
        start += size

    def trees(region: int, node: int):
        if region in means:
            yield 1.0, {v: (means[region][i, node], variances[region][i, node]) for i, v in enumerate(graph.regions[region])}
            return
        for index in graph.partitions_of(region):
            _, left, right = graph.partitions[index]
            for i in range(weights[index].shape[0]):
                for j in range(weights[index].shape[1]):
                    for left_weight, left_leaves in trees(left, i):
                        for right_weight, right_leaves in trees(right, j):
                            yield weights[index][i, j, node] * left_weight * right_weight, {**left_leaves, **right_leaves}

    flat = []
    for weight, leaves in trees(graph.root, 0):
        parameters = np.array([leaves[v] for v in range(graph.num_variables)])
        flat.append((weight, parameters[:, 0], parameters[:, 1]))
    return flat


def mixture_log_prob(mixture, x: np.ndarray, observed: np.ndarray) -> float:
    """Log density of one x [D], each variable's log density weighted by `observed` [D]."""
    total = 0.0
    for weight, mean, variance in mixture:
        log_normal = -0.5 * ((x - mean) ** 2 / variance + np.log(2 * np.pi * variance))
        total += weight * math.exp(float(np.sum(observed * log_normal)))
    return math.log(total)


def take_apart(image: np.ndarray, z_where: np.ndarray, patch_size: int):
    """Geometry of one scene [B, B] with boxes [steps, 4], sample by sample.

    Returns:
      patches [steps, A, A], visible [steps, A, A], background maps [steps + 1, B, B].
    """
    size, steps = image.shape[0], len(z_where)
    grid = np.linspace(0, patch_size, patch_size)
    patches, visible = np.zeros([2, steps, patch_size, patch_size])
    maps = [np.ones([size, size])]
    for step, (sx, sy, tx, ty) in enumerate(np.asarray(z_where, np.float64)):
        padded = np.pad(maps[-1], 1)
        weight = np.zeros([size, size])
        for k in range(patch_size):
            for m in range(patch_size):
                row, column = sy * grid[k] + ty, sx * grid[m] + tx
                for r, c, w in _corners(row, column, size):
                    patches[step, k, m] += w * image[r, c]
                    weight[r, c] += w
                for r, c, w in _corners(row + 1, column + 1, size + 2):
                    visible[step, k, m] += w * padded[r, c]
        maps.append(maps[-1] * (1 - np.minimum(1, weight)))
    return patches, visible, np.stack(maps)


def take_apart_exactly(image: np.ndarray, z_where: np.ndarray, patch_size: int, shifts: np.ndarray):
    """Every scene pixel in order given to the one patch pixel that its shifted coordinates fall on, if that is free.

    Returns:
      patches and visible [steps, A, A], zero where nothing was taken, and background maps [steps + 1, B, B].
    """
    size, steps = image.shape[0], len(z_where)
    patches, visible = np.zeros([2, steps, patch_size, patch_size])
    maps = [np.ones([size, size])]
    for step, (sx, sy, tx, ty) in enumerate(z_where):
        maps.append(maps[-1].copy())
        wanted_by = {}
        for r in range(size):
            for c in range(size):
                u, v = ((r - ty) / sy, (c - tx) / sx)
                k, m = (math.floor(w * (patch_size - 1) / patch_size + shift) for w, shift in zip((u, v), shifts[step]))
                if 0 <= k < patch_size and 0 <= m < patch_size and (k, m) not in wanted_by:
                    wanted_by[k, m] = (r, c)
        for (k, m), (r, c) in wanted_by.items():
            patches[step, k, m], visible[step, k, m] = image[r, c], maps[step][r, c]
            maps[-1][r, c] = 0
    return patches, visible, np.stack(maps)


def _corners(row: float, column: float, size: int):
    """The four pixels around a point clipped to the image, with their bilinear weights."""
    row, column = (min(max(value, 0.0), size - 1.0001) for value in (row, column))
    top, left = math.floor(row), math.floor(column)
    for r, row_weight in ((top, 1 - (row - top)), (top + 1, row - top)):
        for c, column_weight in ((left, 1 - (column - left)), (left + 1, column - left)):
            yield r, c, row_weight * column_weight
