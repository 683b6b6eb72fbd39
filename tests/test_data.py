import json
import subprocess
import sys

import h5py
import numpy as np
import pytest
from PIL import Image

import data
from data import DataError, scenes, store

SIZES = (300, 60)


@pytest.fixture(scope="module", params=data.SIZES)
def dataset(request):
    return request.param, data.make(request.param, seed=5, sizes=SIZES)


def grey(part):
    return part.images.astype(np.float64) / part.white


def test_shapes_types_and_ranges(dataset):
    name, parts = dataset
    side, most = data.OTHER_SCENES.get(name, (50, 2))
    for part, size in zip(("train", "test"), SIZES):
        images, counts, boxes, white = parts[part]
        assert images.shape == (size, side, side) and counts.shape == (size,) and boxes.shape == (size, most, 4)
        assert images.dtype == (np.float16 if name == "noisy_mnist" else np.uint8)
        assert grey(parts[part]).min() >= 0 and grey(parts[part]).max() <= 1


def test_counts_are_uniform_and_boxes_match_them(dataset):
    _, parts = dataset
    images, counts, boxes, _ = parts["train"]
    most = boxes.shape[1]
    assert np.bincount(counts, minlength=most + 1).min() > 0.7 * 300 / (most + 1)
    present = boxes[..., 2] > 0
    np.testing.assert_array_equal(present.sum(axis=1), counts)
    np.testing.assert_array_equal(boxes[..., 2], boxes[..., 3])
    assert np.all(boxes[..., :2] >= 0) and np.all(boxes[..., :2] + boxes[..., 2:] <= images.shape[1])


def test_same_seed_same_scenes_and_other_seed_other_scenes(dataset):
    name, parts = dataset
    same, other = (data.make(name, seed, SIZES)["train"].images for seed in (5, 6))
    np.testing.assert_array_equal(parts["train"].images, same)
    assert not np.array_equal(parts["train"].images, other)


@pytest.mark.parametrize("name", ["multi_mnist", "sprites", *data.OTHER_SCENES])
def test_nothing_outside_the_boxes(name):
    images, _, boxes, _ = data.make(name, 5, SIZES)["train"]
    for image, scene_boxes in zip(images.copy(), boxes.astype(int)):
        for left, top, width, height in scene_boxes:
            image[top : top + height, left : left + width] = 0
        assert not image.any()


def test_digits_are_mnists_digits_resized():
    digits = data.scenes.load_mnist()["x_train"]
    for size in (15, 21, 30):
        expected = [np.asarray(Image.fromarray(d).resize((size, size), Image.Resampling.BILINEAR)) for d in digits[:20]]
        np.testing.assert_array_equal(scenes._resize(digits[:20], size), expected)
    _, counts, boxes, _ = data.make("multi_mnist", 5, (5000, 1))["train"]
    sizes = boxes[counts == 1][:, 0, 2]  # of two digits, large ones overlap more often and are drawn again
    # 28 / N(1.3, 0.1) cut to whole pixels: 21.66 on average before, half a pixel less after
    assert sizes.mean() == pytest.approx(21.2, abs=0.15) and sizes.std() == pytest.approx(1.75, abs=0.2)


def test_sprites_have_the_three_shapes_and_grey_levels():
    images, counts, boxes, white = data.make("sprites", 5, (600, 1))["train"]
    assert set(np.unique(images)) == {0, 7, 8, 10} and white == 10
    shares = []
    for image, box in zip(images[counts == 1], boxes[counts == 1][:, 0].astype(int)):
        left, top, size, _ = box
        stamp = image[top : top + size, left : left + size]
        shares.append(stamp.max())
        for edge in (stamp[0], stamp[-1], stamp[:, 0], stamp[:, -1]):
            assert edge.any()  # the box is tight
        filled = (stamp > 0).mean()
        assert filled == pytest.approx({10: np.pi / 4, 8: 1, 7: 0.5}[stamp.max()], abs=0.09)
    assert np.unique(shares, return_counts=True)[1].min() > 40
    sizes = boxes[boxes[..., 2] > 0][:, 2]
    assert set(sizes) == {12, 13, 14, 15, 16}


def test_noise_is_that_of_the_paper_on_the_same_scenes():
    clean, noisy = (grey(data.make(name, 5, SIZES)["train"]) for name in ("multi_mnist", "noisy_mnist"))
    middle = (clean > 0.4) & (clean < 0.6)  # little clipping here
    difference = noisy[middle] - (0.8 * clean[middle] + 0.1)
    assert difference.mean() == pytest.approx(0, abs=0.01) and difference.std() == pytest.approx(0.2, abs=0.01)
    assert (noisy[clean == 0] == 0).mean() == pytest.approx(0.3085, abs=0.005)  # P(N(0.1, 0.2) < 0)


def test_grid_is_that_of_the_paper_on_the_same_scenes():
    clean, grid = (grey(data.make(name, 5, SIZES)["train"]) for name in ("multi_mnist", "grid_mnist"))
    offsets = set()
    for before, after in zip(clean, grid):
        rows, columns = (np.flatnonzero((after >= 0.4).all(axis=axis)) for axis in (1, 0))
        assert len(rows) == len(columns) == 10 and set(np.diff(rows)) == set(np.diff(columns)) == {5}
        offsets.add((rows[0], columns[0]))
        lines = np.zeros([50, 50], bool)
        lines[rows], lines[:, columns] = True, True
        np.testing.assert_array_equal(after, np.where(lines, np.maximum(before, 0.4), before))
    assert len(offsets) == 25


