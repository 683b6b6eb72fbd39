"""Several models of one configuration, with seeds of their own, computed as one."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from rat_spn.layers import GaussianLeaves, SumProducts
from supair.air import AIR
from supair.config import ConfigError
from supair.model import SuPAIR


class Together:
    """Models that differ in their seeds alone, with every weight stacked to [member, ...].

    A GPU that is half idle under one model of this size takes less than their sum for several.  An optimizer that works
    element by element, as Adam does, can train the stacked weights as if they were one model's.

    Args:
      models: the members, of one configuration; their weights are copied, and only `unstack` writes them back.

    Raises:
      ConfigError: if the members' structures differ in more than in which pixels their leaf regions hold.
    """

    def __init__(self, models: list[SuPAIR | AIR]):
        self.models, first = models, models[0]
        self.name, self.config, self.noise_size, self.elbo_terms = first.name, first.config, first.noise_size, first.elbo_terms
        if len({_structure(model) for model in models}) > 1 or any(model.config != self.config for model in models):
            raise ConfigError("expected models of one configuration and one structure to train together")
        self.trainable_variables = [
            keras.Variable(np.stack([variable.numpy() for variable in members]), name=members[0].name)
            for members in zip(*(model.trainable_variables for model in models))
        ]
        baseline = {id(variable) for variable in first.baseline_variables}
        self.baseline_variables = [
            stacked for stacked, variable in zip(self.trainable_variables, first.trainable_variables) if id(variable) in baseline
        ]
        # All that seeds decide besides weights: which pixels are in which leaf region.
        places = [[layer.places for layer in _leaf_layers(model)] for model in models]
        self._places = [tuple(map(np.stack, zip(*members))) for members in zip(*places)]

    def map(self, function: Callable[..., Any], shared: tuple, own: tuple = (), weights: list | None = None) -> Any:
        """function(model, *shared, *own) for every member at once; tensors of the result are [member, ...].

        Args:
          function: of a model and tensors.
          shared: tensors that all members see.
          own: tensors [member, ...].
          weights: other values for `trainable_variables`.
        """
        first = self.models[0]

        def of_member(values):
            weights, places, own_values = values
            with keras.StatelessScope(list(zip(first.trainable_variables, weights))), _structured(first, places):
                return function(first, *shared, *own_values)

        values = [tf.convert_to_tensor(variable) for variable in weights or self.trainable_variables]
        return tf.vectorized_map(of_member, (values, self._places, own), fallback_to_while_loop=False)


def stack(stacked: list, members: list[list]) -> None:
    """Give stacked variables the members' values; what is no stack (a count of steps, a rate) is the first one's."""
    for variable, own in zip(stacked, zip(*members)):
        same = tuple(variable.shape) == tuple(own[0].shape)
        variable.assign(own[0] if same else np.stack([value.numpy() for value in own]))


def unstack(stacked: list, member: int, variables: list) -> None:
    """Give one member's variables its part of the stacked ones."""
    for variable, own in zip(stacked, variables):
        own.assign(variable if tuple(variable.shape) == tuple(own.shape) else variable[member])


def _structure(model: SuPAIR | AIR) -> str:
    """What must be the same in all members: the shapes of the weights, and which regions each sum layer mixes."""
    blocks = [layer.blocks for layer in model._flatten_layers() if isinstance(layer, SumProducts)]
    return str(([tuple(variable.shape) for variable in model.trainable_variables], blocks))


def _leaf_layers(model: SuPAIR | AIR) -> list[GaussianLeaves]:
    return [layer for layer in model._flatten_layers() if isinstance(layer, GaussianLeaves)]


@contextlib.contextmanager
def _structured(model: SuPAIR | AIR, places: list):
    """A model with other pixels in its leaf regions, for as long as the context lasts."""
    layers = _leaf_layers(model)
    own = [layer.places for layer in layers]
    try:
        for layer, other in zip(layers, places):
            layer.places = other
        yield
    finally:
        for layer, before in zip(layers, own):
            layer.places = before
