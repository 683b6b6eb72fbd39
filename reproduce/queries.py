"""What a tractable model answers: completions, inpainting, samples, anomalies, tighter bounds, and object codes.

    python reproduce/queries.py                      with the weights in pretrained/multi_mnist
    python reproduce/queries.py --model runs/supair/multi_mnist/robust/seed0

Prints four small tables and draws `queries`: objects whose hidden parts are completed, holes that are filled in, scenes drawn
from the model, and digits encoded and decoded by the object SPN.  About 80 s on two CPU cores.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
from pathlib import Path

import _setup
import keras
import numpy as np
import tensorflow as tf
from matplotlib.figure import Figure
from PIL import Image, ImageDraw
from scipy.stats import mannwhitneyu

from data import Scenes
from data.letters import LETTERS, load_font
from data.scenes import load_mnist
from reproduce.runs import PRETRAINED, Settings
from supair import SuPAIR
from supair.geometry import take_apart
from supair.queries import complete_objects, importance_bound, inpaint, object_log_probs, sample_scenes
from supair.saved import load_model

COLUMNS = 8
SCENES = 500  # for bounds and likelihoods
BOUNDS = 1, 10, 50  # samples of importance-weighted bounds
SHIFTS = 20  # samples of exact downsampling's assignment
ANOMALIES = 1000  # scenes of each kind
PROBE = 5000, 1000  # digits to fit and to test linear probes on
HOLE = slice(15, 35)  # rows and columns
GLYPH = 21  # pixels, an MNIST image's side in these scenes


def likelihoods(model: SuPAIR, images: np.ndarray) -> dict[str, float]:
    """Bounds in nats a scene, and log p(x | z) by equations 7 and 6 in bits a pixel: boxes at their means, N's average by q."""
    draws = [
        np.random.default_rng([9, k]).standard_normal([len(images), model.config.num_steps, model.noise_size]) for k in range(5)
    ]
    found = {"ELBO": np.mean([model.evaluate_elbo(images, draw.astype(np.float32)).elbo.total for draw in draws])}
    for samples in BOUNDS:
        found[f"importance-weighted bound, {samples}"] = np.mean(importance_bound(model, images, samples))
    for downsampling, shifts in (("area", 1), ("exact", SHIFTS)):
        other = with_downsampling(model, downsampling)
        log_p = []
        for index in range(shifts):
            noise = np.random.default_rng([8, index]).standard_normal([len(images), model.config.num_steps, other.noise_size])
            noise[..., :4] = 0
            elbo = other.evaluate_elbo(images, noise.astype(np.float32)).elbo
            log_p.append(elbo.objects + elbo.background)
        bits = images[0].size * math.log(2)
        found[f"log p(x | z), {downsampling}"] = np.mean(log_p) / bits
        if downsampling == "exact":  # the average over assignments inside the logarithm, by samples
            found[f"log p(x | z), exact, log of the mean of {shifts}"] = (
                np.mean(np.logaddexp.reduce(log_p, axis=0) - math.log(shifts)) / bits
            )
    return {name: float(value) for name, value in found.items()}


def with_downsampling(model: SuPAIR, downsampling: str) -> SuPAIR:
    """The same weights in a model with the other likelihood."""
    other = SuPAIR(dataclasses.replace(model.config, downsampling=downsampling), model.seed)
    for variable, own in zip(other.variables, model.variables):
        variable.assign(own)
    return other


