import csv
import hashlib

import numpy as np
import pytest
from PIL import Image

import data
from data import DataError, scenes
from data.letters import draw_letters, write_letters

SIZES = (300, 60)
CONTENTS = {  # SHA-256 of images and counts, train and test, of seeds 0 to 5
    "multi_mnist": "b44902187813c8de7b461142250a033faf1d3ed9fb079581c1a63b2380737d4e",
    "sprites": "9d0d0e5b3c2fc53d84266c821b54f7cd9c66c67360f627471c80483a00e580d3",
    "noisy_mnist": "8bbf761308bbce233de74d55abca7b704adfbe7449e9287e3cff93e1cbfe373a",
    "grid_mnist": "aa0d979ae5a9e7101383c9b9299f3ffe6102fdcf8a0eeb6c7cb44b7812ff82a3",
    "multi_mnist_3": "532207c37fcbf949a0ba453cf0b3318caadc1732f52ca216c4553bd2da9e6bb7",
    "multi_mnist_80": "18eac8fad58b37adede98ff653daf5a3b92b34f06ff004cbda3b4ee965874df8",
}


def crop(image, box):
    left, top, width, height = np.asarray(box, int)
    return image[top : top + height, left : left + width]


@pytest.mark.parametrize("seed, name", enumerate(data.SIZES))
def test_the_scenes_of_a_seed_stay_what_they_are(seed, name):
    digest = hashlib.sha256()
    for images, counts, boxes, white in data.make(name, seed, SIZES).values():
        assert images.min() == 0 and images.max() == white
        assert np.unique(counts).tolist() == list(range(boxes.shape[1] + 1))
        digest.update(images.tobytes() + counts.tobytes())
    assert digest.hexdigest() == CONTENTS[name]


@pytest.mark.parametrize("name", data.SIZES)
def test_boxes_are_of_the_ink_and_as_many_as_counted(name):
    clean = "multi_mnist" if name in ("noisy_mnist", "grid_mnist") else name
    images = data.make(clean, 5, SIZES)["train"].images
    _, counts, boxes, _ = data.make(name, 5, SIZES)["train"]
    for image, count, scene_boxes in zip(images, counts, boxes):
        assert (scene_boxes[:count, 2:] > 0).all() and not scene_boxes[count:].any()
        for box in scene_boxes[:count]:
            ink = crop(image, box)
            assert ink.shape == (box[3], box[2])  # wholly in the scene
            if count == 1:
                assert ink[0].any() and ink[-1].any() and ink[:, 0].any() and ink[:, -1].any()
            ink[:] = 0
        assert not image.any()


def test_a_box_leaves_out_the_stamps_margins():
    stamps = np.zeros([3, 6, 6], np.uint8)
    stamps[0, 2, 1:4] = 1  # three pixels in a row, behind a margin of 1 and below one of 2
    stamps[1, [0, 5], [5, 3]] = 255  # one at the top and one at the bottom, and no third
    assert scenes.ink_boxes(stamps).tolist() == [[1, 2, 3, 1], [3, 0, 3, 6], [0, 0, 0, 0]]


def test_digits_are_mnists_digits_shrunk_bilinearly_by_normal_scales():
    digits = scenes.load_mnist()["x_train"][:1]
    size_of = {}  # ink -> size of the digit with its margins
    for size in range(15, 31):
        digit = Image.fromarray(digits[0]).resize((size, size), Image.Resampling.BILINEAR)
        size_of[crop(np.asarray(digit), scenes.ink_boxes(np.asarray([digit]))[0]).tobytes()] = size
    images, counts, boxes, _ = scenes.multi_mnist(5000, digits, np.random.default_rng(5))
    alone = counts == 1  # of two digits, large ones overlap more often and are drawn again
    inks = [crop(image, box).tobytes() for image, box in zip(images[alone], boxes[alone, 0])]
    sizes = [size_of[ink] for ink in inks]
    # 28 / N(1.3, 0.1) cut to whole pixels: 21.66 on average before, half a pixel less after
    assert [np.mean(sizes), np.std(sizes)] == pytest.approx([21.2, 1.75], abs=0.15)


# Widths by rows: the pixels less than 6, 7 or 8 from the middle one.
CIRCLES = {
    11: [7, 9, 11, 11, 11, 11, 11, 11, 11, 9, 7],
    13: [7, 9, 11, 13, 13, 13, 13, 13, 13, 13, 11, 9, 7],
    15: [7, 11, 13, 13, 15, 15, 15, 15, 15, 15, 15, 13, 13, 11, 7],
}
DIAMONDS = {  # |x| + |y| below 6, 7 or 8
    11: [1, 3, 5, 7, 9, 11, 9, 7, 5, 3, 1],
    13: [1, 3, 5, 7, 9, 11, 13, 11, 9, 7, 5, 3, 1],
    15: [1, 3, 5, 7, 9, 11, 13, 15, 13, 11, 9, 7, 5, 3, 1],
}
SQUARES = {size: [size] * size for size in range(12, 17)}


