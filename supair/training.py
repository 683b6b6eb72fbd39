"""Training: one compiled step, the loop around it, and runs that can be interrupted and resumed anywhere.

A run directory holds `config.json` (everything that decides the run), `log.jsonl` (one line a measurement),
`checkpoints/` and `tensorboard/`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import fcntl
import functools
import json
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

from supair.air import AIR
from supair.config import ConfigError, TrainingConfig, TrainingError, WarmUp
from supair.distribution import Team, first_line
from supair.evaluation import Evaluator, grey, sample_noise
from supair.files import append_line, read_log, require_configuration, run_configuration, text_of, write_whole
from supair.hardware import has_gpu
from supair.model import SuPAIR
from supair.together import Together, stack, unstack

SIGNALS = (signal.SIGINT, signal.SIGTERM)  # that end a run with its state saved
CHECKPOINTS = "checkpoints"  # folder of a run
STEPS_PER_CALL = {"CPU": 10, "GPU": 50}  # training steps that one call of the compiled function makes
CHECKPOINT_SECONDS = 60  # time between two checkpoints
_KEPT = "the last good checkpoint is kept. Try a lower learning rate or, for SuPAIR, larger minimum variances"


class Interrupted(BaseException):  # like KeyboardInterrupt, so that nothing that handles errors takes it for one
    """The run was asked to stop (Ctrl-C or SIGTERM), and what it had done is saved."""

    def __init__(self, where: str, signum: int):
        super().__init__(where)
        self.signum = signum

    def __reduce__(self):  # so that it can be passed on from one process to another
        return type(self), (str(self), self.signum)


class Optimizer:
    """Adam for a model and, if it has a baseline, another one with a learning rate of its own for that.

    `weights` are those that it moves: the model's own or, if these are to be averages, others beside them.  Once training has
    begun, an average that is given another value does not move them.

    Args:
      model: the model.
      config: learning rates and the rest.

    Raises:
      ConfigError: if the model has a baseline and the configuration has no learning rate for it, or the reverse.
    """

    def __init__(self, model: SuPAIR | AIR | Together, config: TrainingConfig):
        baseline = {id(variable) for variable in model.baseline_variables}
        if bool(baseline) != (config.baseline_learning_rate is not None):
            raise ConfigError(
                f"expected a baseline_learning_rate for a model with a baseline and for no other, "
                f"found {config.baseline_learning_rate} for {model.name}"
            )
        self._averages, self._averaging = model.trainable_variables, config.averaging
        self.weights = self._averages
        if self._averaging is not None:
            self.weights = [keras.Variable(average.numpy(), name=average.name) for average in self._averages]
        self._groups = []  # optimizer, and the places of its variables among all of the model's
        for rate, of_baseline in ((config.learning_rate, False), (config.baseline_learning_rate, True)):
            places = [k for k, variable in enumerate(model.trainable_variables) if (id(variable) in baseline) == of_baseline]
            if places:
                if isinstance(warm_up := model.config.warm_up, WarmUp):
                    rate = keras.optimizers.schedules.PolynomialDecay(warm_up.early_rate * rate, warm_up.steps, rate)
                adam = keras.optimizers.Adam(rate, config.beta_1, config.beta_2, config.epsilon)
                adam.build([self.weights[k] for k in places])
                self._groups.append((adam, places))

    @property
    def step(self) -> int:
        """Training steps made so far."""
        return int(self.iterations.value.numpy())

    @property
    def iterations(self) -> keras.Variable:
        return self._groups[0][0].iterations

    @property
    def variables(self) -> list:
        """All that is not the model's."""
        own = [] if self._averaging is None else self.weights
        return [*(variable for adam, _ in self._groups for variable in adam.variables), *own]

    def start(self) -> None:
        """Before the first step: move from the model's weights as they are now."""
        if self._averaging is not None:
            for average, weight in zip(self._averages, self.weights):
                weight.assign(average)

    def apply(self, gradients: list) -> None:
        """Move the weights, given the gradients by all of them."""
        for adam, places in self._groups:
            adam.apply([gradients[k] for k in places], [self.weights[k] for k in places])

    def average(self) -> None:
        """Take the weights, which have just been moved, into the model's averages."""
        if self._averaging is None:
            return
        step = tf.cast(self.iterations.value, self.weights[0].dtype)
        share = (self._averaging + 1.0) / (self._averaging + step)
        for average, weight in zip(self._averages, self.weights):
            average.assign_add(share * (weight - average))


