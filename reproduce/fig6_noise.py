"""Figure 6: SuPAIR and AIR on noisy and grid scenes, their boxes and their reconstructions.

    python reproduce/fig6_noise.py            one seed of both models, trained for 20 epochs as far as that is not done
    python reproduce/fig6_noise.py --quick    3 epochs in RUNS/quick: a smoke run
    python reproduce/fig6_noise.py --pretrained    at once: SuPAIR alone, with the weights in pretrained/

Rows: original scene, input, SuPAIR's result and reconstruction, AIR's result and reconstruction; columns: four noisy and
four grid scenes out of the test sets.  Boxes are red for the first step, then green, then blue; AIR's windows may be larger
than the scene, and then run along its edge.  Shown is the last checkpoint of a run; the titles say after how many epochs.
"""

from __future__ import annotations

import argparse
import json

import _setup
import numpy as np
from matplotlib.figure import Figure

from reproduce.experiments import TITLES, Experiment
from reproduce.runs import PRETRAINED, Job, Settings, Work, epoch_lines, load_model
from supair.air import AIR
from supair.config import PAPER_EPOCHS
from supair.figures import draw_scene
from supair.model import SuPAIR
from supair.saved import load_model as load_pretrained

DATASETS = ("noisy_mnist", "grid_mnist")
MODELS = ("supair", "air")
QUICK_EPOCHS = 3
COLUMNS = 4
ROWS = ("original", "input", "SuPAIR\nresult", "SuPAIR\nreconstruction", "AIR\nresult", "AIR\nreconstruction")


def draw(settings: Settings, seed: int | None) -> Figure:
    """The figure, from the last checkpoints of a seed's runs; None: SuPAIR's rows from `pretrained/`."""
    width, models = len(DATASETS) * COLUMNS, MODELS if seed is not None else MODELS[:1]
    rows = ROWS[: 2 + 2 * len(models)]
    figure = Figure(figsize=(1.15 * (width + 1), 1.2 * len(rows)))
    axes = figure.subplots(len(rows), width, gridspec_kw={"wspace": 0.05, "hspace": 0.05})
    for row, name in enumerate(rows):
        axes[row, 0].set_ylabel(name, fontsize=8)
    without_background = settings.load("multi_mnist")["test"]  # the same scenes
    for half, dataset in enumerate(DATASETS):
        test = settings.load(dataset)["test"]
        chosen = np.flatnonzero(test.counts > 0)[half * COLUMNS : (half + 1) * COLUMNS]  # other scenes in every half
        last = chosen[-1] + 1
        original = without_background.read(0, last)[chosen]
        inputs = test.read(0, last)[chosen]
        columns = axes[:, half * COLUMNS : (half + 1) * COLUMNS]
        found, ages = [], []
        for model in models:
            loaded, epochs = _load(settings, model, dataset, seed)
            description = loaded(inputs)
            present, rebuilt = np.round(description.z_pres) == 1, loaded.reconstruct(inputs).numpy()
            found.append((loaded.boxes(description).numpy(), present, rebuilt, model == "supair"))  # AIR's windows add up
            ages.append(f"{TITLES[model]} {epochs}")
        columns[0, 0].set_title(f"{TITLES[dataset]} (epochs: {', '.join(ages)})", loc="left", fontsize=9)
        for k, column in enumerate(columns.T):
            draw_scene(column[0], original[k], count=int(test.counts[chosen[k]]))
            draw_scene(column[1], inputs[k])
            for (boxes, present, reconstruction, occlude), result, rebuilt in zip(found, column[2::2], column[3::2]):
                draw_scene(result, inputs[k], boxes[k], present[k], occlude=occlude)
                draw_scene(rebuilt, reconstruction[k])
    return figure


def _load(settings: Settings, model: str, dataset: str, seed: int | None) -> tuple[SuPAIR | AIR, int]:
    """A trained model and its age in epochs."""
    if seed is None:
        made_by = json.loads((PRETRAINED / dataset / "run.json").read_text())
        return load_pretrained(PRETRAINED / dataset)[0], round(made_by["epoch"])
    experiment = Experiment(model, dataset, "paper", seed)
    return load_model(experiment, settings), len(epoch_lines(settings.runs, experiment))


def main(argv: list[str] | None = None) -> int:
    arguments = parse(argv)
    settings = _setup.settings(arguments)
    if arguments.pretrained:
        _setup.save_figure(draw(settings, None), arguments.output / "fig6_noise_pretrained")
        return 0
    epochs = QUICK_EPOCHS if arguments.quick else PAPER_EPOCHS
    jobs = [Job(Experiment(model, dataset, "paper", arguments.seed), epochs) for dataset in DATASETS for model in MODELS]
    code = Work(jobs, settings).train()
    if not code:
        _setup.save_figure(draw(settings, arguments.seed), arguments.output / "fig6_noise")
    return code


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = _setup.parser(__doc__)
    parser.add_argument("--seed", type=_setup.seed, default=0, help="of the runs to show (default: 0)")
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_EPOCHS} epochs only, kept apart in RUNS/quick")
    parser.add_argument("--pretrained", action="store_true", help="train nothing; SuPAIR with the weights in pretrained/")
    _setup.add_output(parser)
    _setup.add_training(parser)
    return parser.parse_args(argv)


if __name__ == "__main__":
    _setup.exit_with(main)
