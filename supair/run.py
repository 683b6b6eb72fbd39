"""A run's folder: configuration, log and checkpoints, bound to each other by SHA-256.

config.json   everything that decides the run
log.jsonl     a row a measurement, written at the end of every epoch
checkpoints/epoch-N.safetensors   all variables by name after epoch N and, as metadata, which
              configuration and how much of the log belong to them; two are kept
tensorboard/, lock

Imports no TensorFlow.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from supair.config import Convergence, TrainingConfig, TrainingError, resolve

FORMAT_VERSION = "1"
KEPT_CHECKPOINTS = 2
WEIGHTS = "weights.safetensors"  # of a folder that holds weights alone
MODEL_PREFIX = "model/"  # of the names of a model's variables
_START_AGAIN = "delete the folder to start again"
_UNREADABLE = (OSError, ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError)


def write_whole(path: Path, content: str | bytes) -> None:
    """Write a file beside its place, sync, rename; OSError if a link, device or folder is there."""
    if os.path.lexists(path) and (path.is_symlink() or not path.is_file()):
        raise OSError(errno.EEXIST, "there already, and no plain file", str(path))
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


def read_whole(path: Path) -> bytes:
    """What a file holds; OSError if it is no plain one, as pipes and devices may have no end."""
    if path.exists() and not path.is_file():
        raise OSError(errno.EINVAL, "no plain file", str(path))
    return path.read_bytes()


def _sha256(*parts: Any) -> str:
    """Of bytes, and of what JSON can hold."""
    digest = hashlib.sha256()
    for part in parts:
        content = part if isinstance(part, bytes) else json.dumps(part, sort_keys=True).encode()
        digest.update(content)
    return digest.hexdigest()


@contextlib.contextmanager
def _own_errors(directory: Path):
    try:
        yield
    except OSError as error:
        reason = error.strerror or error
        raise TrainingError(f"{error.filename or directory}: cannot be used ({reason})") from None


def read_configuration(directory: Path | str, name: str = "config.json") -> dict[str, Any]:
    """What a run's `config.json` holds; TrainingError if it is missing or damaged."""
    path = Path(directory) / name
    try:
        if not isinstance(content := json.loads(read_whole(path)), dict):
            raise ValueError("no JSON object")
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


def _serialise(tensors: dict[str, np.ndarray], configuration: dict, **metadata: str) -> bytes:
    metadata |= {"version": FORMAT_VERSION, "configuration_sha256": _sha256(configuration)}
    return save(tensors, {**metadata, "sha256": _checksum(tensors, metadata)})


def _checksum(tensors: dict[str, np.ndarray], metadata: dict[str, str]) -> str:
    arrays = sorted(tensors.items())
    shapes = [[name, list(array.shape), str(array.dtype)] for name, array in arrays]
    return _sha256(metadata, shapes, *(array.tobytes() for _, array in arrays))


def _parse(path: Path, configuration: dict, with_tensors: bool = True) -> tuple[dict, dict]:
    """Metadata and named tensors of a file; ValueError if it is damaged, or of another run."""
    if path.exists() and not path.is_file():
        raise ValueError("no plain file")
    try:
        with safe_open(path, "numpy") as file:
            names, metadata = file.keys() if with_tensors else (), file.metadata()
            tensors = {name: file.get_tensor(name) for name in names}
    except SafetensorError as error:
        raise ValueError(str(error)) from None
    if metadata["version"] != FORMAT_VERSION:
        raise ValueError(f"expected format version {FORMAT_VERSION}, found {metadata['version']}")
    checksum = metadata.pop("sha256")
    if with_tensors and checksum != _checksum(tensors, metadata):
        raise ValueError("its content does not match its checksum")
    if metadata["configuration_sha256"] != _sha256(configuration):
        raise ValueError("it belongs to another config.json")
    return metadata, tensors


def _checkpoints(directory: Path) -> list[Path]:
    """The newest first."""
    folder = directory / "checkpoints"
    names = os.listdir(folder) if folder.is_dir() else []
    names = [name for name in names if re.fullmatch(r"epoch-\d+\.safetensors", name)]
    return [folder / name for name in sorted(names, key=lambda n: (len(n), n), reverse=True)]


def _newest(directory: Path, with_tensors: bool) -> tuple[Path, dict, bytes, list]:
    """The newest whole checkpoint, its variables, the log up to there, its rows; none at first."""
    configuration, log_path = read_configuration(directory), directory / "log.jsonl"
    with _own_errors(directory):
        log = read_whole(log_path) if log_path.exists() else b""
        checkpoints = _checkpoints(directory)
    failures = []
    for path in checkpoints:
        try:
            metadata, tensors = _parse(path, configuration, with_tensors)
            known = log[: int(metadata["log_length"])]
            if metadata["log_sha256"] != _sha256(known):
                raise ValueError(f"it belongs to another log than {log_path.name}")
            rows = [json.loads(line) for line in known.splitlines()]
            if path.name != _file_name(rows[-1]):
                raise ValueError("it is of another epoch than its name says")
        except _UNREADABLE as error:
            failures.append(f"{path}: cannot be used ({error})")
            continue
        for failure in failures:
            print(f"warning: {failure}; {path.name} is used instead", file=sys.stderr)
        return path, tensors, known, rows
    if failures:
        raise TrainingError(f"{'; '.join(failures)}; {_START_AGAIN}")
    if log.count(b'"elbo":') > 1:  # the first epoch may have been cut
        raise TrainingError(f"{directory / 'checkpoints'}: no checkpoint there; {_START_AGAIN}")
    return directory, {}, b"", []


