"""Training, all of it: the step, the loop around it, and when it ends."""

from __future__ import annotations

import contextlib
import os
import re
import sys
import time
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from tqdm import tqdm

from supair.config import Convergence, TrainingConfig, TrainingError, require, resolve
from supair.evaluation import Evaluator, grey, sample_noise
from supair.figures import paint_boxes
from supair.hardware import describe_machine
from supair.run import MODEL_PREFIX, RunFolder, assign, is_finished


def steps_per_call() -> int:
    """How many training steps one call of the compiled function makes."""
    return 50 if tf.config.list_physical_devices("GPU") else 10


class LearningRate(keras.optimizers.schedules.LearningRateSchedule):
    """Of a part of the model by training step: with the factors of warm-up and annealing."""

    def __init__(self, config: TrainingConfig, part: str, steps_per_epoch: int):
        self.config, self.part, self.steps_per_epoch = config, part, steps_per_epoch

    def __call__(self, step):
        step, config = tf.cast(step, tf.float32), self.config
        rate = tf.constant(config.learning_rates[self.part])
        if (warm_up := config.warm_up) is not None:
            weight = tf.nn.relu(1.0 - step / warm_up.steps)
            rate *= 1.0 + weight * (warm_up.initial_learning_rate_factor - 1.0)
        if (annealing := config.annealing) is not None:
            share = step / (annealing.epochs * self.steps_per_epoch)
            begin, end = annealing.rise
            risen = tf.clip_by_value((share - begin) / (end - begin), 0.0, 1.0)
            left = (1.0 - share) / (1.0 - annealing.fall_from)
            rate *= annealing.factors.get(self.part, 1.0) ** risen
            rate *= tf.clip_by_value(left, annealing.last_factor, 1.0)
        return rate


class Optimizer:
    """Adam for every part of a model, and averages of the weights that it moves.

    Attributes:
      weights: what Adam moves, in the order of the model's trainable variables.

    Raises:
      ConfigError: if a part of the model has no learning rate.
    """

    def __init__(self, model, config: TrainingConfig, steps_per_epoch: int):
        parts, rates = model.variables_by_part, config.learning_rates
        require(parts.keys() <= rates.keys(), f"learning rates for {', '.join(parts)}", rates)
        self._averages, self._averaging = model.trainable_variables, config.averaging
        self.weights = self._averages
        if self._averaging is not None:
            self.weights = [keras.Variable(v.numpy(), name=v.name) for v in self._averages]
        index = {id(variable): k for k, variable in enumerate(self._averages)}
        self._parts = {}  # Adam, and the indices of its weights
        for part, variables in parts.items():
            rate = LearningRate(config, part, steps_per_epoch)
            adam = keras.optimizers.Adam(rate, epsilon=1e-8)  # (code)
            indices = [index[id(variable)] for variable in variables]
            adam.build([self.weights[k] for k in indices])
            self._parts[part] = adam, indices
        self.iterations = next(iter(self._parts.values()))[0].iterations  # the same for all parts

    def named_variables(self) -> dict[str, keras.Variable]:
        """All that is not the model's, by name."""
        named = {}
        for part, (adam, _) in self._parts.items():
            for k, variable in enumerate(adam.variables):
                named[f"optimizer/{part}/{k}_{variable.name}"] = variable
        if self._averaging is not None:
            for average, weight in zip(self._averages, self.weights):
                named[f"weights/{average.path}"] = weight
        return named

    def apply(self, gradients: list) -> None:
        """Move the weights against the gradients, and take them into the averages."""
        for adam, indices in self._parts.values():
            adam.apply([gradients[k] for k in indices], [self.weights[k] for k in indices])
        if self._averaging is not None:
            step = tf.cast(self.iterations.value, self.weights[0].dtype)
            share = (self._averaging + 1.0) / (self._averaging + step)
            for average, weight in zip(self._averages, self.weights):
                average.assign_add(share * (weight - average))


