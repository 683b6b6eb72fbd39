"""RAT-SPNs for TensorFlow: densities over real or binary variables, with exact marginals,
conditionals and samples.

A sum-product network is a mixture of very many factorised densities that share their parts.  Its
leaves are Gaussians, or Bernoullis, over a few variables each, its products multiply densities of
different variables, and its sums mix densities of the same ones.  Integrals pass through sums and
products down to the leaves, where they are known; so marginals and conditionals cost no more than
the density itself: one pass upwards.  A RAT-SPN ("random and tensorised", Peharz et al., 2018)
takes its structure from a region graph, which halves the set of variables at random and again,
several times over; images can be cut into rectangles instead.  `RatSpn` is a Keras layer; `fit`
makes it learn, by expectation maximisation or gradients (`reproduce/digits.py`), and
`rat_spn.distribution.RatSpnDistribution` is the same for TensorFlow Probability.

>>> import numpy as np
>>> from rat_spn import RatSpn, random_region_graph
>>> graph = random_region_graph(num_variables=4, depth=1, repetitions=2, seed=0)
>>> spn = RatSpn(graph, num_components=3, num_sums=2, variance_min=0.1, variance_max=1.0)
>>> x = np.array([[0.2, 0.4, -0.1, 0.3]], "float32")
>>> observed = np.array([[1, 1, 0, 0]], "float32")  # the others are marginalised
>>> conditional = spn.log_prob(x) - spn.log_prob(x, observed)
>>> conditional.shape
TensorShape([1])
>>> np.array_equal(spn.sample_conditional(x, observed, seed=(0, 1))[:, :2], x[:, :2])
True
"""

import os
import sys

if "keras" not in sys.modules:
    os.environ["KERAS_BACKEND"] = "tensorflow"  # whatever it or keras.json says
elif (backend := sys.modules["keras"].config.backend()) != "tensorflow":
    raise ImportError(f"rat_spn needs Keras with TensorFlow, not {backend}; import rat_spn first")

from rat_spn.fit import fit  # noqa: E402
from rat_spn.region_graph import (  # noqa: E402
    Partition,
    RegionGraph,
    RegionGraphError,
    poon_domingos_region_graph,
    random_region_graph,
)
from rat_spn.spn import RatSpn  # noqa: E402

__all__ = [
    "Partition",
    "RatSpn",
    "RegionGraph",
    "RegionGraphError",
    "fit",
    "poon_domingos_region_graph",
    "random_region_graph",
]
