"""Images of one's own: read from files when they are needed, and made into a model's scenes."""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import json
import math
import os
import sys
import warnings
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
import scipy
from PIL import Image, ImageOps
from tqdm import tqdm

from supair.config import ConfigError, require
from supair.detect.tiles import FITS, Window, cut_tiles, resize, sample

_PICTURES = ".png .jpg .jpeg .tif .tiff .bmp .webp".split()
_ARRAYS = ".npy .npz .h5 .hdf5".split()
_IMAGES = ("images", "image", "x", "data", "arr_0", "pictures", "frames")  # usual names in files
_COUNTS = ("counts", "count", "num_actual_objects", "num_objects", "n_objects")
_MOST_PIXELS = 2 * 89_478_485  # of a picture, as Pillow has it
_MOST_COLOURED = 5 * 10**7  # pixels of a picture that keeps its colours: these take much memory
_MOST_GROWTH = 250  # of an array of more than a gigabyte, by decompression
_BLOCK = 2**25  # bytes of an array that are read at once
_WHITE = {"uint8": 255, "uint16": 65535}  # of other types it is 1
_GREY = np.array([0.299, 0.587, 0.114], np.float32)
_SAMPLE, _PIECE = 2000, 100  # pieces that grey levels are measured on, and their side in pixels
_CLEARLY = 0.15  # how far levels differ from the training's if they are measured anew
_APART = 0.65  # and an image's from those of all if it gets its own; see `Levels.differ`
_MANY = 0.05  # share of such images if training gives them their own
LEVELS = "auto", "trained", "picture"  # see `Preparation.adapted`
_EMPTY = 0.05  # of the contrast; a scene whose smoothed levels span no more has nothing in it


class Images(NamedTuple):
    names: list[str]  # of the files, with #page where a file has several, or numbers
    # Each [height, width] or [height, width, 3], uint8, uint16 or floating point, see `luminance`.
    # Those in files are read when they are asked for: go through them once, in order.
    pictures: Sequence[np.ndarray] | np.ndarray
    counts: np.ndarray | None = None  # [images] true numbers of objects, where they are known
    boxes: list[np.ndarray] | None = None  # of every image [objects, 4], likewise


def read_images(path: Path, array: str | None = None, counts: str | None = None) -> Images:
    """Open a folder of pictures (in the order of their names), a picture, or an array of a file.

    Photographs are turned as their EXIF data say, what is transparent is laid on black or white,
    whichever shows it, and colours of 16 bits are read as of 8.  A folder may hold true counts in
    `counts.csv` (image, count), and boxes in `boxes.csv` (image, left, top, width, height) or as
    COCO's JSON.  `array` is the images' name there, [n, height, width(, 1 or 3)] of any numbers,
    and `counts` that of [n] or [n, 1] whole ones; by default usual names, or the only array's.
    Errors in files are ConfigErrors, some of them when a picture is asked for.
    """
    if path.is_dir() or path.suffix.lower() in _PICTURES:
        require(array is counts is None, f"--array, --counts for arrays alone, not {path}", "one")
        return _open_folder(path) if path.is_dir() else _open_pictures([path])
    with _errors_of(path):
        require(path.is_file(), "a folder or a file", "neither")
        return _open_arrays(path, array, counts)


@contextlib.contextmanager
def _errors_of(path: Path):
    """Errors in one line that begins with the file's name."""
    try:
        yield
    except Exception as error:  # damaged files make h5py, zipfile, Pillow and others raise any
        reason = error if type(error) is ConfigError else f"cannot be read ({error!r:.150})"
        raise ConfigError(f"{os.fsencode(path).decode(errors='replace')}: {reason}") from None


