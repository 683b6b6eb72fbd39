"""What a tractable model answers: tighter bounds, and what objects hide, filled in.

python reproduce/queries.py [--model RUN]    a run on Multi-MNIST; default: pretrained weights
"""

from __future__ import annotations

from pathlib import Path

import common
import numpy as np

import data
from data import DATASETS
from reproduce import fig6_noise
from reproduce.experiments import TITLES
from reproduce.fig6_noise import PRETRAINED, Row

SCENES = 500  # for bounds and likelihoods
BOUNDS, SHIFTS = (1, 10, 50), 20  # samples of bounds, and of equation 6's assignments
SHOWN, APART = DATASETS, 2  # data sets whose scenes are taken apart, and how many of each


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
    from supair.detect.load import load_model

    model, _ = load_model(options.model)
    scenes = data.load("multi_mnist", 0, options.data, mnist=options.mnist)
    numbers = likelihoods(model, scenes["test"].read(0, SCENES))
    for name, value in numbers.items():
        print(f"{name:45} {value:10.4f}")
    if options.json:
        common.write_json(options.json, {"model": str(options.model), **numbers})
    apart = {TITLES[dataset]: take_apart(dataset, options) for dataset in SHOWN}
    common.save_figure(fig6_noise.draw(apart), options.output / "parts")
    return 0


if __name__ == "__main__":
    common.run(main)
