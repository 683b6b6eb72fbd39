"""Training: one compiled step, the loop around it, and runs that can be interrupted and resumed anywhere.

A run directory holds `config.json` (everything that decides the run), `log.jsonl` (one line a measurement),
`checkpoints/` and `tensorboard/`.
"""

from __future__ import annotations

import dataclasses
import fcntl
import json
import os
import re
import signal
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf
from tqdm import tqdm

from supair import metrics
from supair.air import AIR
from supair.config import ConfigError, TrainingConfig
from supair.model import SuPAIR

SIGNALS = (signal.SIGINT, signal.SIGTERM)  # that end a run with its state saved
CHECKPOINTS = "checkpoints"  # folder of a run
STEPS_PER_CALL = 10  # training steps that one call of the compiled function makes
CHECKPOINT_SECONDS = 60  # longest time between two checkpoints
EVALUATION_BATCH = 250
EXAMPLES = 10  # first test scenes whose boxes are in the log, so that Figure 4 can be drawn from it
NOT_FINITE_HINT = "Try a lower learning rate or, for SuPAIR, larger minimum variances"
EVALUATION_SEED = 2**31  # noise on the test set, the same at every evaluation; above every run's seed


class TrainingError(RuntimeError):
    """A run that cannot start or go on."""


class Interrupted(BaseException):  # like KeyboardInterrupt, so that nothing that handles errors takes it for one
    """The run was asked to stop (Ctrl-C or SIGTERM), and what it had done is saved."""

    def __init__(self, where: str, signum: int):
        super().__init__(where)
        self.signum = signum

    def __reduce__(self):  # so that it can be passed on from one process to another
        return type(self), (str(self), self.signum)


def sample_noise(model: SuPAIR | AIR, seed: int, step: int, scenes: int) -> np.ndarray:
    """Standard normal noise [scenes, num_steps, noise_size], decided by seed and training step alone.

    From NumPy, because TensorFlow's own depends on the device and on whether it is compiled.
    """
    generator = np.random.Generator(np.random.Philox(key=[seed, step]))
    return generator.standard_normal([scenes, model.config.num_steps, model.noise_size], dtype=np.float32)


class Optimizer:
    """Adam for a model and, if it has a baseline, another one with a learning rate of its own for that.

    Args:
      model: the model.
      config: learning rates and the rest.

    Raises:
      ConfigError: if the model has a baseline and the configuration has no learning rate for it, or the reverse.
    """

    def __init__(self, model: SuPAIR | AIR, config: TrainingConfig):
        baseline = {id(variable) for variable in model.baseline_variables}
        if bool(baseline) != (config.baseline_learning_rate is not None):
            raise ConfigError(
                f"expected a baseline_learning_rate for a model with a baseline and for no other, "
                f"found {config.baseline_learning_rate} for {model.name}"
            )
        self._groups = []  # optimizer, and the places of its variables among all of the model's
        for rate, of_baseline in ((config.learning_rate, False), (config.baseline_learning_rate, True)):
            places = [k for k, variable in enumerate(model.trainable_variables) if (id(variable) in baseline) == of_baseline]
            if places:
                adam = keras.optimizers.Adam(rate, config.beta_1, config.beta_2, config.epsilon)
                adam.build([model.trainable_variables[k] for k in places])
                self._groups.append((adam, places))

    @property
    def step(self) -> int:
        """Training steps made so far."""
        return int(self._groups[0][0].iterations)

    @property
    def variables(self) -> list:
        return [variable for adam, _ in self._groups for variable in adam.variables]

    def apply(self, gradients: list, variables: list) -> None:
        """One step, given the gradients by all of the model's trainable variables."""
        for adam, places in self._groups:
            adam.apply([gradients[k] for k in places], [variables[k] for k in places])