class _Pictures(Sequence):
    """Pictures that are read when they are asked for, `rows` at once; the last are held."""

    def __init__(self, size: int, rows: int, read: Callable[[int, int], Sequence[np.ndarray]]):
        self._size, self._rows, self._read, self._first, self._held = size, rows, read, 0, []

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, number):
        if not 0 <= number < self._size:
            raise IndexError(number)
        if not 0 <= number - self._first < len(self._held):
            self._first, self._held = number - number % self._rows, []
            self._held = self._read(self._first, min(self._first + self._rows, self._size))
        return self._held[number - self._first]


class _Array(NamedTuple):
    shape: tuple[int, ...]
    dtype: np.dtype
    stored: int  # bytes that it takes in the file
    read: Callable[[int, int], np.ndarray]  # rows from .. to


def _list_arrays(path: Path) -> dict[str, _Array]:
    kind, arrays = path.suffix.lower(), {}
    require(kind in _ARRAYS, f"a folder, or a file of {' '.join(_PICTURES + _ARRAYS)}", kind)
    if kind == ".npy":
        return {"images": _npy_array(open(path, "rb"), path.stat().st_size)}
    if kind == ".npz":
        archive = zipfile.ZipFile(path)
        for member in archive.infolist():
            array = _npy_array(archive.open(member), member.compress_size)
            arrays[member.filename.removesuffix(".npy")] = array
        return arrays

    def add(name: str, item: h5py.Group | h5py.Dataset) -> None:  # not called for links to files
        if isinstance(item, h5py.Dataset) and item.shape:
            outside = item.is_virtual or item.external  # may be any file of the system's
            require(not outside, f"{name} in the file itself", "external or virtual storage")
            stored = item.id.get_storage_size()
            arrays[name] = _Array(item.shape, item.dtype, stored, lambda *rows: item[slice(*rows)])

    h5py.File(path).visititems(add)
    return arrays


def _npy_array(file, stored: int) -> _Array:
    """Of an open .npy file, or a member of an .npz file."""
    read_header = "read_array_header_{}_{}".format(*np.lib.format.read_magic(file))
    shape, by_column, dtype = getattr(np.lib.format, read_header)(file)
    start, row = file.tell(), dtype.itemsize * math.prod(shape[1:])

    def read(first: int, last: int) -> np.ndarray:
        require(not by_column, "images one after the other (C order)", "Fortran's order")
        file.seek(start + first * row)
        content = np.frombuffer(file.read((last - first) * row), dtype)
        return content.reshape(last - first, *shape[1:])

    return _Array(shape, dtype, stored, read)


def _open_arrays(path: Path, name: str | None, counts_name: str | None) -> Images:
    arrays = _list_arrays(path)
    found = ", ".join(f"{key} {list(a.shape)} {a.dtype}" for key, a in arrays.items()) or "nothing"
    good = [k for k, a in arrays.items() if a.shape[2:] > (3,) and a.shape[3:] in ((), (1,), (3,))]
    require(bool(good), "images [n, height, width(, 1 or 3)], or one [1, ...]", found)
    if name is None:
        usual = [key for usual in _IMAGES for key in good if key.lower() == usual]
        require(bool(usual) or len(good) == 1, "the images' name as --array", found)
        name = (usual or good)[0]
    require(name in good, f"--array {name} [n, height, width(, 1 or 3)] in the file", found)
    beside = f"{name.rpartition('/')[0]}/".lstrip("/")  # in the same group
    names = [beside + usual for usual in _COUNTS] if counts_name is None else [counts_name]
    size = arrays[name].shape[0]
    known = [key for key in names if key in arrays and arrays[key].shape][:1]
    require(bool(known) or counts_name is None, f"--counts {counts_name} in the file", found)
    for key in (name, *known):
        shape, dtype, stored, _ = arrays[key]
        require(dtype.kind in "buif", f"{key} of numbers", dtype)
        claimed = math.prod(shape) * dtype.itemsize
        claim = f"{shape} {dtype} in {stored} bytes"
        require(0 < claimed <= max(2**30, _MOST_GROWTH * stored), f"{key} with its content", claim)
        require(math.prod(shape[1:3]) <= _MOST_PIXELS, f"{key} of fewer pixels", shape)
    counts = [_as_counts(arrays[key].read(0, arrays[key].shape[0]), size, key) for key in known]

    def read(first: int, last: int) -> np.ndarray:
        with _errors_of(path):
            pictures = as_picture(arrays[name].read(first, last), f"{name} from {first} on")
            return pictures[..., 0] if pictures.shape[3:] == (1,) else pictures

    rows = _BLOCK // (arrays[name].dtype.itemsize * math.prod(arrays[name].shape[1:]))
    return Images([*map(str, range(size))], _Pictures(size, max(1, rows), read), *counts)