def steps_per_call() -> int:
    """How many training steps one call of the compiled function makes on this machine."""
    return STEPS_PER_CALL["GPU" if has_gpu() else "CPU"]


def make_train_steps(
    model: SuPAIR | AIR | Together,
    optimizer: Optimizer,
    batch_size: int,
    white: int,
    compiled: bool = True,
    team: Team | None = None,
):
    """The training step, several times in one call.

    Args:
      model, optimizer: what to train, and how.
      batch_size: scenes in a step.
      white: the value of white in the images.
      compiled: whether to compile with XLA.
      team: the devices that share a batch, if there are several.

    Returns:
      a function (images [steps * batch, B, B], noise [steps, member, batch, N_max, noise_size], first, last) -> mean
      ELBOs [steps, member], which makes the steps from `first` to before `last`.  A model alone counts as one member.  A loop
      inside one call keeps Python out of the way, and its memory is allocated once for all steps.
    """

    step_of_team = None
    if team is not None and team.strategy is not None:
        assert not isinstance(model, Together)
        step_of_team = team.make_step(
            functools.partial(_gradients, model), optimizer, model.trainable_variables, batch_size, compiled
        )
        compiled = False  # as a whole, only each device's part

    def train_step(images, noise):
        if step_of_team is not None:
            return step_of_team(images, noise[0])[tf.newaxis]
        step = tf.convert_to_tensor(optimizer.iterations)
        if isinstance(model, Together):
            gradients, elbos = model.map(_gradients, (images, step), (noise,), optimizer.weights)
        else:
            weights = [tf.convert_to_tensor(weight) for weight in optimizer.weights]
            with keras.StatelessScope(list(zip(model.trainable_variables, weights))):
                gradients, elbo = _gradients(model, images, step, noise[0])
            elbos = elbo[tf.newaxis]
        optimizer.apply(gradients)
        optimizer.average()
        return elbos

    @tf.function(jit_compile=compiled, autograph=False)
    def train_steps(images, noise, first, last):
        images = tf.reshape(images, [-1, batch_size, *images.shape[1:]])
        if step_of_team is not None:  # a call for no steps compiles, because it depends on what that needs
            unused = tf.cond(first == last, lambda: step_of_team(grey(images[0], white), noise[0, 0], apply=False), lambda: 0.0)
            with tf.control_dependencies([unused]):
                first = tf.identity(first)

        def body(step, elbos):
            return step + 1, elbos.write(step, train_step(grey(images[step], white), noise[step]))

        elbos = tf.TensorArray(tf.float32, size=noise.shape[0], element_shape=[noise.shape[1]])
        _, elbos = tf.while_loop(lambda step, _: step < last, body, [first, elbos])
        return elbos.stack()

    return train_steps


