"""Train experiments as far as that is not done yet, read their logs, and load their weights."""

from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
import datetime
import itertools
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import data
from reproduce import claims
from reproduce.experiments import MODELS, Experiment
from supair.air import AIR
from supair.config import TrainingError
from supair.files import read_lines, read_log, require_configuration, run_configuration, text_of, unseal, write_whole
from supair.hardware import describe_machine, matmul_gflops
from supair.model import SuPAIR
from supair.training import SIGNALS, Convergence, Interrupted, Run, load_weights, train

GRACE = 1.5  # seconds in which a run that is asked to stop can save itself
DATA_SEED = 0  # all runs see the same scenes
ROOT = Path(__file__).resolve().parent.parent
RECORDED = ROOT / "results"
PRETRAINED = ROOT / "pretrained"


@dataclass(frozen=True)
class Settings:
    """Where things are and how runs are made, the same for all experiments of a script."""

    runs: Path
    data: Path
    mnist: Path
    compiled: bool = True
    train: bool = True  # whether to; if not, there are only the runs that there are
    together: int = 1  # how many seeds to train at once, in one compiled step

    def load(self, dataset: str) -> dict[str, data.SceneFile]:
        """A data set, made first if it is not there."""
        return data.load(dataset, DATA_SEED, self.data, mnist=self.mnist)


class Job(NamedTuple):
    """An experiment and how far to train it."""

    experiment: Experiment
    epochs: int
    converge: bool = False  # and from there on until it has converged

    @property
    def convergence(self) -> Convergence | None:
        return MODELS[self.experiment.model].convergence if self.converge else None

    def goes_with(self, other: Job) -> bool:
        """Whether the two differ in nothing but their seeds, so that they can be trained together."""
        return other._replace(experiment=dataclasses.replace(other.experiment, seed=self.experiment.seed)) == self

    def is_done(self, runs: Path) -> bool:
        """Whether the log says so.

        Raises:
          TrainingError: as `epoch_lines`.
        """
        lines = epoch_lines(runs, self.experiment)
        if self.convergence:
            return final_result(lines, self.experiment.seed, self.epochs, self.convergence) is not None
        return len(lines) >= self.epochs

    def gflop_left(self, runs: Path) -> float:
        """Work that remains, in GFLOP of large matrix products that would take as long; for convergence a guess."""
        try:
            if self.is_done(runs):
                return 0.0
            done = len(epoch_lines(runs, self.experiment))
        except TrainingError:
            return 0.0  # it will be reported, and not trained
        model = MODELS[self.experiment.model]
        last = max(done + 1, self.epochs, model.usual_epochs) if self.converge else self.epochs
        return (last - done) * self.experiment.steps_per_epoch * model.step_gflop


class Work:
    """A list of jobs, done in order; a run that fails is noted, and the others go on.

    Several processes can do the same jobs in the same place: what another has claimed is left to it (see `claims`).

    Args:
      jobs: what to do; a job that continues another's run comes after it.
      settings: where and how.
    """

    def __init__(self, jobs: list[Job], settings: Settings):
        self.jobs, self.settings = jobs, settings
        self.failures: list[str] = []
        self.elsewhere: list[Job] = []  # what the last pass over the jobs has left to other processes

    def unfinished(self) -> list[Job]:
        """The jobs still to do, those that failed included."""
        return [job for job in self.jobs if not self._is_done(job)]

    def seconds_left(self, gflops: float, start: int = 0) -> float:
        """How long the jobs from `start` on should take at a rate of matrix products."""
        left: dict[Experiment, float] = {}  # several jobs of one experiment: the longest includes the others
        for job in self.jobs[start:]:
            left[job.experiment] = max(left.get(job.experiment, 0.0), job.gflop_left(self.settings.runs))
        return sum(left.values()) / gflops * 1.2  # a fifth for measuring accuracies

    def train(self, wait: bool = True) -> int:
        """Do everything that is not done, if the settings say so.

        Args:
          wait: whether to stay until the jobs of other processes are done, and do those of processes that died.

        Returns:
          the exit code: 0, 1 if a run failed, or 128 + the signal that stopped it.
        """
        if not self.settings.train:
            return 0
        handlers = {number: signal.signal(number, _pass_on) for number in SIGNALS}
        try:
            gflops, tried, told = matmul_gflops(), set(), False
            while True:
                self._train_unclaimed(gflops, tried)
                if not (self.elsewhere and wait):
                    break
                if not told:
                    print(f"Waiting for {len(self.elsewhere)} jobs of other processes; Ctrl-C leaves them to those.", flush=True)
                    told = True
                time.sleep(min(10, claims.EXPIRY / 10))
        except Interrupted as interrupt:
            print(f"\nInterrupted: {interrupt}.", file=sys.stderr)
            return 128 + interrupt.signum
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)
        return 1 if self.failures else 0

    def _train_unclaimed(self, gflops: float, tried: set[Job]) -> None:
        """Do what is neither done, tried nor another process's."""
        self.elsewhere = []
        for number, job in enumerate(self.jobs):
            if job in tried or self._is_done(job):
                continue
            same = (other for other in self.jobs[number:] if job.goes_with(other) and other not in tried)
            with contextlib.ExitStack() as held:
                together = list(
                    itertools.islice((other for other in same if self._claim(other, held, tried)), self.settings.together)
                )
                if job not in tried and job not in together and not self._is_done(job):
                    self.elsewhere.append(job)
                if not together:
                    continue
                tried.update(together)
                length = "until converged" if job.converge else f"to epoch {job.epochs}"
                print(
                    f"[{number + 1}/{len(self.jobs)}] {_title(together)}, {length}; "
                    f"all together about {duration(self.seconds_left(gflops, number))} to go",
                    flush=True,
                )
                try:
                    run_apart(together, self.settings)
                except TrainingError as error:
                    self.note(error)

    def _claim(self, job: Job, held: contextlib.ExitStack, tried: set[Job]) -> bool:
        """Whether a job is to be done, and by us."""
        if self._is_done(job):
            return False
        directory = self.settings.runs / job.experiment.path
        try:
            claim = claims.claim(directory)
        except OSError as error:
            tried.add(job)
            self.note(TrainingError(f"{directory}: cannot be used ({error.strerror})"))
            return False
        if claim:
            held.callback(claim.release)
        return claim is not None and not self._is_done(job)  # another may have done it just before

    def _is_done(self, job: Job) -> bool:
        try:
            return job.is_done(self.settings.runs)
        except TrainingError as error:
            self.note(error)
            return False

    def note(self, error: TrainingError) -> None:
        """Keep what went wrong, a line for each run, and say it once."""
        for line in str(error).splitlines():
            if line not in self.failures:
                self.failures.append(line)
                print(f"error: {line}", file=sys.stderr)


