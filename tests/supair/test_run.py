"""Configuration, log and checkpoints: bound to each other, whole or refused."""

import dataclasses
import errno
import json
import os
import shutil

import numpy as np
import pytest
import tiny

from supair.config import TrainingError, resolve
from supair.model import SuPAIR
from supair.run import RunFolder, load_weights, read_rows, write_weights, write_whole


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run of three epochs, and the same with another seed."""
    folder = tmp_path_factory.mktemp("runs")
    tiny.train(folder / "seed3", 3)
    tiny.train(folder / "seed4", 3, dataclasses.replace(tiny.TRAINING, seed=4))
    return folder


@pytest.fixture
def run(trained, tmp_path):
    return shutil.copytree(trained / "seed3", tmp_path / "run")


def checkpoint(directory, epoch=3):
    return directory / "checkpoints" / f"epoch-{epoch:05d}.safetensors"


def truncate(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)


def swap(checkpoints):
    first, second = sorted(checkpoints.iterdir())
    content = first.read_bytes()
    first.write_bytes(second.read_bytes())
    second.write_bytes(content)


def delete_first_row(path):
    path.write_text("".join(path.read_text().splitlines(keepends=True)[1:]))


def contents(directory):
    return {path: path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def use_everywhere(directory):
    """What train, tables and load do with a run; the epoch that each sees."""
    load_weights(SuPAIR(tiny.MODEL, 3), directory)
    rows = read_rows(directory)
    _, trained_rows = tiny.train(directory, 1)
    assert rows == trained_rows
    return rows[-1]["epoch"]


USES = read_rows, lambda folder: tiny.train(folder, 3), use_everywhere


@pytest.mark.parametrize("damage", [truncate, flip, lambda path: path.write_bytes(b"")])
def test_the_older_checkpoint_serves_when_the_newer_is_damaged(run, trained, capsys, damage):
    assert sorted((run / "checkpoints").iterdir()) == [checkpoint(run, 2), checkpoint(run, 3)]
    damage(checkpoint(run))
    load_weights(SuPAIR(tiny.MODEL, 3), run)
    assert checkpoint(run).name in capsys.readouterr().err
    _, rows = tiny.train(run, 3)
    for row, expected in zip(rows, read_rows(trained / "seed3"), strict=True):
        assert row["train_elbo"] == expected["train_elbo"]


DAMAGES = [("log.jsonl", damage) for damage in (delete_first_row, flip, os.remove, truncate)]
DAMAGES += [("config.json", truncate), ("config.json", lambda path: path.write_text("[]"))]
DAMAGES += [("checkpoints", shutil.rmtree), ("checkpoints", swap)]


@pytest.mark.parametrize("name, damage", DAMAGES)
def test_a_run_whose_parts_do_not_belong_together_is_refused_by_all(run, name, damage):
    damage(run / name)
    for use in USES:
        with pytest.raises(TrainingError, match=name):
            use(run)


@pytest.mark.parametrize("name", ["log.jsonl", "checkpoints", "config.json"])
def test_another_seeds_files_are_refused(run, trained, name):
    if (run / name).is_dir():
        shutil.rmtree(run / name)
        shutil.copytree(trained / "seed4" / name, run / name)
    else:
        shutil.copy(trained / "seed4" / name, run / name)
    for use in USES[1:]:
        with pytest.raises(TrainingError, match=name.removesuffix(".json")):
            use(run)


@pytest.mark.parametrize(
    "changes, name",
    [
        ({"config": dataclasses.replace(tiny.TRAINING, seed=4)}, "training.seed"),
        ({"model": dataclasses.replace(tiny.MODEL, num_steps=3)}, "model.num_steps"),
        ({"model": dataclasses.replace(tiny.MODEL, background=None)}, "model.background"),
        ({"identity": {"scenes": "circles"}}, "scenes"),
        ({}, ""),  # of none at all: the log may be somebody else's
    ],
)
def test_a_folder_of_another_configuration_is_refused_and_left_alone(run, changes, name):
    if not changes:
        (run / "config.json").unlink()
    before = contents(run)
    with pytest.raises(TrainingError, match=f"config.json.*{name}"):
        tiny.train(run, 3, **changes)
    assert contents(run) == before


def fail_with(code):
    def fail(*_):
        raise OSError(code, os.strerror(code))

    return fail


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_told_of_and_used(run, monkeypatch, capsys, code):
    monkeypatch.setattr("fcntl.flock", fail_with(code))
    with RunFolder(run, json.loads((run / "config.json").read_text())):
        assert str(run) in capsys.readouterr().err


def test_unusable_folders_are_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(TrainingError, match="file"):
        tiny.train(tmp_path / "file" / "run", 1)
    assert read_rows(tmp_path / "nowhere") == []
    with pytest.raises(TrainingError, match=r"nowhere.config.json"):
        load_weights(SuPAIR(tiny.MODEL, 0), tmp_path / "nowhere")


def write_folder(directory, model):
    training = dataclasses.replace(tiny.TRAINING, seed=model.seed)
    settings = resolve(type(model).__name__, model.config, training, {})
    write_weights(model, directory, settings)


def test_weights_alone_come_back_in_half_precision(tmp_path):
    model, other = SuPAIR(tiny.MODEL, 3), SuPAIR(tiny.MODEL, 3)
    for variable in model.variables:
        variable.assign(variable + 0.125)
    write_folder(tmp_path, model)
    load_weights(other, tmp_path)
    for variable, copied in zip(model.variables, other.variables):
        np.testing.assert_allclose(copied, variable, rtol=1e-3, atol=1e-6)
    config = (tmp_path / "config.json").read_text()
    (tmp_path / "config.json").write_text(config.replace('"log_every": 3', '"log_every": 4'))
    with pytest.raises(TrainingError, match="weights.safetensors.*config.json"):
        load_weights(other, tmp_path)
    (tmp_path / "config.json").write_text(config)
    flip(tmp_path / "weights.safetensors")
    with pytest.raises(TrainingError, match="weights.safetensors"):
        load_weights(other, tmp_path)


@pytest.mark.parametrize(
    "changes, seed, weight, named",
    [
        ({"hidden_units": 6}, 3, 1.0, "hidden_units"),
        ({"overlap_rate": 1.0}, 3, 1.0, "overlap_rate"),
        ({}, 4, 1.0, "seed 3.*4"),  # the same shapes, but other variables in the leaf regions
        ({}, 3, np.nan, "inference/bias"),
    ],
)
def test_weights_that_do_not_fit_change_nothing(tmp_path, changes, seed, weight, named):
    written = SuPAIR(tiny.MODEL, 3)
    written.inference.bias.assign(np.full(32, weight))
    write_folder(tmp_path, written)
    model = SuPAIR(dataclasses.replace(tiny.MODEL, **changes), seed)
    before = [variable.numpy() for variable in model.variables]
    with pytest.raises(TrainingError, match=named):
        load_weights(model, tmp_path)
    for variable, value in zip(model.variables, before):
        np.testing.assert_array_equal(variable, value)


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    (tmp_path / "a").write_text("old")
    for name, make in (("link", lambda path: path.symlink_to("a")), ("pipe", os.mkfifo)):
        make(tmp_path / name)
        with pytest.raises(OSError, match=name):
            write_whole(tmp_path / name, "new")
        os.unlink(tmp_path / name)
    monkeypatch.setattr("os.fsync", fail_with(errno.ENOSPC))
    with pytest.raises(OSError):
        write_whole(tmp_path / "a", "new")
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("a", "old")]
