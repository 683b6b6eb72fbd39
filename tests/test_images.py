"""Images of one's own, from files to counts and boxes; and the pretrained weights."""

import csv
import json
import os
import shutil

import h5py
import numpy as np
import pytest
import tensorflow as tf
import tiny
from PIL import Image

import data
from data.letters import draw_letters, write_letters
from reproduce.runs import PRETRAINED
from supair import ConfigError, InMemoryScenes, SuPAIR, TrainingConfig, TrainingError, __main__, metrics
from supair.detection import Detection, check_output, detect, draw_overlay, write_results
from supair.evaluation import Evaluator
from supair.images import Images, Preparation, grey, read_images, suggest_variances
from supair.inference import SceneDescription
from supair.saved import WEIGHTS, load_model, write_weights

SQUARES = tiny.scenes(60)


def as_folder(path, images=SQUARES.images):
    path.mkdir()
    for number, image in enumerate(images):
        Image.fromarray(image).save(path / f"{number:03d}.png")
    return path


def test_every_kind_of_file_gives_the_same_images(tmp_path):
    folder = as_folder(tmp_path / "folder")
    np.savez(tmp_path / "a.npz", images=SQUARES.images, counts=SQUARES.counts)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["part/images"], file["part/counts"] = SQUARES.images / np.float32(255), SQUARES.counts
    for images in (read_images(folder), read_images(tmp_path / "a.npz"), read_images(tmp_path / "a.h5", "part/images")):
        np.testing.assert_allclose([grey(picture) for picture in images.pictures], SQUARES.images / 255, atol=1e-6)
    assert images.names[:2] == ["0", "1"] and read_images(folder).names[:2] == ["000.png", "001.png"]
    np.testing.assert_array_equal(images.counts, SQUARES.counts)
    assert read_images(folder).counts is None
    lines = "".join(f"{n:03d}.png,{c}\n" for n, c in enumerate(SQUARES.counts))
    (folder / "counts.csv").write_text("\ufeffimage,count\n" + lines, encoding="utf-8")  # as spreadsheets write it
    np.testing.assert_array_equal(read_images(folder).counts, SQUARES.counts)
    np.testing.assert_array_equal(read_images(tmp_path / "a.npz").counts, SQUARES.counts)


def test_kinds_of_pixels(tmp_path):
    """Colours by luminance, 16 bits, palettes, one bit, transparent black on white, and a photograph on its side."""
    colour = np.zeros([4, 6, 3], np.uint8)
    colour[..., 1] = 255
    sideways, clear = Image.fromarray(colour.swapaxes(0, 1)), Image.new("RGBA", (6, 4), (0, 0, 0, 102))
    sideways.getexif()[274] = 6
    for name, image in {
        "a": Image.fromarray(colour),
        "b": Image.fromarray(np.full([4, 6], 32768, np.uint16)),
        "c": Image.fromarray(colour).convert("P"),
        "d": Image.fromarray(colour[..., 1]).convert("1"),
        "e": clear,
        "f": sideways,
    }.items():
        image.save(tmp_path / f"{name}.png", exif=image.getexif())
    (tmp_path / "._a.png").write_bytes(b"not ours")
    (tmp_path / "folder.png").mkdir()
    images = read_images(tmp_path)
    levels = [grey(picture) for picture in images.pictures]
    np.testing.assert_allclose([level.mean() for level in levels], [0.587, 0.5, 0.587, 1, 0.6, 0.587], atol=2e-3)
    assert images.size == (4, 6) and all(level.shape == (4, 6) for level in levels)


def _truncate(path):
    path.write_bytes(path.read_bytes()[:45])


