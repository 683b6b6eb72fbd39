"""Images of one's own: read from files when they are needed, and made into scenes that a model can
see."""

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
from PIL import Image, ImageOps
from scipy.ndimage import gaussian_filter
from tqdm import tqdm

from supair.config import ConfigError, require
from supair.detect.tiles import FITS, Window, cut_tiles, resize

_PICTURES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp")
_ARRAYS = (".npy", ".npz", ".h5", ".hdf5")
_IMAGES = ("images", "image", "x", "data", "arr_0", "pictures", "imgs", "frames")  # usual names
_COUNTS = ("counts", "count", "num_actual_objects", "num_objects", "n_objects")
_MOST_PIXELS = 2 * 89_478_485  # of a picture, as Pillow has it
_MOST_COLOURED = 5 * 10**7  # pixels of a picture that keeps its colours; they take much memory
_MOST_GROWTH = 250  # of an array of more than a gigabyte, by decompression
_BLOCK = 2**25  # bytes of an array that are read at once
_WHITE = {"uint8": 255, "uint16": 65535}  # of other types it is 1
_GREY = np.array([0.299, 0.587, 0.114], np.float32)
_SAMPLE = 2000  # images, or pieces of one, that grey levels are measured on
_PIECE = 100  # pixels along its side
_CLEARLY = 0.15  # how far levels must differ from the training's to be replaced, see `Levels`,
_CLEARLY_APART = 0.65  # and an image's from those of the others;
_MANY = 0.05  # the share of such images from which on training takes each with its own
_EMPTY = 0.05  # of the contrast; a scene whose smoothed levels span no more has nothing in it


class Images(NamedTuple):
    names: list[str]  # of the files, with #page where a file has several, or numbers
    # Each [height, width] or [height, width, 3], uint8, uint16 or floating point, see `as_levels`.
    # Those in files are read when they are asked for: go through them once, in order.
    pictures: Sequence[np.ndarray] | np.ndarray
    counts: np.ndarray | None = None  # [images] true numbers of objects, where they are known
    boxes: list[np.ndarray] | None = None  # of every image [objects, 4], likewise


def read_images(path: Path, array: str | None = None, counts: str | None = None) -> Images:
    """Open a folder of pictures (in the order of their names), a picture, or an array of a file.

    Photographs are turned as their EXIF data say, what is transparent is laid on black or white,
    whichever shows it, and colours of 16 bits are read as of 8.  True counts are taken from
    `counts.csv` (columns image and count) in the folder, true boxes from `boxes.csv` (columns
    image, left, top, width and height) or COCO's JSON, which give the counts if nothing else does;
    or from arrays beside the images.

    Args:
      path: of PNG, JPEG, TIFF (of several pages, too), BMP or WebP; .npy, .npz or HDF5.
      array: the images' name in the file, [n, height, width] or [n, height, width, 1 or 3], of any
        numbers; by default one of the usual names, or the only array of such a shape.
      counts: likewise, [n] or [n, 1] whole numbers; by default one of the usual names.

    Raises:
      ConfigError: naming the file, what was expected and what was found; for what is damaged later
        in a file, when that is read.
    """
    if path.is_dir():
        return _open_folder(path)
    if path.suffix.lower() in _PICTURES:
        return _open_pictures([path])
    with _errors_of(path):
        require(path.is_file(), "a folder or a file", "neither")
        return _open_arrays(path, array, counts)


@contextlib.contextmanager
def _errors_of(path: Path):
    """Errors in one line that begins with the file's name."""
    try:
        yield
    except (
        Exception
    ) as error:  # damaged files make h5py, zipfile, Pillow and others raise all kinds
        reason = error if type(error) is ConfigError else f"missing or damaged ({error!r:.150})"
        raise ConfigError(f"{os.fsencode(path).decode(errors='replace')}: {reason}") from None


class _Pictures(Sequence):
    """Pictures that are read when they are asked for, `rows` at once, of which the last are held."""

    def __init__(self, size: int, rows: int, read: Callable[[int, int], Sequence[np.ndarray]]):
        self._size, self._rows, self._read = size, rows, read
        self._first, self._held = 0, []

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
    """An array in a file."""

    shape: tuple[int, ...]
    dtype: np.dtype
    stored: int  # bytes that it takes in the file
    read: Callable[[int, int], np.ndarray]  # rows from .. to


