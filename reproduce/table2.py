"""Table 2: count accuracy and ELBO on the test set: published, recorded (in results/), and measured in runs/.

    python reproduce/table2.py --quick       a smoke run: one seed, two data sets, a few epochs; minutes
    python reproduce/table2.py               as in the paper: both models, 4 data sets, 5 seeds, 20 epochs, then on to convergence
    python reproduce/table2.py --models supair --epochs 20    only SuPAIR, and only what Figure 5 shows
    python reproduce/table2.py --recorded    train nothing: the table of the recorded runs, with all their seeds

Can be interrupted at any moment (Ctrl-C) and started again: finished work is not repeated.  Every seed counts: means,
standard deviations and medians are over all of them.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from pathlib import Path

import _setup

from data import DATASETS
from reproduce.experiments import MODELS, PAPER_SEEDS, RECIPES, TABLE_2, TITLES, Experiment, title
from reproduce.runs import RECORDED, Job, Result, Work, duration, epoch_lines, final_result, read_seeds, result_at
from supair.air import AIR
from supair.config import PAPER_EPOCHS, TrainingError
from supair.hardware import describe_machine, matmul_gflops

PAPER_MODELS = ("supair", "air")
QUICK_MODELS, QUICK_DATASETS, QUICK_EPOCHS, QUICK_SEED = ("supair",), ("multi_mnist", "sprites"), 2, 0
AIR_NOTE = " (its ELBOs are not comparable with SuPAIR's: the density of the pixels is another one)"
AIR_BUDGET = "paper's budget"
SUCCESS_MARGIN = 0.03  # a seed succeeded if it is at most this far below the published accuracy


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = _setup.parser(__doc__)
    parser.add_argument(
        "--quick",
        action="store_true",
        help="a smoke run: one seed of SuPAIR on Multi-MNIST and Sprites, kept apart in RUNS/quick",
    )
    parser.add_argument(
        "--seeds",
        type=_setup.seed,
        action=_setup.Distinct,
        nargs="+",
        metavar="SEED",
        help="seeds (default: 0 1 2 3 4, or all recorded)",
    )
    parser.add_argument(
        "--epochs", type=int, metavar="N", help="train N epochs and stop there (default: 20, then on to convergence)"
    )
    parser.add_argument("--datasets", nargs="+", action=_setup.Distinct, choices=DATASETS, help="data sets to run (default: all)")
    parser.add_argument("--models", nargs="+", action=_setup.Distinct, choices=MODELS, help="models to run (default: supair air)")
    parser.add_argument(
        "--recipe", nargs="+", action=_setup.Distinct, choices=RECIPES, help="how to train (default: all that a model has)"
    )
    _setup.add_recorded(parser)
    _setup.add_json(parser, "the table")
    _setup.add_training(parser)
    arguments = parser.parse_args(argv)
    if arguments.epochs is not None and arguments.epochs < 1:
        parser.error(f"argument --epochs: expected at least 1, found {arguments.epochs}")
    if arguments.recorded and arguments.quick:
        parser.error("--recorded and --quick do not go together: quick runs are not recorded")
    return arguments


class Table:
    """What one call of the script is about: the runs, and what their logs say."""

    def __init__(self, arguments: argparse.Namespace):
        self.quick, self.recorded = arguments.quick, arguments.recorded
        self.datasets = arguments.datasets or (QUICK_DATASETS if self.quick else DATASETS)
        self.models = sorted(arguments.models or (QUICK_MODELS if self.quick else PAPER_MODELS), key=list(MODELS).index)
        recipes = arguments.recipe or (["paper"] if self.quick else RECIPES)
        self.variants = [
            (model, recipe)
            for model in self.models
            for recipe in RECIPES
            if recipe in recipes and recipe in MODELS[model].recipes
        ]
        self.json = arguments.json
        self.seeds = arguments.seeds or ([QUICK_SEED] if self.quick else None if self.recorded else list(PAPER_SEEDS))
        self.epochs = arguments.epochs or (QUICK_EPOCHS if self.quick else PAPER_EPOCHS)
        self.to_convergence = not self.quick and arguments.epochs is None
        settings = _setup.settings(arguments)
        experiments = self.experiments(settings.runs, self.seeds)
        jobs = [Job(experiment, self.epochs) for experiment in experiments]
        if self.to_convergence:
            jobs += [Job(experiment, self.epochs, converge=True) for experiment in experiments]
        self.work = Work(jobs, settings)

    def experiments(self, runs: Path, seeds: list[int] | None) -> list[Experiment]:
        """What is asked for, seed by seed, so that every data set has a first result early; `seeds=None`: all in `runs`."""
        found = [
            Experiment(model, dataset, recipe, seed)
            for model, recipe in self.variants
            for dataset in self.datasets
            for seed in (read_seeds(runs, model, dataset, recipe) if seeds is None else seeds)
        ]
        order = [(dataset, *variant) for dataset in self.datasets for variant in self.variants]
        return sorted(
            found, key=lambda e: (e.seed if seeds is None else seeds.index(e.seed), order.index((e.dataset, e.model, e.recipe)))
        )

    def announce(self) -> None:
        """Say what will be run and how long that should take."""
        kind = "Quick run (a smoke test, not the paper's protocol)" if self.quick else "Table 2"
        runs = len({job.experiment for job in self.work.jobs})
        plan = ", ".join(TITLES[dataset] for dataset in self.datasets)
        onwards = ", then on until it has converged (the table's last lines say what that means)" if self.to_convergence else ""
        print(f"{kind}: {runs} runs in {self.work.settings.runs} ({plan}), each to epoch {self.epochs}{onwards}.")
        left = self.work.seconds_left(matmul_gflops())
        machine = describe_machine()["summary"]
        print(f"About {duration(left)} to go on {machine}." if self.work.unfinished() else "All of them are there already.")
        sys.stdout.flush()

    def rows(self, runs: Path, experiments: list[Experiment]) -> list[dict]:
        """One row for each model, recipe, data set and budget that has results."""
        groups: dict[tuple, list[Result]] = {}
        for experiment in experiments:
            try:
                lines = epoch_lines(runs, experiment)
            except TrainingError as error:
                self.work.note(error)
                continue
            at_end = "quick" if self.quick else f"{self.epochs} epochs"
            if experiment.model == "air" and at_end == f"{PAPER_EPOCHS} epochs":
                at_end = AIR_BUDGET
            results = {at_end: result_at(lines, experiment.seed, self.epochs)}
            if self.to_convergence:
                convergence = MODELS[experiment.model].convergence
                results["converged"] = final_result(lines, experiment.seed, self.epochs, convergence)
            for budget, result in results.items():
                if result:
                    groups.setdefault((experiment.model, experiment.recipe, experiment.dataset, budget), []).append(result)
        return sorted((_row(*key, results) for key, results in groups.items()), key=self._place)

    def _place(self, row: dict) -> tuple:
        """Where in the table a row stands."""
        variant, dataset = (row["model"], row["recipe"]), self.datasets.index(row["dataset"])
        return self.variants.index(variant), dataset, row["budget"] == "converged"

    def print(self, rows: list[dict], recorded: dict[tuple, dict]) -> None:
        """Print rows next to the published numbers and to the recorded rows, by `_key`."""
        print("\nTable 2" + (" (quick run: too short to compare ELBOs)" if self.quick else ""))
        widths = (11, 15 if recorded else 0, 17)
        names = ("published", "recorded" if recorded else "", "recorded" if self.recorded else "measured")
        accuracy = "".join(f"{name:<{width}}" for name, width in zip(names, widths))
        print(
            f"{'':<12}{'budget':<16}{'count accuracy, %':<{sum(widths)}}{'ELBO, nats':<{sum(widths)}}"
            f"{'epochs':>7}{'train s':>9}{'succeeded':>11}\n{'':<28}{accuracy}{accuracy}"
        )
        only_recorded = [_row(*key, []) for key in recorded if key not in map(_key, rows)]
        rows = sorted([*rows, *only_recorded], key=self._place)
        for previous, row in zip([None, *rows], rows):
            if previous is None or (row["model"], row["recipe"]) != (previous["model"], previous["recipe"]):
                print(title(row["model"], row["recipe"]) + (AIR_NOTE if MODELS[row["model"]].build is AIR else ""))
            published = TABLE_2.get((row["model"], row["dataset"]))
            good = sum(accuracy >= published.accuracy - SUCCESS_MARGIN for accuracy in row["accuracy"]) if published else 0
            # Where the published accuracy is 0, there is nothing to succeed at.
            succeeded = f"{good} of {len(row['seeds'])}" if published and published.accuracy else "-"
            beside = recorded.get(_key(row))
            cells = []
            for name, scale, digits in (("accuracy", 100, 1), ("elbo", 1, 0)):
                cells.append(f"{scale * getattr(published, name):.{digits}f}" if published else "-")
                cells.append(_spread([scale * value for value in beside[name]], digits) if beside else "-" if recorded else "")
                cells.append(_spread([scale * value for value in row[name]], digits))
            print(
                f"{TITLES[row['dataset']]:<12}{row['budget']:<16}"
                + "".join(f"{cell:<{width}}" for cell, width in zip(cells, 2 * widths))
                + (f"{row['epochs']:>7}{statistics.mean(row['train_seconds']):>9.0f}{succeeded:>11}" if row["seeds"] else "")
            )
            before = " " * sum(widths[:2])
            names = ("seeds", "accuracy", "elbo", "epochs_by_seed", "train_seconds", "converged", "collapse")
            for seed, accuracy, elbo, epochs, seconds, converged, collapse in zip(*(row[name] for name in names)):
                note = "  not converged" if row["budget"] == "converged" and not converged else ""
                note += f"  collapsed: {collapse}" if collapse else ""
                print(
                    f"{'':<12}{f'seed {seed}':<16}{before}{100 * accuracy:<{widths[2]}.1f}{before}{elbo:<{widths[2]}.0f}"
                    f"{epochs:>7}{seconds:>9.0f}{note}"
                )
            if len(row["seeds"]) > 1:
                medians = [statistics.median(row[name]) for name in ("accuracy", "elbo")]
                print(f"{'':<12}{'median':<16}{before}{100 * medians[0]:<{widths[2]}.1f}{before}{medians[1]:.0f}")
        print(
            f"\nMean ± standard deviation over all seeds. Succeeded: at most {SUCCESS_MARGIN:.0%} below the published accuracy."
        )
        if recorded:
            print("Recorded: our runs in results/, with hardware, versions and commit; all of their seeds count.")
        if self.to_convergence:
            for model in dict.fromkeys(row["model"] for row in rows):
                window, gain, most = MODELS[model].convergence
                print(
                    f"{TITLES[model]} has converged when the test ELBO's mean over {window} epochs is above that over the {window} "
                    f"before by less than {gain:.0%} of its gain since epoch 1 (at most {most} epochs; a row shows the largest number)."
                )
        self._print_budget([row for row in rows if row["seeds"]])
        for model, kind in dict.fromkeys((row["model"], kind) for row in rows for kind in row["collapse"] if kind):
            print(f"{TITLES[model]} collapsed, {kind}: {MODELS[model].build.collapse_hints[kind]}.")
        runs = {job.experiment for job in self.work.jobs}
        missing: dict[tuple[str, str], list[int]] = {}
        for experiment in [job.experiment for job in self.work.unfinished() if not job.converge]:
            which = title(experiment.model, experiment.recipe), TITLES[experiment.dataset]
            missing.setdefault(which, []).append(experiment.seed)
        if missing:
            which = "; ".join(f"{', '.join(names)}, seed {', '.join(map(str, seeds))}" for names, seeds in missing.items())
            number = sum(map(len, missing.values()))
            print(f"{number} of {len(runs)} runs have not got to epoch {self.epochs} yet: {which}.")
        going = sum(job.converge for job in self.work.unfinished())
        if going:
            print(f"{going} of {len(runs)} runs have not converged yet.")
        for failure in self.work.failures:
            print(f"Failed: {failure}")

    def _print_budget(self, rows: list[dict]) -> None:
        """What AIR's budget is, and how its time compares with that of as many epochs of SuPAIR here."""
        seconds = {
            (row["model"], row["dataset"]): statistics.mean(row["train_seconds"])
            for row in rows
            if row["budget"] != "converged" and row["recipe"] == "paper"
        }
        ratios = [
            f"{seconds['air', dataset] / seconds['supair', dataset]:.2f} ({TITLES[dataset]})"
            for model, dataset in seconds
            if model == "air" and ("supair", dataset) in seconds
        ]
        if any(row["budget"] == AIR_BUDGET for row in rows):
            print(
                f"The paper's budget is {PAPER_EPOCHS} epochs, where Figure 5 ends; AIR has not converged there, and "
                "its training time there is about 1.7 times SuPAIR's" + (f", here {', '.join(ratios)} times." if ratios else ".")
            )


