"""Table 2: count accuracy and ELBO on the test set, published against measured.

    python reproduce/table2.py --quick    a smoke run: one seed, two data sets, a few epochs; minutes
    python reproduce/table2.py            as in the paper: both models, 4 data sets, 5 seeds, 20 epochs, then on to convergence
    python reproduce/table2.py --models supair --epochs 20    only SuPAIR, and only what Figure 5 shows

Can be interrupted at any moment (Ctrl-C) and started again: finished work is not repeated.  Every seed counts: means,
standard deviations and medians are over all of them.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import signal
import statistics
import sys

import _setup
from data import DATASETS, SIZES
from reproduce.experiments import CONVERGENCE, MODELS, RECIPES, STEP_GFLOP, TABLE_2, TITLES, Experiment
from reproduce.runs import Result, Settings, check_configuration, final_result, result_at, run_apart
from supair.config import PAPER_EPOCHS
from supair.hardware import describe_machine, matmul_gflops
from supair.training import SIGNALS, Convergence, Interrupted, TrainingError, read_log

QUICK_MODELS, QUICK_DATASETS, QUICK_EPOCHS, QUICK_SEED = ("supair",), ("multi_mnist", "sprites"), 2, 0
NOTES = {"air": " (its ELBOs are not comparable with SuPAIR's: the density of the pixels is another one)"}
AIR_BUDGET = "paper's budget"
SUCCESS_MARGIN = 0.03  # a seed succeeded if it is at most this far below the published accuracy


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = _setup.parser(__doc__)
    parser.add_argument(
        "--quick",
        action="store_true",
        help="a smoke run: one seed of SuPAIR on Multi-MNIST and Sprites, kept apart in RUNS/quick",
    )
    parser.add_argument("--seeds", type=int, nargs="+", metavar="SEED", help="seeds to run (default: 0 1 2 3 4)")
    parser.add_argument(
        "--epochs", type=int, metavar="N", help="train N epochs and stop there (default: 20, then on to convergence)"
    )
    parser.add_argument("--datasets", nargs="+", choices=DATASETS, help="data sets to run (default: all)")
    parser.add_argument("--models", nargs="+", choices=MODELS, help="models to run (default: all)")
    parser.add_argument("--recipe", choices=RECIPES, default="paper", help="how to train (default: paper)")
    _setup.add_json(parser, "the table")
    parser.add_argument("--no-xla", action="store_true", help="do not compile with XLA (slower; for debugging)")
    _setup.add_places(parser)
    arguments = parser.parse_args(argv)
    if arguments.epochs is not None and arguments.epochs < 1:
        parser.error(f"argument --epochs: expected at least 1, found {arguments.epochs}")
    for name in ("seeds", "datasets", "models"):
        values = getattr(arguments, name) or []
        if len(set(values)) < len(values):
            parser.error(f"argument --{name}: expected each only once, found {' '.join(map(str, values))}")
    if not all(0 <= seed < 2**31 for seed in arguments.seeds or []):
        parser.error(f"argument --seeds: expected numbers from 0 to 2147483647, found {arguments.seeds}")
    return arguments


class Table:
    """The experiments of one call of the script, and their results so far."""

    def __init__(self, arguments: argparse.Namespace):
        self.quick = arguments.quick
        datasets = arguments.datasets or (QUICK_DATASETS if self.quick else DATASETS)
        models = arguments.models or (QUICK_MODELS if self.quick else MODELS)
        seeds = arguments.seeds or ([QUICK_SEED] if self.quick else [0, 1, 2, 3, 4])
        self.epochs = arguments.epochs or (QUICK_EPOCHS if self.quick else PAPER_EPOCHS)
        self.to_convergence = not self.quick and arguments.epochs is None
        # Seed by seed, so that every data set has a first result early.
        self.experiments = [
            Experiment(model, dataset, arguments.recipe, seed) for seed in seeds for dataset in datasets for model in models
        ]
        self.failures: list[str] = []
        runs = arguments.runs / "quick" if self.quick else arguments.runs
        self.settings = Settings(runs, arguments.data, arguments.mnist, compiled=not arguments.no_xla)

    def lines(self, experiment: Experiment) -> list[dict]:
        """The log lines at the ends of the epochs that an experiment has done."""
        try:
            log = read_log(self.settings.runs / experiment.path / "log.jsonl")
        except TrainingError as error:
            self._note(error)
            return []
        return [line for line in log if "test_elbo" in line]

    def announce(self) -> None:
        """Say what will be run and how long that should take."""
        steps = {e: max(0, self.epochs - len(self.lines(e))) * _steps_per_epoch(e) for e in self.experiments}
        gflop = sum(STEP_GFLOP[experiment.model] * number for experiment, number in steps.items())
        seconds = gflop / matmul_gflops() * 1.2  # a fifth for measuring accuracies
        kind = "Quick run (a smoke test, not the paper's protocol)" if self.quick else "Table 2"
        plan = ", ".join(dict.fromkeys(TITLES[e.dataset] for e in self.experiments))
        print(f"{kind}: {len(self.experiments)} runs of {self.epochs} epochs in {self.settings.runs} ({plan}).")
        print(f"{sum(steps.values())} training steps to go, about {_duration(seconds)} on {describe_machine()['summary']}.")
        if self.to_convergence:
            print("Then every run goes on until it has converged; the last lines of the table say what that means.")
        sys.stdout.flush()

    def train(self) -> None:
        """Run everything; a run that fails is noted, and the others go on."""
        for onwards in (False, True) if self.to_convergence else (False,):
            for experiment in self.experiments:
                convergence = CONVERGENCE[experiment.model] if onwards else None
                try:
                    if not self._is_done(experiment, convergence):
                        run_apart(experiment, self.settings, self.epochs, convergence)
                except TrainingError as error:
                    self._note(error)

    def _is_done(self, experiment: Experiment, convergence: Convergence | None) -> bool:
        lines = self.lines(experiment)
        if convergence:
            done = final_result(lines, experiment.seed, self.epochs, convergence) is not None
        else:
            done = len(lines) >= self.epochs
        if done:
            check_configuration(experiment, self.settings)
        return done

    def _note(self, error: TrainingError) -> None:
        if str(error) not in self.failures:
            self.failures.append(str(error))
            print(f"error: {error}", file=sys.stderr)

    def rows(self) -> list[dict]:
        """One row for each model, data set and budget that has results."""
        rows = []
        groups: dict[tuple[str, str, str], list[Experiment]] = {}
        for experiment in self.experiments:
            groups.setdefault((experiment.model, experiment.dataset, experiment.recipe), []).append(experiment)
        for (model, dataset, recipe), experiments in sorted(groups.items(), key=lambda group: list(MODELS).index(group[0][0])):
            at_end = "quick" if self.quick else f"{self.epochs} epochs"
            if model == "air" and at_end == f"{PAPER_EPOCHS} epochs":
                at_end = AIR_BUDGET
            budgets = {at_end: lambda e: result_at(self.lines(e), e.seed, self.epochs)}
            if self.to_convergence:
                budgets["converged"] = lambda e: final_result(self.lines(e), e.seed, self.epochs, CONVERGENCE[e.model])
            for budget, result_of in budgets.items():
                results = [result for experiment in experiments if (result := result_of(experiment))]
                if results:
                    rows.append(_row(model, dataset, recipe, budget, results))
        return rows

    def print(self, rows: list[dict]) -> None:
        print("\nTable 2" + (" (quick run: too short to compare ELBOs)" if self.quick else ""))
        header = f"{'':<12}{'budget':<16}{'count accuracy':<31}{'ELBO, nats':<28}{'epochs':>7}{'train s':>9}{'succeeded':>11}"
        print(f"{header}\n{'':<28}{'published':<11}{'measured':<20}{'published':<11}{'measured'}")
        for previous, row in zip([None, *rows], rows):
            if previous is None or row["model"] != previous["model"]:
                print(TITLES[row["model"]] + NOTES.get(row["model"], ""))
            published = TABLE_2[row["model"], row["dataset"]]
            good = sum(accuracy >= published.accuracy - SUCCESS_MARGIN for accuracy in row["accuracy"])
            succeeded = f"{good} of {len(row['seeds'])}" if published.accuracy else "-"  # to fail is what is published
            print(
                f"{TITLES[row['dataset']]:<12}{row['budget']:<16}{published.accuracy:<11.1%}"
                f"{_spread([100 * a for a in row['accuracy']], 1) + ' %':<20}{published.elbo:<11.0f}"
                f"{_spread(row['elbo'], 0):<17}{row['epochs']:>7}{statistics.mean(row['train_seconds']):>9.0f}"
                f"{succeeded:>11}"
            )
            names = ("seeds", "accuracy", "elbo", "epochs_by_seed", "train_seconds", "converged", "collapse")
            for seed, accuracy, elbo, epochs, seconds, converged, collapse in zip(*(row[name] for name in names)):
                note = "  not converged" if row["budget"] == "converged" and not converged else ""
                note += f"  collapsed: {collapse}" if collapse else ""
                print(f"{'':<12}{f'seed {seed}':<27}{accuracy:<31.1%}{elbo:<17.0f}{epochs:>7}{seconds:>9.0f}{note}")
            if len(row["seeds"]) > 1:
                print(f"{'':<12}{'median':<27}{statistics.median(row['accuracy']):<31.1%}{statistics.median(row['elbo']):.0f}")
        print(
            f"\nMean ± standard deviation over all seeds. Succeeded: at most {SUCCESS_MARGIN:.0%} below the published accuracy."
        )
        if self.to_convergence:
            for model in dict.fromkeys(row["model"] for row in rows):
                window, gain, most = CONVERGENCE[model]
                print(
                    f"{TITLES[model]} has converged when the test ELBO's mean over {window} epochs is less than {gain:.0f} nats above "
                    f"that over the {window} before (at most {most} epochs; a row shows the largest number)."
                )
        self._print_budget(rows)
        for model, kind in dict.fromkeys((row["model"], kind) for row in rows for kind in row["collapse"] if kind):
            print(f"{TITLES[model]} collapsed, {kind}: {MODELS[model].collapse_hints[kind]}.")
        missing = len(self.experiments) - sum(result_at(self.lines(e), e.seed, self.epochs) is not None for e in self.experiments)
        if missing:
            print(f"{missing} of {len(self.experiments)} runs have not got there yet; the same command goes on with them.")
        for failure in self.failures:
            print(f"Failed: {failure}")

    def _print_budget(self, rows: list[dict]) -> None:
        """What AIR's budget is, and how its time compares with that of as many epochs of SuPAIR here."""
        seconds = {
            (row["model"], row["dataset"]): statistics.mean(row["train_seconds"]) for row in rows if row["budget"] != "converged"
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


def _steps_per_epoch(experiment: Experiment) -> int:
    return SIZES[experiment.dataset][0] // experiment.training_config().batch_size


def _row(model: str, dataset: str, recipe: str, budget: str, results: list[Result]) -> dict:
    return {
        "model": model,
        "dataset": dataset,
        "budget": budget,
        "recipe": recipe,
        "seeds": [result.seed for result in results],
        "accuracy": [result.accuracy for result in results],
        "elbo": [result.elbo for result in results],
        "epochs": max(result.epoch for result in results),
        "epochs_by_seed": [result.epoch for result in results],
        "train_seconds": [result.train_seconds for result in results],
        "converged": [result.converged for result in results],
        "collapse": [result.collapse for result in results],
    }


def _spread(values: list[float], digits: int) -> str:
    mean = f"{statistics.mean(values):.{digits}f}"
    return f"{mean} ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else mean


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes / 60:.1f} h"


def _interrupt(signum, frame):
    """End at once, but let a run that is under way in a process of its own save itself."""
    for process in multiprocessing.active_children():
        os.kill(process.pid, signum)
    raise Interrupted("stopped between training steps; everything up to the last checkpoint is saved", signum)


def main(argv: list[str] | None = None) -> int:
    arguments = parse(argv)
    handlers = {number: signal.signal(number, _interrupt) for number in SIGNALS}
    table = Table(arguments)
    code = 0
    try:
        table.announce()
        table.train()
    except Interrupted as interrupt:
        print(f"\nInterrupted: {interrupt}.", file=sys.stderr)
        code = 128 + interrupt.signum
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    rows = table.rows()
    table.print(rows)
    if arguments.json:
        _setup.write_json(arguments.json, {"rows": rows})
    return code or (1 if table.failures else 0)


if __name__ == "__main__":
    _setup.exit_with(main)
