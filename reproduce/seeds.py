"""Does every seed learn?  Seeds 0 to 19 with the recipe `robust` on all data sets, and with the paper's on Multi-MNIST.

    python reproduce/seeds.py             trains what is missing (100 runs, and 10 of other scenes), then draws
    python reproduce/seeds.py --recorded  draws the recorded runs in results/

Prints how many seeds are at their goal after 10 epochs (20 on the noise sets), how many were at any time, and when they pass
97 % (seeds trained together on a GPU share their seconds); draws `seeds`, a line for every run.  Ctrl-C draws what there is.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Sequence
from typing import NamedTuple

import _setup
from matplotlib.figure import Figure

from reproduce.experiments import TITLES, Experiment, title
from reproduce.runs import Job, Work, log_lines
from supair.config import TrainingError

PASSED = 0.97  # a count accuracy at which times are compared
SEEDS, FEWER_SEEDS = range(20), range(5)


class Panel(NamedTuple):
    """Seeds of one recipe on one data set, what is expected of them, and for how long they train."""

    dataset: str
    recipe: str
    goal: float | None  # count accuracy
    epochs: int
    seeds: Sequence[int] = SEEDS


# Goals are a little below what the paper publishes as a mean (Table 2), because every seed has to reach them.
PANELS = [
    Panel("multi_mnist", "robust", 0.975, 10),
    Panel("sprites", "robust", 0.985, 10),
    Panel("noisy_mnist", "robust", 0.93, 20),
    Panel("grid_mnist", "robust", 0.97, 20),
    Panel("multi_mnist", "paper", 0.975, 10),
    Panel("multi_mnist_3", "robust", None, 10, FEWER_SEEDS),
    Panel("multi_mnist_80", "robust", None, 10, FEWER_SEEDS),
]


class Seed(NamedTuple):
    """One run, up to its panel's last epoch."""

    seed: int
    epochs: list[float]  # [points], of each measurement
    accuracy: list[float]  # [points]
    seconds: list[float]  # [points], of training

    def first(self, accuracy: float) -> int | None:
        """The first measurement at which the run is that good."""
        return next((point for point, value in enumerate(self.accuracy) if value >= accuracy), None)


def read_panel(panel: Panel, work: Work) -> list[Seed]:
    """The panel's runs that have been measured at least once."""
    found = []
    for seed in panel.seeds:
        try:
            lines = log_lines(work.settings.runs, Experiment("supair", panel.dataset, panel.recipe, seed))
        except TrainingError as error:
            work.note(error)
            continue
        lines = [line for line in lines if line["epoch"] <= panel.epochs]
        if lines:
            found.append(Seed(seed, *([line[name] for line in lines] for name in ("epoch", "test_accuracy", "train_seconds"))))
    return found


def describe(panel: Panel, runs: list[Seed]) -> str:
    """A line of the table."""
    head = f"{title('supair', panel.recipe)}, {TITLES[panel.dataset]}"
    if not runs:
        return f"{head}: no run yet"
    ended = [run for run in runs if run.epochs[-1] >= panel.epochs]
    parts = [f"{len(ended)} of {len(panel.seeds)} runs at epoch {panel.epochs}"]
    if panel.goal is not None:
        below = [f"{run.seed} ({100 * run.accuracy[-1]:.1f})" for run in ended if run.accuracy[-1] < panel.goal]
        reached = sum(run.first(panel.goal) is not None for run in runs)
        parts.append(
            f"{len(ended) - len(below)} of them at {100 * panel.goal:.1f} % or more"
            + (f", not seed {', '.join(below)}" if below else "")
            + f" ({reached} at any time)"
        )
    if ended:
        last = [100 * run.accuracy[-1] for run in ended]
        parts.append(f"at the end {min(last):.1f} to {max(last):.1f} %, mean {statistics.mean(last):.1f}")
    passed = [(run.seconds[point], run.epochs[point]) for run in runs if (point := run.first(PASSED)) is not None]
    if passed:
        seconds, epochs = (statistics.median(values) for values in zip(*passed))
        parts.append(f"{len(passed)} passed {PASSED:.0%}, in the median after {seconds:.0f} s ({epochs:.1f} epochs)")
    return f"{head}: {'; '.join(parts)}"


def draw(found: dict[Panel, list[Seed]]) -> Figure:
    figure = Figure(figsize=(13, 6), layout="constrained")
    axes = figure.subplots(2, 4).flat
    for panel, runs in found.items():
        if not runs:
            continue
        here = next(axes)
        for run in runs:
            here.plot(run.epochs, [100 * value for value in run.accuracy], linewidth=0.8)
        if panel.goal is not None:
            here.axhline(100 * panel.goal, color="black", linewidth=0.6, linestyle=":")
        here.set(ylim=(0, 102), xlim=(0, panel.epochs), xlabel="epochs", ylabel="count accuracy, %")
        here.set_title(f"{TITLES[panel.dataset]}\n{panel.recipe} ({len(runs)} seed{'s' if len(runs) != 1 else ''})", fontsize=10)
        here.grid(alpha=0.3)
    for unused in axes:
        unused.set_axis_off()
    return figure


def main(argv: list[str] | None = None) -> int:
    arguments = parse(argv)
    panels = [panel for panel in PANELS if arguments.datasets is None or panel.dataset in arguments.datasets]
    if arguments.seeds is not None:
        panels = [panel._replace(seeds=tuple(seed for seed in arguments.seeds if seed in panel.seeds)) for panel in panels]
    panels = [panel for panel in panels if panel.seeds]
    jobs = [Job(Experiment("supair", p.dataset, p.recipe, seed), p.epochs) for p in panels for seed in p.seeds]
    work = Work(sorted(jobs, key=lambda job: job.experiment.seed), _setup.settings(arguments))
    code = work.train()
    found = {panel: read_panel(panel, work) for panel in panels}
    for panel, runs in found.items():
        print(describe(panel, runs))
    if not any(found.values()):
        print(f"error: {work.settings.runs}: no run has got anywhere yet, so there is nothing to draw", file=sys.stderr)
        return code or 1
    _setup.save_figure(draw(found), arguments.output / "seeds")
    return code or (1 if work.failures else 0)


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = _setup.parser(__doc__)
    parser.add_argument(
        "--seeds", type=_setup.seed, action=_setup.Distinct, nargs="+", metavar="SEED", help="some of the seeds (default: all)"
    )
    parser.add_argument(
        "--datasets", nargs="+", action=_setup.Distinct, choices=dict.fromkeys(panel.dataset for panel in PANELS),
        help="some of the data sets (default: all)",
    )  # fmt: skip
    _setup.add_recorded(parser)
    _setup.add_output(parser)
    _setup.add_training(parser)
    arguments = parser.parse_args(argv)
    if arguments.seeds is not None and max(arguments.seeds) not in SEEDS:
        parser.error(f"argument --seeds: expected numbers from {SEEDS[0]} to {SEEDS[-1]}, found {max(arguments.seeds)}")
    return arguments


if __name__ == "__main__":
    _setup.exit_with(main)
