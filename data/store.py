"""The four data sets as HDF5 files, made on first use and checked at every use."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

from data.backgrounds import grid, noisy
from data.scenes import MNIST_PATH, DataError, Scenes, load_mnist, multi_mnist, sprites

FORMAT_VERSION = 1
LEFT_SECONDS = 3600  # after which nobody is writing to an unfinished file any more
DEFAULT_DIRECTORY = Path(__file__).parent / "generated"

DATASETS = ("multi_mnist", "sprites", "noisy_mnist", "grid_mnist")  # the paper's
# Multi-MNIST with other scenes, which are not in the paper: side in pixels and largest count.
OTHER_SCENES = {"multi_mnist_3": (50, 3), "multi_mnist_80": (80, 4)}
# (training scenes, test scenes); the code's split of Multi-MNIST, 80/20 of 50,000 for Sprites
SIZES = {name: (40_000 if name == "sprites" else 60_000, 10_000) for name in (*DATASETS, *OTHER_SCENES)}


@dataclass(frozen=True)
class SceneFile:
    """One part ("train" or "test") of a data set file; images are read as they are needed."""

    images: h5py.Dataset  # [scenes, side, side]
    counts: np.ndarray  # [scenes] int64
    boxes: np.ndarray  # [scenes, objects, 4] float32: left, top, width, height in pixels, zero beyond the count
    white: int
    checksum: str  # of the whole file's content

    def __len__(self) -> int:
        return len(self.images)

    def read(self, start: int, stop: int) -> np.ndarray:
        """Scenes start .. stop-1 as float32 in [0, 1]."""
        return self.images[start:stop].astype(np.float32) / np.float32(self.white)


def make(dataset: str, seed: int, sizes: tuple[int, int] | None = None, mnist: Path | str = MNIST_PATH) -> dict[str, Scenes]:
    """Draw the training and test scenes of a data set.

    Noisy- and Grid-MNIST are the Multi-MNIST scenes of the same seed with a background.

    Args:
      dataset: one of `DATASETS` or `OTHER_SCENES`.
      seed: decides everything.
      sizes: numbers of training and test scenes instead of the paper's.
      mnist: the digits to use.
    """
    if dataset not in SIZES:
        raise DataError(f"expected a data set out of {', '.join(SIZES)}, found {dataset!r}")
    if seed < 0:
        raise DataError(f"expected a seed of at least 0, found {seed}")
    digits = load_mnist(mnist) if dataset != "sprites" else {}
    parts = {}
    for index, (part, size) in enumerate(zip(("train", "test"), sizes or SIZES[dataset])):
        if size < 1:
            raise DataError(f"expected at least one scene in every part, found {size}")
        rng = np.random.default_rng([seed, index])
        background_rng = np.random.default_rng([seed, index, 1])
        if dataset == "sprites":
            scenes = sprites(size, rng)
        else:
            scenes = multi_mnist(size, digits[f"x_{part}"], rng, *OTHER_SCENES.get(dataset, ()))
        if dataset == "noisy_mnist":
            scenes = noisy(scenes, background_rng)
        if dataset == "grid_mnist":
            scenes = grid(scenes, background_rng)
        parts[part] = scenes
    return parts


def _checksum(parts) -> str:
    """SHA-256 of scenes in memory or in a file, read in pieces.

    Raises:
      DataError: if shapes or types are wrong, or grey levels are not within 0 .. white.
    """
    digest = hashlib.sha256()
    for name, (images, counts, boxes, white) in parts.items():
        scenes, *sides = images.shape
        if len(sides) != 2 or sides[0] != sides[1] or images.dtype not in (np.uint8, np.float16):
            raise DataError(f"expected {name} images [n, side, side] uint8 or float16, found {images.shape} {images.dtype}")
        if counts.shape != (scenes,) or boxes.ndim != 3 or boxes.shape[::2] != (scenes, 4):
            raise DataError(
                f"expected {name} counts [{scenes}] and boxes [{scenes}, objects, 4], found {counts.shape} {boxes.shape}"
            )
        for array in (images, counts, boxes):
            digest.update(f"{name} {array.shape} {np.dtype(array.dtype).str} {white}".encode())
            for start in range(0, scenes, 4096):
                chunk = np.ascontiguousarray(array[start : start + 4096])
                if array is images and not (chunk.min() >= 0 and chunk.max() <= white):  # false for nan too
                    raise DataError(f"expected {name} grey levels in 0..{white}, found {chunk.min()}..{chunk.max()}")
                digest.update(chunk.data)
    return digest.hexdigest()


def _arguments(dataset: str, seed: int, sizes, mnist) -> dict:
    arguments = {"dataset": dataset, "seed": seed, "sizes": list(sizes or SIZES.get(dataset, ()))}
    if dataset != "sprites":
        load_mnist(mnist)  # a clear error, if it is not one
        arguments["mnist_sha256"] = hashlib.sha256(Path(mnist).read_bytes()).hexdigest()
    return arguments


@contextlib.contextmanager
def replacing(path: Path):
    """A path to write to beside `path`, which replaces `path` only once everything is written."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        for left in path.parent.glob(f"{path.name}.*.partial"):  # by a process that was killed, unless it is being written
            with contextlib.suppress(FileNotFoundError):  # another process has removed it, or given it its name
                if time.time() - left.stat().st_mtime > LEFT_SECONDS:
                    left.unlink()
        handle, name = tempfile.mkstemp(prefix=path.name + ".", suffix=".partial", dir=path.parent)
        os.close(handle)
    except OSError as error:
        raise DataError(f"{path.parent}: cannot be written to ({error.strerror})") from None
    partial = Path(name)
    try:
        yield partial
        with open(partial, "rb") as file:
            os.fsync(file.fileno())
        partial.chmod(0o644)
        os.replace(partial, path)
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error).splitlines()[0]
        raise DataError(f"{path}: cannot be written ({reason})") from None
    finally:
        partial.unlink(missing_ok=True)


