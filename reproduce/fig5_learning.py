"""Figure 5: count accuracy on the test set while training, against seconds and against epochs.

    python reproduce/fig5_learning.py             trains what is missing of 120 runs, then draws
    python reproduce/fig5_learning.py --recorded  draws the recorded runs, all seeds, at once

Lines are means over all seeds that have got to where they end, bands one standard deviation; in
`fig5_seeds` every run has a line.  Marks at the right are where published curves end.  Seconds
count training steps alone, and compare runs of one machine only.
"""

import argparse
import sys
from typing import NamedTuple

import common
import numpy as np

from data import DATASETS
from reproduce.experiments import FIGURE_5_ENDS, PAPER_SEEDS, TITLES, Experiment, title
from reproduce.records import read_record
from reproduce.train import Logs, read_logs, train_missing
from supair.config import PAPER_EPOCHS, TrainingError

# Models with their recipes, and how they are drawn, in colours by Okabe and Ito.
CURVES = {
    ("supair", "paper"): {"color": "#0072B2"},
    ("supair", "robust"): {"color": "#56B4E9", "linestyle": "--"},
    ("supair_no_background", "paper"): {"color": "#009E73"},
    ("supair_no_background", "robust"): {"color": "#CC79A7", "linestyle": "--"},
    ("air", "paper"): {"color": "#D55E00"},
    ("air", "robust"): {"color": "#E69F00", "linestyle": "--"},
}
# By file name: against what, and whether every seed has a line.
FIGURES = {"fig5_learning": ("seconds", False), "fig5_learning_epochs": ("epochs", False)}
FIGURES |= {"fig5_seeds": ("epochs", True)}


class Curve(NamedTuple):
    """Test accuracies of several seeds at the same points."""

    epochs: np.ndarray  # [point]
    seconds: np.ndarray  # [point], mean over seeds
    accuracy: np.ndarray  # [seed, point]
    left_out: list[int]  # seeds that have not got as far as the last point


def collect(logs: Logs) -> Curve | None:
    """The curve of the logs of several seeds, up to 20 epochs; None if there are none.

    It ends where most measurements are on it: many seeds that are half trained count for more than
    one that has got to the end.
    """
    logs = {s: [row for row in log if row["epoch"] <= PAPER_EPOCHS] for s, log in logs.items()}
    lengths = [len(log) for log in logs.values()]  # all have their rows at the same steps
    if not any(lengths):
        return None
    points = max(lengths, key=lambda n: (n * sum(length >= n for length in lengths), n))
    whole = [log[:points] for log in logs.values() if len(log) >= points]
    return Curve(
        np.array([row["epoch"] for row in whole[0]]),
        np.mean([[row["train_seconds"] for row in log] for log in whole], axis=0),
        np.array([[row["accuracy"] for row in log] for log in whole]),
        [seed for seed, log in logs.items() if len(log) < points],
    )


def draw(curves: dict[tuple[str, str, str], Curve | None], against: str, each: bool = False):
    """A matplotlib figure of curves by model, recipe and data set; see `FIGURES`."""
    figure = common.new_figure(12, 9.5, layout="constrained")
    mark = {"marker": "<", "linestyle": "", "fillstyle": "none"}
    on_edge = {"clip_on": False, "zorder": 5, **mark}
    for number, (axes, dataset) in enumerate(zip(figure.subplots(2, 2).flat, DATASETS)):
        axes.set(title=TITLES[dataset], ylim=(-3, 103), ylabel="count accuracy, %")
        axes.set_xlabel("seconds of training" if against == "seconds" else "epochs")
        axes.xaxis.get_major_locator().set_params(integer=True)
        for k, (model, ends) in enumerate(FIGURE_5_ENDS.items()):
            color, edge = CURVES[model, "paper"]["color"], axes.get_yaxis_transform()
            right = 1 + 0.02 * k  # beside each other, because some are the same
            axes.plot(right, 100 * ends[number], color=color, transform=edge, **on_edge)
        for (model, recipe), style in CURVES.items():
            curve = curves[model, recipe, dataset]
            if curve is None:
                continue
            x, accuracy = getattr(curve, against), 100 * curve.accuracy
            mean, seeds = accuracy.mean(axis=0), len(accuracy)
            deviation = accuracy.std(axis=0, ddof=1) if seeds > 1 else 0.0
            label = f"{title(model, recipe)} ({seeds} seed{'s' if seeds > 1 else ''})"
            axes.plot(x, mean, label=label, **style)
            if each:
                axes.plot(x, accuracy.T, color=style["color"], linewidth=0.5, alpha=0.7)
                continue
            band = {"color": style["color"], "alpha": 0.2, "linewidth": 0}
            axes.fill_between(x, mean - deviation, mean + deviation, **band)
        axes.plot([], [], label="published end", color="gray", **mark)
        below = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.17)}  # so that it hides nothing
        axes.legend(**below, ncols=2)
    return figure


def is_current(model: str, recipe: str, dataset: str) -> bool:
    """Whether there are recorded runs, and they are of today's recipe."""
    record = read_record(model, recipe, dataset)
    return bool(record) and record.is_current(Experiment(model, dataset, recipe, 0))


def main(argv: list[str] | None = None) -> int:
    options = parse(argv)
    keys = [(*curve, dataset) for dataset in DATASETS for curve in CURVES]
    runs, failures = None if options.recorded else options.runs, []
    seeds = options.seeds or (PAPER_SEEDS if runs else None)
    if runs:
        each = [(seed, *key) for seed in seeds for key in keys]
        wanted = [Experiment(model, dataset, recipe, s) for s, model, recipe, dataset in each]
        failures = train_missing(wanted, PAPER_EPOCHS, False, options)
    known = [key for key in keys if runs or is_current(*key)]
    curves = dict.fromkeys(keys) | {key: collect(read_logs(*key, seeds, runs)) for key in known}
    if not any(curves.values()):
        raise TrainingError(f"{runs or 'recorded/'}: none of these runs is there to draw")
    for name, (against, each) in FIGURES.items():
        common.save_figure(draw(curves, against, each), options.output / name)
    for (model, recipe, dataset), curve in curves.items():
        name = f"{title(model, recipe)}, {TITLES[dataset]}"
        if curve is None or curve.epochs[-1] < PAPER_EPOCHS or curve.left_out:
            end = curve and f"to epoch {curve.epochs[-1]:.1f}, without {curve.left_out}"
            print(f"not complete: {name}: {end or 'no run of today'}", file=sys.stderr)
    return 1 if failures else 0


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = common.parser(__doc__)
    common.add_seeds(parser, "0-4, or all recorded")
    common.add_output(parser)
    common.add_training(parser, recorded=True)
    return parser.parse_args(argv)


if __name__ == "__main__":
    common.run(main)
