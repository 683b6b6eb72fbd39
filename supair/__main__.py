"""SuPAIR for images of your own.

python -m supair train --images FOLDER_OR_FILE --output RUN            learn to find the objects in them, without labels
python -m supair detect --model RUN --images FOLDER_OR_FILE --output DIR    count and box them

Images are a folder of PNG or JPEG files, or an array [n, height, width] or [n, height, width, 3] of an .npz or HDF5 file,
uint8 or floating point in [0, 1].
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import math
import os
import signal
import sys
from pathlib import Path

import numpy as np
import tensorflow as tf

from supair.config import (
    ConfigError,
    ModelConfig,
    TrainingConfig,
    TrainingError,
    WarmUp,
    background_spn,
    object_spn,
    robust_training,
)
from supair.detection import check_output, detect, write_results
from supair.distribution import Team, choose_strategy
from supair.files import run_configuration
from supair.images import FITS, Images, Preparation, read_images, suggest_variances
from supair.metrics import count_accuracy
from supair.model import SuPAIR
from supair.saved import load_model
from supair.scenes import InMemoryScenes
from supair.training import Interrupted, Run

LARGEST_SIDE = 100  # pixels; a scene of this side takes four times as long as the paper's
LEAST_EPOCH = 50  # steps; a set that has fewer is gone through several times an epoch
HELD_OUT = 0.1, 1000  # share of the scenes that the bound is measured on, and at most how many


def main(argv: list[str] | None = None) -> int:
    arguments = _parse(argv)
    return (train if arguments.command == "train" else find)(arguments)


def train(arguments: argparse.Namespace) -> int:
    output = arguments.output
    if output.is_dir() and any(output.iterdir()) and not (output / "config.json").exists():
        raise ConfigError(f"--output {output}: holds other files than a run's; choose a new or empty folder")
    images = read_images(arguments.images, arguments.array)
    side = arguments.side or _natural_side(images, arguments.fit)
    patch = min(arguments.patch_size, side)
    sizes = arguments.object_size or (0.3 * patch, 0.9 * patch)
    config = ModelConfig(
        scene_size=side,
        patch_size=patch,
        num_steps=arguments.max_objects + 1,  # the last step is to spare, see `WarmUp`
        scale_min=sizes[0] / patch,
        scale_max=sizes[1] / patch,
        warm_up=WarmUp() if arguments.recipe == "robust" else None,
    )
    preparation = Preparation.suggest(images, side, arguments.fit, _overlap(arguments.fit, config))
    scenes, _ = preparation.scenes(images)
    suggested = suggest_variances(scenes)
    of_object = arguments.object_variance or suggested.object
    of_background = arguments.background_variance or suggested.background
    config = dataclasses.replace(config, object=object_spn(*of_object), background=background_spn(*of_background))
    training = robust_training(arguments.seed) if arguments.recipe == "robust" else TrainingConfig(seed=arguments.seed)
    training = dataclasses.replace(training, batch_size=arguments.batch_size)
    data = _split(scenes, None if preparation.fit == "tile" else images.counts, training)
    steps_per_epoch, held_out = len(data["train"]) // training.batch_size, len(data["test"])
    epochs = -(-arguments.steps // steps_per_epoch)
    summary = (
        f"{len(images.pictures)} images, {len(scenes)} scenes of {side} x {side} pixels, {held_out} of them to measure the bound on\n"
        f"grey levels {preparation.black:.3f} to {preparation.white:.3f} become 0 to 1{', inverted' * preparation.inverted}\n"
        f"objects: up to {arguments.max_objects} a scene ({config.num_steps} steps), {sizes[0]:.1f} to {sizes[1]:.1f} scene pixels wide\n"
        f"variances for noise of {suggested.noise:.4f}: suggested --object-variance {_pair(suggested.object)} "
        f"--background-variance {_pair(suggested.background)}; taken {_pair(of_object)} and {_pair(of_background)}\n"
        f"{epochs} epochs of {steps_per_epoch} steps with {training.batch_size} scenes; Ctrl-C saves, and the same command goes on"
    )
    identity = {
        "preparation": dataclasses.asdict(preparation),
        "images": {"number": len(scenes), "checksum": hashlib.sha256(scenes.tobytes()).hexdigest()},
    }
    strategy = choose_strategy() if arguments.distribute or os.environ.get("TF_CONFIG") else tf.distribute.get_strategy()
    Team(strategy).require_same("options or images", json.dumps(run_configuration(config, training, identity)))
    with strategy.scope():
        model = SuPAIR(config, arguments.seed)
    with Run(output, model, training, data, identity, arguments.xla, strategy) as run:
        if run.team.is_chief:
            shared = f"\ndevices that share every batch: {run.team.size}" if arguments.distribute or run.team.size > 1 else ""
            print(summary + shared, flush=True)
        run.train(epochs, description=str(output))
        if not run.team.is_chief:
            return 0
        last = run.epoch_lines()[-1]
    print(f"ELBO {last['train_elbo']:.0f} nats a scene in training, {last['test_elbo']:.0f} on the {held_out} scenes")
    if last["test_accuracy"] is None:
        print(f"objects found in these: {_histogram(last['test_counts'])}")
    else:
        print(f"{last['test_accuracy']:.1%} of their counts are right")
    print(f"next: python -m supair detect --model {output} --images FOLDER_OR_FILE --output DIR")
    return 0


def find(arguments: argparse.Namespace) -> int:
    signal.signal(signal.SIGTERM, _stop)
    check_output(arguments.output, arguments.images)
    model, preparation = load_model(arguments.model)
    if arguments.fit:
        preparation = dataclasses.replace(preparation, fit=arguments.fit, overlap=_overlap(arguments.fit, model.config))
    images = read_images(arguments.images, arguments.array)
    detections = detect(model, preparation, images)
    write_results(arguments.output, images, detections)
    counts = np.array([found.count for found in detections])
    print(
        f"{counts.sum()} objects in {len(counts)} images: {_histogram(np.bincount(counts))}; see {arguments.output}/contact_sheet.png"
    )
    if images.counts is not None:
        print(f"{count_accuracy(images.counts, counts):.1%} of the counts are right")
    return 0


def _natural_side(images: Images, fit: str | None) -> int:
    """A scene's side if none was asked for: the images' own, or the paper's 50."""
    if fit:
        return 50
    size = images.size
    if size is None or size[0] != size[1] or size[0] > LARGEST_SIDE:
        found = "images of several sizes" if size is None else f"images of {size[1]} x {size[0]} pixels"
        raise ConfigError(
            f"{found}; choose --fit resize (each becomes one scene of --side pixels, default 50) or "
            f"--fit tile (cut into scenes of --side pixels). Only square images up to {LARGEST_SIDE} pixels are taken as they are"
        )
    return size[0]


