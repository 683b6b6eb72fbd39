"""RAT-SPNs for TensorFlow: region graphs, layers, and a density with exact marginals and conditionals."""

import tensorflow as _tf

from rat_spn.region_graph import (
    Partition,
    RegionGraph,
    RegionGraphError,
    poon_domingos_region_graph,
    random_region_graph,
)
from rat_spn.spn import RatSpn

# The Gaussian leaves add large terms of opposite sign; TensorFloat-32's ten bits would leave nothing of the sum.
_tf.config.experimental.enable_tensor_float_32_execution(False)

__all__ = [
    "Partition",
    "RatSpn",
    "RegionGraph",
    "RegionGraphError",
    "poon_domingos_region_graph",
    "random_region_graph",
]
