"""Data sets as HDF5 files, made on first use and checked at every use."""

from __future__ import annotations

import contextlib
import glob
import hashlib
import json
import os
import shutil
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

from data.backgrounds import grid, noisy
from data.scenes import MNIST_PATH, DataError, Scenes, check, load_mnist, multi_mnist, sprites

FORMAT_VERSION = 3
DEFAULT_DIRECTORY = Path(__file__).parent / "generated"
DATASETS = ("multi_mnist", "sprites", "noisy_mnist", "grid_mnist")  # the paper's
# Multi-MNIST with other scenes, which are not in the paper: side in pixels and largest count.
OTHER_SCENES = {"multi_mnist_3": (50, 3), "multi_mnist_80": (80, 4)}
# (training scenes, test scenes): the code's split of Multi-MNIST, 80/20 of 50,000 for Sprites
SIZES = dict.fromkeys((*DATASETS, *OTHER_SCENES), (60_000, 10_000)) | {"sprites": (40_000, 10_000)}
Sizes = tuple[int, int] | None  # numbers of training and test scenes; None for the data set's own

_CHUNK = 4096  # scenes in memory at once
_LEFT_SECONDS = 3600  # after which nobody is writing to an unfinished file any more


@dataclass(frozen=True)
class SceneFile:
    """One part ("train" or "test") of a data set file; images are read as they are needed."""

    images: h5py.Dataset  # [scenes, side, side]
    counts: np.ndarray  # [scenes] int64
    boxes: np.ndarray  # [scenes, objects, 4] float32: left, top, width, height in pixels
    white: int
    checksum: str  # SHA-256 of the images and counts of both parts

    def __len__(self) -> int:
        return len(self.images)

    def read(self, start: int, stop: int) -> np.ndarray:
        """Scenes start .. stop-1 as float32 in [0, 1]."""
        return self.images[start:stop].astype(np.float32) / np.float32(self.white)


def make(
    dataset: str, seed: int, sizes: Sizes = None, mnist: Path | str = MNIST_PATH
) -> dict[str, Scenes]:
    """Draw the scenes of a data set's parts, "train" and "test"; the seed decides everything.

    Noisy- and Grid-MNIST are the Multi-MNIST scenes of the same seed with a background.

    Raises:
      DataError: if an argument cannot be used.
    """
    sizes = _sizes(dataset, sizes)
    check(seed, sizes)
    digits = load_mnist(mnist) if dataset != "sprites" else {}
    backgrounds = {"noisy_mnist": noisy, "grid_mnist": grid}
    parts = {}
    for index, (part, size) in enumerate(zip(("train", "test"), sizes)):
        rng = np.random.default_rng([seed, index])
        if dataset == "sprites":
            scenes = sprites(size, rng)
        else:
            scenes = multi_mnist(size, digits[f"x_{part}"], rng, *OTHER_SCENES.get(dataset, ()))
        if dataset in backgrounds:
            scenes = backgrounds[dataset](scenes, np.random.default_rng([seed, index, 1]))
        parts[part] = scenes
    return parts


def load(
    dataset: str,
    seed: int = 0,
    directory: Path | str = DEFAULT_DIRECTORY,
    sizes: Sizes = None,
    mnist: Path | str = MNIST_PATH,
) -> dict[str, SceneFile]:
    """A data set's parts, "train" and "test", from its file in `directory`.

    The file is made first if it is not there, or, as is then said, if its format is another one.

    Raises:
      DataError: as `read`, `make` and `write`.
    """
    path = path_of(dataset, seed, directory, sizes)
    arguments = {"dataset": dataset, "seed": seed, "sizes": list(_sizes(dataset, sizes))}
    if dataset != "sprites":
        load_mnist(mnist)  # a clear error, if it is not one
        arguments["mnist_sha256"] = hashlib.sha256(Path(mnist).read_bytes()).hexdigest()
    if path.exists():
        try:
            return read(path, arguments)
        except _VersionError as error:
            print(f"{error}; it is made again", file=sys.stderr)
        except DataError as error:
            raise DataError(f"{error}; delete it, and it will be made again") from None
    write(path, make(dataset, seed, sizes, mnist), arguments)
    return read(path, arguments)


def path_of(dataset: str, seed: int, directory: Path | str, sizes: Sizes = None) -> Path:
    """Where `load` keeps a data set."""
    train, test = _sizes(dataset, sizes)
    suffix = "" if (train, test) == SIZES[dataset] else f"-{train}-{test}"
    return Path(directory) / f"{dataset}-seed{seed}{suffix}.h5"


def _sizes(dataset: str, sizes: Sizes) -> tuple[int, int]:
    if dataset not in SIZES:
        raise DataError(f"expected a data set out of {', '.join(SIZES)}, found {dataset!r}")
    return sizes or SIZES[dataset]


def write(path: Path, parts: dict[str, Scenes], arguments: dict) -> None:
    """Write a data set file, whole or not at all.

    Raises:
      DataError: if the scenes have wrong shapes, types or values, or the file cannot be written.
    """
    texts = {"arguments": json.dumps(arguments, sort_keys=True), **_checksums(parts)}
    with replacing(path) as partial, h5py.File(partial, "w") as file:
        for part, scenes in parts.items():
            for name in ("images", "counts", "boxes"):
                file[f"{part}/{name}"] = getattr(scenes, name)
            file[part].attrs["white"] = scenes.white
        file.attrs["version"] = FORMAT_VERSION
        for name, text in texts.items():  # of fixed length: damaged heaps of others hang HDF5
            file.attrs[name] = np.bytes_(text)


