"""Run one experiment, or load what it has already done; and read results out of its log."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import data
from reproduce.experiments import TITLES, Experiment
from supair.training import Convergence, Run

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
        identity={
            "experiment": {"model": experiment.model, "dataset": experiment.dataset, "recipe": experiment.recipe},
            "data": {"seed": DATA_SEED, "checksum": scenes["train"].checksum},
        },
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
