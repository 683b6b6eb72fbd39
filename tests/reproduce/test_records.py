"""The recorded runs: what is written is read, and nothing that is damaged."""

import dataclasses

import common
import matplotlib.pyplot as plt
import numpy as np
import pytest
import tiny

from reproduce import records, table2
from reproduce.experiments import MODELS
from supair import config
from supair.config import ConfigError
from supair.model import SuPAIR
from supair.run import load_weights

IDENTITY = {"experiment": {"model": "supair", "recipe": "paper", "dataset": "sprites"}}
FILE = "supair-paper-sprites.csv"


def read(folder):
    return records.read_record("supair", "paper", "sprites", folder)


def record() -> records.Record:
    """Seeds 4 and 11, two epochs of three steps, a row every other step."""
    row = {"train_seconds": 0.25, "accuracy": 0.5, "train_elbo": -1.5}
    end = {"elbo": 2.125, "elbo_terms": {"a": 3.0, "b": -0.875}, "confusion": [[3, 0], [1, 12]]}
    end |= {"collapse": None, "mean_iou": 1.0, "average_precision": None}
    end["train_elbo_mean"] = None
    at = {step: {"step": step, "epoch": round(step / 3, 4), **row} for step in (2, 3, 4, 6)}
    rows = [{**at[2]}, {**at[3], **end}, {**at[4]}, {**at[6], **end}]
    last = {**rows[-1], "collapse": "one, always", "average_precision": 0.25}
    last["train_elbo_mean"] = 4.5
    about = {"sessions": [{"hardware": "a", "commit": "b"}], "note": "äöü"}
    configuration = {"model": {}, "training": {"log_every": 2}, **IDENTITY}
    return records.Record(configuration, {4: rows, 11: [*rows[:3], last]}, {4: about, 11: about})


def test_a_record_is_read_as_it_was_written(tmp_path):
    assert read(tmp_path) is None
    records.write_record(record(), tmp_path)
    assert read(tmp_path) == record()
    for half in (FILE, FILE.replace("csv", "json")):
        whole = (tmp_path / half).read_text()
        (tmp_path / half).unlink()
        with pytest.raises(ConfigError, match=half):
            read(tmp_path)
        (tmp_path / half).write_text(whole)


DAMAGES = {  # of a header, four lines of seed 4 and four of seed 11
    "gap": lambda lines: lines[:3] + lines[4:],
    "ends within an epoch": lambda lines: lines[:-1],
    "no row of a seed": lambda lines: lines[:5],
    "unknown seed": lambda lines: [*lines[:-1], lines[-1].replace("11,", "12,")],
    "no ELBO at an epoch's end": lambda lines: [line.replace("2.125", "") for line in lines],
    "1e12 steps": lambda lines: [line.replace("2.0,6", "2.0,1000000000000") for line in lines],
    "another step": lambda lines: [line.replace("11,1.3333,4", "11,1.3333,5") for line in lines],
    "long cell": lambda lines: [*lines, "4," + "1" * 200_000],
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_table_is_refused(tmp_path, damage):
    records.write_record(record(), tmp_path)
    lines = (tmp_path / FILE).read_text().splitlines()
    (tmp_path / FILE).write_text("\n".join(damage(lines)))
    cell = ", line 8.*step 4" if damage is DAMAGES["another step"] else ""
    with pytest.raises(ConfigError, match=FILE + cell):
        read(tmp_path)


@pytest.mark.parametrize("path", sorted(records.RECORDED.glob("*-*-*.csv")), ids=lambda p: p.stem)
def test_every_record_is_whole_and_its_configuration_one_of_today(path):
    found = records.read_record(*path.stem.split("-"))
    settings, training = dict(found.configuration["model"]), dict(found.configuration["training"])
    is_air = settings.pop("class") == "AIR"
    if training["warm_up"]:
        training["warm_up"] = (config.AirWarmUp if is_air else config.WarmUp)(**training["warm_up"])
    config.TrainingConfig(**training)
    config.AirConfig(**settings) if is_air else config.model_from_settings(settings)


def test_a_run_is_recorded_with_boxes_and_weights(tmp_path, monkeypatch):
    model = MODELS["supair"]._replace(configurations={"sprites": tiny.MODEL})
    monkeypatch.setitem(MODELS, "supair", model)
    run, folder = tmp_path / "run", tmp_path / "recorded"
    folder.mkdir()
    training = dataclasses.replace(tiny.TRAINING, seed=0)
    model, log = tiny.train(run, 2, training, identity=IDENTITY)
    best = {"accuracy": 0.5, "elbo": 3.0, "train_elbo_mean": 4.0}
    monkeypatch.setattr(records, "measure_best_view", lambda *_: best)
    for _ in range(2):  # the second time in place of the first
        records.main([str(run), "--note", "slow", "--seconds-per-step=2"], folder)
    rows, about = read(folder).rows[0], read(folder).provenance
    assert [row["train_seconds"] for row in rows] == [2 * row["step"] for row in log]
    assert rows[-1]["elbo"] == pytest.approx(log[-1]["elbo"], abs=1e-3)
    session = log[-1]["provenance"]
    told = {"sessions": [session], "seconds_per_step": 2, "note": "slow", "best_view": best}
    kept = [row["examples"] for row in about[0].pop("examples")]
    assert len(kept) > 1 and kept == [row["examples"] for row in log if "examples" in row]
    assert about == {0: told} and rows[-1]["best_view"] == {**best, "epoch": 2.0}
    about[0]["best_view"] = {**best, "elbo": "much"}
    records.write_record(dataclasses.replace(read(folder), provenance=about), tmp_path)
    with pytest.raises(ConfigError, match="much"):
        read(tmp_path)
    records.main(["--pretrained", str(run)], folder)
    again = SuPAIR(tiny.MODEL, 0)
    load_weights(again, tmp_path / "pretrained" / "sprites")
    for variable, trained in zip(again.variables, model.variables):
        np.testing.assert_array_equal(variable.numpy(), trained.numpy().astype(np.float16))
    records.write_record(record(), folder)  # of another configuration
    with pytest.raises(ConfigError, match="supair"):
        records.main([str(run)], folder)
    assert read(folder) == record()


def test_output_that_is_not_ours_and_numbers_beyond_reason_are_refused(tmp_path, capsys):
    common.write_json(tmp_path / "ours", {"rows": []})
    (tmp_path / "yours").write_text('{"rows": []}')
    outputs = [f"--json={tmp_path / name}" for name in ("yours", "missing/a.json", ".")]
    for wrong in (*outputs, "--seeds=0-2147483647", f"--seeds={'1' * 40}"):
        with pytest.raises(SystemExit):
            table2.parse(["--recorded", wrong])
        assert f": error: argument {wrong.partition('=')[0]}: " in capsys.readouterr().err
    for name in ("ours", "new"):
        assert table2.parse(["--recorded", "--json", str(tmp_path / name)]).json.name == name
    (tmp_path / "fig.pdf").write_text("yours")
    with pytest.raises(ConfigError, match="fig.pdf"):
        common.save_figure(plt.figure(), tmp_path / "fig")
    (tmp_path / "fig.pdf").unlink()
    for _ in range(2):
        common.save_figure(plt.figure(), tmp_path / "fig")