def train_step(model, optimizer: Optimizer, config: TrainingConfig, images, noise):
    """One step with images [batch, B, B] in [0, 1] and noise [batch, N_max, noise_size]: the ELBO,
    its gradient and Adam's update.  Returns the mean ELBO in nats."""
    step = tf.convert_to_tensor(optimizer.iterations)
    weights = [tf.convert_to_tensor(weight) for weight in optimizer.weights]
    # The model computes with the weights that Adam moves, even if its own are their averages.
    with keras.StatelessScope(list(zip(model.trainable_variables, weights))):
        with tf.GradientTape() as tape:
            tape.watch(weights)
            loss, elbo = model.training_loss(images, noise, step, config)
    gradients = tape.gradient(loss, weights)
    with tf.name_scope("optimizer"):
        optimizer.apply(gradients)
    return elbo


def make_train_steps(
    model, optimizer: Optimizer, config: TrainingConfig, white: int, compiled: bool = True
):
    """A function (images [steps, batch, B, B], noise [steps, batch, N_max, noise_size], number) ->
    mean ELBOs [steps], which makes the first `number` of these training steps."""

    @tf.function(jit_compile=compiled, autograph=False)
    def train_steps(images, noise, number):
        def body(step, elbos):
            elbo = train_step(model, optimizer, config, grey(images[step], white), noise[step])
            return step + 1, elbos.write(step, elbo)

        elbos = tf.TensorArray(tf.float32, size=noise.shape[0], element_shape=[])
        _, elbos = tf.while_loop(lambda step, _: step < number, body, [0, elbos])
        return elbos.stack()

    return train_steps


def steps_of_epoch(config: TrainingConfig, num_scenes: int) -> int:
    """How many training steps an epoch has."""
    steps = config.steps_per_epoch or num_scenes // config.batch_size
    require(steps > 0, f"at least a batch of {config.batch_size} training scenes", num_scenes)
    return steps


