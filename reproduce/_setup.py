"""What every script needs first: the repository on the path, quiet libraries, and errors in one line."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))
TOGETHER_ON_GPU = 10  # seeds that one compiled step trains there, unless asked otherwise
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # before TensorFlow is imported
os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")  # scripts train in processes of their own, beside this one


def parser(description: str) -> argparse.ArgumentParser:
    return argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)


def add_places(arguments: argparse.ArgumentParser) -> None:
    """The options that say where files are."""
    arguments.add_argument("--runs", type=Path, default=ROOT / "runs", metavar="DIR", help="where runs are kept (default: runs/)")
    arguments.add_argument(
        "--data", type=Path, default=ROOT / "data" / "generated", metavar="DIR",
        help="where generated data sets are kept (default: data/generated/)",
    )  # fmt: skip
    add_mnist(arguments)


def add_mnist(arguments: argparse.ArgumentParser) -> None:
    arguments.add_argument(
        "--mnist",
        type=Path,
        default=ROOT / "data" / "mnist.npz",
        metavar="FILE",
        help="the MNIST digits (default: data/mnist.npz)",
    )


def add_training(arguments: argparse.ArgumentParser) -> None:
    """The options of every script that trains."""
    arguments.add_argument("--no-train", action="store_true", help="train nothing; use the runs that there are")
    arguments.add_argument(
        "--together",
        type=positive,
        metavar="N",
        help="train up to N seeds at once in one compiled step (default: 10 on a GPU, otherwise 1: there it gains nothing)",
    )
    arguments.add_argument("--no-xla", action="store_true", help="do not compile with XLA (slower; for debugging)")
    add_places(arguments)


def positive(text: str) -> int:
    """An integer of at least 1, for argparse."""
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"expected an integer of at least 1, found {text}")
    return int(text)


def add_recorded(arguments: argparse.ArgumentParser) -> None:
    arguments.add_argument("--recorded", action="store_true", help="train nothing; use the recorded runs in results/, not --runs")


def add_output(arguments: argparse.ArgumentParser) -> None:
    """An option for the folder of figures, which is refused before any work is done if it cannot be one."""

    def folder(text: str) -> Path:
        try:
            Path(text).mkdir(parents=True, exist_ok=True)
            if not os.access(text, os.W_OK):
                raise PermissionError(13, "Permission denied")
        except OSError as error:
            raise argparse.ArgumentTypeError(f"{text} cannot be written to ({error.strerror})") from None
        return Path(text)

    arguments.add_argument(
        "--output", type=folder, default=str(ROOT / "figures"), metavar="DIR", help="where figures go (default: figures/)"
    )


def seed(text: str) -> int:
    """A seed, for argparse."""
    if not text.isdecimal() or int(text) >= 2**31:
        raise argparse.ArgumentTypeError(f"expected numbers from 0 to 2147483647, found {text}")
    return int(text)


class Distinct(argparse.Action):
    """Values for an option, each only once."""

    def __call__(self, parser, namespace, values, option_string=None):
        if len(set(values)) < len(values):
            parser.error(f"argument {option_string}: expected each only once, found {' '.join(map(str, values))}")
        setattr(namespace, self.dest, values)


def settings(arguments: argparse.Namespace):
    """The `Settings` that a script's options ask for."""
    from reproduce.runs import RECORDED, Settings
    from supair.hardware import has_gpu

    recorded, quick = (getattr(arguments, name, False) for name in ("recorded", "quick"))
    runs = RECORDED if recorded else arguments.runs / "quick" if quick else arguments.runs
    train = not (recorded or arguments.no_train)
    together = arguments.together or (TOGETHER_ON_GPU if has_gpu() else 1)
    return Settings(runs, arguments.data, arguments.mnist, compiled=not arguments.no_xla, train=train, together=together)


def save_figure(figure, path: Path) -> None:
    """Save a figure as PATH.png and PATH.pdf, each whole or not at all."""
    from data.store import replacing

    for kind in ("png", "pdf"):
        target = path.with_name(f"{path.name}.{kind}")
        with replacing(target) as partial:
            figure.savefig(
                partial, format=kind, dpi=150, bbox_inches="tight", metadata={"CreationDate": None} if kind == "pdf" else None
            )
        print(target)


def add_json(arguments: argparse.ArgumentParser, what: str) -> None:
    """An option for a file to write; a path that cannot be one is refused before any work is done."""

    def path(text: str) -> Path:
        if not Path(text).parent.is_dir() or Path(text).is_dir():
            raise argparse.ArgumentTypeError(f"{text} is a folder, or in one that does not exist")
        return Path(text)

    arguments.add_argument("--json", type=path, metavar="FILE", help=f"also write {what} to FILE")


def write_json(path: Path, content: object) -> None:
    """Write a file whole or not at all."""
    from supair.config import ConfigError
    from supair.files import write_whole

    try:
        write_whole(path, json.dumps(content, indent=2) + "\n")
    except OSError as error:
        raise ConfigError(f"--json {path}: cannot be written ({error.strerror})") from None


def exit_with(main: Callable[[], int]) -> None:
    """Run a script's main function, and leave with its exit code or with one line about what went wrong."""
    from data import DataError
    from supair.config import ConfigError, TrainingError

    try:
        code = main()
        if code > 128:  # stopped by a signal: all is saved and said, and TensorFlow would take seconds to end
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
        sys.exit(code)
    except (ConfigError, DataError, TrainingError, OSError) as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
