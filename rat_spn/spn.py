"""RAT-SPNs with Gaussian leaves: exact densities, marginals, explanations and samples."""

from __future__ import annotations

import keras
import numpy as np
import tensorflow as tf

from rat_spn.layers import (
    GaussianLeaves,
    RegionValues,
    SumProducts,
    gather_regions,
    partitions_by_child_sizes,
)
from rat_spn.region_graph import RegionGraph


@keras.saving.register_keras_serializable("rat_spn")
class RatSpn(keras.layers.Layer):
    """A random-and-tensorised sum-product network (Peharz et al., 2018) over D real variables.

    Args:
      graph: the structure.
      num_components: Gaussians in a leaf region.
      num_sums: sum nodes in an inner region (the root has one).
      variance_min, variance_max: bounds of the variances of the leaves.
      seed: decides the initial weights.
      dtype: "float32" or "float64".

    Throughout, `x` is [batch, D] and `observed` is [batch, D] in [0, 1]: the weight of each
    variable's log density.  1 is ordinary evidence and 0 marginalises the variable exactly; values
    between blend the two (SuPAIR, section 3.4).  `observed=None` observes everything.  Values must
    be finite, those of unobserved variables too, and in float32 of order 1: the leaves expand (x -
    mean)², and lose what is small against mean² / variance.
    """

    def __init__(
        self,
        graph: RegionGraph,
        num_components: int,
        num_sums: int,
        variance_min: float,
        variance_max: float,
        seed: int = 0,
        dtype: str = "float32",
        **kwargs,
    ):
        super().__init__(dtype=dtype, **kwargs)
        if num_sums < 1:
            raise ValueError(f"expected num_sums >= 1, found {num_sums}")
        self.graph, self.num_sums, self.seed = graph, num_sums, seed
        num_nodes = [num_sums] * len(graph.regions)
        for region in graph.leaves:
            num_nodes[region] = num_components
        num_nodes[graph.root] = 1
        states = np.random.SeedSequence(seed).generate_state(1 + len(graph.regions)) >> 1
        seeds = iter(states.tolist())
        bounds = variance_min, variance_max
        self.leaf_layer = GaussianLeaves(
            graph, num_components, *bounds, seed=next(seeds), dtype=dtype, name="leaves"
        )
        self.sum_layers: list[SumProducts] = []
        for depth, level in enumerate(graph.levels()):
            alike: dict[tuple, list[int]] = {}
            for region in level:
                sizes = partitions_by_child_sizes(graph, region, num_nodes)
                shape = [(size, len(partitions)) for size, partitions in sizes.items()]
                alike.setdefault((num_nodes[region], *shape), []).append(region)
            for regions in alike.values():
                name = f"sums_{depth + 1}_{len(self.sum_layers)}"
                layer = SumProducts(graph, regions, num_nodes, next(seeds), dtype=dtype, name=name)
                self.sum_layers.append(layer)
        with keras.name_scope(self.name):  # of the variables' paths
            for layer in (self.leaf_layer, *self.sum_layers):
                layer.build()
        self.built = True

    def get_config(self):
        leaves = self.leaf_layer
        return {
            **super().get_config(),
            "graph": self.graph.get_config(),
            "num_components": leaves.num_components,
            "num_sums": self.num_sums,
            "variance_min": leaves.variance_min,
            "variance_max": leaves.variance_max,
            "seed": self.seed,
        }

    @classmethod
    def from_config(cls, config):
        return super().from_config({**config, "graph": RegionGraph(**config["graph"])})

    def log_prob(self, x, observed=None):
        """Log density [batch] of the observed variables, all others marginalised, in one pass."""
        return self._upward(*self._evidence(x, observed))[-1].log_density[0, 0]

    call = log_prob

    def reconstruct(self, x, observed=None, leaf_seed=None):
        """The most probable explanation of the evidence, approximately (Vergari et al., 2018).

        After an upward pass with the evidence, every sum from the root down follows its child with
        the largest (log weight + log density), every product both children; the leaves reached give
        their means or, given a `leaf_seed` (a pair of integers), samples.

        Returns:
          [batch, D], all variables, the observed ones included.
        """
        return self.decode(self.encode(x, observed), leaf_seed)

    def encode(self, x, observed=None):
        """The code of the tree that explains the evidence best (Vergari et al., 2018).

        Returns:
          [batch, leaf regions * components], one for each leaf node that the tree ends in, zero
          elsewhere.
        """
        return self._descend(self._upward(*self._evidence(x, observed)), seed=None)

    def decode(self, codes, leaf_seed=None):
        """Means of the leaves of a code or, given a `leaf_seed`, samples, [batch, D]."""
        return self._leaf_values(tf.convert_to_tensor(codes, self.compute_dtype), leaf_seed)

    def sample(self, num_samples: int, seed, leaf_noise: bool = True):
        """Samples [num_samples, D] of all variables; see `sample_conditional`."""
        nothing = tf.zeros([num_samples, self.graph.num_variables], self.compute_dtype)
        return self.sample_conditional(nothing, nothing, seed, leaf_noise)

    def sample_conditional(self, x, observed, seed, leaf_noise: bool = True):
        """Samples of the unobserved variables given the observed ones.

        Sums pick a child with probability proportional to weight times density of the evidence,
        which makes this an exact sample of p(unobserved | observed) for binary `observed`.

        Args:
          x, observed: the evidence, as above.
          seed: a pair of integers.
          leaf_noise: False gives the means of the leaves that a sampled tree ends in, without the
            leaves' own noise.

        Returns:
          [batch, D]: x where observed > 0, elsewhere a sample.
        """
        x, observed = self._evidence(x, observed)
        choice_seed, leaf_seed = tf.unstack(tf.random.split(seed, 2))
        selected = self._descend(self._upward(x, observed), choice_seed)
        values = self._leaf_values(selected, leaf_seed if leaf_noise else None)
        return tf.where(observed > 0, x, values)

    def assign(self, leaves: dict[int, tuple], partitions: dict[int, np.ndarray]):
        """Set all weights, region by region and partition by partition.

        Args:
          leaves: for every leaf region (mean, variance_logit), each [variables of the region,
            components].
          partitions: for every partition its weight logits [K_left, K_right, sums].
        """
        means, logits = zip(*(leaves[region] for region in self.graph.leaves))
        self.leaf_layer.mean.assign(np.concatenate(means))
        self.leaf_layer.variance_logit.assign(np.concatenate(logits))
        for layer in self.sum_layers:
            for weight, block in zip(layer.weight_logits, layer.blocks):
                rows = [np.stack([partitions[p] for p in row]) for row in block.partitions]
                weight.assign(np.stack(rows))

    def _evidence(self, x, observed):
        x, size = tf.convert_to_tensor(x, self.compute_dtype), self.graph.num_variables
        if x.shape.rank != 2 or x.shape[1] != size:
            raise ValueError(f"expected x of shape [batch, {size}], found {x.shape}")
        if observed is None:
            return x, tf.ones_like(x)
        observed = tf.convert_to_tensor(observed, self.compute_dtype)
        if not x.shape.is_compatible_with(observed.shape):
            raise ValueError(f"expected observed of x's shape {x.shape}, found {observed.shape}")
        return x, observed

    def _upward(self, x, observed) -> list[RegionValues]:
        """Log densities of all regions, the leaves first and the root last."""
        values = [RegionValues(self.graph.leaves, self.leaf_layer(x, observed))]
        for layer in self.sum_layers:
            left = [gather_regions(values, block.left) for block in layer.blocks]
            right = [gather_regions(values, block.right) for block in layer.blocks]
            values.append(RegionValues(layer.regions, layer(left, right)))
        return values

    def _descend(self, values: list[RegionValues], seed):
        """From the root down, a child of every sum reached: the best, or with a seed a sample.

        Returns:
          [batch, leaf regions * components]: one where a leaf node was reached, zero elsewhere.
        """
        log_density = {
            region: value.log_density[row]  # [nodes, batch]
            for value in values
            for row, region in enumerate(value.regions)
        }
        # The node chosen in every region, one-hot [nodes, batch]; all zeros where none is reached.
        chosen = {region: tf.zeros_like(density) for region, density in log_density.items()}
        chosen[self.graph.root] = tf.ones_like(log_density[self.graph.root])
        for layer in reversed(self.sum_layers):
            log_weights = layer.log_weights()
            for row, region in enumerate(layer.regions):
                scores, children = [], []
                for block, log_weight in zip(layer.blocks, log_weights):
                    for column, (left, right) in enumerate(zip(block.left[row], block.right[row])):
                        # The weights of the sum chosen in this region.
                        score = tf.tensordot(log_weight[row, column], chosen[region], axes=1)
                        score += log_density[left][:, tf.newaxis]
                        score += log_density[right]
                        scores.append(score)  # [K_left, K_right, batch]
                        children.append((left, right))
                picks = _pick(scores, None if seed is None else tf.random.fold_in(seed, region))
                reached = tf.reduce_sum(chosen[region], axis=0)  # [batch]
                for (left, right), pick in zip(children, picks):
                    chosen[left] += tf.reduce_sum(pick, axis=1) * reached
                    chosen[right] += tf.reduce_sum(pick, axis=0) * reached
        return tf.transpose(tf.concat([chosen[region] for region in self.graph.leaves], axis=0))

    def _leaf_values(self, selected, seed):
        """Means (seed None) or samples of the leaf nodes selected, [batch, D]."""

        def of_selected(values):
            table = self.leaf_layer.dense(tf.convert_to_tensor(values))  # [D, leaf nodes]
            return tf.matmul(selected, table, transpose_b=True)

        mean = of_selected(self.leaf_layer.mean)
        if seed is None:
            return mean
        noise = tf.random.stateless_normal(tf.shape(mean), seed, dtype=mean.dtype)
        return mean + tf.sqrt(of_selected(self.leaf_layer.variance)) * noise


def _pick(scores: list, seed) -> list:
    """One entry of all the tables of scores together: the largest or, with a seed, a sampled one.

    Args:
      scores: log densities, [rows, columns, batch] each.
      seed: for a sample from their softmax (the Gumbel-max trick); None for the largest.

    Returns:
      Tables of the same shapes, one at the entry and zero elsewhere.
    """
    sizes = [table.shape[0] * table.shape[1] for table in scores]
    flat = [tf.reshape(table, [size, -1]) for table, size in zip(scores, sizes)]
    score = tf.concat(flat, axis=0)  # [entries, batch]
    if seed is not None:
        shape, dtype = tf.shape(score), score.dtype
        uniform = tf.random.stateless_uniform(shape, seed, minval=1e-20, dtype=dtype)
        score -= tf.math.log(-tf.math.log(uniform))
    pick = tf.one_hot(tf.argmax(score, axis=0), sum(sizes), axis=0, dtype=score.dtype)
    tables = tf.split(pick, sizes)
    return [tf.reshape(p, [*table.shape[:2], -1]) for p, table in zip(tables, scores)]