def epoch_order(config: TrainingConfig, num_scenes: int, epoch: int) -> np.ndarray:
    """Which scene each place of an epoch's batches has, [steps, batch]."""
    shape = steps_of_epoch(config, num_scenes), config.batch_size
    if config.steps_per_epoch is None:
        return np.arange(shape[0] * shape[1]).reshape(shape)
    rng, passes = np.random.default_rng([config.seed, epoch]), -(-shape[0] * shape[1] // num_scenes)
    order = np.concatenate([rng.permutation(num_scenes) for _ in range(passes)])
    return order[: shape[0] * shape[1]].reshape(shape)


def require_finite(values, name: str) -> None:
    if not np.all(np.isfinite(values)):
        remedy = "try lower learning rates or larger minimum variances"
        raise TrainingError(f"{name} is not finite; the last checkpoint is kept; {remedy}")


@contextlib.contextmanager
def tensorflow_errors(directory: Path):
    """TensorFlow's errors in one line, without its internal prefixes."""
    try:
        yield
    except tf.errors.OpError as error:
        message = str(error).strip().split("\n\n")[-1] or type(error).__name__
        reason = re.sub(r"^\{\{.*?\}\} ", "", message.splitlines()[0])[:200]
        hint = "; choose a smaller batch" * isinstance(error, tf.errors.ResourceExhaustedError)
        raise TrainingError(f"{directory}: {reason}{hint}") from None


def write_summaries(writer, rows: list[dict[str, Any]], scenes) -> None:
    """For TensorBoard: numbers and, at the last row, the boxes in the first test scenes."""
    with writer.as_default():
        for row in rows:
            terms = {f"elbo_terms/{k}": term for k, term in row.get("elbo_terms", {}).items()}
            for name, value in (row | terms).items():
                if isinstance(value, float):
                    tf.summary.scalar(name, value, step=row["step"])
        examples = rows[-1]["examples"]
        present = np.round(examples["z_pres"]) == 1  # [scene, step]
        images = scenes.images[: len(present)] / scenes.white
        painted = np.hstack([*map(paint_boxes, images, examples["boxes"], present)])
        tf.summary.image("test_scenes", painted[np.newaxis], step=rows[-1]["step"])
    writer.flush()


def compile_steps(model, optimizer: Optimizer, config, scenes, noise_size: int, compiled: bool):
    """A function (step, order [steps, batch]) -> mean ELBOs [steps] and seconds, which makes the
    run's training steps from `step` on with these of the scenes, and has been compiled."""
    images = tf.constant(scenes.images[:])
    train_steps = make_train_steps(model, optimizer, config, scenes.white, compiled)

    def make_steps(step: int, order: np.ndarray) -> tuple[np.ndarray, float]:
        steps = range(step, step + steps_per_call())  # those beyond the order's length are not made
        noise = [
            sample_noise(noise_size, model.config.num_steps, config.seed, k, config.batch_size)
            for k in steps
        ]
        began = time.perf_counter()
        number = len(order)
        order = np.pad(order, [(0, steps_per_call() - number), (0, 0)])
        elbos = train_steps(tf.gather(images, order), np.stack(noise), tf.constant(number))
        return elbos.numpy()[:number], time.perf_counter() - began

    make_steps(0, np.zeros([0, config.batch_size], int))  # compiles, so that the clock does not
    return make_steps


def train_epoch(make_steps, evaluator: Evaluator, config: TrainingConfig, order, done, bar):
    """Train for an epoch with the scenes in `order`, and measure every `log_every` steps and at its
    end; `done` is the row at the end of the epoch before.  Returns the epoch's rows."""
    first, seconds, elbos, rows = done["step"], [], [], []
    step, end = first, first + len(order)
    while step < end:
        number = min(steps_per_call(), config.log_every - step % config.log_every)
        new_elbos, new_seconds = make_steps(step, order[step - first : step - first + number])
        step += len(new_elbos)
        seconds.append(new_seconds)
        elbos += new_elbos.tolist()
        require_finite(elbos, f"the ELBO before step {step}")
        bar.update(len(new_elbos))
        if step % config.log_every == 0 or step == end:
            row = {"step": step, "epoch": step / len(order), "train_seconds": len(seconds)}
            row["train_elbo"] = sum(elbos) / len(elbos)
            elbos = []
            row |= evaluator.full() if step == end else evaluator.quick(step <= len(order))
            rows.append(row)
            bar.set_postfix(elbo=round(row["train_elbo"]), accuracy=row["accuracy"], refresh=False)
    usual = np.quantile(seconds, 0.5, method="lower")
    # A call in which the process stood still counts as much as most do.
    counted = np.where(np.array(seconds) > max(5 * usual, usual + 1), usual, seconds)
    for row in rows:  # which has the number of calls there
        row["train_seconds"] = done["train_seconds"] + float(counted[: row["train_seconds"]].sum())
    if left_out := float(np.sum(seconds - counted)):
        rows[-1]["seconds_left_out"] = left_out
    return rows


def train(
    directory: Path | str,
    model,
    scenes: dict[str, Any],
    config: TrainingConfig,
    epochs: int,
    *,
    convergence: Convergence | None = None,
    identity: dict[str, Any] | None = None,
    provenance: dict[str, Any] | None = None,
    title: str = "",
    compiled: bool = True,
    lock_timeout: float = 0.0,
) -> list[dict[str, Any]]:
    """Train a model until it has done `epochs` epochs in all; returns the rows of its log.

    Interrupted anywhere, the same call goes on from the last epoch, and gives the same log.

    Args:
      directory: see `run`; another run's is refused.
      model: a SuPAIR or AIR with its initial weights; gets the trained ones.
      scenes: {"train": ..., "test": ...}, each with `images` (an array or HDF5 data set), `white`,
        `counts`, `boxes` and a length.  All training images are held in the device's memory.
      convergence: a criterion for going on after these epochs until it is met.
      identity: what else decides the run, such as its data: plain values for `config.json`.
      provenance: what is written into every epoch's row beside the machine.
      title: for the progress bar.
      lock_timeout: seconds to wait for another process that trains the run.

    Raises:
      TrainingError: if the folder cannot be used, or ELBO or weights are not finite any more.
      ConfigError: if scenes, model and configuration do not fit each other.
    """
    side = model.config.scene_size
    for part, of_part in scenes.items():
        shape = tuple(of_part.images.shape[1:])
        require(shape == (side, side), f"{part} scenes of {side} x {side} pixels", shape)
    require(model.seed == config.seed, f"a model of the run's seed {config.seed}", model.seed)
    extra_noise = config.warm_up.extra_noise if config.warm_up else 0
    noise_size, train_scenes = model.noise_size + extra_noise, scenes["train"]
    steps_per_epoch = steps_of_epoch(config, len(train_scenes))
    identity = identity or {"data": getattr(train_scenes, "checksum", None)}
    configuration = resolve(type(model).__name__, model.config, config, identity)
    with RunFolder(directory, configuration, lock_timeout) as run:
        optimizer = Optimizer(model, config, steps_per_epoch)
        state = {MODEL_PREFIX + variable.path: variable for variable in model.variables}
        state |= optimizer.named_variables()
        if checkpoint := run.restore():
            assign(state, checkpoint, run.directory)
        last_epoch = convergence.max_epochs if convergence else epochs
        done = run.rows[-1] if run.rows else {"step": 0, "train_seconds": 0.0}
        if is_finished(run.rows, epochs, convergence):
            return run.rows
        machine, before = describe_machine(), done.get("provenance", {})
        if other := {name: v for name, v in before.items() if machine.get(name, v) != v}:
            told = f"begun with {other}; the last digits may differ from here on"
            print(f"note: {run.directory}: {told}", file=sys.stderr)
        interval = 1.0 if sys.stderr.isatty() else 60.0  # seconds
        look = {"unit": "step", "mininterval": interval, "dynamic_ncols": True}
        bar = tqdm(None, title, last_epoch * steps_per_epoch, initial=done["step"], **look)
        whole = {name: np.array(variable) for name, variable in state.items()}
        with bar, tensorflow_errors(run.directory), contextlib.ExitStack() as stack:
            stack.callback(assign, state, whole, run.directory)  # what half an epoch has changed
            make_steps = compile_steps(model, optimizer, config, train_scenes, noise_size, compiled)
            evaluator = Evaluator(model, scenes["test"], compiled, noise_size, train_scenes)
            summaries = run.directory / "tensorboard"
            summaries.mkdir(exist_ok=True)  # with the umask's rights, not TensorFlow's
            writer = tf.summary.create_file_writer(os.fsencode(summaries))
            told = None  # the collapse that was told of last
            while not is_finished(run.rows, epochs, convergence):
                order = epoch_order(config, len(train_scenes), done["step"] // steps_per_epoch)
                rows = train_epoch(make_steps, evaluator, config, order, done, bar)
                tensors = {name: np.array(variable) for name, variable in state.items()}
                for name, array in tensors.items():
                    require_finite(array, f"{run.directory}: {name} after step {bar.n}")
                rows[-1]["provenance"] = {**machine, **(provenance or {})}
                run.save(rows, tensors)
                whole.update(tensors)
                write_summaries(writer, rows, scenes["test"])
                ends = is_finished(run.rows, epochs, convergence)
                collapse = rows[-1].get("collapse")
                learns = config.warm_up and rows[-1]["step"] <= config.warm_up.steps
                if collapse and (ends or (collapse != told and not learns)):
                    what = f"{collapse}, at {'its end, ' * ends}step {rows[-1]['step']}"
                    told = collapse
                    remedy = "another seed" if config.warm_up else "another seed or a warm-up"
                    bar.write(
                        f"warning: {run.directory}: collapsed, {what}; try {remedy}", sys.stderr
                    )
                done = rows[-1]
        return run.rows