@pytest.mark.parametrize("level, shapes", [(10, CIRCLES), (8, SQUARES), (7, DIAMONDS)])
def test_sprites_shapes_and_their_boxes(level, shapes):
    images, counts, boxes, white = data.make("sprites", 5, (600, 1))["train"]
    assert white == 10 and set(np.unique(images)) == {0, 7, 8, 10}
    of_level = (counts == 1) & (images.max(axis=(1, 2)) == level)
    assert of_level.sum() > 40 and set(boxes[of_level, 0, 2]) == set(shapes)
    for image, box in zip(images[of_level], boxes[of_level, 0]):
        size = int(box[2])
        middle = np.arange(size) - (size - 1) / 2
        expected = [abs(middle) < width / 2 for width in shapes[size]]
        np.testing.assert_array_equal(crop(image, box) / level, expected)


def levels(name):
    scenes = data.make(name, 5, (300, 60))["train"]
    return scenes.images.astype(np.float64) / scenes.white


def test_noise_is_that_of_the_paper_on_the_same_scenes():
    clean, noisy = levels("multi_mnist"), levels("noisy_mnist")
    middle = (clean > 0.4) & (clean < 0.6)  # little clipping here
    difference = noisy[middle] - (0.8 * clean[middle] + 0.1)
    assert [difference.mean(), difference.std()] == pytest.approx([0, 0.2], abs=0.01)
    black = np.mean(noisy[clean == 0] == 0)
    assert black == pytest.approx(0.3085, abs=0.005)  # P(N(0.1, 0.2) < 0)


def test_grid_is_that_of_the_paper_on_the_same_scenes():
    offsets = set()
    for before, after in zip(levels("multi_mnist"), levels("grid_mnist")):
        rows, columns = (np.flatnonzero((after >= 0.4).all(axis=axis)) for axis in (1, 0))
        assert np.diff(rows).tolist() == np.diff(columns).tolist() == [5] * 9
        offsets.add((rows[0], columns[0]))
        lines = np.zeros([50, 50], bool)
        lines[rows], lines[:, columns] = True, True
        np.testing.assert_array_equal(after, np.where(lines, np.maximum(before, 0.4), before))
    assert len(offsets) == 25


WRONG = {
    "missing": lambda path, digits: None,
    "text": lambda path, digits: path.write_bytes(b"no zip file"),
    "array": lambda path, digits: np.save(path.open("wb"), digits),
    "pickle": lambda path, digits: np.savez(path, x_train=digits, x_test=np.array([{}], object)),
    "shape": lambda path, digits: np.savez(path, x_train=digits, x_test=digits[..., 1:]),
    "name": lambda path, digits: np.savez(path, x_train=digits),
}


@pytest.mark.parametrize("write", WRONG.values(), ids=WRONG)
def test_wrong_mnist_files_are_refused_with_the_files_name(tmp_path, write):
    write(tmp_path / "digits.npz", np.zeros([3, 28, 28], np.uint8))
    with pytest.raises(DataError, match="digits.npz"):
        data.make("multi_mnist", 0, (3, 3), mnist=tmp_path / "digits.npz")


def test_folders_hold_what_the_seed_draws_and_are_not_written_over(tmp_path):
    write_letters(tmp_path / "letters", (12, 3), seed=2)
    for index, (part, size) in enumerate([("train", 12), ("test", 3)]):
        folder, rng = tmp_path / "letters" / part, np.random.default_rng([2, index])
        rows = list(csv.DictReader((folder / "counts.csv").read_text().splitlines()))
        assert len(rows) == size == len(list(folder.glob("*.jpg")))
        for row in rows:
            picture, count = draw_letters(rng)
            assert int(row["count"]) == count
            assert (np.asarray(picture).max(axis=2) < 130).any() == (count > 0)  # dark on light
            read = np.asarray(Image.open(folder / row["image"]), float)
            assert np.abs(read - picture).mean() < 6  # as JPEG has it
    with pytest.raises(DataError, match="letters"):
        write_letters(tmp_path / "letters", (5, 3), seed=2)
    assert [entry.name for entry in tmp_path.iterdir()] == ["letters"]
