"""Figure 6: SuPAIR and AIR on noisy and grid scenes, their boxes and their reconstructions.

    python reproduce/fig6_noise.py               trains what is missing of seed 0, then draws
    python reproduce/fig6_noise.py --pretrained  at once, with the pretrained weights

Rows: original scene, input, SuPAIR's result and reconstruction, AIR's result and reconstruction;
columns: the same four test scenes with noise and on a grid, one of them empty.  Boxes are orange
for the first step, then blue, then yellow; AIR's may be larger than the scene, and then run along
its edge.
"""

import argparse
from typing import Any, NamedTuple

import common
import numpy as np

from reproduce.experiments import TITLES, Experiment
from reproduce.train import load, train_missing
from supair.config import PAPER_EPOCHS
from supair.run import load_weights, read_configuration

PRETRAINED = common.ROOT / "reproduce" / "pretrained"
MODELS, RECIPE = ("supair", "air"), "robust"
DATASETS, COLUMNS = ("noisy_mnist", "grid_mnist"), 4


class Row(NamedTuple):
    """A row of the figure, of one data set."""

    name: str
    images: np.ndarray  # [column, B, B]
    counts: Any = [None] * COLUMNS
    boxes: Any = [None] * COLUMNS  # [column, step, 4]
    present: Any = [None] * COLUMNS  # [column, step]


def collect(options: argparse.Namespace) -> dict[str, list[Row]]:
    """The figure's rows by the titles of its halves."""
    halves = {}
    for dataset in DATASETS:
        # Multi-MNIST has the same scenes, on black.
        original, test = (load(name, options)["test"] for name in ("multi_mnist", dataset))
        empty, others = np.flatnonzero(test.counts == 0), np.flatnonzero(test.counts > 0)
        chosen = np.sort([empty[0], *others[: COLUMNS - 1]])
        clean, inputs = (part.read(0, chosen[-1] + 1)[chosen] for part in (original, test))
        rows, ages = [Row("original", clean, test.counts[chosen]), Row("input", inputs)], []
        for name in MODELS:
            model, epochs = _trained(Experiment(name, dataset, RECIPE, 0), options)
            found, title = model(inputs), TITLES[name]
            boxes, present = model.boxes(found).numpy(), np.round(found.z_pres) == 1
            pictures = {"result": inputs, "reconstruction": np.asarray(model.reconstruct(inputs))}
            for what, images in pictures.items():
                rows.append(Row(f"{title}\n{what}", images, boxes=boxes, present=present))
            ages.append(f"{title} {epochs:.0f}")
        halves[f"{TITLES[dataset]} (epochs: {', '.join(ages)})"] = rows
    return halves


def _trained(experiment: Experiment, options: argparse.Namespace) -> tuple[Any, float]:
    """A trained model and its age in epochs."""
    folder, model = options.runs / experiment.path, experiment.build()
    folder = PRETRAINED / experiment.weights if options.pretrained else folder
    load_weights(model, folder)
    if options.pretrained:
        return model, read_configuration(folder, "run.json")["epoch"]
    return model, experiment.read_rows(options.runs)[-1]["epoch"]


def draw(halves: dict[str, list[Row]]):
    """A matplotlib figure."""
    from supair.figures import draw_scene

    height, columns = max(map(len, halves.values())), min(len(r[0].images) for r in halves.values())
    width = len(halves) * columns
    figure = common.new_figure(1.15 * (width + 1), 1.2 * height)
    figure.subplots_adjust(0.08, 0.01, 0.99, 0.94, wspace=0.05, hspace=0.05)
    axes = figure.subplots(height, width)
    for half, (title, rows) in enumerate(halves.items()):
        axes[0, half * columns].set_title(title, loc="left")
        for line, row in enumerate(rows):
            axes[line, 0].set_ylabel(row.name, fontsize=11)
            for k, panel in enumerate(axes[line, half * columns : (half + 1) * columns]):
                occlude = not row.name.startswith("AIR")  # whose windows add up
                image, count = row.images[k], row.counts[k]
                draw_scene(panel, image, row.boxes[k], row.present[k], count, occlude)
    return figure


def main(argv: list[str] | None = None) -> int:
    options = parse(argv)
    wanted = [Experiment(m, d, RECIPE, 0) for d in DATASETS for m in MODELS]
    if not options.pretrained and train_missing(wanted, PAPER_EPOCHS, False, options):
        return 1
    common.save_figure(draw(collect(options)), options.output / "fig6_noise")
    return 0


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = common.parser(__doc__)
    parser.add_argument("--pretrained", action="store_true", help="train nothing")
    common.add_output(parser)
    common.add_training(parser)
    return parser.parse_args(argv)


if __name__ == "__main__":
    common.run(main)
