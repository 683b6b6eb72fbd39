"""The first twelve test scenes that are counted wrongly, on each data set: what is left to gain.

    python reproduce/errors.py                    with the weights in pretrained/
    python reproduce/errors.py --recipe robust    with those of the runs supair/*/robust/seed0 in --runs

Prints how many of what kind there are, how the inference network's counts compare with the likeliest ones given its boxes, and
how often a scene with too many boxes is likelier without the first of them (for instance because the second alone explains the
object).  A scene's N boxes are taken to be those of its first N steps.  Draws `errors`, `errors_RECIPE` or
`errors_RECIPE_seedN`: boxes in step colours, the true count in the corner, the model's above.  About a minute on two CPU cores.
"""

from __future__ import annotations

import argparse

import _setup
import numpy as np
import tensorflow as tf
from matplotlib.figure import Figure

import data
from reproduce.experiments import RECIPES, TITLES, Experiment
from reproduce.runs import PRETRAINED, Settings
from supair import metrics
from supair.figures import draw_scene
from supair.model import Evaluation, SuPAIR
from supair.saved import load_model

COLUMNS = 12
BATCH = 500


def evaluate(model: SuPAIR, images: np.ndarray) -> tuple:
    """Boxes [batch, step, 4], which of them are there, and log p(x, z) [batch, step + 1] of every N with boxes at q's means;
    the last once more with the first box put behind all others."""
    noise = np.zeros([len(images), model.config.num_steps, model.noise_size], np.float32)
    evaluation = model.evaluate_elbo(images, noise)
    description = evaluation.description
    noise[..., :4] = (tf.roll(description.where_loc, -1, axis=1) - description.where_loc) / description.where_scale
    log_p = [_log_p(model, each) for each in (evaluation, model.evaluate_elbo(images, noise))]
    return model.boxes(description), np.round(description.z_pres) == 1, *log_p


def _log_p(model: SuPAIR, evaluation: Evaluation):
    of_objects = tf.cumsum(evaluation.log_p_objects + evaluation.log_p_overlap, axis=1)
    return tf.pad(of_objects, [[0, 0], [1, 0]]) + evaluation.log_p_background + model.log_p_count


def draw(settings: Settings, datasets: list[str], recipe: str | None, seed: int) -> Figure:
    figure = Figure(figsize=(1.1 * COLUMNS, 1.45 * len(datasets)))
    axes = figure.subplots(len(datasets), COLUMNS, squeeze=False, gridspec_kw={"wspace": 0.05, "hspace": 0.25})
    for line, dataset in zip(axes, datasets):
        test = settings.load(dataset)["test"]
        model, _ = load_model(
            settings.runs / Experiment("supair", dataset, recipe, seed).path if recipe else PRETRAINED / dataset
        )
        evaluated = [evaluate(model, test.read(start, start + BATCH)) for start in range(0, len(test), BATCH)]
        boxes, present, log_p, without_first = (np.concatenate(parts) for parts in zip(*evaluated))
        counts = present.sum(axis=1)
        wrong = np.flatnonzero(counts != test.counts)
        table = np.array(metrics.count_confusion(test.counts, counts, model.config.num_steps))
        kinds = [f"{table[true, said]} of {true} counted as {said}" for true, said in np.argwhere(table) if true != said]
        likeliest = log_p.argmax(axis=1)
        better = np.sum(likeliest[wrong] == test.counts[wrong])
        worse = np.sum(likeliest != test.counts) - (len(wrong) - better)
        print(f"{TITLES[dataset]}: {len(wrong)} of {len(test)} wrong: {', '.join(kinds)}")
        print(f"  the likeliest count given the boxes is right in {better} of these, and wrong in {worse} others")
        more = np.flatnonzero(counts > test.counts)
        fewer = np.sum(without_first[more, counts[more] - 1] > log_p[more, counts[more]])
        print(f"  {len(more)} have too many boxes; {fewer} of these scenes are likelier without the first", flush=True)
        line[0].set_ylabel(TITLES[dataset], fontsize=8)
        for panel, scene in zip(line, wrong):
            draw_scene(panel, test.read(scene, scene + 1)[0], boxes[scene], present[scene], int(test.counts[scene]))
            panel.set_title(f"found {counts[scene]}", fontsize=7, pad=2)
        for panel in line[len(wrong) :]:
            panel.set_axis_off()
    return figure


def main(argv: list[str] | None = None) -> int:
    arguments = parse(argv)
    recipe, seed = arguments.recipe, arguments.seed or 0
    figure = draw(
        Settings(arguments.runs, arguments.data, arguments.mnist), arguments.datasets or list(data.DATASETS), recipe, seed
    )
    name = "errors" + (f"_{recipe}" if recipe else "") + (f"_seed{seed}" if seed else "")
    _setup.save_figure(figure, arguments.output / name)
    return 0


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = _setup.parser(__doc__)
    parser.add_argument("--recipe", choices=RECIPES, help="take the runs of this recipe (default: the weights in pretrained/)")
    parser.add_argument("--seed", type=int, help="of these runs (with --recipe; default: 0)")
    parser.add_argument("--datasets", nargs="+", action=_setup.Distinct, choices=data.DATASETS, help="default: all")
    _setup.add_output(parser)
    _setup.add_places(parser)
    arguments = parser.parse_args(argv)
    if arguments.seed is not None and not arguments.recipe:
        parser.error("--seed names a run, so it needs --recipe; the weights in pretrained/ are of one seed")
    return arguments


if __name__ == "__main__":
    _setup.exit_with(main)