def make_train_steps(model: SuPAIR | AIR, optimizer: Optimizer, compiled: bool = True):
    """The training step, several times in one call.

    Returns:
      a function (images [steps, batch, B, B], noise [steps, batch, N_max, noise_size], number) -> mean ELBO of each
      step [steps], which makes the first `number` of the steps.  A loop inside one call keeps Python out of the way, and
      its memory is allocated once for all of them.  The optimizer counts the steps.
    """

    def train_step(images, noise):
        with tf.GradientTape() as tape:
            loss, elbo = model.training_loss(images, noise)
        optimizer.apply(tape.gradient(loss, model.trainable_variables), model.trainable_variables)
        return elbo

    @tf.function(jit_compile=compiled, autograph=False)
    def train_steps(images, noise, number):
        def body(step, elbos):
            return step + 1, elbos.write(step, train_step(images[step], noise[step]))

        elbos = tf.TensorArray(tf.float32, size=images.shape[0], element_shape=[])
        _, elbos = tf.while_loop(lambda step, _: step < number, body, [0, elbos])
        return elbos.stack()

    return train_steps


class Evaluator:
    """Measures a model on the test set.

    Args:
      model: the model.
      scenes: has `read(start, stop)`, `counts`, `boxes` and a length.
      compiled: whether to compile with XLA.
    """

    def __init__(self, model: SuPAIR | AIR, scenes, compiled: bool = True):
        self.model, self.scenes = model, scenes

        @tf.function(jit_compile=compiled, autograph=False)
        def describe(images):
            description = model(images)
            return description.z_pres, model.boxes(description), description.count

        @tf.function(jit_compile=compiled, autograph=False)
        def evaluate(images, noise):
            return model.evaluate_elbo(images, noise).elbo

        self._describe, self._evaluate = describe, evaluate

    def _batches(self):
        for start in range(0, len(self.scenes), EVALUATION_BATCH):
            images = self.scenes.read(start, min(start + EVALUATION_BATCH, len(self.scenes)))
            size = len(images)
            if size < EVALUATION_BATCH:  # the same shape for the last one, or it would be compiled again
                images = np.pad(images, [(0, EVALUATION_BATCH - size), (0, 0), (0, 0)])
            yield start, size, images

    def accuracy(self) -> float:
        """Count accuracy on the whole test set."""
        counts = [self._describe(images)[2][:size] for _, size, images in self._batches()]
        return metrics.count_accuracy(self.scenes.counts, np.concatenate(counts))

    def examples(self) -> dict[str, Any]:
        """z_pres [scene, step] and boxes [scene, step, 4] (pixels) for the first test scenes, rounded, as lists."""
        z_pres, boxes, _ = self._describe(next(self._batches())[2])
        number = min(EXAMPLES, len(self.scenes))
        return {
            "z_pres": np.round(z_pres[:number].numpy().astype(float), 3).tolist(),
            "boxes": np.round(boxes[:number].numpy().astype(float), 2).tolist(),
        }

    def full(self) -> dict[str, Any]:
        """Count accuracy and confusion, mean IoU of matched boxes, and the ELBO with its terms (means, nats)."""
        counts, boxes, terms = [], [], []
        for start, size, images in self._batches():
            z_pres, found, count = self._describe(images)
            elbo = self._evaluate(images, sample_noise(self.model, EVALUATION_SEED, start, EVALUATION_BATCH))
            counts.append(count[:size])
            boxes += metrics.present_boxes(z_pres, found)[:size]
            terms.append(np.stack([term[:size] for term in elbo]))
        counts, terms = np.concatenate(counts), np.concatenate(terms, axis=1).mean(axis=1, dtype=float)
        true_boxes = [boxes_[:count] for boxes_, count in zip(self.scenes.boxes, self.scenes.counts)]
        iou = metrics.mean_matched_iou(true_boxes, boxes)
        confusion = metrics.count_confusion(self.scenes.counts, counts, self.model.config.num_steps)
        return {
            "test_accuracy": metrics.count_accuracy(self.scenes.counts, counts),
            "test_elbo": float(terms.sum()),
            "test_elbo_terms": dict(zip(elbo._fields, map(float, terms))),
            "test_confusion": confusion,
            "test_collapse": metrics.collapse(confusion),
            "test_mean_iou": None if np.isnan(iou) else iou,  # NaN is no JSON
        }


