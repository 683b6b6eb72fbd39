"""Make or inspect the data sets.

python -m data make multi_mnist sprites     make them, if they are not there (default: the paper's four)
python -m data inspect FILE.h5 [...]        check files and say what is in them
python -m data letters DIR                  draw JPEG files with letters, an example of images that are not the paper's
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import h5py
import numpy as np
from tqdm import tqdm

from data.letters import write_letters
from data.scenes import MNIST_PATH, DataError
from data.store import DATASETS, DEFAULT_DIRECTORY, SIZES, load, path_of, read


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m data", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    maker = commands.add_parser("make", help="make data sets")
    maker.add_argument("datasets", nargs="*", metavar="DATASET", help=f"out of {', '.join(SIZES)} (default: the paper's four)")
    maker.add_argument("--seed", type=int, default=0, help="decides the scenes (default: 0)")
    maker.add_argument("--directory", type=Path, default=DEFAULT_DIRECTORY, metavar="DIR", help="default: data/generated/")
    maker.add_argument("--mnist", type=Path, default=MNIST_PATH, metavar="FILE", help="the digits (default: data/mnist.npz)")
    maker.add_argument("--sizes", type=int, nargs=2, metavar=("TRAIN", "TEST"), help="numbers of scenes (default: the paper's)")
    letters = commands.add_parser("letters", help="draw pictures of letters")
    letters.add_argument("directory", type=Path, metavar="DIR", help="a new folder, with train/ and test/ in it")
    letters.add_argument(
        "--sizes", type=int, nargs=2, metavar=("TRAIN", "TEST"), default=(20_000, 1000), help="default: 20000 1000"
    )
    letters.add_argument("--seed", type=int, default=0, help="decides the pictures (default: 0)")
    inspector = commands.add_parser("inspect", help="check and describe data set files")
    inspector.add_argument("files", nargs="+", type=Path, metavar="FILE")
    arguments = parser.parse_args(argv)
    if arguments.command == "make":
        for dataset in tqdm(arguments.datasets or DATASETS, unit="data set", disable=None):
            start = time.perf_counter()
            sizes = tuple(arguments.sizes) if arguments.sizes else None
            load(dataset, arguments.seed, arguments.directory, sizes, arguments.mnist)
            path = path_of(dataset, arguments.seed, arguments.directory, sizes)
            tqdm.write(f"{path}: there and checked after {time.perf_counter() - start:.1f} s")
    elif arguments.command == "letters":
        write_letters(arguments.directory, tuple(arguments.sizes), arguments.seed)
        print(f"{arguments.directory}: {arguments.sizes[0]} pictures in train/, {arguments.sizes[1]} in test/")
    else:
        for path in arguments.files:
            _describe(path)
    return 0


def _describe(path: Path) -> None:
    parts = read(path)
    with h5py.File(path, "r") as file:
        print(f"{path}: version {file.attrs['version']}, arguments {file.attrs['arguments']}, checksum correct")
    for name, scenes in parts.items():
        counts = ", ".join(f"{number} with {count}" for count, number in enumerate(np.bincount(scenes.counts)))
        side = scenes.images.shape[1]
        print(f"  {name}: {len(scenes)} scenes of {side} x {side} {scenes.images.dtype}, white {scenes.white}; {counts} objects")


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (DataError, OSError) as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
