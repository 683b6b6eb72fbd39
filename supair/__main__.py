"""SuPAIR for images of your own.

python -m supair train --images FOLDER_OR_FILE --output RUN               learn without labels
python -m supair detect --model RUN --images FOLDER_OR_FILE --output DIR  count and box objects
python -m supair suggest --images FOLDER_OR_FILE                          say what `train` would do
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import inspect
import itertools
import math
import os
import sys
from pathlib import Path

import numpy as np
from tqdm import tqdm

import supair  # whose names bring TensorFlow when they are used, and not before
from supair import cli
from supair.config import SUPAIR_RECIPES, ModelConfig, background_spn, object_spn, require
from supair.detect import report
from supair.detect import suggest as suggestions
from supair.detect.images import LEVELS, Images, Preparation, read_images
from supair.detect.load import find_model, load_model
from supair.detect.tiles import FITS, tile_overlap
from supair.metrics import count_hits
from supair.scenes import InMemoryScenes

LEAST_EPOCH = 250  # steps; a set that has fewer is gone through several times an epoch


def main(argv: list[str] | None = None) -> int:
    arguments = parse(argv)
    return arguments.run(arguments)


def train(arguments: argparse.Namespace) -> int:
    """Learn a model of images, or go on with a run that does."""
    output = arguments.output
    others = {path.name for path in output.iterdir()} if output.is_dir() else set()
    good = others <= {"lock"} or {"config.json", "lock"} <= others
    require(good, f"--output {output} to be a run or empty", ", ".join(sorted(others)[:3]))
    own = {"seed": arguments.seed, "batch_size": arguments.batch_size}
    training = dataclasses.replace(SUPAIR_RECIPES["robust"], **own)
    images = read_images(arguments.images, arguments.array, arguments.counts)
    _, layout, preparation, config = _plan(arguments, images)
    prepared = tqdm(preparation.scenes(images), "preparing", unit="scene", disable=None)
    one = np.dtype((np.uint8, (config.scene_size, config.scene_size)))
    most = 3 * 10**9 // one.itemsize
    scenes = np.fromiter((scene for scene, _ in itertools.islice(prepared, most + 1)), one)
    require(len(scenes) <= most, f"less than {most} scenes: fewer images, larger objects", "more")
    noise, of_object, of_background = suggestions.suggest_variances(scenes)
    of_object = arguments.object_variance or of_object
    of_background = arguments.background_variance or of_background
    spns = {"object": object_spn(*of_object), "background": background_spn(*of_background)}
    mean = round(float(scenes.mean()) / 255, 4)
    config = dataclasses.replace(config, scene_mean=mean, **spns)
    identity = {
        "preparation": dataclasses.asdict(preparation),
        "images": {"number": len(scenes), "checksum": hashlib.sha256(scenes).hexdigest()},
    }
    data = _split(scenes, None if layout.fit == "tile" else images.counts, arguments.seed)
    steps_per_epoch = max(LEAST_EPOCH, len(data["train"]) // training.batch_size)
    epochs = -(-arguments.steps // steps_per_epoch)
    annealing = dataclasses.replace(training.annealing, epochs=epochs)
    # The warm-up has to end before the SPNs' rates rise.
    steps = min(training.warm_up.steps, math.ceil(annealing.rise[0] * epochs * steps_per_epoch))
    own = {"warm_up": dataclasses.replace(training.warm_up, steps=steps), "annealing": annealing}
    training = dataclasses.replace(training, steps_per_epoch=steps_per_epoch, **own)
    those = "those trained on" if len(data["train"]) == len(scenes) else "those held out"
    print(
        f"{len(images.pictures)} images, {len(scenes)} scenes of {config.scene_size} x "
        f"{config.scene_size} pixels, the bound is measured on {len(data['test'])} of them\n"
        f"grey levels {preparation.levels} become 0 to 1\n"
        f"{layout.options}: one object more is found ({config.num_steps} steps)\n"
        f"noise of {noise:.4f}: --object-variance {' '.join(map(str, of_object))} "
        f"--background-variance {' '.join(map(str, of_background))}\n"
        f"{epochs} epochs of {steps_per_epoch} steps; Ctrl-C ends, and the same command goes on",
        flush=True,
    )
    options = {"title": str(output), "compiled": arguments.xla, "identity": identity}
    model = supair.SuPAIR(config, arguments.seed)
    *_, last = supair.train(output, model, data, training, epochs, **options)
    print(f"ELBO {last['train_elbo']:.0f} nats a scene in training, {last['elbo']:.0f} on {those}")
    if last["accuracy"] is None:
        print(f"objects found in {those}: {_histogram(last['counts_found'])}")
    else:
        print(f"{last['accuracy']:.1%} of the counts of {those} are right")
    return 0


def _split(scenes: np.ndarray, counts: np.ndarray | None, seed: int) -> dict[str, InMemoryScenes]:
    """Scenes, shuffled in place, and a tenth, at most 1000, held out; all are both if few."""
    order = np.random.default_rng(seed).permutation(len(scenes))
    np.random.default_rng(seed).shuffle(scenes)  # in the same order
    held_out = min(1000, len(scenes) // 10)
    parts = {"train": slice(held_out, None), "test": slice(held_out or None)}
    counts_of = {n: None if counts is None else counts[order[parts[n]]] for n in parts}
    return {name: InMemoryScenes(scenes[parts[name]], counts_of[name]) for name in parts}


def detect(arguments: argparse.Namespace) -> int:
    """Count and box the objects in images.

    counts.csv    of each image its count, how sure that is (confidence: q(N = n) multiplied over
                  an image's scenes, before --min-score), and why it may be wrong (warning)
    boxes.csv     of each object left, top, width and height in pixels, log_ratio (in nats, how much
                  better the object model explains the box's pixels than the background model), and
                  score (q(N >= i) of the step i that found it, times sigmoid(log_ratio))
    boxes.json    the same, as COCO has it
    index.html    what was found, to be looked at; and overlays/, contact_sheet.png
    """
    require(0 <= arguments.min_score <= 1, "--min-score from 0 to 1", arguments.min_score)
    report.check_output(arguments.output, arguments.images)
    directory = find_model(arguments.model)
    images = read_images(arguments.images, arguments.array, arguments.counts)
    from supair.detect import results  # brings TensorFlow

    model, preparation = load_model(directory)
    if arguments.fit:
        overlap = tile_overlap(model.config) if arguments.fit == "tile" else 0
        preparation = dataclasses.replace(preparation, fit=arguments.fit, overlap=overlap)
    how = arguments.levels, arguments.min_score
    detections, doubts = results.detect(model, preparation, images, *how)
    report.write_results(arguments.output, images, detections, doubts, arguments.overlays)
    counts = np.array([len(found.boxes) for found in detections])
    print(
        f"{counts.sum()} objects in {len(counts)} images: {_histogram(np.bincount(counts))}; "
        f"see {arguments.output / 'index.html'}"
    )
    if images.counts is not None:
        print(f"{np.mean(counts == images.counts):.1%} of the counts are right")
    if images.boxes is not None:
        hits = count_hits(images.boxes, [found.boxes for found in detections])
        print(f"{hits} of {sum(map(len, images.boxes))} true boxes are found (IoU of 0.5 or more)")
    return 0


def suggest(arguments: argparse.Namespace) -> int:
    """Say which options `train` would take for images, and draw the smallest and largest box."""
    require(not os.path.lexists(arguments.output), f"a new --output {arguments.output}", "a file")
    images = read_images(arguments.images, arguments.array, arguments.counts)
    sizes, layout, preparation, _ = _plan(arguments, images)
    few = itertools.islice(preparation.scenes(images), 2000)
    noise, *_ = suggestions.suggest_variances(np.stack([scene for scene, _ in few]))
    suggestions.draw_suggestion(sizes, layout).save(arguments.output, "png")
    small, middle, large = sizes.quantiles
    print(
        f"objects of {middle:.0f} pixels, {small:.0f} to {large:.0f} most of them; up to "
        f"{sizes.number()} in an image; noise of {noise:.4f}\n{layout.options}"
    )
    return 0


def _plan(arguments: argparse.Namespace, images: Images) -> tuple:
    """Sizes, Layout, Preparation and ModelConfig, as the options say and the images suggest."""
    least, most = arguments.object_size or (1, 1)
    require(0 < least <= most < 10_000, "--object-size MIN MAX above 0", (least, most))
    require((arguments.side or 50) in range(4, 1001), "--side from 4 to 1000", arguments.side)
    require((arguments.max_objects or 1) <= 50, "--max-objects up to 50", arguments.max_objects)
    preparation, _ = Preparation().adapted(images, trained=False)
    sizes = suggestions.find_sizes(images, preparation)
    told = arguments.fit, arguments.side, arguments.object_size, arguments.max_objects
    layout = suggestions.suggest_layout(sizes, *told)
    for doubt in [] if arguments.object_size else sizes.doubts:
        print(f"unsure about objects and their sizes: {doubt}", file=sys.stderr)
    patch, steps = min(ModelConfig.patch_size, layout.side), layout.max_objects + 1  # see `WarmUp`
    smallest, largest = (size * layout.zoom / patch for size in layout.object_size)
    config = ModelConfig(layout.side, patch, steps, scale_min=smallest, scale_max=largest)
    overlap = tile_overlap(config) if layout.fit == "tile" else 0
    changes = {"side": layout.side, "fit": layout.fit, "overlap": overlap, "zoom": layout.zoom}
    return sizes, layout, dataclasses.replace(preparation, **changes), config


def _histogram(numbers) -> str:
    return ", ".join(f"{number} with {count}" for count, number in enumerate(numbers) if number)


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser("python -m supair", description=__doc__, formatter_class=raw)
    commands = parser.add_subparsers(required=True, metavar="train|detect|suggest", help="have -h")
    number = {"type": cli.positive, "metavar": "N"}
    pair = {"type": float, "nargs": 2, "metavar": ("MIN", "MAX")}
    of_images = "a folder of pictures, a picture, or a file of arrays (.npy, .npz, HDF5)"
    for function in (train, detect, suggest):
        text = inspect.getdoc(function)
        command = commands.add_parser(function.__name__, description=text, formatter_class=raw)
        command.set_defaults(run=function)
        option = command.add_argument
        option("--images", type=Path, required=True, metavar="PATH", help=of_images)
        option("--array", metavar="NAME", help="of the images in a file (default: if usual)")
        option("--counts", metavar="NAME", help="of true counts in a file (default: if usual)")
        option("--fit", choices=FITS, help="make each image one scene, or cut it into many")
        if function is not detect:
            option("--side", **number, help="of a scene in pixels")
            option("--object-size", **pair, help="widths in pixels of the images")
            option("--max-objects", **number, help="in a scene; one more is found")
    option("--output", type=Path, default=Path("suggested.png"), metavar="FILE", help="to draw in")
    output = {"type": Path, "required": True, "metavar": "DIR", "help": "where to write"}
    option = commands.choices["detect"].add_argument
    option("--output", **output)
    option("--model", required=True, metavar="PATH", help="a run, or pretrained weights")
    text = "grey levels: the training's, or others that they have"
    option("--levels", choices=LEVELS, default="auto", help=text)
    option("--min-score", type=float, default=0.0, metavar="S", help="of a box (default: 0, all)")
    option("--overlays", **number, default=300, help="images to draw, the first (default: 300)")
    option = commands.choices["train"].add_argument
    option("--output", **output)
    option("--object-variance", **pair, help="bounds for leaves (default: by the images' noise)")
    option("--background-variance", **pair, help="likewise")
    option("--steps", **number, default=4000, help="rounded up to epochs (default: 4000)")
    option("--batch-size", **number, default=128, help="scenes a step (default: 128)")
    option("--seed", type=int, default=0, help="of weights, structures, order, noise (default: 0)")
    option("--no-xla", dest="xla", action="store_false", help="do not compile (slower)")
    return parser.parse_args(argv)


def command() -> None:
    """The console script `supair`."""
    cli.run(main)


if __name__ == "__main__":
    command()
