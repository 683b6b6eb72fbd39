"""Run one experiment, or load what it has already done; and read results out of its log."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import json
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import data
from reproduce.experiments import TITLES, Experiment
from supair.training import (
    SIGNALS,
    Convergence,
    Interrupted,
    Run,
    TrainingError,
    require_configuration,
    run_configuration,
)

DATA_SEED = 0  # all runs see the same scenes


@dataclass(frozen=True)
class Settings:
    """Where things are and how runs are made, the same for all experiments of a script."""

    runs: Path
    data: Path
    mnist: Path
    compiled: bool = True


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


def run_apart(experiment: Experiment, settings: Settings, epochs: int, convergence: Convergence | None = None) -> None:
    """`run` in a process of its own if it compiles, because TensorFlow never frees a compiled step's 130 MB."""
    if not settings.compiled:
        run(experiment, settings, epochs, convergence)
        return
    try:
        call_apart(run, experiment, settings, epochs, convergence)
    except concurrent.futures.process.BrokenProcessPool:
        raise TrainingError(
            f"{settings.runs / experiment.path}: its process ended unexpectedly (killed, or out of memory); start again to resume"
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


def check_configuration(experiment: Experiment, settings: Settings) -> None:
    """Check that a run's directory holds this experiment; the checksum of its data is taken as it is.

    Raises:
      TrainingError: if it holds another run.
    """
    path = settings.runs / experiment.path / "config.json"
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


def run(experiment: Experiment, settings: Settings, epochs: int, convergence: Convergence | None = None) -> None:
    """Train up to `epochs` (and to convergence, given a criterion), as far as that is not done yet.

    Raises:
      DataError, TrainingError, Interrupted: see `data.load` and `supair.training.Run`.
    """
    scenes = data.load(experiment.dataset, DATA_SEED, settings.data, mnist=settings.mnist)
    training = Run(
        directory=settings.runs / experiment.path,
        model=experiment.build(),
        config=experiment.training_config(),
        data=scenes,
        identity=_identity(experiment, scenes["train"].checksum),
        compiled=settings.compiled,
    )
    name = f"{TITLES[experiment.model]} {TITLES[experiment.dataset]} seed {experiment.seed}"
    with training:
        training.train(epochs, convergence, description=name)


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