def _pass_on(signum, frame):
    """End at once, but let a run that is under way in a process of its own save itself.

    Within bounds: while it compiles or measures, it cannot, and it loses nothing but the minute since its last checkpoint.
    """
    for process in multiprocessing.active_children():
        os.kill(process.pid, signum)
        killer = threading.Timer(GRACE, process.kill)
        killer.daemon = True
        killer.start()
    raise Interrupted("stopped between training steps; everything up to the last checkpoint is saved", signum)


def duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes / 60:.1f} h"


def _title(jobs: list[Job]) -> str:
    """What jobs that go together are about."""
    title = jobs[0].experiment.title
    seeds = [str(job.experiment.seed) for job in jobs]
    return title if len(jobs) == 1 else f"{title.rsplit(' seed ')[0]} seeds {', '.join(seeds)}"


def run_apart(jobs: list[Job], settings: Settings) -> None:
    """`run` in a process of its own if it compiles, because TensorFlow never frees a compiled step's 130 MB."""
    if not settings.compiled:
        run(jobs, settings)
        return
    try:
        call_apart(run, jobs, settings)
    except concurrent.futures.process.BrokenProcessPool:
        raise TrainingError(
            f"{settings.runs / jobs[0].experiment.path}: its process ended unexpectedly (killed, or out of memory); "
            "start again to resume"
        ) from None


