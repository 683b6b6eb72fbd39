"""Figure 4: what SuPAIR finds in the same test scenes as it trains, on Multi-MNIST and Sprites.

    python reproduce/fig4_progress.py             trains what is missing of seed 0, then draws
    python reproduce/fig4_progress.py --recorded  draws the recorded run, at once

Rows are test scenes with their true counts in the corner, columns training epochs; outlines are the
boxes found, orange for the first step, then blue, then yellow.  The first step is in front.
"""

import argparse
from collections.abc import Sequence
from typing import Any, NamedTuple

import common

from reproduce.experiments import TITLES, Experiment
from reproduce.records import read_record
from reproduce.train import load, train_missing
from supair.config import PAPER_EPOCHS, TrainingError

DATASETS = ("multi_mnist", "sprites")
EPOCHS = (0.3, 0.5, 1, 3, PAPER_EPOCHS)
SCENES = 6


class Half(NamedTuple):
    """A data set's part of the figure."""

    title: str
    images: Any  # [scene, B, B] in [0, 1]
    counts: Any  # [scene]
    rows: list[dict[str, Any]]  # of the log, "epoch" and "examples", for each epoch


def collect(
    options: argparse.Namespace, runs: Sequence[Experiment], epochs: Sequence[float] = ()
) -> list[Half]:
    """The figure's content; TrainingError if a run has no boxes near one of the epochs."""
    halves = []
    for run in runs:
        if options.recorded:
            rows = read_record(run.model, run.recipe, run.dataset).provenance[0].get("examples", [])
        else:
            rows = run.read_rows(options.runs)
        chosen = []
        for epoch in epochs or EPOCHS:
            near = [r for r in rows if "examples" in r and abs(r["epoch"] - epoch) <= 0.25]
            if not near:
                raise TrainingError(f"{run.title}: no boxes near epoch {epoch} in its log")
            chosen.append(min(near, key=lambda row: abs(row["epoch"] - epoch)))
        test = load(run.dataset, options)["test"]
        halves.append(Half(TITLES[run.dataset], test.read(0, SCENES), test.counts, chosen))
    return halves


def draw(halves: list[Half]):
    """A matplotlib figure."""
    from supair.figures import draw_scene

    epochs = len(halves[0].rows)
    figure = common.new_figure(1.1 * (len(halves) * epochs + 0.5), 1.2 * SCENES)
    parts = figure.subfigures(1, len(halves), wspace=0.02, squeeze=False)
    for part, half in zip(parts.flat, halves):
        part.subplots_adjust(left=0.01, right=0.99, bottom=0.01, top=0.9)
        grid = {"gridspec_kw": {"wspace": 0.05, "hspace": 0.05}, "squeeze": False}
        axes = part.subplots(SCENES, epochs, **grid)
        part.suptitle(half.title, y=0.98)
        for column, row in zip(axes.T, half.rows):
            column[0].set_title(f"t = {row['epoch']:.2g}")
            for k, panel in enumerate(column):
                boxes, z_pres = (row["examples"][name][k] for name in ("boxes", "z_pres"))
                present = [round(chance) == 1 for chance in z_pres]
                draw_scene(panel, half.images[k], boxes, present, int(half.counts[k]))
    return figure


def main(argv: list[str] | None = None) -> int:
    options = parse(argv)
    wanted = [Experiment("supair", dataset, "paper", 0) for dataset in DATASETS]
    if not options.recorded and train_missing(wanted, PAPER_EPOCHS, False, options):
        return 1
    common.save_figure(draw(collect(options, wanted)), options.output / "fig4_progress")
    return 0


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = common.parser(__doc__)
    common.add_output(parser)
    common.add_training(parser, recorded=True)
    return parser.parse_args(argv)


if __name__ == "__main__":
    common.run(main)