def _gradients(model: SuPAIR | AIR, images, step, noise):
    """The gradients of the training loss by all trainable variables, and the mean ELBO."""
    weights = [variable.value for variable in model.trainable_variables]
    with tf.GradientTape() as tape:
        tape.watch(weights)
        loss, elbo = model.training_loss(images, noise, step)
    return tape.gradient(loss, weights), elbo


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
      data: {"train": ..., "test": ...}, each with `images` (an array or HDF5 data set), `white` (the value of white in
        them), `counts`, `boxes` and a length.  All images are kept in the memory of the device that trains.
      identity: what else decides the run (data set, its seed ...), plain values for `config.json`.
      compiled: whether to compile with XLA.
      strategy: `tf.distribute`'s, in whose scope the model was made, if several devices or machines share the batches (see
        `choose_strategy`); of several processes only the chief reads and writes the directory.

    Raises:
      TrainingError: if the directory holds another run or damaged files, is in use, or cannot be written to.
      ConfigError: if the scenes do not fit the model or are fewer than a batch, or the strategy does not fit.
    """

    directory: Path
    model: SuPAIR | AIR
    config: TrainingConfig
    data: dict[str, Any]
    identity: dict[str, Any]
    compiled: bool = True
    strategy: tf.distribute.Strategy | None = None

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
        self.team = Team(self.strategy)
        self.team.check(self.model.trainable_variables, self.config.batch_size)
        self._collapse: str | None = None  # the kind last warned of
        self._alone: _Group | None = None
        # Training seconds so far, and the sum of the ELBOs since the last log line.
        self._clock, self._elbo_sum = (tf.Variable(0.0, dtype=tf.float64, trainable=False) for _ in range(2))
        with self.team.scope():
            self.optimizer = Optimizer(self.model, self.config)
        config = run_configuration(self.model.config, self.config, self.identity)
        if self.team.is_chief:
            self._claim_directory(config)
            self._restore()
        self.team.require_same("configurations or images", json.dumps(config))
        variables = [*self.model.variables, *self.optimizer.variables]
        self.team.share([variable.value for variable in variables])

    def __enter__(self) -> Run:
        return self

    def __exit__(self, *exception) -> None:
        if self.team.is_chief:
            self._lock.close()

    @property
    def step(self) -> int:
        """Training steps made so far."""
        return self.optimizer.step

    def epoch_lines(self) -> list[dict[str, Any]]:
        """The log lines at the ends of epochs 1, 2, ..."""
        return [line for line in read_log(self._log_path) if line["step"] % self.steps_per_epoch == 0]

    def alone(self) -> _Group:
        """The run as a group of its own, made and compiled once."""
        if self._alone is None:
            self._alone = _Group([self])
        return self._alone

    def train(self, epochs: int, convergence: Convergence | None = None, description: str = "") -> None:
        """Train until `epochs` epochs are done in all and, given a criterion, on until it is met; raises as `train`."""
        train([self], epochs, convergence, description)

    def finished(self, step: int, epochs: int, convergence: Convergence | None = None) -> bool:
        """Whether a run that has made so many steps has nothing left to do; see `train`."""
        if convergence is None:
            return step >= epochs * self.steps_per_epoch
        elbos = [line["test_elbo"] for line in self.epoch_lines()] if self.team.is_chief else []
        return bool(self.team.agree(convergence.last_epoch(elbos, epochs) is not None))

    def last_logged(self, step: int) -> int:
        """The last step up to `step` that has a log line: multiples of `log_every`, and the ends of epochs."""
        return max(step // self.config.log_every * self.config.log_every, step // self.steps_per_epoch * self.steps_per_epoch)

    def note(self, before: int, elbos: np.ndarray, seconds: float) -> None:
        """Take note of training steps made.

        Args:
          before: the number of steps before these.
          elbos: of every step.
          seconds: that they took together.

        Raises:
          TrainingError: if an ELBO is not finite.
        """
        self._clock.assign_add(seconds)
        if not np.all(np.isfinite(elbos)):
            step = before + int(np.argmin(np.isfinite(elbos))) + 1
            raise TrainingError(f"{self.directory}: the ELBO is not finite at step {step}; {_KEPT}")
        total = float(self._elbo_sum)
        for elbo in elbos:  # one by one, so that it does not matter how many steps a call makes
            total += float(elbo)
        self._elbo_sum.assign(total)

    def write_log(self, step: int, previous: int, measured: dict[str, Any]) -> tuple[dict[str, Any], str | None]:
        """Write a line; returns it and, if the run has just collapsed, a warning.

        `train_elbo` is that of the weights that Adam moves, in a warm-up as the warm-up has it; the rest is the model's.
        """
        line = {
            "step": step,
            "epoch": step / self.steps_per_epoch,
            "train_seconds": float(self._clock),
            "train_elbo": float(self._elbo_sum) / (step - previous),
            **measured,
        }
        self._elbo_sum.assign(0.0)
        append_line(self._log_path, line)
        with self._writer.as_default(), self._own_errors():
            for name in ("train_elbo", "test_accuracy", "test_elbo", "test_mean_iou"):
                if line.get(name) is not None:
                    tf.summary.scalar(name, line[name], step=step)
        kind, before = line.get("test_collapse", self._collapse), self._collapse
        self._collapse = kind
        if kind is None or kind == before:
            return line, None
        return line, f"warning: {self.directory}: collapsed, {kind}, at step {step}: {self.model.collapse_hints[kind]}"

    def _claim_directory(self, config: dict[str, Any]) -> None:
        """Refuse a directory of another configuration or in use by another process, or write this one's."""
        path = self.directory / "config.json"
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            self._lock = open(self.directory / "lock", "w")  # noqa: SIM115 (held as long as the run)
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                if error.errno not in (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP):  # file systems without locks
                    raise
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
        try:
            self._manager = tf.train.CheckpointManager(state, str(folder), max_to_keep=2)
            latest = self._manager.latest_checkpoint
            lines = read_log(self._log_path)
            # A run that was killed while it wrote its first checkpoint may have that and no list of checkpoints yet.
            if latest is None and (lines or any(path.name != "ckpt-0.index" for path in folder.glob("*.index"))):
                raise TrainingError("there is no checkpoint, or no list of them")
            if latest is not None:
                state.restore(latest).assert_consumed()
            kept = [line for line in lines if line["step"] <= self.step]
            if self.last_logged(self.step) != (kept[-1]["step"] if kept else 0):
                raise TrainingError(f"log.jsonl lacks lines up to step {self.last_logged(self.step)}")
        except Exception as error:  # TensorFlow raises a dozen types for damaged checkpoints
            raise TrainingError(
                f"{self.directory}: its checkpoint or log is damaged ({first_line(error)}); delete the directory to start again"
            ) from None
        text = text_of(kept)
        try:
            if self._log_path.exists() and self._log_path.read_text() != text:  # lines after the checkpoint, or half a line
                write_whole(self._log_path, text)
        except OSError as error:
            raise TrainingError(f"{self._log_path}: cannot be written ({error.strerror})") from None

    def start(self) -> None:
        """Before the first of several steps."""
        if not self.team.is_chief:
            return
        if self._manager.latest_checkpoint is None:
            self.save()  # so that log lines without a checkpoint are a damaged run, not a new one
        with self._own_errors():
            self._writer = tf.summary.create_file_writer(str(self.directory / "tensorboard"))

    @contextlib.contextmanager
    def _own_errors(self):
        """TensorFlow's errors as this run's."""
        try:
            yield
        except tf.errors.OpError as error:
            raise TrainingError(f"{self.directory}: {first_line(error)}") from None

    def save(self) -> None:
        if not self.team.is_chief:
            return
        try:
            self._manager.save(checkpoint_number=self.step)
        except (tf.errors.OpError, OSError) as error:
            raise TrainingError(f"{self.directory}: the checkpoint cannot be written ({first_line(error)})") from None