def call_apart(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a function in a new process and return its result; its exceptions are passed on."""
    with concurrent.futures.ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), _start) as pool:
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)  # until the new process, which inherits this, can handle them
        try:
            future = pool.submit(function, *arguments)
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        return future.result()


def _start() -> None:
    """In the new process: a signal ends it with an exception that is passed on, and so does the end of its parent."""

    def interrupt(signum, frame):
        for number in SIGNALS:
            signal.signal(number, signal.SIG_IGN)
        raise Interrupted("stopped between training steps", signum)

    for number in SIGNALS:
        signal.signal(number, interrupt)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)

    def follow_parent():
        multiprocessing.parent_process().join()
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=follow_parent, daemon=True).start()


def check_configuration(experiment: Experiment, runs: Path) -> None:
    """Check that a run's directory holds this experiment; the checksum of its data is taken as it is.

    Raises:
      TrainingError: if it holds another run.
    """
    path = runs / experiment.path / "config.json"
    expected = run_configuration(experiment.model_config(), experiment.training_config(), _identity(experiment, None))
    try:
        expected["data"]["checksum"] = json.loads(path.read_text())["data"]["checksum"]
    except (OSError, ValueError, TypeError, KeyError):
        pass  # the comparison says what is wrong
    require_configuration(path, expected)


def _identity(experiment: Experiment, checksum: str | None) -> dict[str, Any]:
    return {
        "experiment": {"model": experiment.model, "dataset": experiment.dataset, "recipe": experiment.recipe},
        "data": {"seed": DATA_SEED, "checksum": checksum},
    }


def run(jobs: list[Job], settings: Settings) -> None:
    """Train the runs of jobs that go together, as far as that is not done yet.

    A run's `sessions.jsonl` says what machine and version did it, and how many seeds were to be trained together: the
    seconds in its log are then those of all of them.

    Raises:
      DataError, TrainingError, Interrupted: see `data.load`, `supair.training.Run` and `supair.training.train`.
    """
    scenes = settings.load(jobs[0].experiment.dataset)
    runs, failures = [], []
    with contextlib.ExitStack() as stack:
        for experiment, *_ in jobs:
            try:
                run = Run(
                    directory=settings.runs / experiment.path,
                    model=experiment.build(),
                    config=experiment.training_config(),
                    data=scenes,
                    identity=_identity(experiment, scenes["train"].checksum),
                    compiled=settings.compiled,
                )
                stack.enter_context(run)
                _note_session(settings.runs / experiment.path / "sessions.jsonl", run.step, len(jobs))
                runs.append(run)
            except TrainingError as error:  # the others go on
                failures.append(str(error))
        try:
            if runs:
                train(runs, jobs[0].epochs, jobs[0].convergence, description=_title(jobs))
        except TrainingError as error:
            failures.append(str(error))
    if failures:
        raise TrainingError("\n".join(failures))


def _note_session(path: Path, step: int, together: int) -> None:
    session = {"step": step, "date": datetime.date.today().isoformat(), "commit": commit(), "together": together}
    session |= describe_machine()
    try:
        write_whole(path, text_of([*read_lines(path), session]))
    except OSError as error:
        raise TrainingError(f"{path}: cannot be written ({error.strerror})") from None


def commit() -> str:
    """The repository's commit, "+" behind it if files have changed since; "unknown" outside of git."""
    command = ["git", "-C", str(ROOT), "describe", "--always", "--abbrev=10", "--dirty=+", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def load_model(experiment: Experiment, settings: Settings) -> SuPAIR | AIR:
    """The model as its run's last checkpoint left it.

    Raises:
      TrainingError: if there is none, or it is another run's.
    """
    check_configuration(experiment, settings.runs)
    model = experiment.build()
    load_weights(model, settings.runs / experiment.path)
    return model


@dataclass(frozen=True)
class Result:
    """A run's state at the end of an epoch."""

    seed: int
    epoch: int
    accuracy: float
    elbo: float
    train_seconds: float
    converged: bool = False
    collapse: str | None = None


def log_lines(runs: Path, experiment: Experiment) -> list[dict[str, Any]]:
    """All lines of a run's log; none if there is no run.

    Where a run's record has an undisturbed time of a step, because its own clock is not to be trusted, `train_seconds`
    is by that.

    Raises:
      TrainingError: if the log or the record is damaged, or the directory holds another run.
    """
    directory = runs / experiment.path
    lines = read_log(directory / "log.jsonl")
    if lines:
        check_configuration(experiment, runs)
    record = directory / "record.json"
    if record.exists():
        try:
            pace = unseal(json.loads(record.read_text()))["seconds_per_step"]
            if pace is not None:
                lines = [{**line, "train_seconds": line["step"] * float(pace)} for line in lines]
        except (ValueError, KeyError, TypeError) as error:
            raise TrainingError(f"{record}: damaged ({error})") from None
    return lines


def epoch_lines(runs: Path, experiment: Experiment) -> list[dict[str, Any]]:
    """The log lines at the ends of the epochs that an experiment has done; raises as `log_lines`."""
    return [line for line in log_lines(runs, experiment) if "test_elbo" in line]


def read_seeds(runs: Path, model: str, dataset: str, recipe: str) -> list[int]:
    """The seeds of which there are runs."""
    names = [path.name.removeprefix("seed") for path in (runs / model / dataset / recipe).glob("seed*")]
    return sorted(int(name) for name in names if name.isdigit())


def result_at(lines: list[dict[str, Any]], seed: int, epoch: int) -> Result | None:
    """The result at the end of an epoch, or None if the run has not got there."""
    if len(lines) < epoch:
        return None
    line = lines[epoch - 1]
    collapse = line.get("test_collapse")
    return Result(seed, epoch, line["test_accuracy"], line["test_elbo"], line["train_seconds"], collapse=collapse)


def final_result(lines: list[dict[str, Any]], seed: int, least: int, convergence: Convergence) -> Result | None:
    """The result at the epoch after which the run ends, `least` at the earliest; None if it has not got there.

    `converged` tells whether it met the criterion or was stopped by the bound on epochs.
    """
    elbos = [line["test_elbo"] for line in lines]
    epoch = convergence.last_epoch(elbos, least)
    if epoch is None:
        return None
    return dataclasses.replace(result_at(lines, seed, epoch), converged=convergence.reached(elbos[:epoch]))