def write(path: Path, parts: dict[str, Scenes], arguments: dict) -> None:
    """Write a data set file, whole or not at all.

    Raises:
      DataError: if the scenes have wrong shapes, types or values, or the file cannot be written.
    """
    checksum = _checksum(parts)
    with replacing(path) as partial, h5py.File(partial, "w") as file:
        for name, scenes in parts.items():
            for field in ("images", "counts", "boxes"):
                file[f"{name}/{field}"] = getattr(scenes, field)
            file[name].attrs["white"] = scenes.white
        file.attrs["version"] = FORMAT_VERSION
        file.attrs["seed"] = arguments["seed"]
        file.attrs["arguments"] = json.dumps(arguments, sort_keys=True)
        file.attrs["checksum"] = checksum


def read(path: Path, arguments: dict | None = None) -> dict[str, SceneFile]:
    """Open a data set file and check it: format, arguments (if given), shapes, types, values and checksum.

    Raises:
      DataError: naming the file and what is wrong with it.
    """
    fix = "" if arguments is None else "; delete it, and it will be made again"
    try:
        file = h5py.File(path, "r")
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except OSError as error:
        raise DataError(f"{path}: {_reason(error)}{fix}") from None
    try:
        if file.attrs.get("version") != FORMAT_VERSION:
            raise DataError(f"expected format version {FORMAT_VERSION}, found {file.attrs.get('version')}")
        made_with = json.loads(file.attrs["arguments"])
        for name, value in (arguments or {}).items():
            if made_with.get(name) != value:
                raise DataError(f"made with another {name}: expected {value}, found {made_with.get(name)}")
        stored = {
            name: Scenes(file[f"{name}/images"], file[f"{name}/counts"], file[f"{name}/boxes"], int(file[name].attrs["white"]))
            for name in ("train", "test")
        }
        if _checksum(stored) != file.attrs["checksum"]:
            raise DataError("its content does not match its checksum")
        return {
            name: SceneFile(
                scenes.images, scenes.counts[:].astype(np.int64), scenes.boxes[:], scenes.white, str(file.attrs["checksum"])
            )
            for name, scenes in stored.items()
        }
    except (DataError, OSError, KeyError, ValueError, TypeError, AttributeError, RuntimeError) as error:
        file.close()
        raise DataError(f"{path}: {_reason(error)}{fix}") from None


def _reason(error: Exception) -> str:
    if isinstance(error, DataError):
        return str(error)
    return f"a damaged, truncated or foreign HDF5 file ({str(error).splitlines()[0]})"


def load(
    dataset: str,
    seed: int = 0,
    directory: Path | str = DEFAULT_DIRECTORY,
    sizes: tuple[int, int] | None = None,
    mnist: Path | str = MNIST_PATH,
) -> dict[str, SceneFile]:
    """The data set from its file in `directory`, made first if it is not there.

    Returns:
      {"train": SceneFile, "test": SceneFile}.

    Raises:
      DataError: as `read` and `make`.
    """
    path = path_of(dataset, seed, directory, sizes)
    arguments = _arguments(dataset, seed, sizes, mnist)
    if not path.exists():
        write(path, make(dataset, seed, sizes, mnist), arguments)
    return read(path, arguments)


def path_of(dataset: str, seed: int, directory: Path | str, sizes: tuple[int, int] | None = None) -> Path:
    """Where `load` keeps a data set."""
    if dataset not in SIZES:
        raise DataError(f"expected a data set out of {', '.join(SIZES)}, found {dataset!r}")
    suffix = "" if sizes is None or tuple(sizes) == SIZES[dataset] else f"-{sizes[0]}-{sizes[1]}"
    return Path(directory) / f"{dataset}-seed{seed}{suffix}.h5"
