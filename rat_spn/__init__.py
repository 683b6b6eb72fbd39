"""RAT-SPNs for TensorFlow: densities over real variables, with exact marginals, conditionals and samples.

A sum-product network is a mixture of very many factorised Gaussians that share their parts.  Its leaves are Gaussians over
a few variables each, its products multiply densities of different variables, and its sums mix densities of the same ones.
Integrals pass through sums and products down to the leaves, where they are known; so integrating variables out, which
gives marginals and conditionals, costs no more than the density itself: one pass upwards.  A RAT-SPN ("random and
tensorised", Peharz et al., 2018) takes its structure from a region graph, which halves the set of variables at random and
again, several times over (`random_region_graph`); images can be cut into rectangles instead (`poon_domingos_region_graph`).
Each region then holds several nodes, a layer of the network is a few products of tensors, and `RatSpn` is a Keras layer
that learns by gradient descent.

The density of handwritten digits, with few nodes and steps (`reproduce/digits.py` does it in earnest):

>>> import keras
>>> import numpy as np
>>> import tensorflow as tf
>>> from data.scenes import load_mnist
>>> from rat_spn import RatSpn, random_region_graph
>>> train, test = (images.reshape(-1, 784).astype("float32") / 255 for images in load_mnist().values())

>>> graph = random_region_graph(num_variables=784, depth=2, repetitions=2, seed=0)
>>> spn = RatSpn(graph, num_components=8, num_sums=8, variance_min=0.01, variance_max=0.25, seed=0)
>>> optimizer = keras.optimizers.Adam(0.05)
>>> optimizer.build(spn.trainable_variables)
>>> @tf.function(jit_compile=True)
... def step(batch):
...     with tf.GradientTape() as tape:
...         loss = -tf.reduce_mean(spn.log_prob(batch))
...     optimizer.apply(tape.gradient(loss, spn.trainable_variables), spn.trainable_variables)
...     return -loss
>>> log_likelihoods = [float(step(train[start : start + 128])) for start in range(0, 6400, 128)]  # nats a digit
>>> log_likelihoods[-1] > log_likelihoods[0] + 300
True

Log densities of digits, of their upper halves alone, and of the lower halves given the upper ones:

>>> digits = test[:10]
>>> upper = np.tile(np.arange(784) < 392, [10, 1]).astype("float32")  # 1: observed, 0: marginalised
>>> joint, marginal = spn.log_prob(digits), spn.log_prob(digits, upper)
>>> conditional = joint - marginal
>>> conditional.shape
TensorShape([10])

Samples of whole digits; samples of the lower halves given the upper ones, which are left as they are; and the most
probable explanation of the upper halves, a mean for every pixel:

>>> spn.sample(5, seed=(0, 1)).shape
TensorShape([5, 784])
>>> completed = spn.sample_conditional(digits, upper, seed=(0, 2))
>>> np.array_equal(completed[:, :392], digits[:, :392])
True
>>> spn.reconstruct(digits, upper).shape
TensorShape([10, 784])
"""

from rat_spn.region_graph import (
    Partition,
    RegionGraph,
    RegionGraphError,
    poon_domingos_region_graph,
    random_region_graph,
)
from rat_spn.spn import RatSpn

__all__ = [
    "Partition",
    "RatSpn",
    "RegionGraph",
    "RegionGraphError",
    "poon_domingos_region_graph",
    "random_region_graph",
]
