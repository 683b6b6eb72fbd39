"""Images of one's own: read from files when they are needed, and made into scenes that a model can
see."""

from __future__ import annotations

import csv
import dataclasses
import itertools
import json
import math
import os
import sys
import warnings
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np
from PIL import Image, ImageOps
from scipy.ndimage import gaussian_filter
from tqdm import tqdm

from supair.config import ConfigError, require
from supair.detect.tiles import FITS, Window, cut_tiles, resize

_PICTURES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp")
_ARRAYS = (".npy", ".npz", ".h5", ".hdf5")
_ARRAY_NAMES = ("images", "image", "x", "data", "arr_0", "pictures", "imgs", "frames")
_COUNT_NAMES = ("counts", "count", "num_actual_objects", "num_objects", "n_objects")
_MOST_PIXELS = 2 * 89_478_485  # of a picture, as Pillow has it
_MOST_GROWTH = 250  # of more than a gigabyte, by decompression
_BLOCK_BYTES = 2**25  # of an array, read at once
_FULL = {"uint8": 255, "uint16": 65535}  # white; of other types it is 1
_GREY = np.array([0.299, 0.587, 0.114], np.float32)
_SAMPLE = 2000  # scenes that grey levels and variances are suggested from
_BATCH = 250  # scenes
_CLEARLY = 0.15  # how far levels differ from those of the training, in units of their contrast,
_CLEARLY_APART = 0.65  # and a picture's from those of its set, for it to be said and done about
_MANY = 0.05  # share of the images that may be so before training takes each with its own
_EMPTY = 0.05  # what a scene's smoothed levels span, of the contrast, if there is nothing in it


class Images(NamedTuple):
    names: list[str]  # of the files, with #page where a file has several, or numbers
    # Each [height, width] or [height, width, 3], uint8, uint16 or floating point; see `luminance`.
    # Those of files are read when they are asked for: go through them once, in order.
    pictures: Sequence[np.ndarray] | np.ndarray
    counts: np.ndarray | None = None  # [images] true numbers of objects, where they are known
    boxes: list[np.ndarray] | None = None  # of every image [objects, 4], likewise


def read_images(path: Path, array: str | None = None, counts: str | None = None) -> Images:
    """Open a folder of pictures (in the order of their names), a picture, or an array of a file.

    Photographs are turned as their EXIF data say, and what is transparent is laid on black or
    white, whichever shows it.  Colour of 16 bits is read as of 8.  True counts are taken from
    `counts.csv` (columns image and count) in the folder, true boxes from `boxes.csv` (columns
    image, left, top, width and height) or COCO's JSON, and counts from these if there are no
    others; or from an array beside the images.

    Args:
      path: the folder or file: PNG, JPEG, TIFF (of several pages, too), BMP, WebP, .npy, .npz,
        HDF5.
      array: the array's name in the file, [n, height, width] or [n, height, width, 1 or 3] of any
        numbers; by default one of the usual names, or the only one of such a shape.
      counts: likewise of the counts, [n] or [n, 1] whole numbers.

    Raises:
      ConfigError: naming the file, what was expected and what was found; what is damaged behind a
        good beginning raises it only when it is read.
    """
    try:
        if path.is_dir():
            return _open_folder(path)
        require(path.is_file(), "a folder or a file", "neither")
        if path.suffix.lower() in _PICTURES:
            files = _Files([path])
            return Images(files.names, files)
        return _open_arrays(path, array, counts)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None
    except Exception as error:  # damaged files make h5py, zipfile and zlib raise all kinds
        raise ConfigError(f"{path}: missing or damaged ({error!r:.150})") from None


class _Array(NamedTuple):
    """An array in a file."""

    shape: tuple[int, ...]
    dtype: np.dtype
    stored: int  # bytes that it takes in the file
    read: Callable[[int, int], np.ndarray]  # rows from .. to
    white: float = 255  # of uint8; data/ writes Sprites with another
    outside: bool = False  # whether it points to other files


