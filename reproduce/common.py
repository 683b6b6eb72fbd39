"""What every script needs first: the repository on the path, options, whole files, errors."""

import argparse
import contextlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

STYLE = {"font.size": 12, "axes.titlesize": 13, "figure.titlesize": 15, "lines.linewidth": 2}
STYLE |= {"axes.grid": True, "grid.alpha": 0.3, "legend.frameon": False, "image.cmap": "gray"}
STYLE |= {"axes.spines.top": False, "axes.spines.right": False, "pdf.fonttype": 42}  # TrueType
ROOT = Path(__file__).resolve().parent.parent
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from data import DataError  # noqa: E402
from supair import cli  # noqa: E402
from supair.cli import positive  # noqa: E402
from supair.config import ConfigError  # noqa: E402
from supair.run import read_whole, write_whole  # noqa: E402


def parser(description: str) -> argparse.ArgumentParser:
    style = argparse.RawDescriptionHelpFormatter
    return argparse.ArgumentParser(f"python {_script()}", None, description, formatter_class=style)


def add_mnist(options: argparse.ArgumentParser) -> None:
    where = {"type": Path, "default": ROOT / "data/mnist.npz", "metavar": "FILE"}
    options.add_argument("--mnist", help="the digits (default: data/mnist.npz)", **where)


def add_places(options: argparse.ArgumentParser) -> None:
    """The options that say where files are."""
    for name, default, what in (
        ("runs", "runs", "where runs are"),
        ("data", "data/generated", "where data sets are, made at first"),
    ):
        where = {"type": Path, "default": ROOT / default, "metavar": "DIR"}
        options.add_argument(f"--{name}", help=f"{what} (default: {default})", **where)
    add_mnist(options)


def add_training(options: argparse.ArgumentParser, recorded: bool = False) -> None:
    """The options of every script that trains; `train.train_missing` takes them."""
    if recorded:
        options.add_argument("--recorded", action="store_true", help="use the recorded runs alone")
    options.add_argument("--no-train", action="store_true", help="use the runs that there are")
    where = "many runs at once, on a Dask cluster or here; needs the extra 'cluster'"
    options.add_argument("--dask", type=dask_address, metavar="ADDRESS|local", help=where)
    threads = "processor threads of a run (default: all; with --dask local its share)"
    options.add_argument("--threads", type=positive, metavar="N", help=threads)
    options.add_argument("--no-xla", action="store_true", help="do not compile with XLA (slower)")
    add_places(options)


def add_seeds(options: argparse.ArgumentParser, default: str) -> None:
    what = f"seeds such as 0 3 or 0-4 (default: {default})"
    options.add_argument("--seeds", type=seeds, action=Distinct, nargs="+", help=what)


def add_output(options: argparse.ArgumentParser) -> None:
    where = {"type": Path, "default": ROOT / "figures", "metavar": "DIR"}
    options.add_argument("--output", help="for the figures (default: figures)", **where)


def add_json(options: argparse.ArgumentParser, what: str) -> None:
    """An option for a new file, or an earlier one of the script."""
    text = f"also write {what} to FILE"
    options.add_argument("--json", type=_json_file, metavar="FILE", help=text)


def _json_file(text: str) -> Path:
    path, us = Path(text), _script()
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise argparse.ArgumentTypeError(f"{path.parent}: no folder that can be written to")
    with contextlib.suppress(OSError, ValueError, TypeError, LookupError, RecursionError):
        there = os.path.lexists(path)
        if not there or not path.is_symlink() and json.loads(read_whole(path))["script"] == us:
            return path
    raise argparse.ArgumentTypeError(f"{path}: there already, and not written by this script")


def dask_address(text: str) -> str:
    """Where a Dask scheduler is, or "local", for argparse."""
    if not re.fullmatch(r"local|(\w+://)?[^/\s]+:\d+", text):
        expected = "local, or an address such as tcp://HOST:8786"
        raise argparse.ArgumentTypeError(f"expected {expected}, found {text}")
    return text


def seed(text: str) -> int:
    """A seed, for argparse."""
    if not text.isdecimal() or int(text) >= 2**31:
        raise argparse.ArgumentTypeError(f"expected a seed from 0 to 2147483647, found {text}")
    return int(text)


def seeds(text: str) -> range:
    """A seed, or a range of them such as 0-4, for argparse."""
    first, _, last = text.partition("-")
    numbers = range(seed(first), seed(last or first) + 1)
    if len(numbers) > 1000:
        raise argparse.ArgumentTypeError(f"expected at most 1000 seeds, found {text}")
    return numbers


class Distinct(argparse.Action):
    """Values of an option, each only once; ranges are taken apart."""

    def __call__(self, parser, namespace, values, option_string=None):
        each = [x for value in values for x in (value if isinstance(value, range) else [value])]
        if not each or len(set(each)) < len(each):
            found = " ".join(map(str, each)) or "none"
            parser.error(f"argument {option_string}: expected each only once, found {found}")
        setattr(namespace, self.dest, each)


def new_figure(width: float, height: float, **options):
    """A Matplotlib figure of so many inches, in the style of all figures, to be read from afar."""
    import matplotlib
    from matplotlib.figure import Figure

    matplotlib.rcParams.update(STYLE)
    return Figure(figsize=(width, height), **options)


def save_figure(figure, path: Path) -> None:
    """Save a figure as PATH.png and PATH.pdf, each whole or not at all, unless these are others."""
    path.parent.mkdir(parents=True, exist_ok=True)
    for kind, metadata in (("png", None), ("pdf", {"CreationDate": None})):
        content, target = io.BytesIO(), path.with_name(f"{path.name}.{kind}")
        if target.is_file() and b"Matplotlib" not in target.read_bytes():  # as all that it draws
            raise ConfigError(f"{target}: there already, and not written by this script")
        figure.savefig(content, format=kind, dpi=150, bbox_inches="tight", metadata=metadata)
        write_whole(target, content.getvalue())
        print(target)


def _script() -> str:
    return f"reproduce/{Path(sys.argv[0]).name}"


def write_json(path: Path, content: dict) -> None:
    """Write a file whole or not at all; it says which script made it."""
    write_whole(path, json.dumps({"script": _script(), **content}, indent=2) + "\n")


def commit() -> str:
    """The repository's commit, with a + if files have changed since; "unknown" without git."""
    command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty=+", "--exclude=*"]
    if not shutil.which("git"):
        return "unknown"
    return subprocess.run(command, capture_output=True, text=True).stdout.strip() or "unknown"


def run(main: Callable[[], int]) -> None:
    """Run a script's main function; see `supair.cli.run`."""
    cli.run(main, DataError)