class Convergence(NamedTuple):
    """A run has converged when the test ELBO, averaged over `window` epochs, is above that of the `window` epochs before
    by less than the share `gain` of all it has gained since the first epoch; it ends after `max_epochs` all the same."""

    window: int = 5
    gain: float = 0.01
    max_epochs: int = 100

    def reached(self, elbos: list[float]) -> bool:
        """Whether the test ELBOs at the ends of all epochs so far show convergence."""
        if len(elbos) < 2 * self.window:
            return False
        now, before = np.mean(elbos[-self.window :]), np.mean(elbos[-2 * self.window : -self.window])
        return bool(now - before < self.gain * abs(now - elbos[0]))

    def last_epoch(self, elbos: list[float], least: int) -> int | None:
        """The epoch, `least` at the earliest, after which a run ends; None if it goes on."""
        for epoch in range(least, len(elbos) + 1):
            if epoch >= self.max_epochs or self.reached(elbos[:epoch]):
                return epoch
        return None


@dataclass
class Run:
    """One training run in its directory; use it in a `with` statement.

    Args:
      directory: where it lives; a directory of another configuration is refused.
      model: the model to train.
      config: how to train it.
      data: {"train": ..., "test": ...}, each with `images`, `counts`, `boxes`, `read(start, stop)` and a length.
      identity: what else decides the run (data set, its seed ...), plain values for `config.json`.
      compiled: whether to compile with XLA.

    Raises:
      TrainingError: if the directory holds another run or damaged files, is in use, or cannot be written to.
      ConfigError: if the scenes do not fit the model or are fewer than a batch.
    """

    directory: Path
    model: SuPAIR | AIR
    config: TrainingConfig
    data: dict[str, Any]
    identity: dict[str, Any]
    compiled: bool = True

    def __post_init__(self):
        self.directory = Path(self.directory)
        self.steps_per_epoch = len(self.data["train"]) // self.config.batch_size
        if not self.steps_per_epoch:
            raise ConfigError(
                f"expected at least a batch of {self.config.batch_size} training scenes, found {len(self.data['train'])}"
            )
        side = self.model.config.scene_size
        for part, scenes in self.data.items():
            if scenes.images.shape[1:] != (side, side):
                raise ConfigError(f"expected {part} scenes of {side} x {side} pixels, found {scenes.images.shape[1:]}")
        self._signal: int | None = None
        self._collapse: str | None = None  # the kind last warned of
        self._saved_at = time.monotonic()
        self._claim_directory()
        self.optimizer = Optimizer(self.model, self.config)
        # Training seconds so far, and the sum of the ELBOs since the last log line.
        self._clock, self._elbo_sum = (tf.Variable(0.0, dtype=tf.float64, trainable=False) for _ in range(2))
        self._train_steps = make_train_steps(self.model, self.optimizer, self.compiled)
        self.evaluator = Evaluator(self.model, self.data["test"], self.compiled)
        self._restore()

    def __enter__(self) -> Run:
        return self

    def __exit__(self, *exception) -> None:
        self._lock.close()

    @property
    def step(self) -> int:
        """Training steps made so far."""
        return self.optimizer.step

    def epoch_lines(self) -> list[dict[str, Any]]:
        """The log lines at the ends of epochs 1, 2, ..."""
        return [line for line in read_log(self._log_path) if line["step"] % self.steps_per_epoch == 0]

    def train(self, epochs: int, convergence: Convergence | None = None, description: str = "") -> None:
        """Train until `epochs` epochs are done in all and, given a criterion, on until it is met.

        Raises:
          Interrupted: after SIGINT or SIGTERM, with the state saved.
          TrainingError: if the ELBO is no longer finite; the last checkpoint is kept.
        """
        if self._finished(epochs, convergence):
            return
        side = self.model.config.scene_size
        buffer = np.zeros([STEPS_PER_CALL, self.config.batch_size, side, side], np.float32)
        noise = np.zeros([*buffer.shape[:2], self.model.config.num_steps, self.model.noise_size], np.float32)
        self._train_steps(buffer, noise, tf.constant(0))  # compiles and makes no step, so the clock counts training alone
        handlers = {}
        if threading.current_thread() is threading.main_thread():
            handlers = {number: signal.signal(number, self._note_signal) for number in SIGNALS}
        last_epoch = convergence.max_epochs if convergence else epochs
        bar = tqdm(
            total=last_epoch * self.steps_per_epoch,
            initial=self.step,
            desc=description,
            unit="step",
            mininterval=1.0 if sys.stderr.isatty() else 60.0,
            dynamic_ncols=True,
        )
        try:
            if self._manager.latest_checkpoint is None:
                self._save()  # so that log lines without a checkpoint are a damaged run, not a new one
            writer = tf.summary.create_file_writer(str(self.directory / "tensorboard"))
            with bar, writer.as_default():
                while not self._finished(epochs, convergence):
                    self._train_epoch(buffer, noise, bar)
            writer.close()
        except tf.errors.OpError as error:
            raise TrainingError(f"{self.directory}: {_first_line(error)}") from None
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)

    def _finished(self, epochs: int, convergence: Convergence | None) -> bool:
        if convergence is None:
            return self.step >= epochs * self.steps_per_epoch
        return convergence.last_epoch([line["test_elbo"] for line in self.epoch_lines()], epochs) is not None

    def _last_logged(self, step: int) -> int:
        """The last step up to `step` that has a log line: multiples of `log_every`, and the ends of epochs."""
        return max(step // self.config.log_every * self.config.log_every, step // self.steps_per_epoch * self.steps_per_epoch)

    def _train_epoch(self, buffer: np.ndarray, noise: np.ndarray, bar: tqdm) -> None:
        batch, log_every = self.config.batch_size, self.config.log_every
        end = (self.step // self.steps_per_epoch + 1) * self.steps_per_epoch
        while (step := self.step) < end:
            number = min(STEPS_PER_CALL, end - step, log_every - step % log_every)
            position = step % self.steps_per_epoch * batch
            scenes = self.data["train"].read(position, position + number * batch)
            buffer[:number] = scenes.reshape(number, *buffer.shape[1:])
            for index in range(number):
                noise[index] = sample_noise(self.model, self.config.seed, step + index, batch)
            start = time.perf_counter()
            elbos = self._train_steps(buffer, noise, tf.constant(number)).numpy()[:number]
            self._clock.assign_add(time.perf_counter() - start)
            if not np.all(np.isfinite(elbos)):
                raise TrainingError(
                    f"{self.directory}: the ELBO is not finite at step {step + int(np.argmin(np.isfinite(elbos))) + 1}; "
                    f"the last good checkpoint is kept. {NOT_FINITE_HINT}"
                )
            for elbo in elbos:
                self._elbo_sum.assign_add(elbo)
            bar.update(number)
            logged = self.step == self._last_logged(self.step)
            due = self.step == end or (logged and time.monotonic() - self._saved_at > CHECKPOINT_SECONDS)
            if logged or due or self._signal is not None:
                self._require_finite_weights()
            if logged:
                self._write_log(self._last_logged(step), bar)
            if due or self._signal is not None:
                self._save()
            if self._signal is not None:
                raise Interrupted(f"stopped at step {self.step}, which is saved", self._signal)

    def _write_log(self, previous: int, bar: tqdm) -> None:
        step = self.step
        measured = {"test_accuracy": self.evaluator.accuracy()} if step % self.steps_per_epoch else self.evaluator.full()
        if step <= self.steps_per_epoch or not step % self.steps_per_epoch:
            measured["test_examples"] = self.evaluator.examples()
        line = {
            "step": step,
            "epoch": step / self.steps_per_epoch,
            "train_seconds": float(self._clock),
            "train_elbo": float(self._elbo_sum) / (step - previous),
            **measured,
        }
        self._elbo_sum.assign(0.0)
        append_line(self._log_path, line)
        bar.set_postfix(elbo=f"{line['train_elbo']:.0f}", accuracy=f"{line['test_accuracy']:.1%}", refresh=False)
        kind = line.get("test_collapse", self._collapse)
        if kind and kind != self._collapse:
            bar.write(
                f"warning: {self.directory}: collapsed, {kind}, at step {step}: {self.model.collapse_hints[kind]}", sys.stderr
            )
        self._collapse = kind
        for name in ("train_elbo", "test_accuracy", "test_elbo", "test_mean_iou"):
            if line.get(name) is not None:
                tf.summary.scalar(name, line[name], step=step)

    def _require_finite_weights(self) -> None:
        if not all(np.all(np.isfinite(variable.numpy())) for variable in self.model.trainable_variables):
            raise TrainingError(
                f"{self.directory}: weights are not finite after step {self.step}; the last good checkpoint is kept. "
                f"{NOT_FINITE_HINT}"
            )

    def _note_signal(self, signum, frame) -> None:
        self._signal = signum

    def _claim_directory(self) -> None:
        """Refuse a directory of another configuration or in use by another process, or write this one's."""
        config = run_configuration(self.model.config, self.config, self.identity)
        path = self.directory / "config.json"
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            self._lock = open(self.directory / "lock", "w")  # noqa: SIM115 (held as long as the run)
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if path.exists():
                require_configuration(path, config)
            else:
                write_whole(path, json.dumps(config, indent=2) + "\n")
        except BlockingIOError:
            raise TrainingError(f"{self.directory}: in use by another process") from None
        except OSError as error:
            raise TrainingError(f"{self.directory}: cannot be used ({error.strerror or error})") from None

    @property
    def _log_path(self) -> Path:
        return self.directory / "log.jsonl"

    def _restore(self) -> None:
        state = _checkpoint(
            self.model,
            optimizer=[variable.value for variable in self.optimizer.variables],
            clock=self._clock,
            elbo_sum=self._elbo_sum,
        )
        folder = self.directory / CHECKPOINTS
        self._manager = tf.train.CheckpointManager(state, str(folder), max_to_keep=2)
        try:
            latest = self._manager.latest_checkpoint
            lines = read_log(self._log_path)
            if latest is None and (lines or any(folder.glob("*.index"))):
                raise TrainingError("there is no checkpoint, or no list of them")
            if latest is not None:
                state.restore(latest).assert_consumed()
            kept = [line for line in lines if line["step"] <= self.step]
            if self._last_logged(self.step) != (kept[-1]["step"] if kept else 0):
                raise TrainingError(f"log.jsonl lacks lines up to step {self._last_logged(self.step)}")
        except Exception as error:  # TensorFlow raises a dozen types for damaged checkpoints
            raise TrainingError(
                f"{self.directory}: its checkpoint or log is damaged ({_first_line(error)}); delete the directory to start again"
            ) from None
        text = "".join(json.dumps(line) + "\n" for line in kept)
        try:
            if self._log_path.exists() and self._log_path.read_text() != text:  # lines after the checkpoint, or half a line
                write_whole(self._log_path, text)
        except OSError as error:
            raise TrainingError(f"{self._log_path}: cannot be written ({error.strerror})") from None

    def _save(self) -> None:
        try:
            self._manager.save(checkpoint_number=self.step)
        except (tf.errors.OpError, OSError) as error:
            raise TrainingError(f"{self.directory}: the checkpoint cannot be written ({_first_line(error)})") from None
        self._saved_at = time.monotonic()


def _checkpoint(model: SuPAIR | AIR, **others: Any) -> tf.train.Checkpoint:
    return tf.train.Checkpoint(weights=[variable.value for variable in model.variables], **others)


def load_weights(model: SuPAIR | AIR, directory: Path) -> None:
    """Give a model the weights of a run's last checkpoint.

    Raises:
      TrainingError: if there is none, or it is damaged or another model's.
    """
    latest = tf.train.latest_checkpoint(str(directory / CHECKPOINTS))
    if latest is None:
        raise TrainingError(f"{directory}: no checkpoint here")
    try:
        _checkpoint(model).restore(latest).assert_existing_objects_matched().expect_partial()
    except Exception as error:  # TensorFlow raises a dozen types for damaged checkpoints
        raise TrainingError(f"{latest}: does not fit the model, or is damaged ({_first_line(error)})") from None


def _first_line(error: Exception) -> str:
    """The first line of an error's message, without TensorFlow's internal prefix."""
    return re.sub(r"^\{\{.*?\}\} ", "", (str(error).strip() or type(error).__name__).splitlines()[0])[:200]


def run_configuration(model: Any, training: TrainingConfig, identity: dict[str, Any]) -> dict[str, Any]:
    """What `config.json` holds: everything that decides a run."""
    config = {"model": dataclasses.asdict(model), "training": dataclasses.asdict(training), **identity}
    return json.loads(json.dumps(config))


def require_configuration(path: Path, expected: dict[str, Any]) -> None:
    """Check that a run's `config.json` holds what is expected.

    Raises:
      TrainingError: if it does not, or is damaged.
    """
    try:
        found = json.loads(path.read_text())
        if not isinstance(found, dict):
            raise ValueError("not a JSON object")
    except (OSError, ValueError) as error:
        raise TrainingError(f"{path}: missing or damaged ({error}); delete the directory to start again") from None
    if different := difference(found, expected):
        raise TrainingError(f"{path}: this directory holds another run ({different}); choose another directory or delete it")


def difference(found: Any, expected: Any, name: str = "") -> str:
    """Where two configurations differ first, in words; empty if they do not."""
    if isinstance(found, dict) and isinstance(expected, dict):
        for key in sorted(found.keys() | expected.keys()):
            if inner := difference(found.get(key), expected.get(key), f"{name}.{key}" if name else key):
                return inner
        return ""
    return "" if found == expected else f"{name}: expected {expected}, found {found}"


def read_log(path: Path) -> list[dict[str, Any]]:
    """The lines of a log; a last line cut off by a crash is left out.

    Raises:
      TrainingError: if any other line is not JSON.
    """
    if not path.exists():
        return []
    try:
        lines = path.read_text().split("\n")
        parsed = [json.loads(line) for line in lines[:-1]]
        needed = {"step", "epoch", "train_seconds", "test_accuracy"}
        if not all(isinstance(line, dict) and needed <= line.keys() for line in parsed):
            raise ValueError("a line that is no measurement")
    except ValueError as error:
        raise TrainingError(f"{path}: damaged ({error})") from None
    return parsed


def append_line(path: Path, line: dict[str, Any]) -> None:
    """Append one JSON line and make sure it is on the disk.

    Raises:
      TrainingError: if it cannot be written.
    """
    try:
        with open(path, "a") as file:
            file.write(json.dumps(line, allow_nan=False) + "\n")
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise TrainingError(f"{path}: cannot be written ({error.strerror})") from None
    except ValueError:
        raise TrainingError(f"{path}: a measurement is not finite at step {line['step']}: {line}") from None


def write_whole(path: Path, text: str) -> None:
    """Write a file beside its place and rename it, so that it is there whole or not at all."""
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        with open(partial, "w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