def _npy_array(path: Path, name: str | None, file, stored: int) -> _Array:
    """Of an open .npy file, or a member of an .npz file."""
    kinds = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }
    shape, by_column, dtype = kinds[np.lib.format.read_magic(file)](file)
    start, row_size = file.tell(), dtype.itemsize * math.prod(shape[1:])
    whole: list[np.ndarray] = []

    def read(first: int, last: int) -> np.ndarray:
        if by_column:  # has no rows in one piece
            if not whole:
                content = np.load(path, allow_pickle=False)
                whole.append(content if name is None else content[name])
            return whole[0][first:last]
        file.seek(start + first * row_size)
        content = np.frombuffer(file.read((last - first) * row_size), dtype)
        return content.reshape(last - first, *shape[1:])

    return _Array(shape, dtype, stored, read)


def _list_arrays(path: Path) -> dict[str, _Array]:
    kind = path.suffix.lower()
    expected = f"a folder or a file out of {' '.join((*_PICTURES, *_ARRAYS))}"
    require(kind in _ARRAYS, expected, kind or "a file without ending")
    if kind == ".npy":
        return {"": _npy_array(path, None, open(path, "rb"), path.stat().st_size)}
    arrays: dict[str, _Array] = {}
    if kind == ".npz":
        archive = zipfile.ZipFile(path)
        for member in archive.infolist():
            name, size = member.filename.removesuffix(".npy"), member.compress_size
            arrays[name] = _npy_array(path, name, archive.open(member), size)
        return arrays

    def add(name: str, item: h5py.Dataset | h5py.Group) -> None:  # not called for links to files
        if isinstance(item, h5py.Dataset) and item.shape:
            outside = bool(item.is_virtual or item.external)
            stored, white = item.id.get_storage_size(), float(item.parent.attrs.get("white", 255))
            read = lambda first, last: item[first:last]  # noqa: E731
            arrays[name] = _Array(item.shape, item.dtype, stored, read, white, outside)

    h5py.File(path).visititems(add)
    return arrays


def _open_arrays(path: Path, name: str | None, counts_name: str | None) -> Images:
    """Images, counts and boxes of a file."""
    arrays = _list_arrays(path)
    listed = ", ".join(f"{key} {list(a.shape)} {a.dtype}".strip() for key, a in arrays.items())
    fitting = [key for key, a in arrays.items() if a.shape[3:] in ((), (1,), (3,)) and a.shape[2:]]
    if name is None:
        usual = [key for usual in _ARRAY_NAMES for key in fitting if key.lower() == usual]
        require(bool(usual) or len(fitting) == 1, "--array with one of the names", listed or "none")
        name = (usual or fitting)[0]
    expected = f"{name} [n, height, width] or [n, height, width, 1 or 3] in --array"
    require(name in fitting, expected, listed or "none")
    images = arrays[name]
    _require_readable(images, name)
    within = f"{name.rpartition('/')[0]}/".lstrip("/")  # the group
    names = [within + usual for usual in _COUNT_NAMES] if counts_name is None else [counts_name]
    known = [key for key in names if key in arrays]
    require(bool(known) or counts_name is None, f"counts {counts_name} in --counts", listed)
    size, counts, boxes = images.shape[0], None, None
    if known:
        _require_readable(arrays[known[0]], known[0])
        counts = _as_counts(arrays[known[0]].read(0, size), size, known[0])
        of_all = arrays.get(f"{within}boxes")
        if of_all and of_all.shape[::2] == (size, 4) and not of_all.outside:  # as data/ writes them
            boxes = [few[:count] for few, count in zip(of_all.read(0, size), counts)]
    pictures = _ArrayPictures(path, name, images)
    return Images([str(number) for number in range(size)], pictures, counts, boxes)


