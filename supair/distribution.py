"""One run on several devices or machines, which share out every batch (`tf.distribute`)."""

from __future__ import annotations

import os
from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf

from supair.config import ConfigError, TrainingError


def choose_strategy() -> tf.distribute.Strategy | None:
    """Over the machines that the environment's `TF_CONFIG` names, or over this machine's GPUs; None if there is one at most.

    Without a GPU the logical CPU devices count, of which TensorFlow makes one unless told otherwise.  Call it once and
    before anything else of TensorFlow, and make the model in the strategy's `scope()`.

    Raises:
      TrainingError: if the machines do not find each other.
    """
    if os.environ.get("TF_CONFIG"):
        try:
            return tf.distribute.MultiWorkerMirroredStrategy()
        except (tf.errors.OpError, RuntimeError, ValueError) as error:
            raise TrainingError(f"TF_CONFIG: the machines do not find each other ({error})") from None
    devices = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
    return tf.distribute.MirroredStrategy([device.name for device in devices]) if len(devices) > 1 else None


class Team:
    """The processes and devices of one run.  All its processes have to make the same calls in the same order.

    Args:
      strategy: what the model was made under; None if it is on one device.

    Attributes:
      size: how many devices share a batch.
      is_chief: whether this process reads and writes the run's files; the others make its steps and nothing else.
    """

    def __init__(self, strategy: tf.distribute.Strategy | None):
        self.strategy = strategy
        self.size = strategy.num_replicas_in_sync if strategy else 1
        self.is_chief = True
        self._sum: Callable | None = None  # of a list of tensors over all processes
        if strategy is not None and (resolver := strategy.cluster_resolver) is not None:
            processes = resolver.cluster_spec().as_dict()
            self.is_chief = (resolver.task_type, resolver.task_id) == ("chief" if "chief" in processes else "worker", 0)
            devices = self.size // sum(map(len, processes.values()))  # of each process

            def of_device(values):
                context = tf.distribute.get_replica_context()
                first = context.replica_id_in_sync_group % devices == 0  # so that each process counts once
                return [context.all_reduce("SUM", value * tf.cast(first, value.dtype)) for value in values]

            def sum_up(values):
                return [strategy.experimental_local_results(value)[0] for value in strategy.run(of_device, (values,))]

            self._sum = tf.function(sum_up, autograph=False)

    def _total(self, values: list) -> list:
        """The sums over all processes."""
        if self._sum is None:
            return values
        try:
            return [value.numpy() for value in self._sum([tf.constant(value) for value in values])]
        except tf.errors.OpError as error:
            raise TrainingError(f"lost another machine of TF_CONFIG ({error.message.splitlines()[0]})") from None

    def any(self, flag: bool) -> bool:
        """Whether a flag is set in some process."""
        return bool(self._total([np.int64(flag)])[0])

    def agree(self, value: int) -> int:
        """The chief's value."""
        return int(self._total([np.int64(value if self.is_chief else 0)])[0])

    def share(self, variables: list[tf.Variable]) -> None:
        """Give the variables of all processes the chief's values."""
        if self._sum is not None:
            values = [variable.numpy() * np.asarray(self.is_chief, variable.dtype.name) for variable in variables]
            for variable, value in zip(variables, self._total(values)):
                variable.assign(value)

    def check(self, variables: list, batch_size: int) -> None:
        """Check that a model and a batch can be shared out.

        Raises:
          ConfigError: if the model was not made under the strategy, or the batch does not go into equal shares.
        """
        for variable in variables:
            value = variable.value
            if self.strategy is None:
                fits = not isinstance(value, tf.distribute.DistributedValues)
            else:
                fits = self.strategy.extended.variable_created_in_scope(value)
            if not fits:
                raise ConfigError("expected a model made in the scope of the run's strategy, found another one")
        if batch_size % self.size:
            raise ConfigError(f"expected a batch that {self.size} devices can share equally, found {batch_size} scenes")

    def make_step(self, gradients: Callable, optimizer, variables: list[keras.Variable], batch_size: int, compiled: bool):
        """A training step, of which every device makes its share: (images [batch, B, B], noise [batch, ...]) -> mean ELBO.

        With `apply=False` it leaves the weights alone, and compiles what it would need.

        Args:
          gradients: (images, step, noise) -> those of the mean loss by all variables, and the mean ELBO.
          optimizer: sums gradients over the devices before it applies them, as those of Keras do.
          variables: the trainable ones.
          batch_size: scenes in a step, all devices' together.
          compiled: whether to compile with XLA; sums over devices and the optimizer's step are not.
        """
        strategy, share = self.strategy, batch_size // self.size
        assert strategy is not None

        @tf.function(jit_compile=compiled, autograph=False)
        def of_weights(weights, images, noise, step):
            with keras.StatelessScope(list(zip(variables, weights))):
                return gradients(images, step, noise)

        def of_device(images, noise, apply):
            context = tf.distribute.get_replica_context()
            start = context.replica_id_in_sync_group * share
            weights = [tf.convert_to_tensor(variable.value) for variable in variables]
            step = tf.convert_to_tensor(optimizer.iterations.value)
            by_weight, elbo = of_weights(weights, images[start : start + share], noise[start : start + share], step)
            if not apply:
                return elbo
            optimizer.apply([gradient / self.size for gradient in by_weight], variables)
            return context.all_reduce("MEAN", elbo)

        def step(images, noise, apply: bool = True):
            elbos = strategy.experimental_local_results(strategy.run(of_device, (images, noise, apply)))
            return elbos[0] if apply else tf.add_n(elbos)  # which needs all devices

        return step