def read(path: Path, arguments: dict | None = None) -> dict[str, SceneFile]:
    """Open a data set file and check arguments (if given), version, shapes, values and checksums.

    Raises:
      DataError: naming the file and what is wrong with it.
    """
    if not path.is_file():  # but a pipe, say, that would be waited for
        raise DataError(f"{path}: no such file, or no plain one")
    try:
        return _read(path, arguments or {})
    except DataError as error:
        raise type(error)(f"{path}: {error}") from None
    except (OSError, KeyError, ValueError, TypeError, AttributeError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise DataError(f"{path}: a damaged, truncated or foreign file ({reason})") from None


class _VersionError(DataError):
    """A data set file of another format version."""


def _read(path: Path, arguments: dict) -> dict[str, SceneFile]:
    with contextlib.ExitStack() as stack:
        file = stack.enter_context(h5py.File(path, "r"))
        made_with = json.loads(file.attrs["arguments"])
        for name, value in arguments.items():
            if made_with.get(name) != value:
                raise DataError(f"made with {name} {made_with.get(name)}, expected {value}")
        if (version := int(file.attrs["version"])) != FORMAT_VERSION:
            raise _VersionError(f"format version {version}, expected {FORMAT_VERSION}")
        parts = {}
        for part in ("train", "test"):
            arrays = (_stored(file, part, name) for name in ("images", "counts", "boxes"))
            parts[part] = Scenes(*arrays, white=int(file[part].attrs["white"]))
        checksums = _checksums(parts)
        for name, checksum in checksums.items():
            if file.attrs[name] != checksum.encode():
                raise DataError(f"its content does not match its {name}")
        stack.pop_all()  # the file stays open for its images
    return {
        part: SceneFile(images, counts[:].astype(np.int64), boxes[:], white, checksums["checksum"])
        for part, (images, counts, boxes, white) in parts.items()
    }


def _stored(file: h5py.File, part: str, name: str) -> h5py.Dataset:
    """An array with all its bytes in this file: HDF5 can show other files', or none."""
    links = [file.get(path, getlink=True) for path in (part, f"{part}/{name}")]
    array = file[part][name] if {*map(type, links)} == {h5py.HardLink} else None
    if array is None or array.external or array.id.get_storage_size() != array.nbytes:
        raise DataError(f"expected {part}/{name} in this file, all of it")
    return array


def _checksums(parts: dict[str, Scenes]) -> dict[str, str]:
    """SHA-256 of images and counts, and of boxes, of scenes in memory or in a file.

    Runs are known by the first, since what they learn does not depend on the boxes.

    Raises:
      DataError: if shapes or types are wrong, or grey levels are not within 0 .. white.
    """
    digests = {"checksum": hashlib.sha256(), "boxes_checksum": hashlib.sha256()}
    for part, (images, counts, boxes, white) in parts.items():
        if images.ndim != 3 or images.shape[1] != images.shape[2]:
            raise DataError(f"expected {part} images [n, side, side], found {images.shape}")
        if images.dtype not in (np.uint8, np.float16):
            raise DataError(f"expected {part} images uint8 or float16, found {images.dtype}")
        if counts.shape != images.shape[:1]:
            raise DataError(f"expected {part} counts [{len(images)}], found {counts.shape}")
        if boxes.ndim != 3 or boxes.shape[::2] != (len(images), 4):
            raise DataError(f"expected {part} boxes [{len(images)}, n, 4], found {boxes.shape}")
        for array in (images, counts, boxes):
            digest = digests["boxes_checksum" if array is boxes else "checksum"]
            digest.update(f"{part} {array.shape} {np.dtype(array.dtype).str} {white}".encode())
            for start in range(0, len(images), _CHUNK):
                chunk = np.ascontiguousarray(array[start : start + _CHUNK])
                if array is images and not (chunk.min() >= 0 and chunk.max() <= white):  # or nan
                    found = f"{chunk.min()}..{chunk.max()}"
                    raise DataError(f"expected {part} grey levels in 0..{white}, found {found}")
                digest.update(chunk.data)
    return {name: digest.hexdigest() for name, digest in digests.items()}


@contextlib.contextmanager
def replacing(path: Path):
    """A path to write a file or folder to, which takes the place of `path` once all is written.

    Raises:
      DataError: if it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if os.path.lexists(path) and (path.is_symlink() or not path.is_file()):
            raise DataError(f"{path}: there already, and no plain file")
        for left in path.parent.glob(f"{glob.escape(path.name)}.????????.partial"):
            with contextlib.suppress(FileNotFoundError):  # by a killed process, or in use
                if time.time() - left.stat().st_mtime > _LEFT_SECONDS:
                    shutil.rmtree(left, ignore_errors=True)
        with tempfile.TemporaryDirectory(".partial", f"{path.name}.", path.parent) as folder:
            partial = Path(folder) / path.name
            yield partial
            _sync(partial)
            os.replace(partial, path)
            with contextlib.suppress(OSError):  # where folders cannot be synced
                _sync(path.parent)
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error).splitlines()[0]
        raise DataError(f"{path}: cannot be written ({reason})") from None


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    os.fsync(handle)
    os.close(handle)
