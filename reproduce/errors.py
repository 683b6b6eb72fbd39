"""The first twelve test scenes that are counted wrongly, on each data set: what is left to gain.

    python reproduce/errors.py    with the weights in pretrained/

Prints how many of what kind there are, and draws `errors`: boxes in step colours, the true count in the corner, the model's
above.  About 25 s on two CPU cores.
"""

from __future__ import annotations

import argparse

import _setup
import numpy as np
from matplotlib.figure import Figure

import data
from reproduce.experiments import TITLES
from reproduce.runs import PRETRAINED, Settings
from supair import metrics
from supair.figures import draw_scene
from supair.saved import load_model

COLUMNS = 12
BATCH = 500


def draw(settings: Settings) -> Figure:
    figure = Figure(figsize=(1.1 * COLUMNS, 1.45 * len(data.DATASETS)))
    axes = figure.subplots(len(data.DATASETS), COLUMNS, gridspec_kw={"wspace": 0.05, "hspace": 0.25})
    for line, dataset in zip(axes, data.DATASETS):
        test = settings.load(dataset)["test"]
        model, _ = load_model(PRETRAINED / dataset)
        found = [model(test.read(start, start + BATCH)) for start in range(0, len(test), BATCH)]
        boxes = np.concatenate([model.boxes(description) for description in found])
        present = np.round(np.concatenate([description.z_pres for description in found])) == 1
        counts = present.sum(axis=1)
        wrong = np.flatnonzero(counts != test.counts)
        table = np.array(metrics.count_confusion(test.counts, counts, model.config.num_steps))
        kinds = [f"{table[true, said]} of {true} counted as {said}" for true, said in np.argwhere(table) if true != said]
        print(f"{TITLES[dataset]}: {len(wrong)} of {len(test)} wrong: {', '.join(kinds)}", flush=True)
        line[0].set_ylabel(TITLES[dataset], fontsize=8)
        for panel, scene in zip(line, wrong):
            draw_scene(panel, test.read(scene, scene + 1)[0], boxes[scene], present[scene], int(test.counts[scene]))
            panel.set_title(f"found {counts[scene]}", fontsize=7, pad=2)
        for panel in line[len(wrong) :]:
            panel.set_axis_off()
    return figure


def main(argv: list[str] | None = None) -> int:
    arguments = parse(argv)
    _setup.save_figure(draw(Settings(arguments.runs, arguments.data, arguments.mnist)), arguments.output / "errors")
    return 0


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = _setup.parser(__doc__)
    _setup.add_output(parser)
    _setup.add_places(parser)
    return parser.parse_args(argv)


if __name__ == "__main__":
    _setup.exit_with(main)
