"""The recorded runs: a CSV and a JSON in recorded/ for each model, recipe and data set.

Usage: python reproduce/records.py [--pretrained] runs/supair/sprites/robust/seed3 ...
"""

from __future__ import annotations

import csv
import io
import json
from dataclasses import dataclass
from pathlib import Path

import common

import data
from reproduce.experiments import DATA_SEED, Experiment
from supair import run
from supair.config import PAPER_EPOCHS, ConfigError, TrainingError, require

RECORDED = Path(__file__).resolve().parent / "recorded"
OF_ROWS = ["seed", "epoch", "step", "train_seconds", "accuracy", "train_elbo"]
# After these, which are of epochs, come the terms of the ELBO, as elbo_NAME.
COLUMNS = [*OF_ROWS, "elbo", "train_elbo_mean", "confusion", "collapse"]
COLUMNS += ["mean_iou", "average_precision"]
_DAMAGED = OSError, ValueError, LookupError, TypeError


@dataclass
class Record:
    """The runs of a model on a data set; `rows` and `provenance` by seed."""

    configuration: dict  # as in config.json, without the seed
    rows: dict[int, list[dict]]  # as in log.jsonl, without examples and provenance
    # "sessions" (those that differ), "seconds_per_step", "note"; "best_view", the last row by that;
    provenance: dict[int, dict]  # of seed 0 "examples", the rows that Figure 4 is drawn from

    def is_current(self, experiment: Experiment) -> bool:
        """Whether the runs are of the model and the training that an experiment has today."""
        today = experiment.configuration(checksum="")
        del today["training"]["seed"]
        return all(self.configuration[part] == today[part] for part in ("model", "training"))


def read_record(model: str, recipe: str, dataset: str, folder: Path = RECORDED) -> Record | None:
    """What is recorded of a model, or None; a damaged record raises a ConfigError."""
    path = folder / f"{model}-{recipe}-{dataset}.csv"
    place = about = path.with_suffix(".json")
    if not path.exists() and not about.exists():
        return None
    try:
        content = json.loads(run.read_whole(about))
        provenance = {int(seed): value for seed, value in content["provenance"].items()}
        record = Record(content["configuration"], {seed: [] for seed in provenance}, provenance)
        experiment = record.configuration["experiment"]
        if experiment != {"model": model, "dataset": dataset, "recipe": recipe}:
            raise ConfigError(f"expected the runs of its name, found those of {experiment}")
        log_every, place = record.configuration["training"]["log_every"], path
        lines = run.read_whole(path).decode().splitlines()
        table = csv.DictReader(lines, restkey="", restval="missing", strict=True)
        terms = [name for name in table.fieldnames or () if name.startswith("elbo_")]
        if table.fieldnames != COLUMNS + terms:
            raise ConfigError(f"expected the columns {COLUMNS} and elbo_...")
        places: dict[int, list[str]] = {seed: [] for seed in provenance}
        for cells in table:
            place = f"{path}, line {table.line_num}"
            names = cells if cells["elbo"] else OF_ROWS  # "" is a cell of no column
            row = {name: _value(name, cells[name]) for name in names}
            if cells["elbo"]:
                row["elbo_terms"] = {name.removeprefix("elbo_"): row.pop(name) for name in terms}
            places[row["seed"]].append(place)
            record.rows[row.pop("seed")].append(row)
        for seed, rows in record.rows.items():
            length, step = round(rows[-1]["step"] / rows[-1]["epoch"]), 0
            for row, place in zip(rows, places[seed]):  # noqa: B007 (told below)
                step += min(log_every - step % log_every, length - step % length)
                whole, right = step % length == 0, abs(row["epoch"] - step / length) < 1e-3
                if not right or (row["step"], "elbo" in row) != (step, whole):
                    raise ConfigError(f"expected seed {seed}'s step {step}, {length} an epoch")
            if step % length:
                raise ConfigError(f"seed {seed} ends within an epoch")
            if "best_view" in provenance[seed]:
                best = provenance[seed]["best_view"]
                numbers = {n: float(best[n]) for n in ("accuracy", "elbo", "train_elbo_mean")}
                rows[-1]["best_view"] = {**best, **numbers, "epoch": rows[-1]["epoch"]}
    except (*_DAMAGED, AttributeError, ArithmeticError, RecursionError, csv.Error) as error:
        raise ConfigError(f"{place}: {error!r}") from None
    return record


def _value(name: str, text: str):
    if name == "confusion":
        return [[int(count) for count in row.split()] for row in text.split("/")]
    may_miss = "train_elbo_mean", "mean_iou", "average_precision"
    if name == "collapse" or (name in may_miss and not text):
        return text or None
    value = json.loads(text)
    kinds = (int,) if name in ("seed", "step") else (int, float)
    least, most = (0, 1) if name == "accuracy" else (-1e30, 1e30)
    if type(value) not in kinds or not least <= value <= most:
        raise ConfigError(f"{name}: expected a number, found {text}")
    return value


