"""The two layers of a RAT-SPN, evaluated in the log domain (Peharz et al., 2018)."""

from __future__ import annotations

import logging
import math
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf

from rat_spn.region_graph import RegionGraph

_logger = logging.getLogger(__name__)


def require_full_float32() -> None:
    """Switch TensorFloat-32 off where there is a GPU, for the whole process, and say so.

    The leaves expand (x - mean)² into a product with (x², x, 1), whose terms nearly cancel.
    TensorFloat-32, which GPUs use for float32 products if they may, keeps 10 bits of a factor: up
    to a nat of a scene's density would be rounding.
    """
    enabled = tf.config.experimental.tensor_float_32_execution_enabled()
    if enabled and tf.config.list_physical_devices("GPU"):
        tf.config.experimental.enable_tensor_float_32_execution(False)
        _logger.info("TensorFloat-32 is switched off: densities need full float32 products")


def _initializer(stddev: float, seed: int):
    return keras.initializers.TruncatedNormal(stddev=stddev, seed=seed)


class Leaves(keras.layers.Layer):
    """Factorised densities over every leaf region, as matrix products.

    A variable's log density is linear in its statistics (x², x, 1) or (x, 1), with the natural
    parameters as factors.  Weighting the statistics by how far a variable is observed and putting
    zeros where it lies outside a region gives all leaf regions at once: a sum of products of
    [batch, D] with tables [regions * K, D], whose gradients are products of large matrices, too.

    All weights are [leaf variables, K], K the number of components, where the leaf variables are
    those of the leaf regions, one region after another.
    """

    def __init__(self, graph: RegionGraph, num_components: int, seed: int, **kwargs):
        super().__init__(**kwargs)
        if num_components < 1:
            raise ValueError(f"expected num_components >= 1, found {num_components}")
        self.num_variables, self.num_components = graph.num_variables, num_components
        self.regions = [graph.regions[region] for region in graph.leaves]
        # Where each leaf variable stands in a dense [regions, D] table, and which stands at each of
        # its entries; one beyond the last stands for none.
        self.dense_index = np.concatenate(
            [leaf * self.num_variables + scope for leaf, scope in enumerate(self.regions)]
        )
        self.num_leaf_variables = len(self.dense_index)
        size = self.num_variables * len(self.regions)
        self.leaf_variables = np.full(size, self.num_leaf_variables)
        self.leaf_variables[self.dense_index] = np.arange(self.num_leaf_variables)
        self._seed = seed

    def dense(self, values):
        """Spread [leaf variables, K] to [regions * K, D], zero where a region lacks a variable."""
        leaves, size = len(self.regions), self.num_variables

        @tf.custom_gradient
        def spread(values):
            rows = tf.gather(tf.pad(values, [[0, 1], [0, 0]]), self.leaf_variables)
            table = tf.transpose(tf.reshape(rows, [leaves, size, -1]), [0, 2, 1])

            # The map is one to one, so its adjoint is a gather too (a scatter would be slow).
            def grad(upstream):
                rows = tf.transpose(tf.reshape(upstream, [leaves, -1, size]), [0, 2, 1])
                return tf.gather(tf.reshape(rows, [leaves * size, -1]), self.dense_index)

            return tf.reshape(table, [-1, size]), grad

        return spread(values)

    def call(self, x, observed, parameters=None):
        """Log densities [regions, K, batch] of x [batch, D], weighted by observed in [0, 1]; given
        the natural parameters, of these."""
        parameters = parameters or self.natural_parameters()
        weighted = observed * x
        statistics = [weighted * x, weighted, observed][-len(parameters) :]
        return self._by_region(sum(map(self._product, statistics, parameters)))

    def _product(self, statistics, values):
        """Statistics [batch, D] times values [leaf variables, K], [batch, regions * K]."""
        return tf.matmul(statistics, self.dense(values), transpose_b=True)

    def prior_statistics(self):
        """What `maximize` takes, as the weights are now, if all components are as probable."""
        mean = tf.convert_to_tensor(self.mean)
        moments = [self.variance + mean**2, mean, tf.ones_like(mean)]
        return [m / self.num_components for m in moments[-len(self.natural_parameters()) :]]

    def log_moments(self, tilt):
        """log E[exp(tilt x)], [regions, K, batch], to the second order in tilt [batch, D]."""
        mean, variance = map(tf.convert_to_tensor, (self.mean, self.variance))
        return self._by_region(self._product(tilt, mean) + self._product(0.5 * tilt**2, variance))

    def _by_region(self, values):
        """[batch, regions * K] as [regions, K, batch]."""
        return tf.reshape(tf.transpose(values), [len(self.regions), self.num_components, -1])

    def decode(self, selected, seed=None):
        """Modes or, with a seed, samples, [batch, D], of nodes [batch, regions * K], one-hot for
        each variable."""
        moments = (tf.convert_to_tensor(values) for values in (self.mean, self.variance))
        return self.draw(*(tf.matmul(selected, self.dense(v)) for v in moments), seed)


