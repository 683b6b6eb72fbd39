"""A run's folder: configuration, log and checkpoints, bound to each other by SHA-256.

config.json   everything that decides the run
log.jsonl     a row a measurement, appended to at the end of every epoch
checkpoints/epoch-N.safetensors   all variables by name after epoch N and, as metadata, which
              configuration and how much of the log belong to them; two are kept
tensorboard/, lock

Imports no TensorFlow.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import sys
from pathlib import Path
from typing import Any

import filelock
import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from supair.config import Convergence, TrainingConfig, TrainingError, resolve

FORMAT_VERSION = "1"
KEPT_CHECKPOINTS = 2
WEIGHTS = "weights.safetensors"  # of a folder that holds weights alone
MODEL_PREFIX = "model/"  # of the names of a model's variables
_START_AGAIN = "delete the folder to start again"
_UNREADABLE = (OSError, ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError)


def write_whole(path: Path, content: str | bytes) -> None:
    """Write a file beside its place, and rename it once it is on the disk."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with open(partial, "wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
        with contextlib.suppress(OSError):  # so that the name lasts, where folders can be synced
            folder = os.open(path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
    finally:
        partial.unlink(missing_ok=True)


def _sha256(*parts: Any) -> str:
    """Of bytes, and of what JSON can hold."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(
            part if isinstance(part, bytes) else json.dumps(part, sort_keys=True).encode()
        )
    return digest.hexdigest()


def read_configuration(directory: Path | str) -> dict[str, Any]:
    """What a run's `config.json` holds; TrainingError if it is missing or damaged."""
    path = Path(directory) / "config.json"
    try:
        if not isinstance(content := json.loads(path.read_bytes()), dict):
            raise ValueError("no JSON object")
    except FileNotFoundError:
        raise TrainingError(f"{path}: no such file; expected a run's folder") from None
    except OSError as error:
        raise TrainingError(f"{path}: cannot be read ({error.strerror})") from None
    except _UNREADABLE as error:
        raise TrainingError(f"{path}: damaged ({error}); {_START_AGAIN}") from None
    return content


def require_configuration(directory: Path | str, expected: dict[str, Any]) -> None:
    """Refuse another run's folder with a TrainingError that names the first difference."""
    if different := _difference(read_configuration(directory), expected):
        path, remedy = Path(directory) / "config.json", "choose another folder or delete this one"
        raise TrainingError(f"{path}: another run's ({different}); {remedy}")


def _difference(found: Any, expected: Any, name: str = "") -> str:
    if isinstance(found, dict) and isinstance(expected, dict):
        keys = sorted(found.keys() | expected.keys())
        inner = (_difference(found.get(k), expected.get(k), f"{name}.{k}".strip(".")) for k in keys)
        return next(filter(None, inner), "")
    return "" if found == expected else f"{name}: expected {expected}, found {found}"


def _serialise(tensors: dict[str, np.ndarray], **metadata: str) -> bytes:
    metadata = {"version": FORMAT_VERSION, **metadata}
    return save(tensors, {**metadata, "sha256": _checksum(tensors, metadata)})


def _checksum(tensors: dict[str, np.ndarray], metadata: dict[str, str]) -> str:
    arrays = sorted(tensors.items())
    shapes = [[name, list(array.shape), str(array.dtype)] for name, array in arrays]
    return _sha256(metadata, shapes, *(array.tobytes() for _, array in arrays))


def _parse(path: Path, with_tensors: bool = True) -> tuple[dict[str, str], dict[str, np.ndarray]]:
    """Metadata and named tensors of a file; ValueError if it is damaged."""
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if not 0 < length < os.path.getsize(path):
            raise ValueError("no header")
        metadata = json.loads(file.read(length))["__metadata__"]
        file.seek(0)
        try:
            tensors = load(file.read()) if with_tensors else {}
        except SafetensorError as error:
            raise ValueError(str(error)) from None
    if metadata["version"] != FORMAT_VERSION:
        raise ValueError(f"expected format version {FORMAT_VERSION}, found {metadata['version']}")
    checksum = metadata.pop("sha256")
    if with_tensors and checksum != _checksum(tensors, metadata):
        raise ValueError("its content does not match its checksum")
    return metadata, tensors


def _checkpoints(directory: Path) -> list[Path]:
    """The newest first."""
    folder = directory / "checkpoints"
    names = os.listdir(folder) if folder.is_dir() else []
    names = [name for name in names if re.fullmatch(r"epoch-\d+\.safetensors", name)]
    return [folder / name for name in sorted(names, key=lambda n: (len(n), n), reverse=True)]


def _newest(directory: Path, with_tensors: bool) -> tuple[Path, dict[str, np.ndarray], bytes]:
    """The newest whole checkpoint and its variables, and the log up to there; none at first."""
    configuration, log_path = _sha256(read_configuration(directory)), directory / "log.jsonl"
    log = log_path.read_bytes() if log_path.exists() else b""
    failures = []
    for path in _checkpoints(directory):
        try:
            metadata, tensors = _parse(path, with_tensors)
            if metadata["configuration_sha256"] != configuration:
                raise ValueError("it belongs to another config.json")
            known = log[: int(metadata["log_length"])]
            if metadata["log_sha256"] != _sha256(known):
                raise ValueError(f"it belongs to another log than {log_path.name}")
            if path.name != _file_name(json.loads(known.splitlines()[-1])):
                raise ValueError("it is of another epoch than its name says")
        except _UNREADABLE as error:
            failures.append(f"{path}: cannot be used ({error})")
            continue
        for failure in failures:
            print(f"warning: {failure}; {path.name} is used instead", file=sys.stderr)
        return path, tensors, known
    if failures:
        raise TrainingError(f"{'; '.join(failures)}; {_START_AGAIN}")
    if any(row["epoch"] > 1 for row in _rows(log, log_path)):  # the first epoch may have been cut
        raise TrainingError(f"{directory / 'checkpoints'}: no checkpoint there; {_START_AGAIN}")
    return directory, {}, b""


def _file_name(row: dict[str, Any]) -> str:
    return f"epoch-{round(row['epoch']):05d}.safetensors"


def _rows(log: bytes, path: Path) -> list[dict[str, Any]]:
    """The rows of a log; a last line without its end is left out."""
    try:
        rows = [json.loads(line) for line in log.split(b"\n")[:-1]]
        if not all({"step", "epoch", "train_seconds", "accuracy"} <= row.keys() for row in rows):
            raise ValueError("a row that is no measurement")
    except _UNREADABLE as error:
        raise TrainingError(f"{path}: damaged ({error}); {_START_AGAIN}") from None
    return rows


def read_rows(directory: Path | str, with_tensors: bool = False) -> list[dict[str, Any]]:
    """The rows of a run's log up to its newest checkpoint; none if there is no run.

    Whether the checkpoint's variables are whole, too, is checked only `with_tensors`.

    Raises:
      TrainingError: if log, checkpoints and configuration do not belong together.
    """
    directory = Path(directory)
    if not (directory / "config.json").exists():
        return []
    return _rows(_newest(directory, with_tensors)[2], directory / "log.jsonl")


def is_finished(rows: list[dict[str, Any]], epochs: int, convergence: Convergence | None) -> bool:
    """Whether a run whose log has these rows has nothing left to do."""
    elbos = [row["elbo"] for row in rows if "elbo" in row]
    if convergence is None:
        return len(elbos) >= epochs
    return convergence.last_epoch(elbos, epochs) is not None


class RunFolder:
    """A run's folder, locked while it is open, in a `with` statement; `rows` are its log's.

    Args:
      directory: made if it is not there.
      configuration: as `config.resolve` gives it; a folder of another one is refused.
      lock_timeout: seconds to wait for another process that has the folder.

    Raises:
      TrainingError: if it is another run's, in use, damaged, or cannot be written to.
    """

    def __init__(self, directory: Path | str, configuration: dict, lock_timeout: float = 0.0):
        self.directory, self._configuration = Path(directory), configuration
        self._lock = filelock.FileLock(self.directory / "lock", timeout=lock_timeout)
        self.rows: list[dict[str, Any]] = []

    def __enter__(self) -> RunFolder:
        path = self.directory / "config.json"
        with self._own_errors():
            self.directory.mkdir(parents=True, exist_ok=True)
            try:
                self._lock.acquire()
            except filelock.Timeout:
                raise TrainingError(f"{self.directory}: in use by another process") from None
            if not path.exists():
                write_whole(path, json.dumps(self._configuration, indent=2) + "\n")
        try:
            require_configuration(self.directory, self._configuration)
        except TrainingError:
            self._lock.release()
            raise
        return self

    def __exit__(self, *exception: object) -> None:
        self._lock.release()

    def restore(self) -> dict[str, np.ndarray]:
        """The newest whole checkpoint's variables, none at first; rows it does not know are cut."""
        _, tensors, log = _newest(self.directory, with_tensors=True)
        path = self.directory / "log.jsonl"
        with self._own_errors():
            for left in self.directory.rglob(".*.partial"):  # by a process that was killed
                left.unlink()
            if path.exists() and path.read_bytes() != log:
                write_whole(path, log)
        self.rows = _rows(log, path)
        return tensors

    def save(self, rows: list[dict[str, Any]], tensors: dict[str, np.ndarray]) -> None:
        """Append an epoch's rows to the log, and write the checkpoint that knows them."""
        log = self.directory / "log.jsonl"
        with self._own_errors():
            with open(log, "a", encoding="utf-8") as file:
                file.writelines(json.dumps(row, allow_nan=False) + "\n" for row in rows)
                file.flush()
                os.fsync(file.fileno())
            content = log.read_bytes()
            checkpoint = _serialise(
                tensors,
                configuration_sha256=_sha256(self._configuration),
                log_length=str(len(content)),
                log_sha256=_sha256(content),
            )
            (self.directory / "checkpoints").mkdir(exist_ok=True)
            write_whole(self.directory / "checkpoints" / _file_name(rows[-1]), checkpoint)
            for old in _checkpoints(self.directory)[KEPT_CHECKPOINTS:]:
                old.unlink()
        self.rows += rows

    @contextlib.contextmanager
    def _own_errors(self):
        try:
            yield
        except OSError as error:
            reason = error.strerror or error
            raise TrainingError(f"{self.directory}: cannot be used ({reason})") from None


def load_weights(model: Any, directory: Path | str) -> None:
    """Give a model the weights of a run's newest checkpoint, or of a folder of weights alone.

    Raises:
      TrainingError: if there are none, or they are damaged or another model's.
    """
    path = Path(directory) / "config.json"
    try:
        configuration = read_configuration(directory)
        training = TrainingConfig(configuration["training"]["seed"])
        if model.seed != training.seed:  # which variables a leaf region has depends on it
            raise ValueError(f"a model of seed {training.seed}, not {model.seed}")
        expected = resolve(type(model).__name__, model.config, training, {})["model"]
        if different := _difference(configuration["model"], expected, "model"):
            raise ValueError(different)
        path = Path(directory) / WEIGHTS
        if path.exists():
            tensors = _parse(path)[1]
        else:
            path, tensors, _ = _newest(Path(directory), with_tensors=True)
    except _UNREADABLE as error:
        raise TrainingError(f"{path}: another model's, or damaged ({error})") from None
    if not tensors:
        raise TrainingError(f"{directory}: no checkpoint and no {WEIGHTS} here")
    tensors = {name: array for name, array in tensors.items() if name.startswith(MODEL_PREFIX)}
    assign({MODEL_PREFIX + variable.path: variable for variable in model.variables}, tensors, path)


def assign(variables: dict[str, Any], tensors: dict[str, np.ndarray], path: Path) -> None:
    """Give variables their values by name, all of them or, with a TrainingError, none."""
    for name in sorted(variables.keys() | tensors.keys()):
        expected = tuple(variables[name].shape) if name in variables else "no such variable"
        found = tensors[name].shape if name in tensors else "none"
        if found != expected or not np.all(np.isfinite(tensors[name])):
            reason = f"{name}: expected finite numbers {expected}, found {found}"
            raise TrainingError(f"{path}: another model's, or damaged ({reason})")
    for name, variable in variables.items():
        variable.assign(tensors[name])


def write_weights(model: Any, path: Path) -> None:
    """Write a model's weights in half precision, whole or not at all."""
    halves = {MODEL_PREFIX + v.path: np.asarray(v, np.float16) for v in model.variables}
    write_whole(path, _serialise(halves))