def _as_counts(values: np.ndarray, size: int, name: str) -> np.ndarray:
    require(values.shape in ((size,), (size, 1)), f"{name} [{size}] or [{size}, 1]", values.shape)
    values = values.reshape(size)
    good = (values >= 0) & (values < 10**5) & (values == np.floor(values))  # false for nan
    require(bool(good.all()), f"{name} of whole numbers from 0 to 99999", values[~good][:3])
    return values.astype(np.int64)


def as_picture(array: np.ndarray, name: str) -> np.ndarray:
    """Numbers as uint8, uint16 or float32; ConfigError if they are none, or not finite."""
    require(array.dtype.kind in "buif" and array.size, f"{name} of numbers", array.dtype)
    if array.dtype.kind == "b":
        return np.uint8(255) * array
    if array.dtype.kind == "u" and array.dtype.itemsize <= 2:
        return array.astype(f"u{array.dtype.itemsize}", copy=False)
    array = array.astype(np.float32, copy=False)
    low, high = array.min(), array.max()  # nan if there is one
    require(bool(np.isfinite(high - low)), f"{name} of finite numbers", f"{low} to {high}")
    return array


def _open_pictures(paths: list[Path]) -> Images:
    """Files of pictures; how each begins is looked at now."""
    pages, held = [], {}
    for path in paths:
        frames = _read_file(path, {}, lambda x: x.format == "MPO" or getattr(x, "n_frames", 1))
        of_page = ["" if frames == 1 else f"#{page}" for page in range(frames)]
        pages += [(path, page, f"{path.name}{end}") for page, end in enumerate(of_page)]

    def read(number: int, _: int) -> list[np.ndarray]:
        path, page, _ = pages[number]
        return [_read_file(path, held, lambda image: _pixels(image, page))]

    return Images([name for *_, name in pages], _Pictures(len(pages), 1, read))


def _read_file(path: Path, held: dict[Path, Image.Image], function: Callable[[Image.Image], Any]):
    """Of the image, held if it has pages: one is soon found from the one before."""
    with _errors_of(path), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of large pictures, and of odd data beside them
        path.name.encode()  # names that are not UTF-8 cannot be written to the results
        require(path.is_file(), "a file", "none")
        image = held.pop(path, None) or Image.open(path)
        held.clear()
        held.update({path: image} if getattr(image, "n_frames", 1) > 1 else {})
        return function(image)