class GaussianLeaves(Leaves):
    """Factorised Gaussians.

    log N(x; mu, s²) = -x²/(2 s²) + x mu/s² - (mu²/s² + log 2 pi s²)/2 is linear in (x², x, 1).  The
    weights are `mean` and `variance_logit`; variance = variance_min + (variance_max - variance_min)
    * sigmoid(variance_logit).
    """

    def __init__(self, *arguments, variance_min: float, variance_max: float, **kwargs):
        super().__init__(*arguments, **kwargs)
        if not 0 < variance_min < variance_max < math.inf:
            bounds = f"{variance_min} and {variance_max}"
            raise ValueError(f"expected 0 < variance_min < variance_max, found {bounds}")
        self.variance_min, self.variance_max = variance_min, variance_max

    def build(self, input_shape=None):
        require_full_float32()
        shape = [self.num_leaf_variables, self.num_components]
        self.mean = self.add_weight(shape, _initializer(0.1, self._seed), name="mean")
        initializer = _initializer(0.1, self._seed + 1)
        self.variance_logit = self.add_weight(shape, initializer, name="variance_logit")
        self.built = True

    @property
    def variance(self):
        """[leaf variables, components], each inside its bounds."""
        share = tf.sigmoid(self.variance_logit)
        return self.variance_min + (self.variance_max - self.variance_min) * share

    def natural_parameters(self):
        """Factors of x² and x, and the constant."""
        mean, variance = tf.convert_to_tensor(self.mean), self.variance
        quadratic = -0.5 / variance
        linear = mean / variance
        return [quadratic, linear, -0.5 * (mean * linear + tf.math.log(2 * math.pi * variance))]

    def maximize(self, squares, sums, counts):
        """Set the likeliest weights for sums of x², x and 1, each [leaf variables, components].

        In its variance a Gaussian's likelihood has one maximum, so the best one within bounds is
        the best one, clipped; not quite to the bounds, where a logit would be infinite.
        """
        mean, width = sums / counts, self.variance_max - self.variance_min
        share = (squares / counts - mean**2 - self.variance_min) / width
        share = tf.clip_by_value(share, 1e-5, 1 - 1e-5)
        self.mean.assign(mean)
        self.variance_logit.assign(tf.math.log(share / (1 - share)))

    def draw(self, mean, variance, seed):
        if seed is None:
            return mean
        noise = tf.random.stateless_normal(tf.shape(mean), seed, dtype=mean.dtype)
        return mean + tf.sqrt(variance) * noise


class BernoulliLeaves(Leaves):
    """Factorised Bernoullis of variables that are 0 or 1; log p(x) = x logit - log(1 + e^logit)."""

    def build(self, input_shape=None):
        shape = [self.num_leaf_variables, self.num_components]
        self.logit = self.add_weight(shape, _initializer(0.5, self._seed), name="logit")
        self.built = True

    @property
    def mean(self):
        """Probabilities of ones, [leaf variables, K]."""
        return tf.sigmoid(self.logit)

    @property
    def variance(self):
        return self.mean * (1 - self.mean)

    def natural_parameters(self):
        """The factor of x and the constant."""
        logit = tf.convert_to_tensor(self.logit)
        return [logit, -tf.math.softplus(logit)]

    def maximize(self, sums, counts):
        """Set the likeliest weights for sums of x and 1, probabilities from 1e-5 to 1 - 1e-5."""
        mean = tf.clip_by_value(sums / counts, 1e-5, 1 - 1e-5)
        self.logit.assign(tf.math.log(mean / (1 - mean)))

    def draw(self, mean, variance, seed):
        uniform = 0.5
        if seed is not None:
            uniform = tf.random.stateless_uniform(tf.shape(mean), seed, dtype=mean.dtype)
        return tf.cast(uniform < mean, mean.dtype)


