"""What a tractable model answers: tighter bounds, object codes, completions, samples.

python reproduce/queries.py [--model RUN]    a run on Multi-MNIST; default: pretrained weights
"""

from __future__ import annotations

from pathlib import Path

import common
import numpy as np
from PIL import Image

import data
from data import DATASETS
from reproduce import fig6_noise
from reproduce.experiments import TITLES
from reproduce.fig6_noise import PRETRAINED, Row

COLUMNS, SCENES = 8, 500  # of the figure; for bounds and likelihoods
BOUNDS, SHIFTS = (1, 10, 50), 20  # samples of bounds, and of equation 6's assignments
SHOWN, APART = DATASETS, 2  # data sets whose scenes are taken apart, and how many of each
PROBE = {"train": 5000, "test": 1000}  # digits to fit and to test linear classifiers on


def likelihoods(model, images: np.ndarray) -> dict[str, float]:
    """Bounds; and log p(x | z) by equations 7 and 6, with boxes at their means, N's average."""
    from supair import SuPAIR
    from supair.extensions.exact import ExactSuPAIR
    from supair.extensions.queries import importance_bound

    def elbo(model, *seed, where=1.0):
        shape = [len(images), model.config.num_steps, model.noise_size]
        noise = np.random.default_rng(seed).standard_normal(shape)
        noise[..., :4] *= where
        return model.evaluate_elbo(images, noise.astype(np.float32)).elbo

    found = {"ELBO, nats": [elbo(model, 9, k).total for k in range(5)]}
    found |= {f"bound of {n} samples, nats": importance_bound(model, images, n) for n in BOUNDS}
    for equation, build, shifts in ((7, SuPAIR, 1), (6, ExactSuPAIR, SHIFTS)):
        other = build(model.config, model.seed)
        other.set_weights(model.get_weights())
        terms = [elbo(other, 8, k, where=0.0) for k in range(shifts)]
        bits = [(t.objects + t.background) / images[0].size / np.log(2) for t in terms]
        found[f"log p(x | z), equation {equation}, bits a pixel"] = bits
    return {name: float(np.mean(values)) for name, values in found.items()}


