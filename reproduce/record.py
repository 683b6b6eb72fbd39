"""Copy runs into results/, where they can be committed: configuration, log, sessions, and a note.

python reproduce/record.py --note "shared its cores" --seconds-per-step 0.124 supair/sprites/paper/seed3 [...]
python reproduce/record.py --pretrained supair/sprites/paper/seed3    its weights into pretrained/sprites/ instead
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path

import _setup

from reproduce.experiments import Experiment
from reproduce.runs import PRETRAINED, RECORDED, epoch_lines, log_lines
from supair.config import TrainingError
from supair.files import read_lines, seal, write_whole
from supair.saved import write_weights
from supair.training import load_weights

FILES = ("config.json", "sessions.jsonl", "log.jsonl")


def experiment(text: str) -> Experiment:
    try:
        model, dataset, recipe, seed = text.strip("/").split("/")
        found = Experiment(model, dataset, recipe, int(seed.removeprefix("seed")))
        found.model_config()
        return found
    except (ValueError, KeyError):
        raise argparse.ArgumentTypeError(f"expected MODEL/DATASET/RECIPE/seedN, found {text}") from None


def pace(text: str) -> float:
    try:
        if 0 < float(text) < math.inf:
            return float(text)
    except ValueError:
        pass
    raise argparse.ArgumentTypeError(f"expected seconds above 0, found {text}")


def main(argv: list[str] | None = None) -> int:
    parser = _setup.parser(__doc__)
    parser.add_argument("experiments", type=experiment, nargs="+", metavar="RUN", help="MODEL/DATASET/RECIPE/seedN below --runs")
    parser.add_argument("--note", default="", help="what a reader must know about these runs")
    parser.add_argument(
        "--seconds-per-step", type=pace, metavar="S",
        help="undisturbed time of a training step, for runs that shared their cores, whose own clock means nothing",
    )  # fmt: skip
    parser.add_argument(
        "--runs", type=Path, default=_setup.ROOT / "runs", metavar="DIR", help="where runs are kept (default: runs/)"
    )
    parser.add_argument(
        "--pretrained", action="store_true", help="write weights in half precision to pretrained/DATASET/, and what made them"
    )
    arguments = parser.parse_args(argv)
    for run in arguments.experiments:
        source, target = arguments.runs / run.path, RECORDED / run.path
        if not log_lines(arguments.runs, run):
            raise TrainingError(f"{source}: no run with a log")
        if arguments.pretrained:
            print(_pretrained(run, arguments.runs, arguments.note))
            continue
        read_lines(source / "sessions.jsonl")  # refuses a damaged one
        contents = {name: (source / name).read_text() for name in FILES}
        record = {"seconds_per_step": arguments.seconds_per_step, "note": arguments.note}
        target.mkdir(parents=True, exist_ok=True)
        for name, text in {**contents, "record.json": json.dumps(seal(record), indent=2) + "\n"}.items():
            write_whole(target / name, text)
        print(target)
    return 0


def _pretrained(run: Experiment, runs: Path, note: str) -> Path:
    source, target = runs / run.path, PRETRAINED / run.dataset
    model = run.build()
    load_weights(model, source)
    last = epoch_lines(runs, run)[-1]
    kept = ("epoch", "test_accuracy", "test_elbo")
    made_by = {"run": str(run.path), "note": note, **{name: last[name] for name in kept}}
    made_by["sessions"] = read_lines(source / "sessions.jsonl")
    target.mkdir(parents=True, exist_ok=True)
    write_weights(model, target)
    write_whole(target / "config.json", (source / "config.json").read_text())
    write_whole(target / "run.json", json.dumps(made_by, indent=2) + "\n")
    return target


if __name__ == "__main__":
    _setup.exit_with(main)