BAD = {
    "nothing there": (lambda path: None, "no such file or folder"),
    "an empty folder": (lambda path: path.mkdir(), "PNG or JPEG files in this folder, found none"),
    "a truncated picture": (lambda path: _truncate(as_folder(path) / "003.png"), "003.png: damaged or no image"),
    "wrong counts": (
        lambda path: (as_folder(path) / "counts.csv").write_text("image,count\n000.png,x\n"),
        "counts.csv: expected",
    ),
    "negative counts": (
        lambda path: (as_folder(path, SQUARES.images[:1]) / "counts.csv").write_text("image,count\n000.png,-1\n"),
        "counts.csv: expected",
    ),
    "another file": (lambda path: path.write_text("hello"), "expected a folder, an .npz or an .h5 file"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_folders_are_refused(name, tmp_path):
    make, message = BAD[name]
    make(tmp_path / "images")
    with pytest.raises(ConfigError, match=message):
        read_images(tmp_path / "images")


BAD_ARRAYS = {
    "another name": ({"pictures": np.zeros([2, 4, 4])}, "has no array images, but pictures"),
    "one image": ({"images": np.zeros([4, 4])}, r"found \(4, 4\)"),
    "four channels": ({"images": np.zeros([2, 4, 4, 4])}, r"found \(2, 4, 4, 4\)"),
    "integers": ({"images": np.zeros([2, 4, 4], int)}, "expected uint8 or floating point, found int64"),
    "too bright": ({"images": np.full([2, 4, 4], 2.0)}, r"expected values in \[0, 1\], found 2.0 to 2.0"),
    "not a number": ({"images": np.full([2, 4, 4], np.nan)}, r"expected values in \[0, 1\], found nan"),
    "too few counts": ({"images": np.zeros([2, 4, 4]), "counts": np.zeros([1], int)}, r"expected counts \[2\]"),
    "pickles": ({"images": np.array([None, "x"])}, "damaged, or no .npz file"),
}


@pytest.mark.parametrize("name", BAD_ARRAYS)
def test_bad_arrays_are_refused(name, tmp_path):
    arrays, message = BAD_ARRAYS[name]
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(ConfigError, match=message):
        read_images(tmp_path / "a.npz")


def test_an_array_is_no_archive(tmp_path):
    with (tmp_path / "a.npz").open("wb") as file:
        np.save(file, SQUARES.images)
    with pytest.raises(ConfigError, match="a.npz: missing, damaged, or no .npz file"):
        read_images(tmp_path / "a.npz")


@pytest.mark.parametrize("name", ["a.npz", "a.h5"])
def test_truncated_files_are_refused(name, tmp_path):
    np.savez(tmp_path / "a.npz", images=SQUARES.images)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["images"] = SQUARES.images
    content = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(content[: len(content) // 2])
    with pytest.raises(ConfigError, match="missing, damaged"):
        read_images(tmp_path / name)


def picture_with_square(left: int, top: int, height: int = 90, width: int = 120) -> np.ndarray:
    picture = np.full([height, width, 3], 220, np.uint8)
    picture[top : top + 24, left : left + 24] = 30
    return picture


def bright_box(scene: np.ndarray) -> np.ndarray:
    rows, columns = (np.flatnonzero((scene > 128).any(axis=axis)) for axis in (1, 0))
    return np.array([[columns[0], rows[0], len(columns), len(rows)]], float)


def test_boxes_find_their_way_back_from_resized_images():
    """Dark on light becomes bright on dark, the longer side fits, and the square is where it was."""
    images = Images(["a"], [picture_with_square(72, 12)], None)
    preparation = Preparation.suggest(images, 30, "resize", 0)
    assert preparation.inverted and preparation.black == pytest.approx(30 / 255, abs=0.02)
    (scene,), (window,) = preparation.scenes(images)
    assert scene.shape == (30, 30) and scene.dtype == np.uint8 and scene.max() == 255 and np.median(scene) == 0
    np.testing.assert_allclose(window.to_image(bright_box(scene)), [[72, 12, 24, 24]], atol=0.6)  # rows of 90 / 22


def test_both_axes_have_their_own_zoom():
    """400 x 5 pixels become 50 x 1, whose height is not 5 / 8."""
    (_,), (window,) = Preparation(50, "resize").scenes(Images(["a"], [np.zeros([5, 400])], None))
    np.testing.assert_allclose(window.to_image([[0, 24, 50, 1]]), [[0, 0, 400, 5]])


def test_boxes_find_their_way_back_from_tiles_and_count_once():
    for left, top in ((0, 0), (5, 60), (41, 33), (50, 20), (96, 66)):
        images = Images(["a"], [picture_with_square(left, top)], None)
        scenes, windows = Preparation(60, "tile", overlap=30, inverted=True).scenes(images)
        assert len(scenes) == 3 * 4  # strides of 30
        found = [
            window.to_image(bright_box(scene))[0]
            for scene, window in zip(scenes, windows)
            if (scene > 128).any() and window.owns(window.to_image(bright_box(scene)))[0]
        ]
        np.testing.assert_allclose(found, [[left, top, 24, 24]], atol=0.01)


def test_scenes_of_the_right_size_are_left_alone():
    images = Images(["a"] * 60, SQUARES.images, None)
    scenes, _ = Preparation.suggest(images, 12, None, 0).scenes(images)
    np.testing.assert_array_equal(scenes, SQUARES.images)


@pytest.mark.parametrize(
    "images, message",
    [
        (np.full([3, 12, 12], 0.5), "expected images with contrast"),
        (np.zeros([3, 12, 14]), "image 0 has 14 x 12 pixels.*choose --fit resize"),
    ],
)
def test_images_that_cannot_be_prepared_are_refused(images, message):
    with pytest.raises(ConfigError, match=message):
        Preparation.suggest(Images(list("abc"), images, None), 12, None, 0)


def test_variances_are_the_papers_on_the_papers_scenes():
    def suggested(dataset):
        test = data.make(dataset, 0, (1, 50))["test"]
        levels = np.round(test.images * np.float32(255 / test.white)).astype(np.uint8)
        return suggest_variances(levels)

    assert suggested("multi_mnist")[:2] == ((0.12, 0.35), (0.002, 0.12))
    (low, high), (least, most), noise = suggested("noisy_mnist")
    assert (low, most) == pytest.approx((0.25, 0.06), abs=0.02) and (high, least) == (0.35, 0.002) and 0.02 < noise < 0.03


class Finder:
    """In place of a model: one box around what is bright, and another one that is never there."""

    config = tiny.MODEL

    def __call__(self, scenes):
        boxes = [bright_box(255 * scene)[0] if scene.any() else np.zeros(4) for scene in scenes]
        there = [[float(scene.any()), 0.2] for scene in scenes]
        self._boxes = np.stack([boxes, np.ones_like(boxes)], axis=1)
        zeros = np.zeros([len(scenes), 2, 4], np.float32)
        return SceneDescription(tf.constant(there), zeros, zeros)

    def boxes(self, description):
        return tf.constant(self._boxes)


def test_results_are_what_was_found(tmp_path):
    images = Images([f"{n}.jpg" for n in range(60)], SQUARES.images, None)
    found = detect(Finder(), Preparation(side=12), images)
    np.testing.assert_array_equal([each.count for each in found], SQUARES.counts)
    write_results(tmp_path / "out", images, found)
    with open(tmp_path / "out" / "counts.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["image"] for row in rows] == images.names and [int(row["count"]) for row in rows] == SQUARES.counts.tolist()
    content = json.loads((tmp_path / "out" / "boxes.json").read_text())
    boxes = [[box[key] for key in ("left", "top", "width", "height")] for entry in content for box in entry["boxes"]]
    np.testing.assert_array_equal(boxes, SQUARES.boxes[SQUARES.counts > 0, 0])
    assert len((tmp_path / "out" / "boxes.csv").read_text().splitlines()) == 1 + SQUARES.counts.sum()
    assert len(list((tmp_path / "out" / "overlays").iterdir())) == 60
    assert Image.open(tmp_path / "out" / "contact_sheet.png").size == (960, 960)
    write_results(tmp_path / "out", images, found)  # replaces an earlier result
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    with pytest.raises(ConfigError, match="holds the images"):
        check_output(tmp_path / "out", tmp_path / "out" / "overlays")
    (tmp_path / "out" / "boxes.csv").unlink()  # no longer a whole result, so it may be another's
    with pytest.raises(ConfigError, match="holds other files"):
        write_results(tmp_path / "out", images, found)


@pytest.mark.parametrize("fails_at", [0, 1])
def test_an_earlier_result_survives_an_interruption(fails_at, tmp_path, monkeypatch):
    images = Images(["a.jpg", "a.jpg.png"], SQUARES.images[:2], None)
    found = detect(Finder(), Preparation(side=12), images)
    write_results(tmp_path / "out", images, found)
    assert len(list((tmp_path / "out" / "overlays").iterdir())) == 2  # of names that collide
    content, calls, replace = (tmp_path / "out" / "counts.csv").read_text(), iter(range(3)), os.replace

    def interrupted(source, target):
        if next(calls) == fails_at:
            raise KeyboardInterrupt
        replace(source, target)

    monkeypatch.setattr(os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_results(tmp_path / "out", images, found[::-1])
    assert (tmp_path / "out" / "counts.csv").read_text() == content
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_overlays_outline_the_boxes():
    found = Detection(np.array([[2.0, 3.0, 4.0, 5.0]]), np.array([0.9]), np.array([1]))
    overlay = np.asarray(draw_overlay(np.zeros([10, 12]), found))
    assert overlay.shape == (250, 300, 3)
    green = (overlay == (0x2C, 0xA0, 0x2C)).all(axis=2)  # the second step's
    rows, columns = np.flatnonzero(green.any(axis=1)), np.flatnonzero(green.any(axis=0))
    assert (rows[0], rows[-1], columns[0], columns[-1]) == (75, 199, 50, 149)


@pytest.fixture
def quick_cli(monkeypatch):
    monkeypatch.setattr(__main__, "LEAST_EPOCH", 2)
    size = ["--patch-size", "6", "--object-size", "2", "5", "--max-objects", "1"]
    return [*size, "--steps", "3", "--batch-size", "16", "--no-xla", "--seed", "1"]


def test_train_and_detect_from_the_command_line(tmp_path, quick_cli, capsys):
    folder, run = as_folder(tmp_path / "images"), tmp_path / "run"
    train = ["train", "--images", str(folder), "--output", str(run), *quick_cli]
    assert __main__.main(train) == 0
    printed = capsys.readouterr().out
    assert "60 images, 60 scenes of 12 x 12 pixels, 6 of them" in printed and "up to 1 a scene (2 steps)" in printed
    assert "suggested --object-variance 0.12 0.35" in printed
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    assert lines[-1]["test_accuracy"] is None and sum(lines[-1]["test_counts"]) == 6  # nobody knows the counts
    content = (run / "log.jsonl").read_text()
    assert __main__.main(train) == 0  # done already
    assert (run / "log.jsonl").read_text() == content
    detect = ["detect", "--model", str(run), "--images", str(folder), "--output", str(tmp_path / "found")]
    assert __main__.main(detect) == 0
    assert "objects in 60 images" in capsys.readouterr().out
    with open(tmp_path / "found" / "counts.csv", newline="") as file:
        counts = [int(row["count"]) for row in csv.DictReader(file)]
    model, preparation = load_model(run)
    assert preparation == Preparation(side=12) and model.config.num_steps == 2
    np.testing.assert_array_equal(counts, model(SQUARES.read(0, 60)).count)
    with pytest.raises(TrainingError, match="holds another run"):
        __main__.main([*train, "--max-objects", "2"])


def test_command_line_refuses_what_cannot_work(tmp_path, quick_cli):
    np.savez(tmp_path / "wide.npz", images=np.random.default_rng(0).uniform(size=[20, 12, 14]))
    train = ["train", "--images", str(tmp_path / "wide.npz"), "--output", str(tmp_path / "run"), *quick_cli]
    with pytest.raises(ConfigError, match="images of 14 x 12 pixels; choose --fit resize"):
        __main__.main(train)
    with pytest.raises(ConfigError, match="scale_min <= scale_max"):
        __main__.main([*train, "--fit", "resize", "--side", "12", "--object-size", "5", "2"])
    with pytest.raises(ConfigError, match="overlap by 8 to hold every object whole; choose a larger --side"):
        __main__.main([*train, "--fit", "tile", "--side", "10"])
    with pytest.raises(SystemExit):
        __main__.main([*train, "--steps", "0"])
    assert not (tmp_path / "run").exists()
    with pytest.raises(ConfigError, match="holds other files than a run's"):
        __main__.main([*train[:3], "--output", str(tmp_path)])
    with pytest.raises(TrainingError, match="expected the directory of a trained model"):
        __main__.main(["detect", "--model", str(tmp_path), "--images", str(tmp_path), "--output", str(tmp_path / "out")])


def test_small_sets_are_gone_through_several_times_an_epoch(monkeypatch):
    monkeypatch.setattr(__main__, "LEAST_EPOCH", 10)
    scenes = np.tile(np.arange(20, dtype=np.uint8)[:, None, None], [1, 12, 12])
    parts = __main__._split(scenes, np.arange(20), TrainingConfig(batch_size=5))
    train, test = (parts[name].images[:, 0, 0] for name in ("train", "test"))
    assert len(train) == 54 and len(test) == 2 and not set(train) & set(test)
    assert (
        set(np.bincount(train)) == {0, 3}
        and sorted(train[:18]) == sorted(train[18:36])
        and train[:18].tolist() != train[18:36].tolist()
    )
    np.testing.assert_array_equal(parts["train"].counts, train)


@pytest.mark.parametrize("dataset", data.DATASETS)
def test_pretrained_weights_count_scenes_they_have_not_seen(dataset):
    model, preparation = load_model(PRETRAINED / dataset)
    assert preparation == Preparation(side=50)
    test = data.make(dataset, 1, (1, 1000))["test"]
    scenes = InMemoryScenes(test.images / np.float32(test.white), test.counts, test.boxes)
    (measured,) = Evaluator(model, scenes).quick()
    made_by = json.loads((PRETRAINED / dataset / "run.json").read_text())
    assert measured["test_accuracy"] > made_by["test_accuracy"] - 0.02
    assert (PRETRAINED / dataset / WEIGHTS).stat().st_size < 8e6


def test_damaged_weights_are_refused(tmp_path):
    source = tmp_path / "model"
    source.mkdir()
    model = SuPAIR(tiny.MODEL, seed=3)
    write_weights(model, source)
    settings = {"model": json.loads(json.dumps(__main__.dataclasses.asdict(tiny.MODEL))), "training": {"seed": 3}}
    settings["model"]["warm_up"] = {"steps": 9, "of another time": 1}  # is only about training
    (source / "config.json").write_text(json.dumps(settings))
    loaded, _ = load_model(source)
    for ours, theirs in zip(model.variables, loaded.variables):
        np.testing.assert_allclose(ours.numpy(), theirs.numpy(), atol=1e-3)
    content = (source / WEIGHTS).read_bytes()
    for name, other in {
        "truncated": content[:-200],
        "empty": b"",
        "flipped": content[:300] + b"\xff\x00" + content[302:],
    }.items():
        damaged = shutil.copytree(source, tmp_path / name)
        (damaged / WEIGHTS).write_bytes(other)
        with pytest.raises(TrainingError, match=f"{WEIGHTS}: damaged"):
            load_model(damaged)
    for other in (np.zeros([3]), np.array(["a"])):
        np.savez(tmp_path / "flipped" / WEIGHTS, **{f"weight{index}": other for index in range(len(model.variables))})
        with pytest.raises(TrainingError, match="another model's"):
            load_model(tmp_path / "flipped")
    np.save(tmp_path / "a.npy", np.zeros(3))
    shutil.copy(tmp_path / "a.npy", tmp_path / "flipped" / WEIGHTS)
    with pytest.raises(TrainingError, match="damaged"):
        load_model(tmp_path / "flipped")
    settings["model"]["num_steps"] = "two"
    (source / "config.json").write_text(json.dumps(settings))
    with pytest.raises(TrainingError, match="config.json: damaged, or not of a SuPAIR"):
        load_model(source)


def test_letters_are_counted_and_written_whole(tmp_path):
    write_letters(tmp_path / "letters", (5, 3), seed=0)
    images = read_images(tmp_path / "letters" / "train")
    assert len(images.pictures) == 5 and images.size == (90, 120) and images.pictures[0].shape == (90, 120, 3)
    rng = np.random.default_rng([0, 0])
    assert images.counts.tolist() == [draw_letters(rng)[1] for _ in range(5)]
    with pytest.raises(data.DataError, match="is there already"):
        write_letters(tmp_path / "letters", (5, 3), seed=0)


def test_collapse_is_not_looked_for_where_counts_are_unknown():
    measured = Evaluator(SuPAIR(tiny.MODEL), InMemoryScenes(SQUARES.images), compiled=False).full()[0]
    assert "test_collapse" not in measured and sum(measured["test_counts"]) == 60 and metrics.collapse([[0], [60]]) is not None