def _list_arrays(path: Path) -> dict[str, _Array]:
    kind, arrays = path.suffix.lower(), {}
    require(kind in _ARRAYS, f"a folder, or a file of {' '.join((*_PICTURES, *_ARRAYS))}", kind)
    if kind == ".npy":
        return {"images": _npy_array(path, "", open(path, "rb"), path.stat().st_size)}
    if kind == ".npz":
        archive = zipfile.ZipFile(path)
        for member in archive.infolist():
            name, file = member.filename.removesuffix(".npy"), archive.open(member)
            arrays[name] = _npy_array(path, name, file, member.compress_size)
        return arrays

    def add(name: str, item: h5py.Group | h5py.Dataset) -> None:  # not called for links to files
        if isinstance(item, h5py.Dataset) and item.shape:
            outside = item.is_virtual or item.external  # may be any file of the system's
            require(not outside, f"{name} in the file itself", "external or virtual storage")
            white = item.parent.attrs.get("white", 255)  # data/ writes Sprites with another

            def read(first: int, last: int) -> np.ndarray:
                return item[first:last] if white == 255 else item[first:last] / np.float32(white)

            arrays[name] = _Array(item.shape, item.dtype, item.id.get_storage_size(), read)

    h5py.File(path).visititems(add)
    return arrays


def _npy_array(path: Path, name: str, file, stored: int) -> _Array:
    """Of an open .npy file, or a member `name` of an .npz file."""
    version = np.lib.format.read_magic(file)
    read_header = getattr(np.lib.format, "read_array_header_{}_{}".format(*version))
    shape, by_column, dtype = read_header(file)
    start, row = file.tell(), dtype.itemsize * math.prod(shape[1:])

    def read(first: int, last: int) -> np.ndarray:
        if by_column:  # has no rows in one piece
            content = np.load(path, allow_pickle=False)
            return (content[name] if name else content)[first:last]
        file.seek(start + first * row)
        content = np.frombuffer(file.read((last - first) * row), dtype)
        return content.reshape(last - first, *shape[1:])

    return _Array(shape, dtype, stored, read)


def _open_arrays(path: Path, name: str | None, counts_name: str | None) -> Images:
    """Images, counts and boxes of a file."""
    arrays = _list_arrays(path)
    found = ", ".join(f"{key} {list(a.shape)} {a.dtype}" for key, a in arrays.items()) or "nothing"
    good = [key for key, a in arrays.items() if a.shape[2:] and a.shape[3:] in ((), (1,), (3,))]
    if name is None:
        usual = [key for usual in _IMAGES for key in good if key.lower() == usual]
        require(bool(usual) or len(good) == 1, "the images' name as --array", found)
        name = (usual or good)[0]
    shapes = "[n, height, width] or [n, height, width, 1 or 3]"
    require(name in good, f"--array {name}, {shapes}, in the file", found)
    beside = f"{name.rpartition('/')[0]}/".lstrip("/")  # in the same group
    names = [beside + usual for usual in _COUNTS] if counts_name is None else [counts_name]
    known = [key for key in names if key in arrays]
    require(bool(known) or counts_name is None, f"--counts {counts_name} in the file", found)
    for key in (name, *known[:1]):
        shape, dtype, stored, _ = arrays[key]
        require(dtype.kind in "buif", f"{key} of numbers", dtype)
        size, pixels = math.prod(shape) * dtype.itemsize, math.prod(shape[1:3])
        require(0 < pixels <= _MOST_PIXELS, f"{key} of up to {_MOST_PIXELS} pixels each", shape)
        good_size = 0 < size <= max(2**30, _MOST_GROWTH * stored)
        require(good_size, f"{key} with its content", f"{shape} {dtype} in {stored} bytes")
    (size, *_), _, _, read = arrays[name]
    counts = boxes = None
    if known:
        counts = _as_counts(arrays[known[0]].read(0, size), size, known[0])
        true = arrays.get(f"{beside}boxes")
        if true and true.shape[::2] == (size, 4):  # as data/ writes them
            boxes = [of_image[:count] for of_image, count in zip(true.read(0, size), counts)]

    def read_block(first: int, last: int) -> np.ndarray:
        with _errors_of(path):
            pictures = _as_read(read(first, last), f"{name} from {first} on")
            return pictures[..., 0] if pictures.shape[3:] == (1,) else pictures

    rows = _BLOCK // (arrays[name].dtype.itemsize * math.prod(arrays[name].shape[1:]))
    pictures = _Pictures(size, max(1, rows), read_block)
    return Images([str(number) for number in range(size)], pictures, counts, boxes)


