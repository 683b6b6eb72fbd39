"""The scripts' models and data sets cut down to size; run as a script, this is train.py with
them."""

import dataclasses
import operator
import sys
from pathlib import Path

SCRIPT = Path(__file__).resolve()
sys.path += [str(SCRIPT.parent.parent / "reproduce")]

import common  # noqa: E402
import tiny  # noqa: E402

import data  # noqa: E402
from reproduce import train  # noqa: E402
from reproduce.experiments import MODELS, Experiment  # noqa: E402
from supair.config import AirConfig  # noqa: E402
from supair.run import RunFolder  # noqa: E402

AIR = AirConfig(lstm_units=8, hidden_units=6, head_units=3, what_size=2)
SUPAIR = dataclasses.replace(tiny.MODEL, scene_size=50, patch_size=28, num_steps=3)


def shrink(set_item=operator.setitem) -> None:
    """300 + 50 scenes of 50 x 50 pixels: one step an epoch (AIR: 4), and tiny models of them."""
    for name in data.SIZES:
        set_item(data.SIZES, name, (300, 50))
    for name, model in MODELS.items():
        configurations = dict.fromkeys(model.configurations, AIR if "air" == name[:3] else SUPAIR)
        set_item(MODELS, name, model._replace(configurations=configurations))


def train_in_process(arguments, is_wanted=None) -> str:
    """What takes `train.run_process`'s place where a process of its own takes too long."""
    options = train.parse(arguments[1:])
    run = Experiment(options.model, options.dataset, options.recipe, *options.seeds)
    train.train_one(run, options)
    return ""


def row(step: int, epoch: float, accuracy: float = 0.5, elbo: float | None = 100.0, **more) -> dict:
    """A row of a log, of 3 seconds a step; `elbo=None` within an epoch."""
    at_end = {"elbo": elbo, "train_elbo_mean": 90.0, "average_precision": 0.25, "collapse": None}
    at_end = at_end if elbo is not None else {}
    found = {"step": step, "epoch": epoch, "accuracy": accuracy, "train_seconds": 3.0 * step}
    return {**found, **at_end, **more}


def write_run(runs: Path, experiment: Experiment, rows: list[dict]) -> Path:
    """A run's folder without training; the last row is an epoch's end."""
    folder = runs / experiment.path
    with RunFolder(folder, experiment.configuration(checksum="")) as run:
        run.restore()
        run.save(rows, {})
    return folder


if __name__ == "__main__":
    shrink()
    train.SCRIPT = SCRIPT
    common.run(train.main)
