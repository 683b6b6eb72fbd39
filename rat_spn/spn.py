"""RAT-SPNs: exact densities, marginals, means, explanations and samples."""

from __future__ import annotations

import math

import keras
import numpy as np
import tensorflow as tf

from rat_spn.layers import (
    LEAVES,
    RegionValues,
    SumProducts,
    gather_regions,
    partitions_by_child_sizes,
)
from rat_spn.region_graph import RegionGraph


@keras.saving.register_keras_serializable("rat_spn")
class RatSpn(keras.layers.Layer):
    """A random-and-tensorised sum-product network (Peharz et al., 2018) over D variables, real or
    binary.

    Args:
      graph: the structure.
      num_components, num_sums: nodes of a leaf region, and of an inner one.
      variance_min, variance_max: bounds of the variances of Gaussian leaves.
      seed: decides the initial weights.
      dtype: "float32" or "float64".
      num_classes: sum nodes in the root, one density each; they are equally probable.
      leaves: "gaussian", or "bernoulli" for variables that are 0 or 1.

    Throughout, `x` is [batch, D] and `observed` is [batch, D] in [0, 1]: the weight of each
    variable's log density.  1 is ordinary evidence and 0 marginalises the variable exactly; values
    between blend the two (SuPAIR, section 3.4).  `observed=None` observes all but NaN.  Otherwise
    values must be finite, those of unobserved variables too, and in float32 of order 1: the leaves
    expand (x - mean)², and lose what is small against mean² / variance.
    """

    def __init__(
        self,
        graph: RegionGraph,
        num_components: int,
        num_sums: int,
        variance_min: float | None = None,
        variance_max: float | None = None,
        seed: int = 0,
        dtype: str = "float32",
        num_classes: int = 1,
        leaves: str = "gaussian",
        **kwargs,
    ):
        super().__init__(dtype=dtype, **kwargs)
        if min(num_sums, num_classes) < 1:
            found = f"{num_sums} and {num_classes}"
            raise ValueError(f"expected num_sums and num_classes >= 1, found {found}")
        if leaves not in LEAVES:
            raise ValueError(f"expected leaves in {[*LEAVES]}, found {leaves}")
        self.graph, self.num_sums, self.seed = graph, num_sums, seed
        self.variance_min, self.variance_max = variance_min, variance_max
        self.num_classes, self.leaves = num_classes, leaves
        num_nodes = [num_sums] * len(graph.regions)
        for region in graph.leaves:
            num_nodes[region] = num_components
        num_nodes[graph.root] = num_classes
        states = np.random.SeedSequence(seed).generate_state(1 + len(graph.regions)) >> 1
        seeds = iter(states.tolist())
        options = {"seed": next(seeds), "dtype": dtype, "name": "leaves"}
        if leaves == "gaussian":
            options |= {"variance_min": variance_min, "variance_max": variance_max}
        self.leaf_layer = LEAVES[leaves](graph, num_components, **options)
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
        return {
            **super().get_config(),
            "graph": self.graph.get_config(),
            "num_components": self.leaf_layer.num_components,
            "num_sums": self.num_sums,
            "variance_min": self.variance_min,
            "variance_max": self.variance_max,
            "seed": self.seed,
            "num_classes": self.num_classes,
            "leaves": self.leaves,
        }

    @classmethod
    def from_config(cls, config):
        return super().from_config({**config, "graph": RegionGraph(**config["graph"])})

    def log_prob(self, x, observed=None):
        """Log density [batch] of the observed variables, all others marginalised, in one pass."""
        return self.mix_classes(self.class_log_prob(x, observed))

    call = log_prob

    def class_log_prob(self, x, observed=None):
        """Log densities given each class, [batch, classes]; also logits of p(class | evidence)."""
        return self._of_classes(self.leaf_layer(*self._evidence(x, observed)))

    def mix_classes(self, by_class, labels=None):
        """Log densities [batch] from `class_log_prob`'s: of all classes together, or of labels."""
        if labels is not None:
            one_hot = tf.one_hot(labels, self.num_classes, dtype=by_class.dtype)
            return tf.reduce_sum(one_hot * by_class, axis=1)
        if self.num_classes == 1:
            return by_class[:, 0]
        return tf.reduce_logsumexp(by_class, axis=1) - math.log(self.num_classes)

    def conditional_mean(self, x, observed=None, tilt=None):
        """Exact means given the evidence, [batch, D]; x where observed > 0.

        Given a tilt [batch, D], of the density times exp(tilt x), up to the first order in it: the
        derivative is the covariance.
        """
        x, observed = self._evidence(x, observed)
        tilt = tf.zeros_like(x) if tilt is None else tilt
        with tf.GradientTape() as tape:
            tape.watch(tilt)
            leaves = self.leaf_layer(x, observed) + self.leaf_layer.log_moments(tilt)
            log_moment = self.mix_classes(self._of_classes(leaves))
        return tf.where(observed > 0, x, tape.gradient(log_moment, tilt))

    def expected_statistics(self, x, labels=None):
        """Mean log density, and what every layer's `maximize` takes: means over the batch of
        expected statistics given x and, if there are, labels.

        They are the derivatives of the log density by the leaves' natural parameters and by the log
        weights (Peharz et al., 2020, Einsum networks).
        """
        x, observed = self._evidence(x, None)
        natural = self.leaf_layer.natural_parameters()
        log_weights = [layer.log_weights() for layer in self.sum_layers]
        with tf.GradientTape() as tape:
            tape.watch([natural, log_weights])
            by_class = self._of_classes(self.leaf_layer(x, observed, natural), log_weights)
            mean = tf.reduce_mean(self.mix_classes(by_class, labels))
        return mean, tape.gradient(mean, [natural, *log_weights])

    def reconstruct(self, x, observed=None, leaf_seed=None):
        """The most probable explanation of the evidence, approximately (Vergari et al., 2018).

        After an upward pass with the evidence, every sum from the root down follows its child with
        the largest (log weight + log density), every product both children; the leaves reached give
        their modes or, given a `leaf_seed` (a pair of integers), samples, [batch, D]; those of
        observed variables too.
        """
        return self.decode(self.encode(x, observed), leaf_seed)

    def encode(self, x, observed=None):
        """The code of the tree that explains the evidence best (Vergari et al., 2018), [batch, leaf
        regions * components]: one at each leaf node that the tree ends in, zero elsewhere."""
        return self._descend(self._upward(self.leaf_layer(*self._evidence(x, observed))), seed=None)

    def decode(self, codes, leaf_seed=None):
        """Modes of the leaves of a code or, given a `leaf_seed`, samples, [batch, D]."""
        return self.leaf_layer.decode(tf.convert_to_tensor(codes, self.compute_dtype), leaf_seed)

    def sample(self, num_samples: int, seed, leaf_noise: bool = True):
        """Samples [num_samples, D] of all variables; see `sample_conditional`."""
        nothing = tf.zeros([num_samples, self.graph.num_variables], self.compute_dtype)
        return self.sample_conditional(nothing, nothing, seed, leaf_noise)

    def sample_conditional(self, x, observed, seed, leaf_noise: bool = True):
        """Samples of the unobserved variables given the observed ones.

        Sums pick a child with probability proportional to weight times density of the evidence,
        which makes this an exact sample of p(unobserved | observed) for binary `observed`.

        Args:
          seed: a pair of integers.
          leaf_noise: False gives the modes of the leaves that a sampled tree ends in.

        Returns:
          [batch, D]: x where observed > 0, elsewhere a sample.
        """
        x, observed = self._evidence(x, observed)
        choice_seed, leaf_seed = tf.unstack(tf.random.split(seed, 2))
        selected = self._descend(self._upward(self.leaf_layer(x, observed)), choice_seed)
        values = self.leaf_layer.decode(selected, leaf_seed if leaf_noise else None)
        return tf.where(observed > 0, x, values)

    def _evidence(self, x, observed):
        x, size = tf.convert_to_tensor(x, self.compute_dtype), self.graph.num_variables
        if x.shape.rank != 2 or x.shape[1] != size:
            raise ValueError(f"expected x of shape [batch, {size}], found {x.shape}")
        if observed is None:
            missing = tf.math.is_nan(x)
            return tf.where(missing, tf.zeros_like(x), x), tf.cast(~missing, x.dtype)
        observed = tf.convert_to_tensor(observed, self.compute_dtype)
        if not x.shape.is_compatible_with(observed.shape):
            raise ValueError(f"expected observed of x's shape {x.shape}, found {observed.shape}")
        return x, observed

    def _upward(self, leaves, log_weights=None) -> list[RegionValues]:
        """Log densities of all regions from the leaves', which come first, to the root's."""
        values = [RegionValues(self.graph.leaves, leaves)]
        for layer, weights in zip(self.sum_layers, log_weights or [None] * len(self.sum_layers)):
            left = [gather_regions(values, block.left) for block in layer.blocks]
            right = [gather_regions(values, block.right) for block in layer.blocks]
            values.append(RegionValues(layer.regions, layer(left, right, weights)))
        return values

    def _of_classes(self, leaves, log_weights=None):
        """Log densities of the roots, [batch, classes]."""
        return tf.transpose(self._upward(leaves, log_weights)[-1].log_density[0])

    def _descend(self, values: list[RegionValues], seed):
        """From the root down, a child of every sum reached: the best, or with a seed a sample.  The
        code of the leaves reached, as `encode`'s."""
        log_density = {
            region: value.log_density[row]  # [nodes, batch]
            for value in values
            for row, region in enumerate(value.regions)
        }
        # The node chosen in every region, one-hot [nodes, batch]; all zeros where none is reached.
        chosen = {region: tf.zeros_like(density) for region, density in log_density.items()}
        top = [log_density[self.graph.root][:, tf.newaxis]]  # [classes, 1, batch]
        class_seed = None if seed is None else tf.random.fold_in(seed, len(chosen))
        chosen[self.graph.root] = _pick(top, class_seed)[0][:, 0]
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


def _pick(scores: list, seed) -> list:
    """One entry of all the tables of scores [rows, columns, batch] together, as tables that are one
    at it and zero elsewhere: the largest or, with a seed, a sample from their softmax (the
    Gumbel-max trick)."""
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
