"""Figure 5: count accuracy on the test set while training, against seconds of training and against epochs.

    python reproduce/fig5_learning.py             trains what is missing (100 runs of 20 epochs), then draws
    python reproduce/fig5_learning.py --recorded  draws the recorded runs in results/

Lines are means over all seeds that have got to where they end, bands one standard deviation.  The marks at the right are where
the published curves end (SuPAIR's: Table 2, "after convergence").  Seconds count training steps alone; they compare the
models only if all runs are from machines of the same kind, and trained one by one (--together 1).  Ctrl-C draws what there is.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import NamedTuple

import _setup
import numpy as np
from matplotlib.figure import Figure

from data import DATASETS
from reproduce.experiments import FIGURE_5_ENDS, PAPER_SEEDS, TITLES, Experiment, title
from reproduce.runs import Job, Work, log_lines, read_seeds
from supair.config import PAPER_EPOCHS, TrainingError

# Models with their recipes, and how they are drawn.
CURVES = {
    ("supair", "paper"): {"color": "tab:blue"},
    ("supair", "robust"): {"color": "tab:cyan", "linestyle": "--"},
    ("supair_no_background", "paper"): {"color": "tab:green"},
    ("air", "paper"): {"color": "tab:orange"},
    ("air", "robust"): {"color": "tab:brown", "linestyle": "--"},
}


class Curve(NamedTuple):
    """Test accuracies of several seeds at the same points."""

    epochs: np.ndarray  # [points]
    seconds: np.ndarray  # [points], mean over seeds
    accuracy: np.ndarray  # [seeds, points]
    left_out: list[int]  # seeds that have not got as far as the last point


def read_curve(runs: Path, model: str, recipe: str, dataset: str, seeds: list[int] | None = None) -> Curve | None:
    """The curve of a model on a data set up to 20 epochs, or None if there is no run; `seeds=None` takes all there are.

    It ends where most measurements are on it: many seeds that are half trained count for more than one that has got to the end.
    """
    by_seed = {}
    for seed in read_seeds(runs, model, dataset, recipe) if seeds is None else seeds:
        try:
            lines = log_lines(runs, Experiment(model, dataset, recipe, seed))
        except TrainingError as error:
            print(f"error: {error}", file=sys.stderr)
            continue
        lines = [line for line in lines if line["epoch"] <= PAPER_EPOCHS]
        if lines:
            by_seed[seed] = lines
    if not by_seed:
        return None
    lengths = [len(lines) for lines in by_seed.values()]  # all logs have their lines at the same steps
    points = max(lengths, key=lambda points: (points * sum(length >= points for length in lengths), points))
    complete = [lines[:points] for lines in by_seed.values() if len(lines) >= points]
    return Curve(
        np.array([line["epoch"] for line in complete[0]]),
        np.mean([[line["train_seconds"] for line in lines] for lines in complete], axis=0),
        np.array([[line["test_accuracy"] for line in lines] for lines in complete]),
        [seed for seed, lines in by_seed.items() if len(lines) < points],
    )


def draw(curves: dict[tuple, Curve | None], against: str, single: bool) -> Figure:
    """Four panels; `against` is "seconds" or "epochs", `single` adds a thin line for every run."""
    figure = Figure(figsize=(10, 8.4), layout="constrained")
    for axes, dataset in zip(figure.subplots(2, 2).flat, DATASETS):
        axes.set(title=TITLES[dataset], ylim=(-3, 103), ylabel="count accuracy, %")
        axes.set_xlabel("seconds of training" if against == "seconds" else "epochs")
        axes.grid(alpha=0.3)
        right = 1.0
        for (model, recipe), style in CURVES.items():
            if recipe == "paper":
                end, on_edge = 100 * FIGURE_5_ENDS[model, dataset], axes.get_yaxis_transform()
                axes.plot(right, end, "<", color=style["color"], transform=on_edge, clip_on=False, zorder=5, fillstyle="none")
                right += 0.02  # beside each other, because some are the same
            curve = curves[model, recipe, dataset]
            if curve is None:
                continue
            x, accuracy = getattr(curve, against), 100 * curve.accuracy
            mean, deviation = accuracy.mean(axis=0), accuracy.std(axis=0, ddof=1) if len(accuracy) > 1 else 0.0
            seeds = f"{len(accuracy)} seed{'s' if len(accuracy) > 1 else ''}"
            axes.plot(x, mean, label=f"{title(model, recipe)} ({seeds})", **style)
            axes.fill_between(x, mean - deviation, mean + deviation, color=style["color"], alpha=0.2, linewidth=0)
            if single:
                axes.plot(x, accuracy.T, color=style["color"], linewidth=0.5, alpha=0.7)
        axes.plot([], [], "<", color="gray", fillstyle="none", label="published end")
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.17), ncols=2, fontsize=8)  # below, so that it covers no curve
    return figure


def main(argv: list[str] | None = None) -> int:
    arguments = parse(argv)
    settings = _setup.settings(arguments)
    seeds = arguments.seeds or PAPER_SEEDS
    experiments = [Experiment(model, dataset, recipe, s) for s in seeds for dataset in DATASETS for model, recipe in CURVES]
    code = Work([Job(experiment, PAPER_EPOCHS) for experiment in experiments], settings).train()
    curves = {
        (*key, dataset): read_curve(settings.runs, *key, dataset, arguments.seeds) for key in CURVES for dataset in DATASETS
    }
    if not any(curves.values()):
        print(f"error: {settings.runs}: no run has got anywhere yet, so there is nothing to draw", file=sys.stderr)
        return code or 1
    for against, name in (("seconds", "fig5_learning"), ("epochs", "fig5_learning_epochs")):
        _setup.save_figure(draw(curves, against, arguments.single), arguments.output / name)
    for (model, recipe, dataset), curve in curves.items():
        name = f"{title(model, recipe)}, {TITLES[dataset]}"
        if curve is None:
            print(f"not complete: {name}: there is no run", file=sys.stderr)
        elif curve.epochs[-1] < PAPER_EPOCHS:
            print(f"not complete: {name}: the runs shown end at epoch {curve.epochs[-1]:.1f}", file=sys.stderr)
        if curve and curve.left_out:
            print(f"not complete: {name}: seeds {', '.join(map(str, curve.left_out))} are left out", file=sys.stderr)
    return code


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = _setup.parser(__doc__)
    parser.add_argument(
        "--seeds", type=_setup.seed, action=_setup.Distinct, nargs="+", metavar="SEED", help="train 0 1 2 3 4, draw all, or these"
    )
    parser.add_argument("--single", action="store_true", help="also draw a thin line for every run")
    _setup.add_recorded(parser)
    _setup.add_output(parser)
    _setup.add_training(parser)
    return parser.parse_args(argv)


if __name__ == "__main__":
    _setup.exit_with(main)