def single_objects(glyphs: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Scenes [n, 50, 50] in [0, 1] with one glyph [28, 28] uint8 each, as large as in the data."""
    scenes = []
    for glyph, (left, top) in zip(glyphs, rng.integers(0, 29, [len(glyphs), 2])):
        small = Image.fromarray(glyph).resize((21, 21), Image.Resampling.BILINEAR)
        scenes.append(np.pad(small, [(top, 29 - top), (left, 29 - left)]))
    return np.float32(scenes) / 255


def patches_of(model, scenes: np.ndarray, step: int = 0) -> list[np.ndarray]:
    """A step's patches and what is visible of them, [n, A²] each."""
    from supair.geometry import extract_patches

    parts = extract_patches(scenes, model(scenes).where_loc, model.config.patch_size)
    return [np.reshape(v[step], [len(scenes), -1]) for v in (parts.patches, parts.visible)]


def probe(model, mnist, rng: np.random.Generator) -> dict[str, float]:
    """Test accuracies of linear classifiers of digits, from patches' codes and from pixels."""
    import keras

    parts, found = [], {}
    for part, number in PROBE.items():
        patches, visible = patches_of(model, single_objects(mnist[f"x_{part}"][:number], rng))
        parts.append({"codes": model.object_spn.encode(patches, visible), "pixels": patches})
    fit, test = parts
    for name in ("codes", "pixels"):
        keras.utils.set_random_seed(0)
        classifier = keras.Sequential([keras.layers.Dense(10, activation="softmax")])
        classifier.compile(keras.optimizers.Adam(3e-3), "sparse_categorical_crossentropy")
        classifier.fit(fit[name], mnist["y_train"][: PROBE["train"]], 100, 40, verbose=0)
        right = np.argmax(classifier(test[name]), axis=1) == mnist["y_test"][: PROBE["test"]]
        found[f"accuracy of a linear classifier of {name}"] = np.mean(right)
    return found


def examples(model, scenes, digits: np.ndarray, rng: np.random.Generator) -> dict:
    """Rows of scenes and patches, for `draw_rows`; a digit behind another is the second step's."""
    from supair.extensions.queries import complete_objects, inpaint, sample_scenes

    two = np.asarray(model(scenes).count) == 2
    patches, visible = patches_of(model, scenes, step=1)
    partly = abs(np.mean(visible, axis=1) - 0.7) < 0.2  # 10 to 50 % hidden
    behind, with_two = np.flatnonzero(two & partly)[:COLUMNS], scenes[two][:COLUMNS]
    known = np.ones_like(with_two)
    known[:, 15:35, 15:35] = 0  # a hole
    drawn, description = sample_scenes(model, 8 * COLUMNS, (3, 0))  # half of them are empty
    codes = model.object_spn.encode(*patches_of(model, single_objects(digits[:COLUMNS], rng)))
    return {
        "scene": scenes[behind],
        "object behind,\nhidden in grey": np.where(visible > 0.5, patches, 0.25)[behind],
        "completed,\nmost probable": complete_objects(model, scenes[behind])[1],
        "sample": complete_objects(model, scenes[behind], (1, 1))[1],
        "hole in grey": np.where(known > 0, with_two, 0.25),
        "filled in,\nmost probable": inpaint(model, with_two, known),
        "drawn from\nthe model": drawn.numpy()[description.count > 0][:COLUMNS],
        "digit": digits[:COLUMNS] / 255,
        "its code,\ndecoded": model.object_spn.decode(codes),
    }


def take_apart(dataset: str, options) -> list[Row]:
    """Rows of a figure: scenes, boxes, objects with hidden parts filled in, and what is behind."""
    from supair.detect.load import load_model
    from supair.extensions.queries import complete_objects
    from supair.geometry import extract_patches

    model, _ = load_model(PRETRAINED / dataset)
    scenes = data.load(dataset, 0, options.data, mnist=options.mnist)["test"].read(0, 100)
    scenes = scenes[np.asarray(model(scenes).count) == 2][:APART]
    found, size = model(scenes), model.config.scene_size
    parts = extract_patches(scenes, found.where_loc, model.config.patch_size)
    visible = parts.background_maps[2].numpy()  # behind the two
    flat = (values.reshape([-1, size**2]) for values in (scenes, visible))
    filled = np.reshape(model.background_spn.reconstruct(*flat), scenes.shape)
    objects = complete_objects(model, scenes).numpy()
    return [
        Row("scene", scenes),
        Row("boxes", scenes, boxes=model.boxes(found).numpy(), present=found.z_pres > 0.5),
        Row("first object", objects[0]),
        Row("second,\nfilled in", objects[1]),
        Row("background,\nfilled in", np.where(visible > 0.5, scenes, filled)),
    ]


def main(argv: list[str] | None = None) -> int:
    parser = common.parser(__doc__)
    pretrained = PRETRAINED / "multi_mnist"
    parser.add_argument("--model", type=Path, default=pretrained, metavar="RUN", help="its folder")
    parser.add_argument("--data", type=Path, default=data.store.DEFAULT_DIRECTORY, help="data sets")
    common.add_mnist(parser)
    common.add_json(parser, "the numbers")
    common.add_output(parser)
    options = parser.parse_args(argv)
    from digits import draw_rows  # brings SciPy

    from supair.detect.load import load_model

    model, _ = load_model(options.model)
    scenes = data.load("multi_mnist", 0, options.data, mnist=options.mnist)
    mnist, rng = np.load(options.mnist), np.random.default_rng(0)
    numbers = likelihoods(model, scenes["test"].read(0, SCENES))
    numbers |= probe(model, mnist, rng)
    for name, value in numbers.items():
        print(f"{name:45} {value:10.4f}")
    if options.json:
        common.write_json(options.json, {"model": str(options.model), **numbers})
    rows = examples(model, scenes["test"].read(0, 2000), mnist["x_test"], rng)
    common.save_figure(draw_rows(rows), options.output / "queries")
    apart = {TITLES[dataset]: take_apart(dataset, options) for dataset in SHOWN}
    common.save_figure(fig6_noise.draw(apart), options.output / "parts")
    return 0


if __name__ == "__main__":
    common.run(main)