def write_record(record: Record, folder: Path = RECORDED) -> None:
    """Write a record's two files."""
    names = record.configuration["experiment"]
    path = folder / f"{names['model']}-{names['recipe']}-{names['dataset']}.csv"
    rows = [{"seed": seed, **row} for seed in sorted(record.rows) for row in record.rows[seed]]
    columns = COLUMNS + [f"elbo_{name}" for name in rows[-1]["elbo_terms"]]
    table = io.StringIO()
    writer = csv.DictWriter(table, columns, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    for row in rows:
        if "elbo" in row:
            row |= {f"elbo_{name}": nats for name, nats in row["elbo_terms"].items()}
            row["confusion"] = "/".join(" ".join(map(str, n)) for n in row["confusion"])
        numbers = {name: round(x, 4) for name, x in row.items() if isinstance(x, float)}
        writer.writerow({**row, **numbers})
    run.write_whole(path, table.getvalue())
    seeds = [f'    "{seed}": {json.dumps(about)}' for seed, about in record.provenance.items()]
    text = json.dumps({"configuration": record.configuration}, indent=2).removesuffix("\n}")
    text += ',\n  "provenance": {\n' + ",\n".join(seeds) + "\n  }\n}\n"  # a line a seed
    run.write_whole(path.with_suffix(".json"), text)


def add_run(configuration: dict, rows: list[dict], about: dict, folder: Path) -> None:
    """Put a run in its record; ConfigError if the runs there are of another configuration."""
    names, seed = configuration["experiment"], configuration["training"].pop("seed")
    record = read_record(**names, folder=folder) or Record(configuration, {}, {})
    if record.configuration != configuration:
        raise ConfigError(f"{names}: the recorded runs are of another configuration")
    if len(record.rows.get(seed, ())) > len(rows):
        raise ConfigError(f"{names}: seed {seed} is recorded beyond epoch {rows[-1]['epoch']:.0f}")
    record.rows[seed], record.provenance[seed] = rows, about
    write_record(record, folder)


def measure_best_view(experiment: Experiment, directory: Path, folder: Path) -> dict:
    """The last row of a run in a directory once more, by the best of mirrored views."""
    from supair.evaluation import Evaluator
    from supair.extensions.best_view import BestView

    model, scenes = experiment.build(), data.load(experiment.dataset, DATA_SEED, folder)
    run.load_weights(model, directory)
    row = Evaluator(BestView(model), scenes["test"], train_scenes=scenes["train"]).full()
    return {name: value for name, value in row.items() if name != "examples"}


def main(argv: list[str] | None = None, folder: Path = RECORDED) -> int:
    parser = common.parser(__doc__)
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="a run's folder")
    parser.add_argument("--note", help="what a reader must know about these runs")
    parser.add_argument("--seconds-per-step", type=float, help="if the runs' clocks are wrong")
    parser.add_argument("--pretrained", action="store_true", help="write to pretrained/ instead")
    parser.add_argument("--data", type=Path, default=data.store.DEFAULT_DIRECTORY, help="data sets")
    options = parser.parse_args(argv)
    pace = options.seconds_per_step
    require(pace is None or 0 < pace < 1e6, "--seconds-per-step above 0", pace)
    for directory in options.runs:
        configuration, rows = run.read_configuration(directory), run.read_rows(directory)
        if not rows or "experiment" not in configuration:
            raise TrainingError(f"{directory}: expected an experiment's run that has done an epoch")
        for row in rows if options.seconds_per_step else []:
            row["train_seconds"] = row["step"] * options.seconds_per_step
        sessions = {str(row["provenance"]): row["provenance"] for row in rows if "elbo" in row}
        about = {"sessions": [*sessions.values()], "note": options.note}
        about["seconds_per_step"] = options.seconds_per_step
        if left_out := sum(row.get("seconds_left_out", 0) for row in rows):
            about["seconds_left_out"] = left_out  # in which the process stood still
        names, seed = configuration["experiment"], configuration["training"]["seed"]
        experiment = Experiment(**names, seed=seed)
        if options.pretrained:
            target, model = folder.with_name("pretrained") / experiment.weights, experiment.build()
            run.load_weights(model, directory)
            run.write_weights(model, target, configuration)
            names = ("epoch", "accuracy", "elbo", "mean_iou", "average_precision", "collapse")
            last = {name: rows[-1].get(name) for name in names}
            common.write_json(target / "run.json", {**last, **about})
        else:
            if experiment.model == "supair":
                about["best_view"] = measure_best_view(experiment, directory, options.data)
            if experiment.model == "supair" and seed == 0:
                shown = [row for row in rows if "examples" in row and row["epoch"] <= PAPER_EPOCHS]
                about["examples"] = [{n: row[n] for n in ("epoch", "examples")} for row in shown]
            add_run(configuration, rows, about, folder)
    return 0


if __name__ == "__main__":
    common.run(main)
