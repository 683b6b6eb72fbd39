"""SuPAIR for images of your own.

python -m supair train --images FOLDER_OR_FILE --output RUN
    learn to find the objects in them, without labels
python -m supair detect --model RUN --images FOLDER_OR_FILE --output DIR
    count and box them

Images are a folder of PNG or JPEG files, or an array [n, height, width] or [n, height, width, 3] of
an .npz or HDF5 file, uint8 or floating point in [0, 1].
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
from pathlib import Path

import numpy as np

import supair  # whose names bring TensorFlow when they are used, and not before
from supair import cli
from supair.config import SUPAIR_RECIPES, ModelConfig, background_spn, object_spn, require
from supair.detect.images import Images, Preparation, read_images, suggest_variances
from supair.detect.load import find_model, load_model
from supair.detect.tiles import FITS, tile_overlap
from supair.scenes import InMemoryScenes

LARGEST_SIDE = 100  # pixels; a scene of this side takes four times as long as the paper's
LEAST_EPOCH = 250  # steps; a set that has fewer is gone through several times an epoch
HELD_OUT = 0.1, 1000  # share of the scenes that the bound is measured on, and at most how many


def main(argv: list[str] | None = None) -> int:
    arguments = parse(argv)
    return arguments.run(arguments)


def train(arguments: argparse.Namespace) -> int:
    """Learn a model of images, or go on with a run that does."""
    output = arguments.output
    others = {path.name for path in output.iterdir()} - {"lock"} if output.is_dir() else set()
    good = not others or "config.json" in others
    require(good, f"--output {output} to be a run or empty", ", ".join(sorted(others)[:3]))
    training = dataclasses.replace(
        SUPAIR_RECIPES[arguments.recipe], seed=arguments.seed, batch_size=arguments.batch_size
    )
    images = read_images(arguments.images, arguments.array)
    config = _model_config(arguments, images)
    overlap = tile_overlap(config) if arguments.fit == "tile" else 0
    preparation = Preparation.suggest(images, config.scene_size, arguments.fit, overlap)
    scenes, _ = preparation.scenes(images)
    suggested = suggest_variances(scenes)
    of_object = arguments.object_variance or suggested.object
    of_background = arguments.background_variance or suggested.background
    config = dataclasses.replace(
        config, object=object_spn(*of_object), background=background_spn(*of_background)
    )
    data = split(scenes, None if arguments.fit == "tile" else images.counts, arguments.seed)
    steps_per_epoch = len(data["train"]) // training.batch_size
    if steps_per_epoch < LEAST_EPOCH:
        steps_per_epoch = LEAST_EPOCH
        training = dataclasses.replace(training, steps_per_epoch=steps_per_epoch)
    epochs = -(-arguments.steps // steps_per_epoch)
    those = "those trained on" if len(data["train"]) == len(scenes) else "those held out"
    identity = {
        "preparation": dataclasses.asdict(preparation),
        "images": {"number": len(scenes), "checksum": hashlib.sha256(scenes.tobytes()).hexdigest()},
    }
    print(
        f"{len(images.pictures)} images, {len(scenes)} scenes of {config.scene_size} x "
        f"{config.scene_size} pixels, {len(data['test'])} of them to measure the bound on\n"
        f"grey levels {preparation.black:.3f} to {preparation.white:.3f} become 0 to 1"
        f"{', inverted' * preparation.inverted}\n"
        f"up to {arguments.max_objects} objects a scene ({config.num_steps} steps)\n"
        f"noise of {suggested.noise:.4f}: --object-variance {' '.join(map(str, of_object))} "
        f"--background-variance {' '.join(map(str, of_background))}\n"
        f"{epochs} epochs of {steps_per_epoch} steps; Ctrl-C ends, and the same command goes on",
        flush=True,
    )
    model = supair.SuPAIR(config, arguments.seed)
    options = {"title": str(output), "compiled": arguments.xla}
    *_, last = supair.train(output, model, data, training, epochs, identity=identity, **options)
    print(f"ELBO {last['train_elbo']:.0f} nats a scene in training, {last['elbo']:.0f} on {those}")
    if last["accuracy"] is None:
        print(f"objects found in {those}: {_histogram(last['counts_found'])}")
    else:
        print(f"{last['accuracy']:.1%} of the counts of {those} are right")
    return 0


def detect(arguments: argparse.Namespace) -> int:
    """Count and box the objects in images."""
    directory = find_model(arguments.model)
    from supair.detect import results  # brings Matplotlib

    results.check_output(arguments.output, arguments.images)
    images = read_images(arguments.images, arguments.array)
    model, preparation = load_model(directory)
    if arguments.fit:
        overlap = tile_overlap(model.config) if arguments.fit == "tile" else 0
        preparation = dataclasses.replace(preparation, fit=arguments.fit, overlap=overlap)
    detections = results.detect(model, preparation, images)
    results.write_results(arguments.output, images, detections)
    counts = np.array([len(found.boxes) for found in detections])
    print(
        f"{counts.sum()} objects in {len(counts)} images: {_histogram(np.bincount(counts))}; "
        f"see {arguments.output / 'contact_sheet.png'}"
    )
    if images.counts is not None:
        print(f"{np.mean(counts == images.counts):.1%} of the counts are right")
    return 0


def _model_config(arguments: argparse.Namespace, images: Images) -> ModelConfig:
    """What the options say; if they do not, a scene is as large as an image, or as the paper's."""
    side = arguments.side
    if not side:
        side = ModelConfig.scene_size if arguments.fit else len(images.pictures[0])
        expected = f"images of at most {LARGEST_SIDE} pixels a side, or --fit resize or --fit tile"
        require(side <= LARGEST_SIDE, expected, side)
    patch = min(arguments.patch_size, side)
    smallest, largest = arguments.object_size or (0.3 * patch, 0.9 * patch)
    return ModelConfig(
        scene_size=side,
        patch_size=patch,
        num_steps=arguments.max_objects + 1,  # the last step is to spare, see `WarmUp`
        scale_min=smallest / patch,
        scale_max=largest / patch,
    )