def images_of(pictures) -> Images:
    """Of a sequence of arrays [height, width] or [height, width, 1 or 3] of any numbers.

    Raises:
      ConfigError: if one is none, or not finite.
    """
    arrays = []
    for number, picture in enumerate(pictures):
        array = np.asarray(picture)
        shape, good = array.shape, array.dtype.kind in "buif" and array.size > 0
        good = good and len(shape) >= 2 and shape[2:] in ((), (1,), (3,))
        shapes = "[height, width] or [height, width, 1 or 3]"
        require(good, f"image {number} {shapes} of numbers", f"{shape} {array.dtype}")
        array = _as_read(array, f"image {number}")
        arrays.append(array[..., 0] if shape[2:] == (1,) else array)
    require(bool(arrays), "images", "none")
    return Images([str(number) for number in range(len(arrays))], arrays)


def _as_counts(values: np.ndarray, size: int, name: str) -> np.ndarray:
    found = f"{values.shape} {values.dtype}"
    require(values.shape in ((size,), (size, 1)), f"{name} [{size}] or [{size}, 1]", found)
    values = values.reshape(size)
    good = (values >= 0) & (values < 2**31) & (values == np.floor(values))  # false for nan
    require(bool(good.all()), f"{name} of whole numbers from 0", values[~good][:3])
    return values.astype(np.int64)


def _as_read(array: np.ndarray, name: str) -> np.ndarray:
    """As uint8, uint16 or float32; ConfigError for what is not finite."""
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
    pages = [(path, page) for path in paths for page in _read_file(path, _list_pages)]
    several = {path for path, page in pages if page}
    names = [f"{path.name}#{page}" if path in several else path.name for path, page in pages]

    def read(number: int, _: int) -> list[np.ndarray]:
        path, page = pages[number]
        return [_read_file(path, lambda image: _pixels(image, page))]

    return Images(names, _Pictures(len(pages), 1, read))


def _read_file(path: Path, function: Callable[[Image.Image], Any]):
    with _errors_of(path), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of large pictures, and of odd data beside them
        path.name.encode()  # names that are not UTF-8 cannot be written to the results
        require(path.is_file(), "a file", "none")
        with Image.open(path) as image:
            return function(image)


def _list_pages(image: Image.Image) -> list[int]:
    """Those of a TIFF but for smaller copies of others; of other files the first alone."""
    if image.format != "TIFF":
        return [0]
    pages = []
    for page in range(image.n_frames):
        image.seek(page)
        if not image.tag_v2.get(254, 0) & 1:
            pages.append(page)
    return pages


def _pixels(image: Image.Image, page: int) -> np.ndarray:
    image.seek(page)
    require(math.prod(image.size) <= _MOST_PIXELS, f"at most {_MOST_PIXELS} pixels", image.size)
    of_16_bits = image.mode == "I" and image.format == "PNG"  # in older versions of Pillow
    ImageOps.exif_transpose(image, in_place=True)
    if image.mode[0] in "IF":
        levels = np.asarray(image)
        return _as_read(levels.astype(np.uint16) if of_16_bits else levels, "levels")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        levels = np.asarray(image.convert("L"), np.float32) - 127.5
        bright = np.vdot(levels, np.asarray(image.getchannel("A"), np.float32)) > 0  # what shows
        ground = Image.new("RGBA", image.size, "black" if bright else "white")
        image = Image.alpha_composite(ground, image)
    grey = image.mode in ("1", "L") or math.prod(image.size) > _MOST_COLOURED
    mode = "L" if grey else "RGB"
    return np.asarray(image if image.mode == mode else image.convert(mode))


