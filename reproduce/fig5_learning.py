"""Figure 5: count accuracy on the test set while training, against seconds of training and against epochs.

    python reproduce/fig5_learning.py             trains what is missing (80 runs of 20 epochs), then draws
    python reproduce/fig5_learning.py --recorded  draws the recorded runs in results/

Lines are means over all seeds, bands one standard deviation; the marks at the right are where the published curves end.
Seconds count training steps alone.  Ctrl-C draws what there is.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import NamedTuple

import _setup
import numpy as np
from data import DATASETS
from matplotlib.figure import Figure
from reproduce.experiments import FIGURE_5_ENDS, PAPER_SEEDS, TITLES, Experiment, title
from reproduce.runs import Job, Work, read_seeds, seconds_per_step
from supair.config import PAPER_EPOCHS
from supair.training import TrainingError, read_log

# Models with their recipes, and how they are drawn.
CURVES = {
    ("supair", "paper"): {"color": "tab:blue"},
    ("supair_no_background", "paper"): {"color": "tab:green"},
    ("air", "paper"): {"color": "tab:orange"},
    ("air", "robust"): {"color": "tab:brown", "linestyle": "--"},
}


class Curve(NamedTuple):
    """Test accuracies of all seeds at the steps that all of them have reached."""

    epochs: np.ndarray  # [points]
    seconds: np.ndarray  # [points], mean over seeds
    accuracy: np.ndarray  # [seeds, points]


def read_curve(runs: Path, model: str, recipe: str, dataset: str) -> Curve | None:
    """The curve of a model on a data set up to 20 epochs, or None if there is no run."""
    by_seed = []
    for seed in read_seeds(runs, model, dataset, recipe):
        experiment = Experiment(model, dataset, recipe, seed)
        lines = [line for line in read_log(runs / experiment.path / "log.jsonl") if line["epoch"] <= PAPER_EPOCHS]
        if lines:
            pace = seconds_per_step(runs, experiment)
            seconds = [line["step"] * pace if pace else line["train_seconds"] for line in lines]
            by_seed.append((lines, seconds))
    if not by_seed:
        return None
    points = min(len(lines) for lines, _ in by_seed)  # all logs have their lines at the same steps
    return Curve(
        np.array([line["epoch"] for line in by_seed[0][0][:points]]),
        np.mean([seconds[:points] for _, seconds in by_seed], axis=0),
        np.array([[line["test_accuracy"] for line in lines[:points]] for lines, _ in by_seed]),
    )


def draw(runs: Path, against: str, single: bool) -> Figure:
    """Four panels; `against` is "seconds" or "epochs", `single` adds a thin line for every run."""
    figure = Figure(figsize=(10, 7), layout="constrained")
    for axes, dataset in zip(figure.subplots(2, 2).flat, DATASETS):
        axes.set(title=TITLES[dataset], ylim=(-3, 103), ylabel="count accuracy, %")
        axes.set_xlabel("seconds of training" if against == "seconds" else "epochs")
        axes.grid(alpha=0.3)
        for (model, recipe), style in CURVES.items():
            if recipe == "paper":
                end, on_edge = 100 * FIGURE_5_ENDS[model, dataset], axes.get_yaxis_transform()
                axes.plot(1.0, end, "<", color=style["color"], transform=on_edge, clip_on=False, zorder=5)
            curve = read_curve(runs, model, recipe, dataset)
            if curve is None:
                continue
            x, accuracy = getattr(curve, against), 100 * curve.accuracy
            mean, deviation = accuracy.mean(axis=0), accuracy.std(axis=0, ddof=1) if len(accuracy) > 1 else 0.0
            seeds = f"{len(accuracy)} seed{'s' if len(accuracy) > 1 else ''}"
            axes.plot(x, mean, label=f"{title(model, recipe)} ({seeds})", **style)
            axes.fill_between(x, mean - deviation, mean + deviation, color=style["color"], alpha=0.2, linewidth=0)
            if single:
                axes.plot(x, accuracy.T, color=style["color"], linewidth=0.5, alpha=0.7)
        if axes.get_legend_handles_labels()[0]:
            axes.legend(loc="center right", fontsize=8)
    return figure


def main(argv: list[str] | None = None) -> int:
    arguments = parse(argv)
    settings = _setup.settings(arguments)
    code = 0
    if not arguments.recorded:
        experiments = [
            Experiment(model, dataset, recipe, s) for s in arguments.seeds for dataset in DATASETS for model, recipe in CURVES
        ]
        code = Work([Job(experiment, PAPER_EPOCHS) for experiment in experiments], settings).train()
    curves = {(*key, dataset): read_curve(settings.runs, *key, dataset) for key in CURVES for dataset in DATASETS}
    if not any(curves.values()):
        raise TrainingError(f"{settings.runs}: no run has got anywhere yet, so there is nothing to draw")
    for against, name in (("seconds", "fig5_learning"), ("epochs", "fig5_learning_epochs")):
        _setup.save_figure(draw(settings.runs, against, arguments.single), arguments.output / name)
    for (model, recipe, dataset), curve in curves.items():
        if curve is None or curve.epochs[-1] < PAPER_EPOCHS:
            at = "there is no run" if curve is None else f"the runs shown end at epoch {curve.epochs[-1]:.1f}"
            print(f"not complete: {title(model, recipe)}, {TITLES[dataset]}: {at}", file=sys.stderr)
    return code


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = _setup.parser(__doc__)
    parser.add_argument(
        "--seeds", type=int, nargs="+", default=PAPER_SEEDS, metavar="SEED", help="seeds to train (default: 0 1 2 3 4)"
    )
    parser.add_argument("--single", action="store_true", help="also draw a thin line for every run")
    _setup.add_recorded(parser)
    _setup.add_output(parser)
    _setup.add_training(parser)
    return parser.parse_args(argv)


if __name__ == "__main__":
    _setup.exit_with(main)
