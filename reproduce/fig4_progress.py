"""Figure 4: what SuPAIR finds in the same test scenes as it trains, Multi-MNIST left, Sprites right.

    python reproduce/fig4_progress.py             trains one seed on both, as far as that is not done, and draws
    python reproduce/fig4_progress.py --recorded  draws the recorded run in results/

Rows are test scenes with their true counts in the corner, columns training epochs; outlines are the predicted boxes, red
for the first step, then green, then blue.  The first step is in front.
"""

from __future__ import annotations

import argparse
from typing import Any

import _setup
from matplotlib.figure import Figure

from reproduce.experiments import TITLES, Experiment
from reproduce.runs import Job, Settings, Work, log_lines
from supair.config import PAPER_EPOCHS, TrainingError
from supair.figures import draw_scene

DATASETS = ("multi_mnist", "sprites")
EPOCHS = (0.3, 0.5, 1, 3, PAPER_EPOCHS)
SCENES = 6


def draw(settings: Settings, seed: int) -> Figure:
    """The figure, from the boxes that the runs' logs hold."""
    figure = Figure(figsize=(1.1 * (2 * len(EPOCHS) + 0.5), 1.15 * SCENES))
    halves = figure.subfigures(1, len(DATASETS), wspace=0.02)
    for half, dataset in zip(halves, DATASETS):
        experiment = Experiment("supair", dataset, "paper", seed)
        shown = [line for line in log_lines(settings.runs, experiment) if "test_examples" in line]
        lines = []
        for epoch in EPOCHS:
            line = min(shown, key=lambda line: abs(line["epoch"] - epoch), default={"epoch": float("inf")})
            if abs(line["epoch"] - epoch) > 0.25:
                raise TrainingError(f"{settings.runs / experiment.path}: no boxes near epoch {epoch} in the log of this run")
            lines.append(line)
        test = settings.load(dataset)["test"]
        images, counts = test.read(0, SCENES), test.counts
        half.subplots_adjust(left=0.01, right=0.99, bottom=0.01, top=0.9)
        axes = half.subplots(SCENES, len(EPOCHS), gridspec_kw={"wspace": 0.05, "hspace": 0.05})
        half.suptitle(TITLES[dataset], y=0.98)
        for column, line in enumerate(lines):
            axes[0, column].set_title(f"t = {line['epoch']:.2g}", fontsize=9)
            for row in range(SCENES):
                _draw_example(axes[row, column], images[row], line["test_examples"], row, int(counts[row]))
    return figure


def _draw_example(axes, image, examples: dict[str, Any], index: int, count: int) -> None:
    present = [round(chance) == 1 for chance in examples["z_pres"][index]]
    draw_scene(axes, image, examples["boxes"][index], present, count)


def main(argv: list[str] | None = None) -> int:
    arguments = parse(argv)
    settings = _setup.settings(arguments)
    jobs = [Job(Experiment("supair", dataset, "paper", arguments.seed), PAPER_EPOCHS) for dataset in DATASETS]
    code = Work(jobs, settings).train()
    if not code:
        _setup.save_figure(draw(settings, arguments.seed), arguments.output / "fig4_progress")
    return code


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = _setup.parser(__doc__)
    parser.add_argument("--seed", type=_setup.seed, default=0, help="the run to show (default: 0)")
    _setup.add_recorded(parser)
    _setup.add_output(parser)
    _setup.add_training(parser)
    return parser.parse_args(argv)


if __name__ == "__main__":
    _setup.exit_with(main)