def split(scenes: np.ndarray, counts: np.ndarray | None, seed: int) -> dict[str, InMemoryScenes]:
    """Scenes in random order, and some of them held out; all are both if they are few."""
    order = np.random.default_rng(seed).permutation(len(scenes))
    held_out = min(HELD_OUT[1], int(HELD_OUT[0] * len(scenes)))
    parts = {"train": order[held_out:], "test": order[:held_out] if held_out else order}
    return {
        name: InMemoryScenes(scenes[part], None if counts is None else counts[part])
        for name, part in parts.items()
    }


def _histogram(numbers) -> str:
    return ", ".join(f"{number} with {count}" for count, number in enumerate(numbers) if number)


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser("python -m supair", description=__doc__, formatter_class=raw)
    commands = parser.add_subparsers(required=True, metavar="train | detect", help="each has -h")
    of_images = "a folder of PNG or JPEG files, an .npz or an HDF5 file"
    for function in (train, detect):
        command = commands.add_parser(function.__name__, description=function.__doc__)
        command.set_defaults(run=function)
        option = command.add_argument
        option("--images", type=_existing, required=True, metavar="PATH", help=of_images)
        option("--array", default="images", metavar="NAME", help="in a file (default: images)")
        option("--fit", choices=FITS, help="make each image one scene, or cut it into many")
        option("--output", type=Path, required=True, metavar="DIR", help="where to write")
    option = commands.choices["detect"].add_argument
    option("--model", required=True, metavar="PATH", help="a run, or a folder of weights")
    option = commands.choices["train"].add_argument
    number = {"type": _at_least_1, "metavar": "N"}
    pair = {"type": float, "nargs": 2, "metavar": ("MIN", "MAX")}
    option("--max-objects", **number, default=3, help="in a scene (default: 3); one more is found")
    option("--side", **number, help="of a scene, pixels (default: the images', or 50 with --fit)")
    option("--patch-size", **number, default=28, help="side of an object's patch (default: 28)")
    option("--object-size", **pair, help="widths, pixels (default: 0.3 and 0.9 patches)")
    option("--object-variance", **pair, help="bounds for leaves (default: by the images' noise)")
    option("--background-variance", **pair, help="likewise")
    option("--steps", **number, default=2000, help="rounded up to epochs (default: 2000)")
    option("--batch-size", **number, default=256, help="scenes a step (default: 256)")
    option("--seed", type=int, default=0, help="of weights, structures, order, noise (default: 0)")
    option("--recipe", choices=SUPAIR_RECIPES, default="robust", help="default: robust")
    option("--no-xla", dest="xla", action="store_false", help="do not compile (slower)")
    return parser.parse_args(argv)


def _existing(text: str) -> Path:
    if not Path(text).exists():
        raise argparse.ArgumentTypeError(f"{text}: no such file or folder")
    return Path(text)


def _at_least_1(text: str) -> int:
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"expected an integer of at least 1, found {text}")
    return int(text)


def command() -> None:
    """The console script `supair`."""
    cli.run(main)


if __name__ == "__main__":
    command()