def _stop(signum, frame):
    raise Interrupted("stopped, and nothing has been written", signum)


def _overlap(fit: str | None, config: ModelConfig) -> int:
    """Of neighbouring tiles: as far as the highest box reaches."""
    if fit != "tile":
        return 0
    patch, side = config.patch_size, config.scene_size
    overlap = math.ceil(config.scale_max * config.aspect_max * patch * patch / (patch - 1))
    if side - overlap < side / 4:
        raise ConfigError(
            f"tiles of {side} pixels would have to overlap by {overlap} to hold every object whole; "
            "choose a larger --side, or a smaller --object-size"
        )
    return overlap


def _split(scenes: np.ndarray, counts: np.ndarray | None, training: TrainingConfig) -> dict[str, InMemoryScenes]:
    """Scenes in random order, some of them held out; a small set is repeated, in another order each time, to fill an epoch."""
    rng = np.random.default_rng(training.seed)
    order = rng.permutation(len(scenes))
    held_out = min(HELD_OUT[1], int(HELD_OUT[0] * len(scenes)))
    parts = {"train": order[held_out:], "test": order[:held_out] if held_out else order}
    times = -(-LEAST_EPOCH * training.batch_size // len(parts["train"]))
    parts["train"] = np.concatenate([parts["train"], *(rng.permutation(parts["train"]) for _ in range(times - 1))])
    return {name: InMemoryScenes(scenes[part], None if counts is None else counts[part]) for name, part in parts.items()}


def _histogram(numbers) -> str:
    return ", ".join(f"{number} with {count}" for count, number in enumerate(numbers) if number)


def _pair(pair: tuple[float, float]) -> str:
    return f"{pair[0]:g} {pair[1]:g}"


def _parse(argv: list[str] | None) -> argparse.Namespace:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="python -m supair", description=__doc__, formatter_class=raw)
    commands = parser.add_subparsers(dest="command", required=True)
    trainer = commands.add_parser("train", help="train a model on images, without labels")
    detector = commands.add_parser("detect", help="count and box the objects in images")
    for command in (trainer, detector):
        command.add_argument("--images", type=Path, required=True, metavar="FOLDER_OR_FILE", help="folder, .npz or .h5")
        command.add_argument("--array", default="images", metavar="NAME", help="of the array in a file (default: images)")
        command.add_argument(
            "--fit", choices=FITS, help="for images that are not as large as a scene: resize each to one, or cut it into tiles"
        )
        command.add_argument("--output", type=Path, required=True, metavar="DIR", help="where to write")
    trainer.add_argument(
        "--max-objects", type=int, default=3, metavar="N", help="in a scene; the model can find one more (default: 3)"
    )  # fmt: skip
    trainer.add_argument("--side", type=int, metavar="PIXELS", help="of a scene (default: the images' own, or 50 with --fit)")
    trainer.add_argument("--patch-size", type=int, default=28, metavar="PIXELS", help="side of the object model (default: 28)")
    trainer.add_argument(
        "--object-size", type=float, nargs=2, metavar=("MIN", "MAX"),
        help="widths of objects in scene pixels (default: 0.3 and 0.9 of the patch size)",
    )  # fmt: skip
    for name in ("object", "background"):
        trainer.add_argument(
            f"--{name}-variance", type=float, nargs=2, metavar=("MIN", "MAX"),
            help=f"bounds of the {name} model's variances (default: suggested from the images)",
        )  # fmt: skip
    trainer.add_argument(
        "--steps", type=int, default=2000, help="training steps, rounded up to epochs (default: 2000; the warm-up takes 1000)"
    )
    trainer.add_argument("--batch-size", type=int, default=256, metavar="N", help="scenes a step (default: 256)")
    trainer.add_argument("--seed", type=int, default=0, help="decides weights, structures, order and noise (default: 0)")
    trainer.add_argument(
        "--recipe",
        choices=("robust", "paper"),
        default="robust",
        help="with a warm-up and averaged weights, or as in the paper (default: robust)",
    )
    trainer.add_argument(
        "--distribute", action="store_true",
        help="share every batch among this machine's GPUs; where TF_CONFIG is set, among the machines it names",
    )  # fmt: skip
    trainer.add_argument("--no-xla", dest="xla", action="store_false", help="do not compile with XLA (slower)")
    detector.add_argument("--model", type=Path, required=True, metavar="RUN", help="a trained run, or a folder of pretrained/")
    arguments = parser.parse_args(argv)
    for name in ("max_objects", "side", "patch_size", "steps", "batch_size"):
        value = getattr(arguments, name, None)
        if value is not None and value < 1:
            parser.error(f"--{name.replace('_', '-')}: expected at least 1, found {value}")
    return arguments


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (ConfigError, TrainingError, OSError) as error:
        sys.exit(f"error: {error}")
    except Interrupted as error:
        print(error, file=sys.stderr)
        sys.exit(128 + error.signum)
    except KeyboardInterrupt:
        sys.exit(130)
