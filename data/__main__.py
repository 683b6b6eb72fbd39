"""Make or inspect the data sets.

python -m data make multi_mnist sprites     make them, if not there (default: the paper's four)
python -m data inspect FILE.h5 [...]        check files and say what is in them
python -m data letters DIR                  draw pictures of letters, an example of one's own images
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from pathlib import Path

import numpy as np
from tqdm import tqdm

from data import letters, store
from data.scenes import MNIST_PATH, DataError


def main(argv: list[str] | None = None) -> int:
    arguments = _parse(argv)
    if arguments.command == "make":
        _make(arguments)
    elif arguments.command == "letters":
        letters.write_letters(arguments.directory, arguments.sizes, arguments.seed)
        print("{}: {} in train/, {} in test/".format(arguments.directory, *arguments.sizes))
    else:
        for path in arguments.files:
            _inspect(path)
    return 0


def _parse(argv: list[str] | None) -> argparse.Namespace:
    as_it_is = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser("python -m data", None, __doc__, formatter_class=as_it_is)
    commands = parser.add_subparsers(dest="command", required=True)
    maker = commands.add_parser("make", help="make data sets")
    names = f"out of {', '.join(store.SIZES)} (default: the paper's four)"
    maker.add_argument("datasets", nargs="*", metavar="DATASET", help=names)
    maker.add_argument("--directory", type=Path, metavar="DIR", help="default: data/generated/")
    maker.add_argument("--mnist", type=Path, metavar="FILE", help="default: data/mnist.npz")
    maker.set_defaults(directory=store.DEFAULT_DIRECTORY, mnist=MNIST_PATH)
    drawer = commands.add_parser("letters", help="draw pictures of letters")
    drawer.add_argument("directory", type=Path, metavar="DIR", help="a new folder")
    drawer.set_defaults(sizes=letters.SIZES)
    for command, default in (maker, "the paper's"), (drawer, "20000 1000"):
        meta, text = ("TRAIN", "TEST"), f"numbers of images (default: {default})"
        command.add_argument("--sizes", type=int, nargs=2, metavar=meta, help=text)
        command.add_argument("--seed", type=int, default=0, help="decides everything (default: 0)")
    inspector = commands.add_parser("inspect", help="check and describe data set files")
    inspector.add_argument("files", nargs="+", type=Path, metavar="FILE")
    return parser.parse_args(argv)


def _make(arguments: argparse.Namespace) -> None:
    for dataset in tqdm(arguments.datasets or store.DATASETS, unit="data set", disable=None):
        store.load(dataset, arguments.seed, arguments.directory, arguments.sizes, arguments.mnist)
        path = store.path_of(dataset, arguments.seed, arguments.directory, arguments.sizes)
        tqdm.write(f"{path}: there and checked")


def _inspect(path: Path) -> None:
    parts = store.read(path)
    made_with = parts["train"].images.file.attrs["arguments"].decode()
    print(f"{path}: version {store.FORMAT_VERSION}, arguments {made_with}, checksums correct")
    for name, scenes in parts.items():
        kind = f"{scenes.images.shape} {scenes.images.dtype}, white {scenes.white}"
        counts = ", ".join(f"{n} with {c}" for c, n in enumerate(np.bincount(scenes.counts)))
        print(f"  {name}: images {kind}; {counts} objects")


if __name__ == "__main__":
    sys.stdout, sys.stderr = (s or open(os.devnull, "w") for s in (sys.stdout, sys.stderr))
    sys.stdout.reconfigure(errors="backslashreplace")  # its encoding may lack letters
    for number in (signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGTERM)):
        if signal.getsignal(number) is not signal.SIG_IGN:  # as `nohup` sets it
            signal.signal(number, lambda signum, _: sys.exit(128 + signum))  # which tidies up
    try:
        sys.exit(main())
    except (DataError, OSError) as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
