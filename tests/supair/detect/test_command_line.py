"""`python -m supair train` and `detect`."""

import csv
import json
import shutil

import numpy as np
import pytest
import tiny
from PIL import Image

import supair
from supair import __main__
from supair.config import ConfigError, TrainingError
from supair.detect.images import Preparation

SQUARES, MEAN = tiny.scenes(60), tiny.scenes(60).images.mean()


@pytest.fixture
def train(tmp_path, monkeypatch):
    """Arguments for two epochs of two steps on 60 images, of which 6 are held out."""
    monkeypatch.setattr(__main__, "LEAST_EPOCH", 2)
    np.save(tmp_path / "images.npy", SQUARES.images)
    how = "--object-size 2 5 --max-objects 1 --steps 3 --batch-size 40 --no-xla --seed 1".split()
    return ["train", *arguments(tmp_path, images="images.npy", output="run"), *how]


def arguments(folder, **paths):
    return [word for name, path in paths.items() for word in (f"--{name}", str(folder / path))]


def test_a_model_is_trained_goes_on_and_detects(tmp_path, train, capsys):
    assert __main__.main(train) == 0
    log = (tmp_path / "run" / "log.jsonl").read_text()
    last = json.loads(log.splitlines()[-1])
    assert last["step"] == 4 and last["epoch"] == 2
    assert last["accuracy"] is None and sum(last["counts_found"]) == 6  # there are no labels
    assert __main__.main(train) == 0  # done already
    assert (tmp_path / "run" / "log.jsonl").read_text() == log
    with pytest.raises(TrainingError, match="config.json"):
        __main__.main([*train, "--max-objects", "2"])
    detector = supair.load(tmp_path / "run")
    assert detector.preparation == Preparation(12)
    config = detector.model.config
    assert (config.num_steps, config.scene_mean) == (2, round(MEAN / 255, 4))
    training = json.loads((tmp_path / "run" / "config.json").read_text())["training"]
    assert training["warm_up"]["steps"] == 1 and training["annealing"]["epochs"] == 2  # 0.2 of 4
    (tmp_path / "pictures").mkdir()
    for number, image in enumerate(SQUARES.images):
        Image.fromarray(image).save(tmp_path / "pictures" / f"{number:02d}.png")
    counts, _ = detector.detect(tmp_path / "pictures").counts, capsys.readouterr()
    rows = [f"{number:02d}.png,{count}\n" for number, count in enumerate(SQUARES.counts)]
    (tmp_path / "pictures" / "counts.csv").write_text("image,count\n" + "".join(rows))
    for output in ("found", "again"):
        paths = arguments(tmp_path, model="run", images="pictures", output=output)
        assert __main__.main(["detect", *paths]) == 0
        printed, said = capsys.readouterr()
        assert "warning: " in said and "uniform" in said and f"{sum(counts)} objects" in printed
        assert f"{np.mean(counts == SQUARES.counts):.1%}" in printed
        shutil.copy(tmp_path / "found" / "boxes.csv", tmp_path / "pictures")
    assert f"{sum(counts)} of {sum(counts)} true boxes" in printed
    table = csv.DictReader((tmp_path / "found" / "counts.csv").read_text().splitlines())
    assert [int(row["count"]) for row in table] == counts.tolist()


def test_training_scenes_are_not_held_out():
    scenes = np.tile(np.arange(20, dtype=np.uint8)[:, None, None], [1, 12, 12])
    parts = __main__._split(scenes, np.arange(20), seed=0)
    train, test = (parts[name].images[:, 0, 0].tolist() for name in ("train", "test"))
    assert len(test) == 2 and sorted(train + test) == list(range(20)) and train != sorted(train)
    assert parts["train"].counts.tolist() == train


def test_command_line_refuses_what_cannot_work(tmp_path, train):
    for options, named in (
        (["--side", "13"], "13 x 13"),
        (["--side", "1"], "--side"),
        (["--max-objects", "99"], "--max-objects"),
        (["--seed", "-1"], "seed"),
        (["--object-size", "5", "2"], "--object-size"),
        (["--fit", "tile", "--side", "10"], "--side"),
        (["--output", str(tmp_path)], "--output"),
        (["--images", str(tmp_path / "missing")], "missing"),
    ):
        with pytest.raises(ConfigError, match=named):
            __main__.main([*train, *options])
    with pytest.raises(SystemExit):
        __main__.main([*train, "--steps", "0"])
    assert not (tmp_path / "run").exists()