def _row(model: str, recipe: str, dataset: str, budget: str, results: list[Result]) -> dict:
    return {
        "model": model,
        "dataset": dataset,
        "budget": budget,
        "recipe": recipe,
        "seeds": [result.seed for result in results],
        "accuracy": [result.accuracy for result in results],
        "elbo": [result.elbo for result in results],
        "epochs": max((result.epoch for result in results), default=0),
        "epochs_by_seed": [result.epoch for result in results],
        "train_seconds": [result.train_seconds for result in results],
        "converged": [result.converged for result in results],
        "collapse": [result.collapse for result in results],
    }


def _key(row: dict) -> tuple:
    return tuple(row[name] for name in ("model", "recipe", "dataset", "budget"))


def _spread(values: list[float], digits: int) -> str:
    if not values:
        return "-"
    mean = f"{statistics.mean(values):.{digits}f}"
    return f"{mean} ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else mean


def main(argv: list[str] | None = None) -> int:
    arguments = parse(argv)
    table = Table(arguments)
    runs, code = table.work.settings.runs, 0
    if table.work.settings.train:
        table.announce()
        code = table.work.train()
    rows = table.rows(runs, list(dict.fromkeys(job.experiment for job in table.work.jobs)))
    recorded = {}
    if not (table.recorded or table.quick):
        recorded = {_key(row): row for row in table.rows(RECORDED, table.experiments(RECORDED, None))}
    table.print(rows, recorded)
    if table.json:
        _setup.write_json(table.json, {"rows": rows, "recorded": list(recorded.values())})
    return code or (1 if table.work.failures else 0)


if __name__ == "__main__":
    _setup.exit_with(main)