def _file_name(row: dict[str, Any]) -> str:
    return f"epoch-{round(row['epoch']):05d}.safetensors"


def read_rows(directory: Path | str, with_tensors: bool = False) -> list[dict[str, Any]]:
    """The rows of a run's log up to its newest checkpoint; none if there is no run.

    Whether the checkpoint's variables are whole, too, is checked only `with_tensors`.

    Raises:
      TrainingError: if log, checkpoints and configuration do not belong together.
    """
    directory = Path(directory)
    if not (directory / "config.json").exists():
        return []
    return _newest(directory, with_tensors)[-1]


def is_finished(rows: list[dict[str, Any]], epochs: int, convergence: Convergence | None) -> bool:
    """Whether a run whose log has these rows has nothing left to do."""
    elbos = [row["elbo"] for row in rows if "elbo" in row]
    if convergence is None:
        return len(elbos) >= epochs
    return convergence.last_epoch(elbos, epochs) is not None


@contextlib.contextmanager
def locked(path: Path, name: str = "", timeout: float = 0.0):
    """Keep other processes from a folder, by a file in it if it is named; copies are not locked."""
    handle = os.open(path / name, os.O_RDWR | os.O_CREAT if name else os.O_RDONLY, 0o666)
    end = time.monotonic() + timeout
    try:
        while True:
            try:
                import fcntl

                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except (BlockingIOError, PermissionError):
                if time.monotonic() >= end:
                    raise TrainingError(f"{path}: in use by another process") from None
                time.sleep(0.1)
            except (ImportError, OSError) as error:  # Windows, or a file system without locks
                told = f"cannot be locked ({error}); see to it that no other process writes there"
                print(f"warning: {path}: {told}", file=sys.stderr)
                break
        yield
    finally:
        os.close(handle)


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
        self._lock, self._lock_timeout = contextlib.ExitStack(), lock_timeout
        self.rows: list[dict[str, Any]] = []
        self._log = b""

    def __enter__(self) -> RunFolder:
        path = self.directory / "config.json"
        with self._lock, _own_errors(self.directory):
            self.directory.mkdir(parents=True, exist_ok=True)
            self._lock.enter_context(locked(self.directory, "lock", self._lock_timeout))
            if not path.exists():
                if {"log.jsonl", "checkpoints"} & {*os.listdir(self.directory)}:
                    raise TrainingError(f"{path}: missing beside a log; choose another folder")
                write_whole(path, json.dumps(self._configuration, indent=2) + "\n")
            require_configuration(self.directory, self._configuration)
            self._lock = self._lock.pop_all()  # kept beyond this block, unless it fails
        return self

    def __exit__(self, *exception: object) -> None:
        self._lock.close()

    def restore(self) -> dict[str, np.ndarray]:
        """The newest whole checkpoint's variables, none at first."""
        _, tensors, self._log, self.rows = _newest(self.directory, with_tensors=True)
        with _own_errors(self.directory):
            for left in self.directory.rglob(".[cle]*.*.*.partial"):  # by a killed process
                left.unlink()
        return tensors

    def save(self, rows: list[dict[str, Any]], tensors: dict[str, np.ndarray]) -> None:
        """Add an epoch's rows to the log, and write the checkpoint that knows them."""
        lines = (json.dumps(row, allow_nan=False) + "\n" for row in rows)
        log = self._log + "".join(lines).encode()
        of_log = {"log_length": str(len(log)), "log_sha256": _sha256(log)}
        checkpoint = _serialise(tensors, self._configuration, **of_log)
        with _own_errors(self.directory):
            (self.directory / "checkpoints").mkdir(exist_ok=True)
            write_whole(self.directory / "log.jsonl", log)
            write_whole(self.directory / "checkpoints" / _file_name(rows[-1]), checkpoint)
            for old in _checkpoints(self.directory)[KEPT_CHECKPOINTS:]:
                old.unlink()
        self.rows, self._log = self.rows + rows, log


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
            tensors = _parse(path, configuration)[1]
        else:
            path, tensors, *_ = _newest(Path(directory), with_tensors=True)
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
        good = found == expected and np.can_cast(tensors[name].dtype, variables[name].dtype)
        if not good or not np.all(np.isfinite(tensors[name])):
            reason = f"{name}: expected finite numbers {expected}, found {found}"
            raise TrainingError(f"{path}: another model's, or damaged ({reason})")
    for name, variable in variables.items():
        variable.assign(tensors[name])


def write_weights(model: Any, directory: Path, configuration: dict[str, Any]) -> None:
    """Write a model's weights, in half precision, and the configuration that belongs to them."""
    halves = {MODEL_PREFIX + v.path: np.asarray(v, np.float16) for v in model.variables}
    directory.mkdir(parents=True, exist_ok=True)
    write_whole(directory / "config.json", json.dumps(configuration, indent=2) + "\n")
    write_whole(directory / WEIGHTS, _serialise(halves, configuration))