def _open_folder(folder: Path) -> Images:
    """A folder's pictures, counts and boxes; what else is in it is named on the screen."""
    others = [path for path in sorted(folder.iterdir()) if not path.name.startswith(".")]
    pictures = [path for path in others if path.suffix.lower() in _PICTURES and path.is_file()]
    others = [path for path in others if path not in set(pictures)]

    def listed() -> str:
        names = [os.fsencode(path.name).decode(errors="replace") for path in others[:5]]
        return ", ".join(names) + f" and {len(others) - 5} more" * (len(others) > 5)

    with _errors_of(folder):
        require(bool(pictures), f"pictures ({' '.join(_PICTURES)})", listed() or "nothing")
    images, labels = _open_pictures(pictures), {}
    for path in [path for path in others if path.name in _LABELS or path.suffix == ".json"]:
        name, read = _LABELS.get(path.name, ("boxes", _coco_boxes))
        with _errors_of(path):
            found = read(path, images.names)
        if found is not None:
            labels.setdefault(name, found)
            others.remove(path)
    if others:
        print(f"{folder}: not read: {listed()}", file=sys.stderr)
    if "boxes" in labels:
        labels.setdefault("counts", np.array([len(boxes) for boxes in labels["boxes"]]))
    return images._replace(**labels)


def _csv_rows(path: Path, names: list[str]) -> list[dict[str, str]]:
    """Of the images with these names, which `detect` writes with ' where they look like formulas."""
    with open(path, newline="", encoding="utf-8-sig") as file:
        rows = list(csv.DictReader(file))
    return [
        {**row, "image": row["image"].removeprefix("'" * (row["image"] not in names))}
        for row in rows
    ]


def _csv_counts(path: Path, names: list[str]) -> np.ndarray:
    """Columns image and count, and a line for every image."""
    counts: dict[str, float] = {}
    for row in _csv_rows(path, names):
        require(row["image"] not in counts, "every image once", f"{row['image']} twice")
        counts[row["image"]] = float(row["count"])
    missing = [name for name in names if name not in counts]
    require(not missing, "a count for every image", f"none for {', '.join(missing[:3])}")
    return _as_counts(np.array([counts[name] for name in names]), len(names), "counts")


def _csv_boxes(path: Path, names: list[str]) -> list[np.ndarray]:
    """As `detect` writes them; images without a line have no objects."""
    boxes: dict[str, list] = {name: [] for name in names}
    for row in _csv_rows(path, names):
        boxes[row["image"]].append([row[key] for key in ("left", "top", "width", "height")])
    return [np.array(of_image, float).reshape(-1, 4) for of_image in boxes.values()]


def _coco_boxes(path: Path, names: list[str]) -> list[np.ndarray] | None:
    """Of COCO's JSON; None for any other."""
    content = json.loads(path.read_bytes())
    if not isinstance(content, dict) or not {"images", "annotations"} <= content.keys():
        return None
    name_of = {image["id"]: Path(image["file_name"]).name for image in content["images"]}
    boxes: dict[str, list] = {name: [] for name in name_of.values()}
    for annotation in content["annotations"]:
        boxes[name_of[annotation["image_id"]]].append(annotation["bbox"])
    return [np.array(boxes[name], float).reshape(-1, 4) for name in names]


_LABELS = {"counts.csv": ("counts", _csv_counts), "boxes.csv": ("boxes", _csv_boxes)}


def as_levels(picture: np.ndarray) -> np.ndarray:
    """A picture as float32, in [0, 1] if it is of integers."""
    return picture.astype(np.float32) / np.float32(_WHITE.get(picture.dtype.name, 1))


def luminance(picture: np.ndarray) -> np.ndarray:
    """Grey levels [height, width] of a picture, float32."""
    if picture.ndim == 2:
        return as_levels(picture)
    grey = np.empty(picture.shape[:2], np.float32)
    for start in range(0, len(picture), 500):  # in parts: there may be 100 million pixels
        grey[start : start + 500] = as_levels(picture[start : start + 500]) @ _GREY
    return grey