def _require_readable(array: _Array, name: str) -> None:
    """Refuse what is no plain array of numbers, or claims more than can be."""
    require(not array.outside, f"{name} in the file itself", "external or virtual storage")
    require(array.dtype.kind in "buif", f"{name} of numbers", array.dtype)
    require(min(array.shape) > 0, f"{name} with something in it", array.shape)
    row, size = math.prod(array.shape[1:]), math.prod(array.shape) * array.dtype.itemsize
    require(row <= 3 * _MOST_PIXELS, f"at most {_MOST_PIXELS} pixels a picture", array.shape)
    found = f"{array.shape} of {array.stored} bytes"
    require(size <= max(2**30, _MOST_GROWTH * array.stored), f"{name} with its content", found)


def _as_counts(values: np.ndarray, size: int, name: str) -> np.ndarray:
    found = f"{values.shape} {values.dtype}"
    require(values.shape in ((size,), (size, 1)), f"{name} [{size}] or [{size}, 1]", found)
    values = values.reshape(size)
    good = (values >= 0) & (values < 2**31) & (values == np.floor(values))  # false for nan
    require(bool(good.all()), f"{name} of whole numbers from 0", values[~good][:3])
    return values.astype(np.int64)


class _ArrayPictures(Sequence):
    """Pictures of an array in a file, of which a block is held."""

    def __init__(self, path: Path, name: str, array: _Array):
        self._title, self._array = f"{path}: {name}", array
        size = array.dtype.itemsize * math.prod(array.shape[1:])
        self._rows, self._held = max(1, _BLOCK_BYTES // size), (-1, np.empty(0))

    def __len__(self) -> int:
        return self._array.shape[0]

    def __getitem__(self, number):
        if not 0 <= number < len(self):
            raise IndexError(number)
        block, row = divmod(number, self._rows)
        if block != self._held[0]:
            first, self._held = block * self._rows, (-1, np.empty(0))
            try:
                pictures = self._array.read(first, min(first + self._rows, len(self)))
                self._held = block, _as_read(pictures, self._array.white)
            except ConfigError as error:
                raise ConfigError(f"{self._title} from {first} on: {error}") from None
            except Exception as error:
                raise ConfigError(f"{self._title}: damaged ({error!r:.150})") from None
        picture = self._held[1][row]
        return picture[..., 0] if picture.shape[2:] == (1,) else picture


def _as_read(array: np.ndarray, white: float = 255) -> np.ndarray:
    """As uint8, uint16 or float32; ConfigError for what is not finite."""
    if array.dtype.kind == "b":
        return np.uint8(255) * array
    if array.dtype.kind == "u" and array.dtype.itemsize <= 2 and white == 255:
        return array.astype(f"u{array.dtype.itemsize}", copy=False)
    levels = array.astype(np.float32) / np.float32(white if array.dtype == np.uint8 else 1)
    low, high = levels.min(), levels.max()  # nan if there is one
    require(bool(np.isfinite(low) and np.isfinite(high)), "finite numbers", f"{low} to {high}")
    return levels


class _Files(Sequence):
    """Pictures of files, which are read when they are asked for; how they begin is checked at
    once."""

    def __init__(self, paths: list[Path]):
        self._pages: list[tuple[Path, int]] = []
        self.names: list[str] = []
        for path in paths:
            pages = _read_file(path, _list_pages)
            self._pages += [(path, page) for page in pages]
            self.names += [f"{path.name}#{n}" if len(pages) > 1 else path.name for n in pages]

    def __len__(self) -> int:
        return len(self._pages)

    def __getitem__(self, number):
        path, page = self._pages[number]
        return _read_file(path, lambda image: _pixels(image, page))


def _read_file(path: Path, function: Callable):
    try:
        path.name.encode()  # names that are not UTF-8 cannot be written to the results
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of large pictures, and of odd data beside them
            with Image.open(path) as image:
                return function(image)
    except Exception as error:  # Pillow's readers raise all kinds
        name = os.fsencode(path).decode(errors="replace")
        raise ConfigError(f"{name}: damaged or no image ({error!r:.150})") from None


def _list_pages(image: Image.Image) -> list[int]:
    """Those of a TIFF that are no smaller copies of others; of other files the first alone."""
    pages = []
    for page in range(image.n_frames if image.format == "TIFF" else 1):
        image.seek(page)
        if image.format != "TIFF" or not image.tag_v2.get(254, 0) & 1:
            pages.append(page)
    return pages


def _pixels(image: Image.Image, page: int) -> np.ndarray:
    image.seek(page)
    require(math.prod(image.size) <= _MOST_PIXELS, f"at most {_MOST_PIXELS} pixels", image.size)
    sixteen_bits = image.mode == "I" and image.format == "PNG"  # in older versions of Pillow
    ImageOps.exif_transpose(image, in_place=True)
    if image.mode[0] in "IF":
        return _as_read(np.asarray(image).astype(np.uint16) if sixteen_bits else np.asarray(image))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        levels = np.asarray(image.convert("L"), np.float32) - 127.5
        bright = np.vdot(levels, np.asarray(image.getchannel("A"), np.float32)) > 0  # what is seen
        image = Image.alpha_composite(
            Image.new("RGBA", image.size, "black" if bright else "white"), image
        )
    mode = "L" if image.mode in ("1", "L") else "RGB"
    return np.asarray(image if image.mode == mode else image.convert(mode))


def _open_folder(folder: Path) -> Images:
    """A folder's pictures, counts and boxes; what else is in it is named on the screen."""
    paths = [path for path in sorted(folder.iterdir()) if not path.name.startswith(".")]
    pictures = [path for path in paths if path.suffix.lower() in _PICTURES and path.is_file()]
    others = [path for path in paths if path not in set(pictures)]
    require(bool(pictures), f"pictures ({' '.join(_PICTURES)})", _list_some(others) or "nothing")
    files, labels = _Files(pictures), {}
    for path in [path for path in others if path.name in _LABELS or path.suffix == ".json"]:
        kind, read = _LABELS.get(path.name, ("boxes", _coco_boxes))
        try:
            found = read(path, files.names)
        except Exception as error:
            raise ConfigError(f"{path}: damaged, or not of these images ({error!r})") from None
        if found is not None:
            labels.setdefault(kind, found)
            others.remove(path)
    if others:
        print(f"{folder}: not read: {_list_some(others)}", file=sys.stderr)
    if "boxes" in labels:
        labels.setdefault("counts", np.array([len(boxes) for boxes in labels["boxes"]]))
    return Images(files.names, files, **labels)


def _list_some(paths: list[Path], most: int = 5) -> str:
    names = [os.fsencode(path.name).decode(errors="replace") for path in paths[:most]]
    return ", ".join(names) + f" and {len(paths) - most} more" * (len(paths) > most)


def _csv_rows(path: Path) -> list[dict[str, str]]:
    with open(path, newline="", encoding="utf-8-sig") as file:
        return list(csv.DictReader(line for line in file if not line.startswith("# ")))


def _csv_counts(path: Path, names: list[str]) -> np.ndarray:
    """Columns image and count, and a line for every image."""
    rows = _csv_rows(path)
    counts = {row["image"]: float(row["count"]) for row in rows}
    require(len(counts) == len(rows), "every image once", "one twice")
    return _as_counts(np.array([counts[name] for name in names]), len(names), "counts")


def _csv_boxes(path: Path, names: list[str]) -> list[np.ndarray]:
    """As `detect` writes them: images without a line have no objects."""
    boxes: dict[str, list] = {name: [] for name in names}
    for row in _csv_rows(path):
        boxes[row["image"]].append([row[key] for key in ("left", "top", "width", "height")])
    return [np.array(few, float).reshape(-1, 4) for few in boxes.values()]


def _coco_boxes(path: Path, names: list[str]) -> list[np.ndarray] | None:
    """Of COCO's JSON; None for other JSON."""
    content = json.loads(path.read_bytes())
    if not isinstance(content, dict) or not {"images", "annotations"} <= content.keys():
        return None
    name_of = {image["id"]: Path(image["file_name"]).name for image in content["images"]}
    boxes: dict[str, list] = {name: [] for name in name_of.values()}
    for annotation in content["annotations"]:
        boxes[name_of[annotation["image_id"]]].append(annotation["bbox"])
    return [np.array(boxes[name], float).reshape(-1, 4) for name in names]


_LABELS = {"counts.csv": ("counts", _csv_counts), "boxes.csv": ("boxes", _csv_boxes)}


def luminance(picture: np.ndarray) -> np.ndarray:
    """Grey levels [height, width] of a picture, float32; those of integers are in [0, 1]."""
    white = np.float32(_FULL.get(picture.dtype.name, 1))
    levels = np.empty(picture.shape[:2], np.float32)
    for start in range(0, len(picture), 500):  # in parts, for those of 100 million pixels
        rows = picture[start : start + 500].astype(np.float32)
        levels[start : start + 500] = (rows @ _GREY if rows.ndim == 3 else rows) / white
    return levels


def viewable(picture: np.ndarray) -> np.ndarray:
    """A picture to look at, uint8: stretched, unless it is uint8 and uses a good part of that."""
    low, high = np.quantile(picture[:: 1 + len(picture) // 1000], [0.001, 0.999])
    if picture.dtype == np.uint8 and high - low >= 64:
        return picture
    return np.uint8(255 * np.clip((picture - low) / max(high - low, 1e-6), 0, 1))


class Levels(NamedTuple):
    black: float  # grey levels that become 0 and 1; what is beyond is cut off
    white: float
    inverted: bool  # whether black and white are exchanged

    def differ(self, other: Levels | Preparation, tolerance: float) -> bool:
        """Whether they are apart by more than this share of the other's contrast, or the ground by
        more than half of it."""
        ends = abs(self.white - other.white), abs(self.black - other.black)
        far = max(ends[0], 2 * ends[1]) if not other.inverted else max(2 * ends[0], ends[1])
        return self.inverted != other.inverted or far > tolerance * (other.white - other.black)

    def __str__(self) -> str:
        return f"{self.black:.4g} to {self.white:.4g}{', inverted' * self.inverted}"


def _measure(scenes: np.ndarray, step: float, inverted: bool | None = None) -> Levels | None:
    """Levels of scenes [n, side, side]; None if there is nothing in them.

    All pixels but a thousandth at either end are stretched; mostly bright scenes are inverted (if
    it is known what others are, only clearly bright ones).  Something is there if the levels,
    smoothed, span more than twice the noise, of which smoothing leaves an eighth, and three steps
    of the files' levels.
    """
    smooth = gaussian_filter(scenes, (0, 2, 2))
    low, high = float(smooth.min()), float(smooth.max())
    noise = np.median(np.abs(np.diff(scenes))) / 0.954  # as of a Gaussian's standard deviation
    if high - low <= max(2 * noise, 3 * step, 1e-6 * abs(high)):
        return None
    middle = {None: 0.5, False: 0.3, True: 0.7}[inverted]
    black, ground, white = np.quantile(scenes, [0.001, middle, 0.999])
    if white - black < (high - low) / 2:  # objects may be smaller than a thousandth
        black, white = low, high
    return Levels(
        round(float(black), 6), round(float(white), 6), bool(ground > (black + white) / 2)
    )


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
    # Images whose own levels differ by more than this share of the contrast get these; None: none.
    tolerance: float | None = None

    def __post_init__(self):
        require(self.fit in (None, *FITS), f"a fit out of None, {', '.join(FITS)}", self.fit)
        require(0 <= self.overlap < self.side, f"0 <= overlap < side {self.side}", self.overlap)
        good = -math.inf < self.black < self.white < math.inf
        require(good, "finite levels, black < white", (self.black, self.white))

    @property
    def levels(self) -> Levels:
        return Levels(self.black, self.white, self.inverted)

    @classmethod
    def suggest(cls, images: Images, side: int, fit: str | None, overlap: int) -> Preparation:
        """With the levels of all images or, if these differ, every image's own.

        Raises:
          ConfigError: if the images do not have the size, or there is nothing in them.
        """
        prepared = cls(side, fit, overlap)
        levels, apart = prepared._survey(images, None)
        if levels is None:
            first = luminance(images.pictures[0])
            found = f"grey levels from {first.min():.3f} to {first.max():.3f} in the first"
            raise ConfigError(f"expected images with contrast, found {found}")
        tolerance = _CLEARLY_APART if apart > _MANY else None
        return dataclasses.replace(prepared, **levels._asdict(), tolerance=tolerance)

    def adapted(self, images: Images, levels: str = "auto") -> tuple[Preparation, list[str]]:
        """This preparation with grey levels for other images, and what is to be said about that.

        Args:
          levels: "trained", as they are; "picture", every image's own; "auto", those of all images
            together if they differ clearly from the training's, and a single image's own if it
            differs clearly from the others.
        """
        if levels == "trained":
            return self, []
        found, apart = self._survey(images, self.levels)
        prepared, said = dataclasses.replace(self, **found._asdict()), []
        if found != self.levels:
            said.append(
                f"the images' grey levels ({found}) are not the training's ({self.levels}): they "
                "are stretched to these; --levels trained leaves them"
            )
        if levels == "picture":
            prepared = dataclasses.replace(prepared, tolerance=0.0)
        elif apart:
            prepared = dataclasses.replace(prepared, tolerance=_CLEARLY_APART)
            said.append(
                f"{apart:.1%} of the images differ clearly from the others in their grey levels: "
                "each of these is stretched by its own"
            )
        return prepared, said

    def _survey(self, images: Images, trained: Levels | None) -> tuple[Levels | None, float]:
        """The levels of all images together, `trained` unless they differ clearly, and the share of
        images that differ clearly from these."""
        numbers = _sample(range(len(images.pictures)), _SAMPLE)
        most = -(-_SAMPLE // len(numbers))
        bar = tqdm(numbers, "looking at grey levels", unit="image", disable=None, leave=False)
        parts = [self._some(images.pictures[n], images.names[n], most) for n in bar]
        step = _step_of(images.pictures[0])
        found = _measure(np.concatenate(parts), step, trained and trained.inverted)
        if trained and not (found and found.differ(trained, _CLEARLY)):
            found = trained
        if found is None:
            return None, 0.0
        own = [_measure(part, step, found.inverted) for part in parts]
        apart = [bool(levels and levels.differ(found, _CLEARLY_APART)) for levels in own]
        return found, float(np.mean(apart))

    def scenes(
        self, images: Images, title: str, skip_empty: bool = False
    ) -> Iterator[tuple[np.ndarray, list[tuple[int, Window, tuple[int, int]]]]]:
        """Some hundred scenes at a time, [k, side, side] uint8, and of each the number of its
        image, where in that it was, and the image's height and width; with a progress bar.

        Args:
          skip_empty: leave out scenes in which all is of one grey.

        Raises:
          ConfigError: if an image does not have the size.
        """
        scenes: list[np.ndarray] = []
        places: list[tuple[int, Window, tuple[int, int]]] = []
        form = "{desc}: {percentage:.1f} %|{bar}| {elapsed}<{remaining}"
        bar = tqdm(total=len(images.pictures), desc=title, bar_format=form, disable=None)
        with bar:
            for number, picture in enumerate(images.pictures):
                levels = self._levels_of(picture, images.names[number])
                count, cut = self._cut(picture, images.names[number])
                for scene, window in cut:
                    scenes.append(self._stretch(luminance(scene), levels))
                    places.append((number, window, picture.shape[:2]))
                    if len(scenes) == _BATCH:
                        yield _batch(scenes, places, skip_empty)
                        scenes, places = [], []
                    bar.update(1 / count)
        if scenes:
            yield _batch(scenes, places, skip_empty)

    def _levels_of(self, picture: np.ndarray, name: str) -> Levels:
        if self.tolerance is None:
            return self.levels
        own = _measure(self._some(picture, name, 50), _step_of(picture), self.inverted)
        return own if own and own.differ(self.levels, self.tolerance) else self.levels

    def _some(self, picture: np.ndarray, name: str, most: int) -> np.ndarray:
        """Levels of at most so many of an image's scenes, [k, side, side]."""
        count, cut = self._cut(picture, name)
        few = itertools.islice(cut, 0, None, -(-count // most))
        return np.stack([luminance(scene) for scene, _ in few])

    def _cut(
        self, picture: np.ndarray, name: str
    ) -> tuple[int, Iterable[tuple[np.ndarray, Window]]]:
        """How many scenes an image has, and these as they are in the image."""
        side, size = self.side, picture.shape[:2]
        if self.fit == "tile":
            count = math.prod(-(-length // (side - self.overlap)) for length in size)
            return count, cut_tiles(picture, side, self.overlap)
        expected = f"{side} x {side} pixels of image {name}, or --fit resize or tile"
        good = self.fit == "resize" or size == (side, side)
        require(good, expected, "{1} x {0}".format(*size))
        return 1, [resize(luminance(picture), side)]

    @staticmethod
    def _stretch(scene: np.ndarray, levels: Levels) -> np.ndarray:
        stretched = np.clip((scene - levels.black) / (levels.white - levels.black), 0, 1)
        return 1 - stretched if levels.inverted else stretched


def _batch(scenes: list[np.ndarray], places: list, skip_empty: bool) -> tuple[np.ndarray, list]:
    """Scenes as they are shown to a model, uint8."""
    levels = np.stack(scenes)
    if skip_empty:
        smooth = gaussian_filter(levels, (0, 2, 2))
        good = np.flatnonzero(np.ptp(smooth, axis=(1, 2)) > _EMPTY)
        levels, places = levels[good], [places[k] for k in good]
    return np.round(255 * levels).astype(np.uint8), places


def _step_of(picture: np.ndarray) -> float:
    """Between grey levels of an image as it was read."""
    return 1 / _FULL.get(picture.dtype.name, math.inf)


def _sample(things: Sequence, most: int) -> Sequence:
    """At most so many of them, evenly spaced."""
    return things[:: -(-len(things) // most)]


class Variances(NamedTuple):
    """Variance bounds for the leaves of both models, and the noise they were suggested for."""

    object: tuple[float, float]
    background: tuple[float, float]
    noise: float


def suggest_variances(scenes: np.ndarray) -> Variances:
    """Between the paper's bounds for clean scenes and those for Noisy-MNIST, by the variance of the
    noise.

    The noise is by how much most pixels of a scene differ from its median; on Noisy-MNIST that
    makes a variance of 0.025, less than what was added, because it was cut off at black.

    Args:
      scenes: [n, side, side] uint8, prepared.
    """
    few = _sample(scenes, _SAMPLE).reshape(-1, scenes[0].size) / np.float32(255)
    deviation = np.median(np.abs(few - np.median(few, axis=1, keepdims=True)), axis=1)
    noise = float(np.median(1.4826 * deviation)) ** 2  # as of a Gaussian's standard deviation
    share = min(1.0, noise / 0.025)
    of_object = (round(0.12 + 0.13 * share, 3), 0.35)
    return Variances(of_object, (0.002, round(0.12 - 0.06 * share, 3)), noise)