LEAVES = {"gaussian": GaussianLeaves, "bernoulli": BernoulliLeaves}


class RegionValues(NamedTuple):
    """Log densities [regions, nodes, batch] of regions that have equally many nodes."""

    regions: list[int]
    log_density: tf.Tensor


class _Block(NamedTuple):
    """Partitions [regions, partitions] with children of the same sizes, and their children."""

    partitions: list[list[int]]
    left: list[list[int]]
    right: list[list[int]]


class SumProducts(keras.layers.Layer):
    """Products and sums of regions with equally many partitions into children of the same sizes.

    Every partition forms all pairs of its children's nodes; every sum of the region mixes the pairs
    of all the region's partitions, with weights that are a softmax over all of them together.
    Instead of log-sum-exp over the pairs, the children are exponentiated after subtracting their
    maxima, which turns the layer into products of matrices.

    `weight_logits` holds one weight [regions, partitions, K_left, K_right, sums] for each size of
    children.

    Args:
      graph: the region graph.
      regions: the parent regions.
      num_nodes: number of nodes of each region of the graph.
      seed: decides the initial weights.
    """

    def __init__(
        self, graph: RegionGraph, regions: list[int], num_nodes: list[int], seed: int, **kwargs
    ):
        super().__init__(**kwargs)
        self.regions, self.num_sums, self._seed = regions, num_nodes[regions[0]], seed
        by_size = [partitions_by_child_sizes(graph, region, num_nodes) for region in regions]
        self.blocks, self._sizes = [], []
        for size in by_size[0]:
            partitions = [sizes[size] for sizes in by_size]
            left = [[graph.partitions[p].left for p in row] for row in partitions]
            right = [[graph.partitions[p].right for p in row] for row in partitions]
            self.blocks.append(_Block(partitions, left, right))
            self._sizes.append(size)

    def build(self, input_shape=None):
        self.weight_logits = [
            self.add_weight(
                shape=[len(self.regions), len(block.partitions[0]), *size, self.num_sums],
                initializer=_initializer(0.5, self._seed + index),
                name=f"weight_logit_{size[0]}x{size[1]}",
            )
            for index, (block, size) in enumerate(zip(self.blocks, self._sizes))
        ]
        self.built = True

    def log_weights(self):
        """Log mixture weights, one [regions, partitions, K_left, K_right, sums] for each block."""
        logits = self.weight_logits
        norms = [tf.reduce_logsumexp(logit, axis=[1, 2, 3], keepdims=True) for logit in logits]
        norm = tf.reduce_logsumexp(tf.stack(norms), axis=0)
        return [logit - norm for logit in logits]

    def maximize(self, *counts):
        """Set the likeliest weights for the expected numbers of every pair, but none to zero."""
        for logit, count in zip(self.weight_logits, counts):
            logit.assign(tf.math.log(tf.maximum(count, np.finfo(logit.dtype).tiny)))

    def prior_statistics(self):
        """What `maximize` takes, as the weights are now, if all sums are as probable."""
        return [tf.exp(log_weight) / self.num_sums for log_weight in self.log_weights()]

    def call(self, left, right, log_weights=None):
        """Log densities of the parents, [regions, sums, batch], from those of their children, for
        each block [regions, partitions, nodes, batch]; given log weights, of these."""
        parts = []
        for left_block, right_block in zip(left, right):
            left_max = tf.stop_gradient(tf.reduce_max(left_block, axis=2, keepdims=True))
            right_max = tf.stop_gradient(tf.reduce_max(right_block, axis=2, keepdims=True))
            left_block, right_value = left_block - left_max, tf.exp(right_block - right_max)
            parts.append((left_block, right_value, left_max + right_max))
        # One shift for each parent and scene, so that its partitions can be added.
        maxima = tf.concat([maxima for _, _, maxima in parts], axis=1)
        shift = tf.reduce_max(maxima, axis=1, keepdims=True)  # [regions, 1, 1, batch]
        total = 0.0
        log_weights = log_weights or self.log_weights()
        for (log_left, right_value, maxima), log_weight in zip(parts, log_weights):
            left_value = tf.exp(log_left + (maxima - shift))  # [regions, partitions, K_left, batch]
            mixed = mix_pairs(left_value, right_value, tf.exp(log_weight))
            total += tf.reduce_sum(mixed, axis=1)  # [regions, sums, batch]
        tiny = np.finfo(total.dtype.as_numpy_dtype).tiny
        return tf.math.log(tf.maximum(total, tiny)) + shift[:, 0]