class Levels(NamedTuple):
    """Grey levels that become 0 and 1; what is beyond is cut off."""

    black: float = 0.0
    white: float = 1.0
    inverted: bool = False  # whether black and white are exchanged

    def differ(self, other: Levels, tolerance: float) -> bool:
        """Whether the objects' ends are apart by more than this share of the other's contrast, or
        the ground's by half of it."""
        ends = np.abs(np.subtract(self[:2], other[:2])) / (other.white - other.black)
        weights = (1, 2) if other.inverted else (2, 1)
        return self.inverted != other.inverted or max(ends * weights) > tolerance

    def __str__(self) -> str:
        return f"{self.black:.4g} to {self.white:.4g}{', inverted' * self.inverted}"


def measure_levels(
    pieces: list[np.ndarray], step: float, inverted: bool | None = None
) -> Levels | None:
    """Levels for pieces [height, width] of images; None if there is nothing in them.

    All pixels but a thousandth at either end are stretched, and images that are mostly bright are
    inverted.  There is something if levels, smoothed, span more than three of the steps between
    those of the file and twice the noise, of which smoothing leaves an eighth.

    Args:
      step: between two levels in the file; 0 for floating point.
      inverted: whether other images are; then seven tenths of these have to say otherwise.
    """
    smooth = [gaussian_filter(piece, 2) for piece in pieces]
    low, high = float(min(map(np.min, smooth))), float(max(map(np.max, smooth)))
    steps = np.concatenate([np.diff(piece).ravel() for piece in pieces])
    noise = np.median(np.abs(steps)) / 0.954 if steps.size else 0.0  # as a Gaussian's deviation
    if high - low <= max(2 * noise, 3 * step, 1e-6 * abs(high)):
        return None
    middle = {None: 0.5, False: 0.3, True: 0.7}[inverted]
    pixels = np.concatenate([piece.ravel() for piece in pieces])
    black, ground, white = map(float, np.quantile(pixels, [0.001, middle, 0.999]))
    if white - black < (high - low) / 2:  # objects may be smaller than a thousandth
        black, white = low, high
    return Levels(round(black, 6), round(white, 6), ground > (black + white) / 2)


def _pieces(picture: np.ndarray, most: int) -> list[np.ndarray]:
    """Grey levels of squares of an image, evenly spread, or of all of it."""
    starts = [range(0, length, _PIECE) for length in picture.shape[:2]]
    corners = sample([(y, x) for y in starts[0] for x in starts[1]], most)
    return [luminance(picture[y : y + _PIECE, x : x + _PIECE]) for y, x in corners]


def _step(picture: np.ndarray) -> float:
    return 1 / _WHITE.get(picture.dtype.name, math.inf)