def test_files_are_made_once_and_give_back_what_was_drawn(tmp_path, dataset):
    name, parts = dataset
    first = data.load(name, 5, tmp_path, SIZES)
    path = store.path_of(name, 5, tmp_path, SIZES)
    made = path.stat().st_mtime_ns
    again = data.load(name, 5, tmp_path, SIZES)
    assert path.stat().st_mtime_ns == made
    for part in ("train", "test"):
        for file in (first[part], again[part]):
            np.testing.assert_allclose(file.read(3, 9), grey(parts[part])[3:9], rtol=1e-6)
            np.testing.assert_array_equal(file.counts, parts[part].counts)
            np.testing.assert_array_equal(file.boxes, parts[part].boxes)
    with h5py.File(path) as file:
        assert file.attrs["seed"] == 5 and file.attrs["version"] == 1 and len(file.attrs["checksum"]) == 64
        assert json.loads(file.attrs["arguments"])["sizes"] == [300, 60]
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]  # nothing half-written beside it


def _flip(position: float):
    def damage(path):
        content = bytearray(path.read_bytes())
        content[int(position * (len(content) - 1))] ^= 0xFF
        path.write_bytes(content)

    return damage


def _edit(**attributes):
    def damage(path):
        with h5py.File(path, "r+") as file:
            file.attrs.update(attributes)

    return damage


def _remove(name):
    def damage(path):
        with h5py.File(path, "r+") as file:
            del file[name]

    return damage


DAMAGE = {
    "empty": lambda path: path.write_bytes(b""),
    "text": lambda path: path.write_text("not HDF5"),
    "truncated": lambda path: path.write_bytes(path.read_bytes()[:-1000]),
    "first byte": _flip(0),
    "an image": _flip(0.3),
    "another image": _flip(0.7),
    "version": _edit(version=99),
    "arguments": _edit(arguments="{"),
    "other arguments": _edit(arguments='{"seed": 1}'),
    "checksum": _edit(checksum="0" * 64),
    "no images": _remove("train/images"),
    "no test part": _remove("test"),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_damaged_files_are_refused_with_the_files_name(tmp_path, damage):
    data.load("sprites", 5, tmp_path, (20, 10))
    path = store.path_of("sprites", 5, tmp_path, (20, 10))
    damage(path)
    with pytest.raises(DataError, match=f"{path.name}.*delete it"):
        data.load("sprites", 5, tmp_path, (20, 10))


@pytest.mark.parametrize(
    "change, message",
    [
        ({"images": np.full([4, 50, 50], np.nan, np.float16), "white": 1}, "grey levels in 0..1"),
        ({"images": np.full([4, 50, 50], 1.5, np.float16), "white": 1}, "grey levels in 0..1, found 1.5"),
        ({"images": np.full([4, 50, 50], 11, np.uint8)}, "grey levels in 0..10, found 11"),
        ({"images": np.zeros([4, 50, 40], np.uint8)}, "side, side"),
        ({"images": np.zeros([4, 50, 50], np.int64)}, "uint8 or float16, found .* int64"),
        ({"counts": np.zeros(3, np.uint8)}, r"counts \[4\]"),
    ],
)
def test_wrong_scenes_are_not_written(tmp_path, change, message):
    parts = data.make("sprites", 5, (4, 4))
    parts["test"] = parts["test"]._replace(**change)
    with pytest.raises(DataError, match=message):
        store.write(tmp_path / "scenes.h5", parts, {"seed": 5})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("content", [None, b"", b"no zip file", "no archive", "pickle", "shape", "name"])
def test_wrong_mnist_files_are_refused(tmp_path, content):
    path = tmp_path / "digits.npz"
    arrays = {"x_train": np.zeros([3, 28, 28], np.uint8), "x_test": np.zeros([3, 28, 28], np.uint8)}
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content == "no archive":
        with path.open("wb") as file:
            np.save(file, arrays["x_train"])
    elif content == "pickle":
        np.savez(path, **{**arrays, "x_test": np.array([{}], object)})
    elif content == "shape":
        np.savez(path, **{**arrays, "x_test": np.zeros([3, 32, 32], np.uint8)})
    elif content == "name":
        np.savez(path, x_train=arrays["x_train"])
    with pytest.raises(DataError, match="digits.npz"):
        data.make("multi_mnist", 0, (3, 3), mnist=path)


def test_command_line(tmp_path):
    def call(*arguments):
        return subprocess.run([sys.executable, "-m", "data", *map(str, arguments)], capture_output=True, text=True)

    made = call("make", "sprites", "--sizes", 30, 10, "--directory", tmp_path)
    assert made.returncode == 0, made.stderr
    (path,) = tmp_path.iterdir()
    inspected = call("inspect", path)
    assert inspected.returncode == 0 and "train: 30 scenes of 50 x 50 uint8" in inspected.stdout
    path.write_bytes(path.read_bytes()[:5000])
    broken = call("inspect", path)
    assert broken.returncode == 1 and broken.stderr.startswith(f"error: {path}") and broken.stderr.count("\n") == 1
    unknown = call("make", "cifar", "--directory", tmp_path)
    assert unknown.returncode == 1 and "multi_mnist" in unknown.stderr
