"""The files of a run: JSON lines with checksums, configurations that are compared, and writing whole or not at all."""

from __future__ import annotations

import dataclasses
import json
import os
import zlib
from pathlib import Path
from typing import Any

from supair.config import TrainingConfig, TrainingError


def run_configuration(model: Any, training: TrainingConfig, identity: dict[str, Any]) -> dict[str, Any]:
    """What `config.json` holds: everything that decides a run."""
    config = {"model": dataclasses.asdict(model), "training": dataclasses.asdict(training), **identity}
    return json.loads(json.dumps(config))


def require_configuration(path: Path, expected: dict[str, Any]) -> None:
    """Check that a run's `config.json` holds what is expected.

    Raises:
      TrainingError: if it does not, or is damaged.
    """
    try:
        found = json.loads(path.read_text())
        if not isinstance(found, dict):
            raise ValueError("not a JSON object")
    except (OSError, ValueError) as error:
        raise TrainingError(f"{path}: missing or damaged ({error}); delete the directory to start again") from None
    if different := difference(found, expected):
        raise TrainingError(f"{path}: this directory holds another run ({different}); choose another directory or delete it")


def difference(found: Any, expected: Any, name: str = "") -> str:
    """Where two configurations differ first, in words; empty if they do not."""
    if isinstance(found, dict) and isinstance(expected, dict):
        for key in sorted(found.keys() | expected.keys()):
            if inner := difference(found.get(key), expected.get(key), f"{name}.{key}" if name else key):
                return inner
        return ""
    return "" if found == expected else f"{name}: expected {expected}, found {found}"


def seal(content: dict[str, Any]) -> dict[str, Any]:
    """Plain values for JSON with a checksum of them as the last one, so that a changed digit does not go unnoticed."""
    return {**content, "crc32": zlib.crc32(json.dumps(content).encode())}


def unseal(content: Any) -> dict[str, Any]:
    """The values without the checksum; those written before there were checksums have none.

    Raises:
      ValueError: if it is no dictionary, or its checksum another one.
    """
    if not isinstance(content, dict):
        raise ValueError("not a JSON object")
    values = {name: value for name, value in content.items() if name != "crc32"}
    if "crc32" in content and content != seal(values):
        raise ValueError("its content does not match its checksum")
    return values


def text_of(lines: list[dict[str, Any]]) -> str:
    """What a file of JSON lines holds; ValueError if a number is not finite."""
    return "".join(json.dumps(seal(line), allow_nan=False) + "\n" for line in lines)


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The lines of a file of JSON lines; none if there is no file, and a last line cut off by a crash is left out.

    Raises:
      TrainingError: if any other line is damaged, or the file cannot be read.
    """
    try:
        parsed = [json.loads(line) for line in path.read_text().split("\n")[:-1]]
        lines = [unseal(line) for line in parsed]
        if len({"crc32" in line for line in parsed}) > 1:
            raise ValueError("a line without its checksum")
    except FileNotFoundError:
        return []
    except (OSError, ValueError) as error:
        raise TrainingError(f"{path}: damaged ({error})") from None
    return lines


def read_log(path: Path) -> list[dict[str, Any]]:
    """The lines of a log, as `read_lines`.

    Raises:
      TrainingError: as `read_lines`, and if a line is no measurement or their steps do not grow.
    """
    lines = read_lines(path)
    needed = {"step", "epoch", "train_seconds", "test_accuracy"}
    if not all(needed <= line.keys() for line in lines):
        raise TrainingError(f"{path}: damaged (a line that is no measurement)")
    if any(line["step"] >= following["step"] for line, following in zip(lines, lines[1:])):
        raise TrainingError(f"{path}: damaged (lines in a wrong order)")
    return lines


def append_line(path: Path, line: dict[str, Any]) -> None:
    """Append one JSON line and make sure it is on the disk.

    Raises:
      TrainingError: if it cannot be written.
    """
    try:
        with open(path, "a") as file:
            file.write(text_of([line]))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise TrainingError(f"{path}: cannot be written ({error.strerror})") from None
    except ValueError:
        raise TrainingError(f"{path}: a measurement is not finite at step {line['step']}: {line}") from None


def write_whole(path: Path, content: str | bytes) -> None:
    """Write a file beside its place and rename it, so that it is there whole or not at all."""
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        with open(partial, "wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