def _survey(images: Images, trained: Levels | None = None) -> tuple[Levels | None, float]:
    """The levels of all images together (`trained`, unless they differ clearly from these), and the
    share of images that differ clearly from the others."""
    numbers = sample(range(len(images.pictures)), _SAMPLE)
    bar = tqdm(numbers, "measuring levels", unit="image", disable=None, leave=False)
    parts = [_pieces(images.pictures[number], -(-_SAMPLE // len(numbers))) for number in bar]
    step, of_all = level_step(images.pictures[0]), [piece for part in parts for piece in part]
    found = measure_levels(of_all, step, trained and trained.inverted)
    if trained and not (found and found.differ(trained, _CLEARLY)):
        found = trained
    if found is None:
        return None, 0.0
    own = [measure_levels(part, step, found.inverted) for part in parts]
    return found, float(np.mean([bool(o and o.differ(found, _CLEARLY_APART)) for o in own]))


@dataclass(frozen=True)
class Preparation:
    """How images become scenes: square, grey, and with objects on something dark, as the paper's
    variances want them."""

    side: int = 50  # of a scene in pixels
    # "resize" makes one scene of an image, "tile" many, None takes images of side x side pixels.
    fit: str | None = None
    overlap: int = 0  # pixels that neighbouring tiles share, see `tile_overlap`
    black: float = 0.0  # see `Levels`
    white: float = 1.0
    inverted: bool = False
    # An image whose own levels differ by more than this gets these, see `Levels`; None: none does.
    tolerance: float | None = None
    zoom: float = 1.0  # by which images are resized before they are cut into tiles

    def __post_init__(self):
        require(self.fit in (None, *FITS), f"a fit out of None, {', '.join(FITS)}", self.fit)
        require(0 <= self.overlap < self.side, f"0 <= overlap < side {self.side}", self.overlap)
        good = -math.inf < self.black < self.white < math.inf
        require(good, "finite levels, black below white", (self.black, self.white))
        require(0.01 <= self.zoom <= 10, "a zoom from 0.01 to 10", self.zoom)

    @property
    def levels(self) -> Levels:
        return Levels(self.black, self.white, self.inverted)

    def measured(self, images: Images) -> Preparation:
        """With the levels of all images together or, if these differ, every image's own.

        Raises:
          ConfigError: if there is nothing in the images.
        """
        levels, apart = _survey(images)
        if levels is None:
            first = luminance(images.pictures[0])
            found = f"levels from {first.min():.3f} to {first.max():.3f} in {images.names[0]}"
            raise ConfigError(f"expected images with contrast, found {found}")
        tolerance = _CLEARLY_APART if apart > _MANY else None
        return dataclasses.replace(self, **levels._asdict(), tolerance=tolerance)

    def adapted(self, images: Images, levels: str = "auto") -> tuple[Preparation, list[str]]:
        """With grey levels for other images than those of the training, and what to say about it.

        Args:
          levels: "trained", as they are; "picture", every image's own; "auto", those of all images
            together if they differ clearly from the training's, and a single image's own if it
            differs clearly from the others.
        """
        if levels == "trained":
            return self, []
        found, apart = _survey(images, self.levels)
        prepared, said = dataclasses.replace(self, **found._asdict()), []
        if found != self.levels:
            said.append(
                f"grey levels are {found}, those of the training were {self.levels}; they are "
                "stretched to these (not with --levels trained)"
            )
        if levels == "picture":
            return dataclasses.replace(prepared, tolerance=0.0), said
        if apart:
            prepared = dataclasses.replace(prepared, tolerance=_CLEARLY_APART)
            said.append(
                f"{apart:.1%} of the images differ clearly from the others in their grey levels; "
                "each of them is stretched by its own (not with --levels trained)"
            )
        return prepared, said

    def scenes(self, images: Images) -> Iterator[tuple[np.ndarray, tuple[int, Window]]]:
        """One after the other, [side, side] uint8, with the number of its image and where in it it
        was; all 0 if there is nothing in it.

        Raises:
          ConfigError: if an image does not have the size.
        """
        for number, picture in enumerate(images.pictures):
            levels = self.levels_of(picture)
            for scene, window in self._cut(luminance(picture), images.names[number]):
                scene = self.stretch(scene, levels)
                if np.ptp(scene) < 0.5 and np.ptp(gaussian_filter(scene, 2)) < _EMPTY:
                    scene[:] = 0
                yield np.round(255 * scene).astype(np.uint8), (number, window)

    @staticmethod
    def stretch(picture: np.ndarray, levels: Levels) -> np.ndarray:
        stretched = np.clip((picture - levels.black) / (levels.white - levels.black), 0, 1)
        return 1 - stretched if levels.inverted else stretched

    def levels_of(self, picture: np.ndarray) -> Levels:
        if self.tolerance is None:
            return self.levels
        own = measure_levels(_pieces(picture, 50), level_step(picture), self.inverted)
        return own if own and own.differ(self.levels, self.tolerance) else self.levels

    def _cut(self, levels: np.ndarray, name: str) -> Iterator[tuple[np.ndarray, Window]]:
        side, (height, width) = self.side, levels.shape
        if self.fit != "tile":
            expected = f"{side} x {side} pixels of image {name}, or --fit resize or tile"
            good = self.fit == "resize" or (height, width) == (side, side)
            require(good, expected, f"{width} x {height}")
            yield resize(levels, side)
            return
        size = max(1, round(self.zoom * width)), max(1, round(self.zoom * height))
        if size != (width, height):
            levels = np.asarray(Image.fromarray(levels).resize(size, Image.Resampling.BILINEAR))
        for scene, window in cut_tiles(levels, side, self.overlap):
            yield scene, window.zoomed(width / size[0], height / size[1])


def sample(things: Sequence, most: int) -> Sequence:
    """At most so many of them, evenly spaced."""
    return things[:: -(-len(things) // most)]