def _pixels(image: Image.Image, page: int) -> np.ndarray:
    image.seek(page)
    size, as_of_32 = math.prod(image.size), image.mode == "I" and image.format == "PNG"
    require(size <= _MOST_PIXELS, f"at most {_MOST_PIXELS} pixels", image.size)
    tags = getattr(image, "tag_v2", {})  # two kinds that Pillow takes for others
    odd = 2 in tags.get(339, ()) and image.mode == "L" or tags.get(284) == 2 and max(tags[258]) > 8
    require(not odd, "8 or 16 bits without a sign, colours of 16 in one plane", "another TIFF")
    image = ImageOps.exif_transpose(image)
    if image.mode[0] in "IF":  # a PNG's 16 bits come as 32 from older versions of Pillow
        return as_picture(np.asarray(image, np.uint16 if as_of_32 else None), "levels")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        small = image.reduce(-(-max(image.size) // 1000))
        levels = np.asarray(small.convert("L"), np.float32) - 127.5
        bright = np.vdot(levels, np.asarray(small.getchannel("A"), np.float32)) > 0  # what shows
        image, top = Image.new("RGBA", image.size, "black" if bright else "white"), image
        image.alpha_composite(top)
    mode = "L" if image.mode in ("1", "L") or size > _MOST_COLOURED else "RGB"
    return np.asarray(image if image.mode == mode else image.convert(mode))


def _open_folder(folder: Path) -> Images:
    """A folder's pictures, counts and boxes; what else is in it is named on the screen."""
    there = [path for path in sorted(folder.iterdir()) if not path.name.startswith(".")]
    pictures = [path for path in there if path.suffix.lower() in _PICTURES and path.is_file()]
    with _errors_of(folder):
        require(bool(pictures), f"pictures {_PICTURES}", f"{len(there)} other files")
    images, labels, others = _open_pictures(pictures), {}, []
    for path in sorted({*there} - {*pictures}):
        with _errors_of(path):
            found = _read_labels(path, images.names) if path.is_file() else {}
            require(not found.keys() & labels.keys(), "one file of counts and one of boxes", "two")
        labels.update(found)
        others += [] if found else [os.fsencode(path.name).decode(errors="replace")]
    if others:
        more = f" and {len(others) - 5} more" * (len(others) > 5)
        print(f"{folder}: not read: {', '.join(others[:5])}{more}", file=sys.stderr)
    if "boxes" in labels:
        numbers = np.array([len(boxes) for boxes in labels["boxes"]])
        wrong = np.flatnonzero(labels.setdefault("counts", numbers) != numbers)
        names = [images.names[number] for number in wrong[:3]]
        require(not names, f"in {folder} as many boxes as counts.csv says", f"not so: {names}")
    return images._replace(**labels)


def _read_labels(path: Path, names: list[str]) -> dict[str, Any]:
    """Counts or boxes of a file as `detect` writes them, or boxes of COCO's JSON; else nothing."""
    columns = ["count"] if path.name == "counts.csv" else ["left", "top", "width", "height"]
    rows: list[tuple[str, list]] = []
    if path.name in ("counts.csv", "boxes.csv"):
        with open(path, newline="", encoding="utf-8-sig") as file:
            table = csv.DictReader(file)
            good = {"image", *columns} <= {*(table.fieldnames or ())}
            require(good, f"columns image, {', '.join(columns)}", table.fieldnames)
            for row in table:
                name = row["image"].removeprefix("'" * (row["image"] not in names))  # a formula's
                rows.append((name, [row[column] for column in columns]))
    else:
        content = None
        with contextlib.suppress(ValueError, RecursionError):  # one of lines of JSON, say
            content = json.loads(path.read_bytes()) if path.suffix == ".json" else None
        if not isinstance(content, dict) or not {"images", "annotations"} <= content.keys():
            return {}
        name_of = {image["id"]: Path(image["file_name"]).name for image in content["images"]}
        whole = {*names} <= {*name_of.values()} and len({*name_of.values()}) == len(name_of)
        require(whole, "all the folder's images, each once", [*name_of.values()][:3])
        found = [one for one in content["annotations"] if not one.get("iscrowd")]
        rows = [(name_of[one["image_id"]], one["bbox"]) for one in found]
    of_image: dict[str, list] = {name: [] for name in names}
    for name, values in rows:
        require(name in of_image, "an image of the folder's", name)
        numbers = np.array(values, float)
        good = numbers.shape == (len(columns),) and np.isfinite(numbers).all()
        require(bool(good and np.all(numbers[2:] > 0)), f"{', '.join(columns)} of {name}", values)
        of_image[name].append(numbers)
    if columns != ["count"]:
        return {"boxes": [np.array(of_image[name]).reshape(-1, 4) for name in names]}
    wrong = [name for name in names if len(of_image[name]) != 1]
    require(not wrong, "a line for every image", f"none or several for {', '.join(wrong[:3])}")
    return {"counts": _as_counts(np.array([*of_image.values()])[..., 0], len(names), "counts")}


def as_levels(picture: np.ndarray) -> np.ndarray:
    """A picture as float32, in [0, 1] if it is of integers."""
    return picture.astype(np.float32) / np.float32(_WHITE.get(picture.dtype.name, 1))


def luminance(picture: np.ndarray) -> np.ndarray:
    """Grey levels [height, width] of a picture, float32."""
    return as_levels(picture) @ _GREY if picture.ndim == 3 else as_levels(picture)


def level_step(picture: np.ndarray) -> float:
    """Between two grey levels of a picture as it was read."""
    return 1 / _WHITE.get(picture.dtype.name, math.inf)


class Levels(NamedTuple):
    """Grey levels that become 0 and 1; what is beyond is cut off."""

    black: float = 0.0
    white: float = 1.0
    inverted: bool = False  # whether black and white are exchanged

    def differ(self, other: Levels, tolerance: float) -> bool:
        """Whether objects differ by more than this share of the other's contrast, or grounds by
        half of it."""
        apart = np.abs(np.subtract(self[:2], other[:2])) / (other.white - other.black)
        weights = (1, 2) if other.inverted else (2, 1)
        return self.inverted != other.inverted or max(apart * weights) > tolerance

    def stretch(self, levels: np.ndarray) -> np.ndarray:
        stretched = np.clip((levels - self.black) / (self.white - self.black), 0, 1)
        return 1 - stretched if self.inverted else stretched

    def __str__(self) -> str:
        return f"{self.black:.4g} to {self.white:.4g}{', inverted' * self.inverted}"


def _measure(pieces: list[np.ndarray], step: float, inverted: bool | None) -> Levels | None:
    """Levels for pieces [height, width] of images: all but a thousandth of the pixels at either end
    are stretched, and mostly bright images inverted (seven tenths where others are not).  None if
    smoothed levels span at most three steps or twice the noise: smoothing leaves it an eighth."""
    smooth = [scipy.ndimage.gaussian_filter(piece, 2) for piece in pieces]
    low, high = float(min(map(np.min, smooth))), float(max(map(np.max, smooth)))
    changes = np.concatenate([np.diff(piece).ravel() for piece in pieces])
    noise = np.median(np.abs(changes)) / 0.954 if changes.size else 0  # a Gaussian's deviation
    if high - low <= max(2 * noise, 3 * step, 1e-6 * abs(high)):
        return None
    middle = {None: 0.5, False: 0.3, True: 0.7}[inverted]
    pixels = np.concatenate([piece.ravel() for piece in pieces])
    black, ground, white = map(float, np.quantile(pixels, [0.001, middle, 0.999]))
    if white - black < (high - low) / 2:  # objects may be smaller than a thousandth
        black, white = low, high
    rounded = (float(f"{level:.6g}") for level in (black, white))
    return Levels(*rounded, ground > (black + white) / 2)


def _pieces(picture: np.ndarray, most: int) -> list[np.ndarray]:
    """Grey levels of squares of an image, or of all of it."""
    rows, columns = (range(0, length, _PIECE) for length in picture.shape[:2])
    corners = sample([(y, x) for y in rows for x in columns], most)
    return [luminance(picture[y : y + _PIECE, x : x + _PIECE]) for y, x in corners]


@dataclass(frozen=True)
class Preparation:
    """How images become scenes: square, grey, and with objects on something dark."""

    side: int = 50  # of a scene in pixels
    # "resize" makes one scene of an image, "tile" many, None takes images of side x side pixels.
    fit: str | None = None
    overlap: int = 0  # pixels that neighbouring tiles share, see `tile_overlap`
    black: float = 0.0  # see `Levels`
    white: float = 1.0
    inverted: bool = False
    # Images whose own levels differ by more than this have these, see `Levels`; None: none have.
    tolerance: float | None = None
    zoom: float = 1.0  # scene pixels to one of an image that is cut into tiles

    def __post_init__(self):
        require(self.fit in (None, *FITS), f"a fit out of None, {', '.join(FITS)}", self.fit)
        require(0 <= self.overlap < self.side, f"0 <= overlap < side {self.side}", self.overlap)
        good = -math.inf < self.black < self.white < math.inf
        require(good, "finite levels, black below white", (self.black, self.white))
        require(0 < self.zoom <= 10, "a zoom above 0 and at most 10", self.zoom)

    @property
    def levels(self) -> Levels:
        return Levels(self.black, self.white, self.inverted)

    def adapted(self, images: Images, levels: str = "auto", trained: bool = True):
        """This preparation with grey levels for these images, and a list of what is to be said.

        `levels` are "trained", as they are; "picture", every image's own; or "auto", all images'
        together if these differ clearly from what they are, and an image's own if it does from the
        others.  If none are `trained` yet, empty images are a ConfigError.
        """
        require(levels in LEVELS, f"levels out of {', '.join(LEVELS)}", levels)
        if levels == "trained":
            return self, []
        numbers, known = sample(range(len(images.names)), _SAMPLE), self.levels if trained else None
        bar = tqdm(numbers, "measuring levels", unit="image", disable=None, leave=False)
        pieces = [_pieces(images.pictures[number], -(-_SAMPLE // len(numbers))) for number in bar]
        step = level_step(images.pictures[0])
        new = _measure(sum(pieces, []), step, known and known.inverted)
        if new is None or known and not new.differ(known, _CLEARLY):
            require(trained, "images with contrast", f"only {pieces[0][0][0, 0]:.4g}")
            new = self.levels
        own = [_measure(of_image, step, new.inverted) for of_image in pieces]
        apart = np.mean([bool(one and one.differ(new, _APART)) for one in own])
        tolerance = _APART if apart > (0 if trained else _MANY) else None
        said = []
        if trained and new != known:
            said.append(f"grey levels are {new}, and were {known} in training; they are stretched")
        if trained and tolerance:
            said.append(f"{apart:.1%} of the images have other grey levels; each is stretched")
        tolerance = 0.0 if levels == "picture" else tolerance
        return dataclasses.replace(self, **new._asdict(), tolerance=tolerance), said

    def levels_of(self, picture: np.ndarray) -> Levels:
        if self.tolerance is None:
            return self.levels
        own = _measure(_pieces(picture, 50), level_step(picture), self.inverted)
        return own if own and own.differ(self.levels, self.tolerance) else self.levels

    def scenes(self, images: Images) -> Iterator[tuple[np.ndarray, tuple[int, Window]]]:
        """One after the other, [side, side] uint8, all 0 if there is nothing in it, with the number
        of its image and where in it it was; ConfigError if an image does not have the size."""
        for number, picture in enumerate(images.pictures):
            levels, grey = self.levels_of(picture), luminance(picture)
            if self.fit == "tile":
                pieces = cut_tiles(grey, self.side, self.overlap, self.zoom)
            else:
                size = f"{self.side} x {self.side} pixels of image {images.names[number]}"
                good = self.fit == "resize" or grey.shape == (self.side, self.side)
                require(good, f"{size}, or --fit resize or tile", grey.shape)
                pieces = [resize(grey, self.side)]
            for scene, window in pieces:
                scene = levels.stretch(scene)
                if np.ptp(scene) < 0.5 and np.ptp(scipy.ndimage.gaussian_filter(scene, 2)) < _EMPTY:
                    scene[:] = 0
                yield np.round(255 * scene).astype(np.uint8), (number, window)