def train(runs: list[Run], epochs: int, convergence: Convergence | None = None, description: str = "") -> None:
    """Train runs that differ in nothing but their seeds, together where they have made as many steps.

    Those that are finished before the others of their group are computed along with it, but no longer changed.

    Args:
      runs: what to train; those that are finished are left alone.
      epochs: how many epochs each shall have in all.
      convergence: a criterion for going on from there until it is met.
      description: for the progress bar.

    Raises:
      ConfigError: if the runs differ in more than their seeds.
      Interrupted: after SIGINT or SIGTERM, with the state saved.
      TrainingError: if an ELBO is no longer finite, a file cannot be written or memory does not suffice, after the other
        runs are done; a line for each of them.  A run's last checkpoint is kept.
    """
    for run in runs[1:]:
        if run.team.strategy or runs[0].team.strategy:
            raise ConfigError("expected one run at a time under a strategy of tf.distribute, found several")
        same = dataclasses.replace(run.config, seed=runs[0].config.seed) == runs[0].config and run.data is runs[0].data
        if not same or run.compiled != runs[0].compiled:
            raise ConfigError(f"expected runs of one configuration on the same data, found others in {run.directory}")
    for run in runs:
        run.team.check_context()
        run.team.require_same("numbers of epochs or steps", f"{epochs} {convergence} {run.compiled}")
    unfinished = [run for run in runs if not run.finished(run.step, epochs, convergence)]
    failures: list[str] = []
    with _noted_signals() as signals:
        for step in sorted({run.step for run in unfinished}):
            together = [run for run in unfinished if run.step == step]
            try:
                group = together[0].alone() if len(together) == 1 else _Group(together)
                group.train(epochs, convergence, description, signals, failures)
            except tf.errors.OpError as error:
                hint = "; train fewer seeds together" if isinstance(error, tf.errors.ResourceExhaustedError) else ""
                failures.append(f"{', '.join(str(run.directory) for run in together)}: {first_line(error)}{hint}")
            except Interrupted:
                print(*failures, sep="\n", end="\n" * bool(failures), file=sys.stderr)
                raise
    if failures:
        raise TrainingError("\n".join(failures))


