"""Table 2 on logs written by hand, and a quick run of tiny models."""

import dataclasses
import json
from pathlib import Path

import pytest
from tiny_reproduce import row, write_run

from reproduce import table2, train
from reproduce.experiments import Experiment
from reproduce.records import Record

OPTIONS = ["--models", "supair", "--datasets", "sprites", "--epochs", "2"]
ENDS = [(156, 1.0), (312, 2.0)]  # steps and epochs of a run on Sprites
HERE = Experiment("supair", "sprites", "robust", 0)
KEY = ("supair", "robust", "sprites")


@pytest.fixture
def recorded(monkeypatch):
    """Puts a record of three seeds, the last of one epoch only, in the place of all."""
    accuracies = {0: [0.9, 0.9], 7: [0.8, 0.8], 8: [0.1]}
    logs = {s: [row(*e, a, 200.0) for e, a in zip(ENDS, each)] for s, each in accuracies.items()}
    configuration = HERE.configuration("")
    del configuration["training"]["seed"]
    record = Record(configuration, logs, {})
    for module in (train, table2):
        monkeypatch.setattr(module, "read_record", lambda *key: record if key == KEY else None)
    return record


def shown(capsys, *starts):
    """Lines of the table without their spacing."""
    out = capsys.readouterr().out.splitlines()
    return [" ".join(line.split()) for line in out if line.startswith(starts)]


def test_published_recorded_and_own_runs_stand_side_by_side(recorded, tmp_path, capsys):
    """All recorded seeds count, whichever are asked for here."""
    for seed, accuracy in ((0, 0.99), (3, 0.97)):
        run = dataclasses.replace(HERE, seed=seed)
        write_run(tmp_path, run, [row(*end, accuracy, 300.0) for end in ENDS])
    options = [*OPTIONS, "--runs", str(tmp_path), "--no-train", "--seeds"]
    both = "98.0 ± 1.4 5022 200 ± 0 300 ± 0 90 ± 0 25.0 ± 0.0 936 ± 0"
    for seeds, measured in ((["0", "3"], both), (["9"], "- 5022 200 ± 0 - - - -")):
        assert table2.main([*options, *seeds]) == 0
        assert shown(capsys, "Sprites") == [f"Sprites 99.2 85.0 ± 7.1 {measured}"]


def test_recorded_runs_alone(recorded, capsys, tmp_path):
    """Every seed has a line or, if it has not got so far, is named."""
    path = tmp_path / "table.json"
    recorded.rows[7][-1]["best_view"] = row(312, 2.0, 0.95, 210.0)
    assert table2.main(["--recorded", *OPTIONS, "--recipe", "robust", "--json", str(path)]) == 0
    lines = shown(capsys, "Sprites", "  seed", "Not at 2 epochs")
    total, first, second, best, of_seed, missing = lines
    assert best.startswith("Sprites - 95.0 - 210 90") and of_seed.startswith("seed 7, epoch 2 95.0")
    assert total.endswith("25.0 ± 0.0 936 ± 0") and missing.endswith("seeds 8")
    assert first.startswith("seed 0, epoch 2 90.0") and second.startswith("seed 7, epoch 2 80.0")
    [at_end, converged, *_] = json.loads(path.read_text())["rows"]
    found = at_end["results"]["recorded"]
    assert (found["7"]["accuracy"], found["7"]["elbo"], found["8"]) == (0.8, 200.0, None)
    assert (at_end["budget"], converged["budget"]) == ("2 epochs", "converged")


def test_records_of_another_recipe_stand_apart(recorded, capsys, tmp_path):
    recorded.rows[7][-1]["best_view"] = row(312, 2.0, 0.95, 210.0)  # is as old as the record
    recorded.configuration["training"]["warm_up"] = None
    write_run(tmp_path, HERE, [row(*end, 0.99) for end in ENDS])
    assert table2.main([*OPTIONS, "--runs", str(tmp_path), "--no-train", "--seeds", "0"]) == 0
    heading, today, apart, past = shown(capsys, "SuPAIR", "Sprites")
    assert today.startswith("Sprites 99.2 - 99.0") and table2.OUTDATED not in heading
    assert past.startswith("Sprites 99.2 85.0 ± 7.1 -") and table2.OUTDATED in apart


def test_convergence_adds_rows(tmp_path, capsys):
    """ELBOs that stand still from epoch 2 on: means over five epochs are equal at epoch 11."""
    rows = [row(156 * e, float(e), e / 100, float(e > 1)) for e in range(1, 14)]
    for last, done in ((10, False), (13, True)):
        write_run(tmp_path / str(last), HERE, rows[:last])
        assert train.is_done(HERE, 5, True, tmp_path / str(last)) == done
        assert train.is_done(HERE, 5, False, tmp_path / str(last))
    tmp_path /= "13"
    options = [*OPTIONS, "--runs", str(tmp_path), "--no-train", "--seeds", "0", "--converge"]
    assert table2.main(options) == 0
    first, converged = shown(capsys, "  seed")
    assert first.startswith("seed 0, epoch 2 2.0")
    assert converged.startswith("seed 0, epoch 11 11.0")


def test_collapsed_and_damaged_runs_are_named(tmp_path, capsys):
    write_run(tmp_path, HERE, [row(*ENDS[0]), row(*ENDS[1], collapse="all empty")])
    damaged = write_run(tmp_path, dataclasses.replace(HERE, seed=1), [row(*ENDS[0])])
    (damaged / "log.jsonl").write_bytes(b"\xff\n")
    options = [*OPTIONS, "--runs", str(tmp_path), "--no-train", "--seeds", "0", "1"]
    assert table2.main(options) == 1
    captured = capsys.readouterr()
    assert "  seed 0, epoch 2" in captured.out and "collapsed: all empty" in captured.out
    assert str(damaged) in captured.err


def test_a_quick_run_shows_published_and_quick_without_a_verdict(small, capsys, tmp_path):
    path = tmp_path / "table.json"
    assert table2.main(["--quick", "--epochs", "1", "--json", str(path), *small]) == 0
    out = capsys.readouterr().out
    assert "succeeded" not in out.lower() and "SuPAIR on Multi-MNIST and Sprites, 1 of 20" in out
    picture, _, where, following = out.splitlines()[-4:]
    assert where.endswith(f"{tmp_path}/runs/quick.") and "table2.py --recorded" in following
    assert picture == f"{tmp_path}/runs/quick/boxes.png"
    assert (tmp_path / "runs/quick/boxes.pdf").exists()
    [last] = [line.split() for line in out.splitlines() if line.startswith("Sprites")]
    [multi_mnist, sprites] = json.loads(path.read_text())["rows"]
    result = sprites["results"]["quick"]["0"]
    marked = "*" if result["collapse"] else ""
    assert last[2].endswith(marked) and (f"\n{marked} " in out) == bool(marked)
    last = [cell.strip("*") for cell in last]
    assert last[1:5] == ["99.2", f"{100 * result['accuracy']:.1f}", "5022", f"{result['elbo']:.0f}"]
    assert multi_mnist["dataset"] == "multi_mnist" and list(multi_mnist["results"]) == ["quick"]


def test_the_readme_has_the_table_of_the_recorded_runs(capsys):
    assert table2.main(["--recorded", "--markdown"]) == 0
    assert capsys.readouterr().out in (Path(table2.__file__).parents[1] / "README.md").read_text()