def single_objects(glyphs: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Scenes [n, 50, 50] in [0, 1] with one of the glyphs [n, 28, 28] uint8 each, as large as digits in Multi-MNIST."""
    scenes = np.zeros([len(glyphs), 50, 50], np.float32)
    for scene, glyph in zip(scenes, glyphs):
        left, top = rng.integers(0, 50 - GLYPH, 2)
        small = Image.fromarray(glyph).resize((GLYPH, GLYPH), Image.Resampling.BILINEAR)
        scene[top : top + GLYPH, left : left + GLYPH] = np.asarray(small) / 255
    return scenes


def letter_glyphs(digits: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Capital letters [n, 28, 28] uint8, each as high and as wide as one of the digits, and in its place."""
    glyphs = np.zeros_like(digits)
    font = load_font("DejaVuSans", 60)
    for glyph, digit, letter in zip(glyphs, digits, rng.choice(list(LETTERS), len(digits))):
        rows, columns = (np.flatnonzero((digit > 64).any(axis=axis)) for axis in (1, 0))
        left, top, right, bottom = font.getbbox(letter)
        image = Image.new("L", (right - left, bottom - top))
        ImageDraw.Draw(image).text((-left, -top), letter, font=font, fill=255)
        size = (columns[-1] - columns[0] + 1, rows[-1] - rows[0] + 1)
        glyph[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] = np.asarray(image.resize(size, Image.Resampling.BILINEAR))
    return glyphs


def anomalies(model: SuPAIR, train: np.ndarray, digits: np.ndarray, rng: np.random.Generator) -> dict[str, dict[str, float]]:
    """AUROC of three scores for two kinds of strange objects, and of two that know nothing of shapes, to compare with.

    The ratio is that of the object SPN's density to one that takes all pixels for independent, fitted to the patches that the
    first step finds in training scenes: much of a likelihood is how much ink there is, and not what it draws.
    """
    bounds = model.config.object
    patches, _ = patches_of(model, train[np.asarray(model(train).count) > 0])
    mean, variance = np.mean(patches, axis=0), np.var(patches, axis=0).clip(bounds.variance_min, bounds.variance_max)

    def scores(glyphs):
        scenes = single_objects(glyphs, rng)
        where, log_probs = model(scenes).where_loc[:, 0], object_log_probs(model, scenes)[:, 0]
        patches, visible = (values.numpy() for values in patches_of(model, scenes))
        independent = -0.5 * np.sum(visible * ((patches - mean) ** 2 / variance + np.log(2 * np.pi * variance)), axis=1)
        return {
            "object's log-likelihood": -log_probs.numpy(),
            "its ratio": independent - log_probs * visible.sum(axis=1),
            "scene's bound": -importance_bound(model, scenes, 5).numpy(),
            "area of the box": np.prod(where[:, :2], axis=1),
            "sum of grey levels": scenes.sum(axis=(1, 2)),
        }

    normal = scores(digits[:ANOMALIES])
    others = digits[ANOMALIES : 2 * ANOMALIES]
    kinds = {"letters": letter_glyphs(others, rng), "upside down": others[:, ::-1, ::-1]}
    return {
        kind: {
            name: float(mannwhitneyu(strange, normal[name]).statistic / ANOMALIES**2) for name, strange in scores(glyphs).items()
        }
        for kind, glyphs in kinds.items()
    }


def patches_of(model: SuPAIR, scenes: np.ndarray) -> tuple[tf.Tensor, tf.Tensor]:
    """The first step's patches and what is visible of them, [n, A²] each."""
    parts = take_apart(scenes, model(scenes).where_loc, model.config.patch_size)
    return tuple(tf.reshape(values[0], [len(scenes), -1]) for values in (parts.patches, parts.visible))


def probe(model: SuPAIR, mnist: Path, rng: np.random.Generator, seed: int) -> dict[str, float]:
    """Test accuracies of a linear classifier of digits, from the patches' codes and from their pixels."""
    features: dict[str, list] = {"codes": [], "pixels": []}
    labels = []
    with np.load(mnist, allow_pickle=False) as archive:
        for part, number in zip(("train", "test"), PROBE):
            patches, visible = patches_of(model, single_objects(archive[f"x_{part}"][:number], rng))
            features["codes"].append(model.object_spns[0].encode(patches, visible).numpy())
            features["pixels"].append(patches.numpy())
            labels.append(archive[f"y_{part}"][:number])
    accuracies = {}
    for name, (fit, test) in features.items():
        keras.utils.set_random_seed(seed)
        classifier = keras.Sequential([keras.Input(fit.shape[1:]), keras.layers.Dense(10, activation="softmax")])
        classifier.compile(keras.optimizers.Adam(3e-3), "sparse_categorical_crossentropy", metrics=["accuracy"])
        classifier.fit(fit, labels[0], 100, 40, verbose=0)
        accuracies[name] = float(classifier.evaluate(test, labels[1], verbose=0)[1])
    return accuracies


def draw(model: SuPAIR, test: Scenes, digits: np.ndarray, rng: np.random.Generator) -> Figure:
    scenes = test.read(0, 2000)
    description = model(scenes)
    parts = take_apart(scenes, description.where_loc, model.config.patch_size)
    hidden = 1 - np.mean(parts.visible[1], axis=(1, 2))  # of what the second step found
    found = np.asarray(tf.reduce_all(tf.round(description.z_pres[:, :2]) == 1, axis=1))
    occluded = np.flatnonzero(found & (hidden > 0.1) & (hidden < 0.5))[:COLUMNS]
    seen = np.where(parts.visible[1] > 0.5, parts.patches[1], 0.25)  # hidden pixels are grey
    completed = [complete_objects(model, scenes[occluded], seed)[1] for seed in (None, (1, 1), (1, 2))]

    with_two = np.flatnonzero(test.counts[:2000] == 2)[:COLUMNS]
    known = np.ones_like(scenes[with_two])
    known[:, HOLE, HOLE] = 0
    filled = [inpaint(model, scenes[with_two], known, seed) for seed in (None, (2, 1))]
    drawn = []
    for leaf_noise in (False, True):
        sampled, drawn_with = sample_scenes(model, 8 * COLUMNS, (3, int(leaf_noise)), leaf_noise)
        drawn.append(sampled.numpy()[drawn_with.count > 0][:COLUMNS])  # half of all scenes are empty
    patches, visible = patches_of(model, single_objects(digits[:COLUMNS], rng))
    decoded = model.object_spns[0].decode(model.object_spns[0].encode(patches, visible))
    rows = {
        "scene": scenes[occluded],
        "object behind,\nhidden in grey": seen[occluded],
        "completed,\nmost probable": completed[0],
        "sample": completed[1],
        "another": completed[2],
        "hole in grey": np.where(known > 0, scenes[with_two], 0.25),
        "filled in,\nmost probable": filled[0],
        "sample ": filled[1],
        "drawn from\nthe model": drawn[0],
        "and with\nleaves' noise": drawn[1],
        "digit": tf.reshape(patches, [COLUMNS, 28, 28]),
        "decoded": tf.reshape(decoded, [COLUMNS, 28, 28]),
    }
    figure = Figure(figsize=(1.15 * (COLUMNS + 1), 1.2 * len(rows)))
    axes = figure.subplots(len(rows), COLUMNS, gridspec_kw={"wspace": 0.05, "hspace": 0.05})
    for line, (name, images) in zip(axes, rows.items()):
        line[0].set_ylabel(name, fontsize=8)
        for axis, image in zip(line, images):
            axis.imshow(image, cmap="gray", vmin=0, vmax=1)
        for axis in line:
            axis.set(xticks=[], yticks=[])
    return figure


def main(argv: list[str] | None = None) -> int:
    arguments = parse(argv)
    settings = Settings(arguments.runs, arguments.data, arguments.mnist)
    model, _ = load_model(arguments.model)
    scenes = settings.load("multi_mnist")
    test = scenes["test"]
    digits = load_mnist(arguments.mnist)["x_test"]
    rng = np.random.default_rng(arguments.seed)
    found = {
        "likelihoods": likelihoods(model, test.read(0, SCENES)),
        "anomalies": anomalies(model, scenes["train"].read(0, ANOMALIES), digits, rng),
        "probe": probe(model, arguments.mnist, rng, arguments.seed),
    }
    print(f"{arguments.model}, {SCENES} test scenes of Multi-MNIST")
    for name, value in found["likelihoods"].items():
        print(f"  {name:48} {value:10.4f} {'bits a pixel' if 'x | z' in name else 'nats a scene'}")
    print(f"Strange objects against digits, {ANOMALIES} scenes each, AUROC")
    for kind, scores in found["anomalies"].items():
        print(f"  {kind:12} " + ", ".join(f"{name} {auroc:.3f}" for name, auroc in scores.items()))
    print(f"Linear classifiers of {PROBE[0]} digits found in scenes, accuracy on {PROBE[1]} others")
    print(f"  from codes {found['probe']['codes']:.1%}, from pixels {found['probe']['pixels']:.1%}")
    if arguments.json:
        _setup.write_json(arguments.json, {"model": str(arguments.model), "seed": arguments.seed, **found})
    _setup.save_figure(draw(model, test, digits, rng), arguments.output / "queries")
    return 0


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = _setup.parser(__doc__)
    parser.add_argument(
        "--model", type=Path, default=PRETRAINED / "multi_mnist", metavar="RUN",
        help="a run on Multi-MNIST, or a folder of pretrained/ (default: pretrained/multi_mnist)",
    )  # fmt: skip
    parser.add_argument("--seed", type=_setup.seed, default=0, help="decides where objects are, and the probes (default: 0)")
    _setup.add_json(parser, "the numbers")
    _setup.add_output(parser)
    _setup.add_places(parser)
    return parser.parse_args(argv)


if __name__ == "__main__":
    _setup.exit_with(main)
