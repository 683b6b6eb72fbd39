import os
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

import data
from data import DataError, __main__, store

SIZES = (20, 10)


@pytest.fixture
def path(tmp_path):
    data.load("sprites", 5, tmp_path, SIZES)
    return store.path_of("sprites", 5, tmp_path, SIZES)


@pytest.mark.parametrize("name", ["sprites", "noisy_mnist"])
def test_files_are_made_once_and_give_back_what_was_drawn(tmp_path, name):
    data.load(name, 5, tmp_path, SIZES)
    (path,) = tmp_path.iterdir()  # nothing half-written beside it
    made = path.stat().st_mtime_ns
    parts = data.load(name, 5, tmp_path, SIZES)
    assert path.stat().st_mtime_ns == made
    for part, drawn in data.make(name, 5, SIZES).items():
        levels = drawn.images[3:9].astype(np.float64) / drawn.white
        np.testing.assert_allclose(parts[part].read(3, 9), levels, rtol=1e-6)
        np.testing.assert_array_equal(parts[part].counts, drawn.counts)
        np.testing.assert_array_equal(parts[part].boxes, drawn.boxes)


EDITS = {
    "version": lambda file: file.attrs.update(version="two"),
    "arguments": lambda file: file.attrs.update(arguments="{"),
    "other arguments": lambda file: file.attrs.update(arguments='{"seed": 1}'),
    "foreign": lambda file: file.attrs.update(version=1, arguments='{"of": "others"}'),
    "no checksum of boxes": lambda file: file.attrs.pop("boxes_checksum"),
    "images": lambda file: file["train/images"].write_direct(np.zeros([20, 50, 50], np.uint8)),
    "counts": lambda file: file["test/counts"].write_direct(np.zeros(10, np.uint8)),
    "boxes": lambda file: file["test/boxes"].write_direct(np.zeros([10, 2, 4], np.float32)),
}


@pytest.mark.parametrize("kind", EDITS)
def test_damaged_and_foreign_files_are_refused_and_left_alone(path, kind):
    with h5py.File(path, "r+") as file:
        EDITS[kind](file)
    content = path.read_bytes()
    with pytest.raises(DataError, match=path.name) as error:
        data.load("sprites", 5, path.parent, SIZES)
    assert "\n" not in str(error.value) and path.read_bytes() == content


def test_files_of_another_version_are_made_again(path, capfd):
    with h5py.File(path, "r+") as file:  # as version 1 was: other boxes, no checksum of theirs
        file["train/boxes"][:] = 50
        file.attrs["version"] = 1
        del file.attrs["boxes_checksum"]
    expected = data.make("sprites", 5, SIZES)["train"].boxes
    for lines in (1, 0):
        found = data.load("sprites", 5, path.parent, SIZES)["train"].boxes
        np.testing.assert_array_equal(found, expected)
        said = capfd.readouterr().err
        assert said.count("\n") == said.count(path.name) == said.count(" 1,") == lines


def test_checksums_of_scenes_do_not_depend_on_their_boxes(tmp_path):
    parts = data.make("sprites", 5, SIZES)
    found = []
    for divided in ((), ("boxes",), ("counts",), ("images",)):
        values = {name: getattr(parts["test"], name) // 2 for name in divided}
        store.write(tmp_path / "x", {**parts, "test": parts["test"]._replace(**values)}, {})
        found.append({part.checksum for part in store.read(tmp_path / "x").values()})
    (same,), (boxes,), (counts,), (images,) = found
    assert boxes == same and len({same, counts, images}) == 3


WRONG = [
    ("nan", {"images": np.full([4, 50, 50], np.nan, np.float16)}),
    ("11", {"images": np.full([4, 50, 50], 11, np.uint8)}),
    ("4, 50, 40", {"images": np.zeros([4, 50, 40], np.uint8)}),
    ("int64", {"images": np.zeros([4, 50, 50], np.int64)}),
    ("3,", {"counts": np.zeros(3, np.uint8)}),
    ("4, 2, 3", {"boxes": np.zeros([4, 2, 3], np.float32)}),
]


@pytest.mark.parametrize("named, change", WRONG)
def test_wrong_scenes_are_not_written(tmp_path, named, change):
    parts = data.make("sprites", 5, (4, 4))
    with pytest.raises(DataError, match=named):
        store.write(tmp_path / "x.h5", {**parts, "test": parts["test"]._replace(**change)}, {})
    assert not list(tmp_path.iterdir())


def test_links_are_not_replaced_and_new_files_are_as_the_umask_says(tmp_path, path):
    (tmp_path / "link").symlink_to(path)
    with pytest.raises(DataError, match="link"):
        store.write(tmp_path / "link", data.make("sprites", 5, (4, 4)), {})
    assert (tmp_path / "link").is_symlink()
    before = os.umask(0o027)
    store.write(tmp_path / "x.h5", data.make("sprites", 5, (4, 4)), {})
    os.umask(before)
    assert (tmp_path / "x.h5").stat().st_mode & 0o777 == 0o640


def test_what_is_replaced_stays_until_all_is_written_and_old_leftovers_go(path):
    before, left, in_use = path.read_bytes(), *(Path(f"{path}.{name * 8}.partial") for name in "ab")
    left.mkdir()
    in_use.mkdir()
    os.utime(left, (0, 0))
    with pytest.raises(ZeroDivisionError), store.replacing(path) as partial:
        partial.write_text("half")
        raise ZeroDivisionError
    assert path.read_bytes() == before and set(path.parent.iterdir()) == {path, in_use}
    with pytest.raises(DataError, match="below"), store.replacing(path / "below"):
        raise AssertionError("the folder is a file")


def test_command_line_ends_with_one_line_and_its_code_and_leaves_tensorflow_alone(path, capsys):
    __main__.main(["inspect", str(path)])
    assert "(20, 50, 50) uint8" in capsys.readouterr().out
    for words in ("make cifar", "make --seed -1", "letters new --seed -1"):
        with pytest.raises(DataError, match=words.split()[-1]):
            __main__.main(words.split())
    script = (
        "import runpy, signal, sys; from data import store\n"
        "stop = lambda *_: 'tensorflow' in sys.modules or signal.raise_signal(signal.SIGINT)\n"
        "store.load = stop; runpy.run_module('data', run_name='__main__')"
    )
    root = Path(data.__file__).parents[1]
    assert subprocess.call([sys.executable, "-c", script, "make"], cwd=root) == 130
