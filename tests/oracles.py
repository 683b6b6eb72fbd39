"""Slow, obviously right twins of what the model computes: NumPy loops in double precision."""

from __future__ import annotations

import itertools
import math

import numpy as np

from rat_spn import RatSpn

# Boxes (width / A, height / A, left, top) of three steps in a scene of 16 x 16 pixels, A = 8.
BOXES = {
    "inside": [[0.5, 0.6, 3.3, 2.1], [0.7, 0.5, 5.2, 6.4], [0.4, 0.4, 4.0, 4.5]],
    "leaving": [[0.9, 0.9, -3.4, 12.7], [0.9, 1.1, 14.2, -2.6], [0.8, 0.8, 9.3, 9.9]],
    "outside": [[0.5, 0.5, 40.0, 3.0], [0.5, 0.5, -30.0, -30.0], [0.5, 0.5, 2.2, 60.0]],
    "stacked": [[0.6, 0.6, 4.3, 4.3]] * 3,
    "upscaled": [[0.1, 0.15, 7.7, 8.8], [0.05, 0.9, 3.3, 3.3], [1.6, 1.4, 1.1, 2.2]],
}


def spn_mixture(spn: RatSpn, classes=None) -> list[tuple[float, np.ndarray, np.ndarray]]:
    """An SPN, or classes of it, as the mixture of its trees, (weight, mean [D], variance [D]) each.

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
            leaves = zip(means[region][:, node], variances[region][:, node])
            yield 1.0, dict(zip(graph.regions[region], leaves))
            return
        for index in graph.partitions_of(region):
            _, left, right = graph.partitions[index]
            for (i, j), weight in np.ndenumerate(weights[index][..., node]):
                for first, second in itertools.product(trees(left, i), trees(right, j)):
                    yield weight * first[0] * second[0], {**first[1], **second[1]}

    flat, classes = [], classes or range(spn.num_classes)
    for weight, leaves in itertools.chain(*(trees(graph.root, node) for node in classes)):
        parameters = np.array([leaves[v] for v in range(graph.num_variables)])
        flat.append((weight / len(classes), parameters[:, 0], parameters[:, 1]))
    return flat


def log_density(spn: RatSpn, x, mean, variance):
    """Of single variables, by the kind of an SPN's leaves."""
    if spn.leaves == "bernoulli":
        return np.log(np.where(x, mean, 1 - mean))
    return -0.5 * ((x - mean) ** 2 / variance + np.log(2 * np.pi * variance))


def mixture_log_prob(spn: RatSpn, mixture, x: np.ndarray, observed: np.ndarray) -> float:
    """Log density of one x [D], each variable's log density weighted by `observed` [D]."""
    each = ((weight, log_density(spn, x, *leaves)) for weight, *leaves in mixture)
    return math.log(sum(w * math.exp(np.sum(observed * log)) for w, log in each))


def extract_patches(image: np.ndarray, z_where: np.ndarray, patch_size: int):
    """Of one scene [B, B] with boxes [steps, 4], sample by sample: patches and visible
    [steps, A, A], background maps [steps + 1, B, B]."""
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


def downsample(image: np.ndarray, z_where: np.ndarray, patch_size: int, shifts: np.ndarray):
    """As `extract_patches`, but every scene pixel in order given to the patch pixel that it falls
    on, if that is free; patches and visible are zero where none falls on."""
    size, steps = image.shape[0], len(z_where)
    patches, visible = np.zeros([2, steps, patch_size, patch_size])
    maps = [np.ones([size, size])]
    for step, (sx, sy, tx, ty) in enumerate(z_where):
        maps.append(maps[-1].copy())
        given = {}
        for r in range(size):
            for c in range(size):
                u, v = ((r - ty) / sy, (c - tx) / sx)
                k, m = (
                    math.floor(w * (patch_size - 1) / patch_size + shift)
                    for w, shift in zip((u, v), shifts[step])
                )
                if 0 <= k < patch_size and 0 <= m < patch_size and (k, m) not in given:
                    given[k, m] = (r, c)
        for (k, m), (r, c) in given.items():
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


def log_joint(evaluation) -> np.ndarray:
    """log p(x, z_where, N = n) without p(z_where) for n = 0 .. N_max, [batch, step + 1], of an
    evaluation by a SuPAIR with the default priors."""
    overlap = np.asarray(evaluation.parts.overlap, np.float64).T  # [batch, step]
    objects = np.asarray(evaluation.log_p_objects, np.float64) + math.log(120) - 120 * overlap
    background = np.asarray(evaluation.log_p_background, np.float64)
    counts = range(background.shape[1])
    of_objects = np.stack([objects[:, :n].sum(axis=1) for n in counts], axis=1)
    return of_objects + background + math.log(0.7) - 0.7 * np.array(counts)


def elbo(evaluation, z_pres: np.ndarray) -> np.ndarray:
    """Equation 9 as a sum over n, [batch], with z_pres [batch, step] in place of the model's."""
    joint, steps = log_joint(evaluation), z_pres.shape[1]
    total = -np.sum(evaluation.log_q_where, axis=1, dtype=np.float64)
    for n in range(steps + 1):
        q = np.prod(z_pres[:, :n], axis=1) * (1 - z_pres[:, n] if n < steps else 1)
        total += q * (joint[:, n] - np.log(q + 1e-37))
    return total