@tf.custom_gradient
def mix_pairs(left, right, weight):
    """Sums over all pairs of nodes l, r of weight[l, r, s] left[l, batch] right[r, batch].

    The gradient is written by hand for one sum over an axis that is not the last: added up slice by
    slice it takes a third of the time that `tf.reduce_sum` takes when it is compiled for a CPU.

    Args:
      left, right: [..., K_left, batch] and [..., K_right, batch].
      weight: [..., K_left, K_right, sums].

    Returns:
      [..., sums, batch].
    """
    *outer, k_left, k_right, sums = weight.shape
    rank = len(outer)
    order = [*range(rank), rank + 1, rank + 2, rank]  # left nodes last
    matrix = tf.reshape(tf.transpose(weight, order), [*outer, k_right * sums, k_left])
    mixed = tf.reshape(tf.matmul(matrix, left), [*outer, k_right, sums, -1])

    def grad(upstream):
        upstream = upstream[..., tf.newaxis, :, :]  # [..., 1, sums, batch]
        by_right = tf.add_n([mixed[..., s, :] * upstream[..., s, :] for s in range(sums)])
        by_mixed = right[..., tf.newaxis, :] * upstream
        by_mixed = tf.reshape(by_mixed, [*outer, k_right * sums, -1])
        by_left = tf.matmul(matrix, by_mixed, transpose_a=True)
        by_matrix = tf.matmul(by_mixed, left, transpose_b=True)
        by_matrix = tf.reshape(by_matrix, [*outer, k_right, sums, k_left])
        return by_left, by_right, tf.transpose(by_matrix, np.argsort(order))

    return tf.reduce_sum(mixed * right[..., tf.newaxis, :], axis=-3), grad


def partitions_by_child_sizes(
    graph: RegionGraph, region: int, num_nodes: list[int]
) -> dict[tuple, list[int]]:
    """The partitions of a region, by the numbers of nodes of their children."""
    sizes: dict[tuple, list[int]] = {}
    for index in graph.partitions_of(region):
        _, left, right = graph.partitions[index]
        sizes.setdefault((num_nodes[left], num_nodes[right]), []).append(index)
    return dict(sorted(sizes.items()))


def gather_regions(values: list[RegionValues], table: list[list[int]]):
    """Stack the log densities of a table [rows, columns] of regions to [rows, columns, K, batch].

    The selection is a product with a one-hot matrix: exact, as fast as a copy, and its gradient is
    another product where that of `tf.gather` would be a scatter, which compiled for a CPU takes
    longer than the layer itself.
    """
    rows = [region for row in table for region in row]
    sources = [value for value in values if set(value.regions) & set(rows)]
    columns = [region for value in sources for region in value.regions]
    stacked = tf.concat([value.log_density for value in sources], axis=0)
    one_hot = tf.constant(np.equal.outer(rows, columns), stacked.dtype)
    num_nodes = stacked.shape[1]
    gathered = tf.matmul(one_hot, tf.reshape(stacked, [len(columns), -1]))
    return tf.reshape(gathered, [len(table), len(table[0]), num_nodes, -1])