@contextlib.contextmanager
def _noted_signals():
    """Yields a list that gets the signals that ask a run to stop, instead of them stopping it anywhere."""
    noted: list[int] = []
    handlers = {}
    if threading.current_thread() is threading.main_thread():
        handlers = {number: signal.signal(number, lambda signum, frame: noted.append(signum)) for number in SIGNALS}
    try:
        yield noted
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


class _Group:
    """Runs that have made as many steps, trained together."""

    def __init__(self, runs: list[Run]):
        self.runs, first, self.team = runs, runs[0], runs[0].team
        self.config, self.steps_per_epoch = first.config, first.steps_per_epoch
        self.model: SuPAIR | AIR | Together = first.model
        self.optimizer = first.optimizer
        for run in runs:
            if not run.step:
                run.optimizer.start()
        if len(runs) > 1:
            self.model = Together([run.model for run in runs])
            self.optimizer = Optimizer(self.model, first.config)
            stack(self.optimizer.variables, [run.optimizer.variables for run in runs])
        scenes = first.data["train"]
        self._images = tf.constant(scenes.images[:])
        self._train_steps = make_train_steps(
            self.model, self.optimizer, self.config.batch_size, scenes.white, first.compiled, self.team
        )
        if self.team.is_chief:
            self._evaluator = Evaluator(self.model, first.data["test"], first.compiled)
        steps = min(steps_per_call(), self.steps_per_epoch)
        shape = [steps, len(runs), self.config.batch_size, self.model.config.num_steps, self.model.noise_size]
        self._noise = np.zeros(shape, np.float32)

    @property
    def step(self) -> int:
        return self.optimizer.step

    def train(
        self,
        epochs: int,
        convergence: Convergence | None,
        description: str,
        signals: list[int],
        failures: list[str],
    ) -> None:
        """See the function `train`.

        Args:
          signals: those received; the first ends the training.
          failures: gets what goes wrong with a run; the others go on.
        """
        self.going = list(range(len(self.runs)))  # the members that are neither finished nor failed
        self._failures, self._signals, self._saved_at = failures, signals, time.monotonic()
        self._steps(0, 0)  # compiles and makes no step, so the clock counts training alone
        last_epoch = convergence.max_epochs if convergence else epochs
        bar = tqdm(
            total=last_epoch * self.steps_per_epoch,
            initial=self.step,
            desc=description,
            unit="step",
            mininterval=1.0 if sys.stderr.isatty() else 60.0,
            dynamic_ncols=True,
            disable=not self.team.is_chief,
        )
        with bar:
            self._each(lambda member, run: run.start())
            if self._asked():
                raise self._interrupted()
            while self.going:
                self._train_epoch(bar)
                finished = [k for k in self.going if self.runs[k].finished(self.step, epochs, convergence)]
                self._save(finished)
                self.going = [k for k in self.going if k not in finished]
        if self._asked():
            raise self._interrupted()

    def _asked(self) -> bool:
        """Whether this process or another one of the team has been asked to end."""
        return self.team.any(bool(self._signals))

    def _interrupted(self) -> Interrupted:
        return Interrupted(f"stopped at step {self.step}, which is saved", (self._signals or SIGNALS)[0])

    def _steps(self, step: int, number: int) -> tuple[np.ndarray, float]:
        """Make training steps; returns their ELBOs [step, member], and the seconds they took."""
        batch, start = self.config.batch_size, step % self.steps_per_epoch
        images_from = min(start, self.steps_per_epoch - len(self._noise))  # always as many, and none beyond the last
        first = start - images_from
        for member, run in enumerate(self.runs):
            for index in range(number):
                self._noise[first + index, member] = sample_noise(run.model, run.config.seed, step + index, batch)
        began = time.perf_counter()
        images = self._images[images_from * batch : (images_from + len(self._noise)) * batch]
        elbos = self._train_steps(images, self._noise, tf.constant(first), tf.constant(first + number)).numpy()
        return elbos[first : first + number], time.perf_counter() - began

    def _train_epoch(self, bar: tqdm) -> None:
        """Train to the end of the epoch."""
        log_every = self.config.log_every
        end = (self.step // self.steps_per_epoch + 1) * self.steps_per_epoch
        while (step := self.step) < end and self.going:
            number = min(len(self._noise), end - step, log_every - step % log_every)
            elbos, seconds = self._steps(step, number)
            self._each(lambda member, run: run.note(step, elbos[:, member], seconds))  # noqa: B023 (called at once)
            bar.update(number)
            logged = self.step == self.runs[0].last_logged(self.step)
            if logged:
                self._require_finite_weights()
                self._write_logs(self.runs[0].last_logged(step), bar)
            asked = self._asked()
            if asked or (logged and time.monotonic() - self._saved_at > CHECKPOINT_SECONDS):
                self._require_finite_weights()
                self._save(self.going)
                self._saved_at = time.monotonic()
            if asked:
                raise self._interrupted()

    def _each(self, action, members: list[int] | None = None) -> None:
        """Do something for every run that is going, or for some of them; those for which it fails end here."""
        for member in list(self.going if members is None else members):
            try:
                action(member, self.runs[member])
            except TrainingError as error:
                if self.team.has_others:  # they go on as if nothing had happened, so this process has to end
                    raise
                self._failures.append(str(error))
                self.going.remove(member)

    def _require_finite_weights(self) -> None:
        members = len(self.runs)
        finite = np.all(
            [np.all(np.isfinite(variable.numpy()).reshape(members, -1), axis=1) for variable in self.model.trainable_variables],
            axis=0,
        )

        def require(member, run):
            if not finite[member]:
                raise TrainingError(f"{run.directory}: weights are not finite after step {self.step}; {_KEPT}")

        self._each(require)

    def _write_logs(self, previous: int, bar: tqdm) -> None:
        if not self.team.is_chief or not self.going:
            return
        step = self.step
        if step % self.steps_per_epoch:
            measured = self._evaluator.quick(examples=step <= self.steps_per_epoch)
        else:
            measured = self._evaluator.full()
        lines = []

        def write(member, run):
            line, warning = run.write_log(step, previous, measured[member])
            lines.append(line)
            if warning:
                bar.write(warning, sys.stderr)

        self._each(write)
        if lines:
            accuracies = [line["test_accuracy"] for line in lines if line["test_accuracy"] is not None]
            postfix = {"accuracy": f"{np.mean(accuracies):.1%}"} if accuracies else {}
            bar.set_postfix(elbo=f"{np.mean([line['train_elbo'] for line in lines]):.0f}", **postfix, refresh=False)

    def _save(self, members: list[int]) -> None:
        def save(member, run):
            if isinstance(self.model, Together):
                unstack(self.model.trainable_variables, member, run.model.trainable_variables)
                unstack(self.optimizer.variables, member, run.optimizer.variables)
            run.save()

        self._each(save, members)


def _checkpoint(model: SuPAIR | AIR, **others: Any) -> tf.train.Checkpoint:
    return tf.train.Checkpoint(weights=[variable.value for variable in model.variables], **others)


def load_weights(model: SuPAIR | AIR, directory: Path) -> None:
    """Give a model the weights of a run's last checkpoint.

    Raises:
      TrainingError: if there is none, or it is damaged or another model's.
    """
    latest = directory
    try:
        latest = tf.train.latest_checkpoint(str(directory / CHECKPOINTS))
        if latest is None:
            raise TrainingError(f"{directory}: no checkpoint here")
        _checkpoint(model).restore(latest).assert_existing_objects_matched().expect_partial()
    except TrainingError:
        raise
    except Exception as error:  # TensorFlow raises a dozen types for damaged checkpoints
        raise TrainingError(f"{latest}: does not fit the model, or is damaged ({first_line(error)})") from None
