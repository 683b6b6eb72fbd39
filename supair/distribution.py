"""One run on several devices or machines, which share out every batch (`tf.distribute`)."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import sys
import threading
import zlib
from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf

from supair.config import ConfigError, TrainingError


def choose_strategy() -> tf.distribute.Strategy:
    """Over the machines that the environment's `TF_CONFIG` names, or over this machine's GPUs, or TensorFlow's default for one.

    Without a GPU the logical CPU devices count, of which TensorFlow makes one unless told otherwise.  Waits for the other
    machines.  Call it once and before anything else of TensorFlow, and make the model, and nothing else, in its `scope()`.

    Raises:
      ConfigError: if TF_CONFIG is wrong.
      TrainingError: if the machines do not come together.
    """
    if text := os.environ.get("TF_CONFIG"):
        number = _check_cluster(text)
        print(f"waiting for the {number} machines of TF_CONFIG", file=sys.stderr)
        main_thread = threading.current_thread() is threading.main_thread()
        handler = signal.signal(signal.SIGINT, signal.SIG_DFL) if main_thread else None  # TensorFlow's wait hears no other
        try:
            return tf.distribute.MultiWorkerMirroredStrategy()
        except (tf.errors.OpError, RuntimeError, ValueError) as error:
            raise TrainingError(f"TF_CONFIG cannot be used ({first_line(error)})") from None
        finally:
            if main_thread:
                signal.signal(signal.SIGINT, handler)
    devices = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
    if len(devices) == 1:
        return tf.distribute.get_strategy()
    return tf.distribute.MirroredStrategy([device.name for device in devices])


def _check_cluster(text: str) -> int:
    """The number of machines that a TF_CONFIG names."""
    example = '{"cluster": {"worker": ["one:2222", "two:2222"]}, "task": {"type": "worker", "index": 0}}'
    try:
        content = json.loads(text)
        cluster, kind, index = content["cluster"], content["task"]["type"], content["task"]["index"]
        fits = cluster.keys() <= {"chief", "worker"} and all(isinstance(machines, list) for machines in cluster.values())
        fits = fits and isinstance(index, int) and 0 <= index < len(cluster[kind]) and len(cluster.get("chief", [])) <= 1
    except (ValueError, LookupError, TypeError, AttributeError):
        fits = False
    if not fits:
        raise ConfigError(f"TF_CONFIG: expected a chief, workers and a task of theirs, like {example}, found {text}")
    return sum(map(len, cluster.values()))


def first_line(error: Exception) -> str:
    """The first line of an error's message, without TensorFlow's internal prefixes."""
    message = str(error).strip() or type(error).__name__
    if message.startswith("Graph execution error"):  # then come places in the code, and then what went wrong
        message = message.split("\n\n")[-1]
    return re.sub(r"^\{\{.*?\}\} ", "", message.splitlines()[0])[:200]


class Team:
    """The processes and devices of one run.  All its processes have to make the same calls in the same order.

    Args:
      strategy: what the model was made under; None or TensorFlow's default if it is on one device.

    Attributes:
      strategy: None if it is the default.
      size: how many devices share a batch.
      has_others: whether there are other processes.
      is_chief: whether this process reads and writes the run's files; the others make its steps and nothing else.
    """

    def __init__(self, strategy: tf.distribute.Strategy | None):
        self.check_context()
        strategy = None if strategy is tf.distribute.get_strategy() else strategy
        self.strategy = strategy
        self.size = strategy.num_replicas_in_sync if strategy else 1
        self.is_chief = True
        self._sum: Callable | None = None  # of a list of tensors over all processes
        resolver = strategy.cluster_resolver if strategy else None
        if strategy is not None and resolver is not None and (processes := resolver.cluster_spec().as_dict()):
            self.is_chief = (resolver.task_type, resolver.task_id) == ("chief" if "chief" in processes else "worker", 0)
            devices = self.size // sum(map(len, processes.values()))  # of each process

            def of_device(values):
                context = tf.distribute.get_replica_context()
                first = context.replica_id_in_sync_group % devices == 0  # so that each process counts once
                return [context.all_reduce("SUM", value * tf.cast(first, value.dtype)) for value in values]

            def sum_up(values):
                return [strategy.experimental_local_results(value)[0] for value in strategy.run(of_device, (values,))]

            self._sum = tf.function(sum_up, autograph=False)
        self.has_others = self._sum is not None

    def scope(self) -> contextlib.AbstractContextManager:
        """Where variables are made."""
        return self.strategy.scope() if self.strategy else contextlib.nullcontext()

    def check_context(self) -> None:
        """Check that nobody is in a strategy's scope, in which single processes could not do anything.

        Raises:
          ConfigError: if so.
        """
        if tf.distribute.has_strategy():
            raise ConfigError("expected only the model to be made in the strategy's scope; make and train the run outside of it")

    def _total(self, values: list) -> list:
        """The sums over all processes."""
        if self._sum is None:
            return values
        try:
            return [value.numpy() for value in self._sum([tf.constant(value) for value in values])]
        except tf.errors.OpError as error:
            raise TrainingError(f"another machine of TF_CONFIG has ended, see its message ({first_line(error)})") from None

    def any(self, flag: bool) -> bool:
        """Whether a flag is set in some process."""
        return bool(self._total([np.int64(flag)])[0])

    def agree(self, value: int) -> int:
        """The chief's value."""
        return int(self._total([np.int64(value if self.is_chief else 0)])[0])

    def require_same(self, what: str, text: str) -> None:
        """Check that a text is the same in all processes.

        Raises:
          TrainingError: in all of them if it is not.
        """
        checksum = zlib.crc32(text.encode())
        if self.any(self.agree(checksum) != checksum):
            raise TrainingError(f"the machines of TF_CONFIG have different {what}")

    def share(self, variables: list[tf.Variable]) -> None:
        """Give the variables of all processes the chief's values."""
        if self._sum is not None:
            values = [variable.numpy() if self.is_chief else np.zeros_like(variable.numpy()) for variable in variables]
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
          optimizer: the run's; Adam sums gradients over the devices before it applies them.
          variables: the model's trainable ones.
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
            weights = [tf.convert_to_tensor(weight.value) for weight in optimizer.weights]
            step = tf.convert_to_tensor(optimizer.iterations.value)
            by_weight, elbo = of_weights(weights, images[start : start + share], noise[start : start + share], step)
            if not apply:
                return elbo
            # None is the gradient of what is not used, an LSTM's recurrent kernel if there is one step.
            optimizer.apply([None if gradient is None else gradient / self.size for gradient in by_weight])
            return context.all_reduce("MEAN", elbo)

        def step(images, noise, apply: bool = True):
            elbos = strategy.experimental_local_results(strategy.run(of_device, (images, noise, apply)))
            if apply:
                optimizer.average()
            return elbos[0] if apply else tf.add_n(elbos)  # which needs all devices

        return step
