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
    arguments.add_argument(
        "--mnist",
        type=Path,
        default=ROOT / "data" / "mnist.npz",
        metavar="FILE",
        help="the MNIST digits (default: data/mnist.npz)",
    )


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
    from supair.training import write_whole

    try:
        write_whole(path, json.dumps(content, indent=2) + "\n")
    except OSError as error:
        raise ConfigError(f"--json {path}: cannot be written ({error.strerror})") from None


def exit_with(main: Callable[[], int]) -> None:
    """Run a script's main function, and leave with its exit code or with one line about what went wrong."""
    from data import DataError
    from supair.config import ConfigError
    from supair.training import TrainingError

    try:
        sys.exit(main())
    except (ConfigError, DataError, TrainingError, OSError) as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
