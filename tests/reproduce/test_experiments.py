import dataclasses
import json
import shutil

import pytest
from tiny_reproduce import row, write_run

from reproduce import table1
from reproduce.experiments import MODELS, TABLE_1, Experiment
from supair.config import PAPER_MODELS, TrainingError


def flat(config, name=""):
    """All values in a configuration, by their full names."""
    if not isinstance(config, dict):
        return {name: config}
    return {k: v for each, x in config.items() for k, v in flat(x, f"{name}.{each}").items()}


def test_variants_differ_from_the_paper_in_nothing_else():
    rectangles = {".object.structure": "poon_domingos", ".background.structure": "poon_domingos"}
    for variant, paper, changes in (
        ("supair_no_background", "supair", {".background": None}),
        ("supair_poon_domingos", "supair", {**rectangles, ".background.depth": 2}),
        ("supair_exact", "supair", {}),
        ("air_linear", "air", {".head_units": 0}),
    ):
        runs = (Experiment(model, "sprites", "paper", 7) for model in (variant, paper))
        found, expected = (flat(dataclasses.asdict(run.model_config())) for run in runs)
        assert dict(found.items() - expected.items()) == changes


def test_a_data_set_and_a_recipe_decide_the_configuration():
    experiments = (Experiment("supair", "grid_mnist", recipe, 7) for recipe in ("robust", "paper"))
    robust, paper = experiments
    assert robust.model_config() == paper.model_config() == PAPER_MODELS["grid_mnist"]
    without = {"batch_size": 256, "warm_up": None, "averaging": None}
    without |= {"annealing": None, "object_price": 0.0}
    assert dataclasses.replace(robust.training_config(), **without) == paper.training_config()
    assert robust.training_config().warm_up and paper.training_config().seed == 7
    assert paper.steps_per_epoch == 234
    assert robust.steps_per_epoch == 60_000 // robust.training_config().batch_size
    assert Experiment("air", "sprites", "paper", 0).steps_per_epoch == 625


def test_the_configuration_is_that_of_the_model_built(small):
    """What decides whether a run is done is worked out without TensorFlow."""
    for model in MODELS:
        run = Experiment(model, "sprites", "paper", 3)
        settings, built = run.configuration("x")["model"], run.build()
        assert settings.pop("class") == type(built).__name__
        assert settings == json.loads(json.dumps(dataclasses.asdict(built.config)))


def test_another_runs_log_is_not_read(tmp_path):
    run, other = (Experiment("supair", "sprites", recipe, 0) for recipe in ("robust", "paper"))
    assert run.read_rows(tmp_path) == []
    folder = write_run(tmp_path, run, [row(156, 1.0)])
    assert [line["step"] for line in run.read_rows(tmp_path)] == [156]
    shutil.copytree(folder, tmp_path / other.path)
    with pytest.raises(TrainingError, match=f"{other.path}/config.json.*recipe"):
        other.read_rows(tmp_path)


def test_table_1_counts_every_parameter(capsys, monkeypatch):
    assert table1.main([]) == 0
    total = capsys.readouterr().out.splitlines()[-2].split()
    assert total[1:] == ["6,104,117", "6,104,117", "6,155,461"]
    monkeypatch.setitem(TABLE_1, "air", (*TABLE_1["air"][:-1], 1))
    assert table1.main([]) == 1
