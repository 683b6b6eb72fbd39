"""The scripts: what they print, write and refuse, with data sets and models cut down to size."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import _setup
import all as run_all
import benchmark
import digits
import errors
import fig4_progress
import fig5_learning
import fig6_noise
import pytest
import queries
import record
import seeds
import table1
import table2
import tensorflow as tf

import data
from reproduce import runs
from reproduce.experiments import MODELS, TABLE_1, TABLE_2
from reproduce.runs import Result, final_result, result_at
from supair import Convergence, robust_training
from supair.config import air_training

ROOT = Path(__file__).parent.parent
SCRIPTS = [table1, table2, fig4_progress, fig5_learning, fig6_noise, run_all, record, benchmark, errors, queries, digits, seeds]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda module: module.__name__)
def test_scripts_explain_themselves(script, capsys):
    with pytest.raises(SystemExit) as end:
        script.main(["--help"])
    assert end.value.code == 0 and f"python reproduce/{script.__name__}.py" in capsys.readouterr().out


def test_published_numbers():
    published = {"supair": [0.983, 4923, 0.992, 5022, 0.938, 1047, 0.975, 3564], "air": [0.947, 615, 0.959, 685, 0, 232, 0, 228]}
    for model, numbers in published.items():
        assert [number for dataset in data.DATASETS for number in TABLE_2[model, dataset]] == numbers


def test_variants_differ_from_the_paper_in_one_thing():
    for name in ("supair", "air"):
        robust, paper = (MODELS[name].recipes[recipe]("sprites") for recipe in ("robust", "paper"))
        assert dataclasses.replace(robust, warm_up=None) == paper != robust
    trainings = {
        (model, recipe): runs.Experiment(model, "sprites", recipe, 7).training_config()
        for model in ("supair", "supair_exact", "air")
        for recipe in ("paper", "robust")
    }
    air, linear = (MODELS[name].recipes["paper"]("sprites") for name in ("air", "air_linear"))
    assert dataclasses.replace(air, head_units=0) == linear
    assert trainings["supair", "robust"] == trainings["supair_exact", "robust"] == robust_training(7)
    assert trainings["supair", "paper"] == dataclasses.replace(robust_training(7), averaging=None)
    assert trainings["air", "paper"] == trainings["air", "robust"] == air_training(7)
    paper, no_background, poon_domingos, upper_left = (
        MODELS[name].recipes["paper"]("sprites")
        for name in ("supair", "supair_no_background", "supair_poon_domingos", "supair_upper_left")
    )
    assert dataclasses.replace(paper, position_bias=-3.0) == upper_left
    assert dataclasses.replace(paper, background=None) == no_background
    assert (poon_domingos.object.structure, poon_domingos.object.step) == ("poon_domingos", 10)
    assert (poon_domingos.background.structure, poon_domingos.background.step) == ("poon_domingos", 20)
    assert poon_domingos.background.variance_max == paper.background.variance_max == 0.16


def test_table1_counts_every_parameter(capsys):
    assert table1.count_supair() == TABLE_1["supair"]
    assert table1.main([]) == 0
    out = capsys.readouterr().out
    assert "3,213,145   3,213,145" in out and "6,104,117   6,104,117   6,155,461" in out and "differs" not in out


def test_quick_run_prints_published_next_to_measured(small, capsys, tmp_path):
    assert table2.main(["--quick", "--epochs", "1", "--json", str(tmp_path / "table.json"), *small]) == 0
    out = capsys.readouterr().out
    assert "Quick run (a smoke test" in out and "quick run: too short to compare ELBOs" in out
    assert "98.3  " in out and "99.2  " in out and "seed 0" in out and "recorded" not in out
    rows = json.loads((tmp_path / "table.json").read_text())["rows"]
    assert [(row["model"], row["dataset"], row["budget"], row["seeds"]) for row in rows] == [
        ("supair", "multi_mnist", "quick", [0]),
        ("supair", "sprites", "quick", [0]),
    ]
    assert all(0 <= row["accuracy"][0] <= 1 and row["train_seconds"][0] > 0 and row["epochs"] == 1 for row in rows)


def test_all_seeds_count_and_finished_runs_are_not_repeated(small, capsys, tmp_path):
    tf.config.run_functions_eagerly(False)  # in which seeds trained together take longer
    options = ["--seeds", "0", "3", "--datasets", "sprites", "--models", "supair", "--recipe", "paper", "--epochs", "2"]
    options += ["--together", "5", *small]
    assert table2.main(options) == 0
    first = capsys.readouterr().out
    assert (
        "2 runs" in first
        and "[1/2] SuPAIR, Sprites, seeds 0, 3, to epoch 2" in first
        and "[2/2]" not in first
        and "have not got to" not in first
        and "±" in first
        and "median" in first
    )
    assert "0 of 2" in first  # an untrained model does not succeed, and the table says so
    logs = sorted(tmp_path.glob("runs/supair/sprites/paper/seed*/log.jsonl"))
    assert [path.parent.name for path in logs] == ["seed0", "seed3"]
    before = [(path.stat().st_mtime_ns, path.read_bytes()) for path in logs]
    assert table2.main(options) == 0
    assert before == [(path.stat().st_mtime_ns, path.read_bytes()) for path in logs]
    assert "All of them are there already" in capsys.readouterr().out
    config = logs[0].with_name("config.json")
    config.write_text(config.read_text().replace('"learning_rate": 0.001', '"learning_rate": 0.002'))
    logs[1].write_bytes(b"\xff\xfe\n")
    assert table2.main(options) == 1
    out = capsys.readouterr().out
    assert f"Failed: {config}: this directory holds another run (training.learning_rate: expected 0.001, found 0.002)" in out
    assert f"Failed: {logs[1]}: damaged" in out and "Sprites" in out


def test_processes_of_their_own():
    """A signal comes back as an exception; a killed process is told from a failed run."""
    import concurrent.futures

    import jobs

    from reproduce.runs import call_apart
    from supair.training import Interrupted

    with pytest.raises(Interrupted) as interrupt:
        call_apart(jobs.signal_self, signal.SIGTERM)
    assert interrupt.value.signum == signal.SIGTERM
    with pytest.raises(concurrent.futures.process.BrokenProcessPool):
        call_apart(jobs.signal_self, signal.SIGKILL)


def test_both_models_and_both_budgets(capsys, tmp_path, monkeypatch):
    """What the table makes of logs; no training here."""

    def write_log(jobs, settings):
        (job,) = jobs
        experiment, epochs, convergence = job.experiment, job.epochs, job.convergence
        folder = settings.runs / experiment.path
        folder.mkdir(parents=True, exist_ok=True)
        lines = [
            {
                "step": e,
                "epoch": e,
                "test_accuracy": e / 100,
                "test_elbo": e,
                "train_seconds": e * (2 if experiment.model == "air" else 4),
            }
            for e in range(1, convergence.max_epochs + 1 if convergence else epochs + 1)
        ]
        (folder / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))

    monkeypatch.setattr(runs, "run_apart", write_log)
    monkeypatch.setattr(runs, "check_configuration", lambda *_: None)
    for name in ("supair", "air"):
        monkeypatch.setitem(MODELS, name, MODELS[name]._replace(convergence=Convergence(gain=-1e9, max_epochs=25)))
    options = ["--seeds", "0", "--datasets", "sprites", "--runs", str(tmp_path), "--json", str(tmp_path / "table.json")]
    assert table2.main(options) == 0
    out = capsys.readouterr().out
    assert "AIR (its ELBOs are not comparable" in out and "95.9  " in out and "times SuPAIR's, here 0.50 (Sprites) times." in out
    rows = json.loads((tmp_path / "table.json").read_text())["rows"]
    names = ("model", "recipe", "budget", "epochs", "accuracy", "converged")
    assert [tuple(row[name] for name in names) for row in rows] == [
        ("supair", "paper", "20 epochs", 20, [0.2], [False]),
        ("supair", "paper", "converged", 25, [0.25], [False]),
        ("supair", "robust", "20 epochs", 20, [0.2], [False]),
        ("supair", "robust", "converged", 25, [0.25], [False]),
        ("air", "paper", "paper's budget", 20, [0.2], [False]),
        ("air", "paper", "converged", 25, [0.25], [False]),
        ("air", "robust", "paper's budget", 20, [0.2], [False]),
        ("air", "robust", "converged", 25, [0.25], [False]),
    ]
    assert table2.main([*options, "--models", "air"]) == 0 and "All of them are there" in capsys.readouterr().out


def test_collapsed_seeds_are_named(small, capsys, monkeypatch):
    monkeypatch.setattr("supair.metrics.collapse", lambda confusion: "all empty")
    assert (
        table2.main(["--seeds", "0", "--datasets", "sprites", "--models", "air", "--recipe", "robust", "--epochs", "1", *small])
        == 0
    )
    captured = capsys.readouterr()
    assert "\nAIR, robust (its ELBOs" in captured.out and "\nAIR (" not in captured.out
    assert "collapsed: all empty" in captured.out and "AIR collapsed, all empty: the decoder" in captured.out
    assert "collapsed, all empty, at step 4: the decoder" in captured.err


def test_interrupted_table_shows_what_there_is(small, capsys, monkeypatch):
    from supair.training import Interrupted

    calls = []

    def run_one_only(jobs, settings):
        calls.append(jobs)
        if len(calls) > 1:
            raise Interrupted("stopped at step 7", 2)
        return real(jobs, settings)

    real = runs.run_apart
    monkeypatch.setattr(runs, "run_apart", run_one_only)
    options = ["--seeds", "0", "1", "--datasets", "sprites", "--models", "supair", "--recipe", "paper", "--epochs", "1", *small]
    assert table2.main(options) == 130
    captured = capsys.readouterr()
    assert "stopped at step 7" in captured.err
    assert "1 of 2 runs have not got to epoch 1 yet: SuPAIR, Sprites, seed 1." in captured.out


def test_a_run_that_fails_is_told_and_the_others_go_on(small, capsys, tmp_path):
    """Damage one seed's run and deny the next: the table has the third, names both, and the exit code says so."""
    options = ["--seeds", "0", "1", "2", "--datasets", "sprites", "--models", "supair", "--recipe", "paper", "--epochs", "1"]
    options += ["--together", "3", *small]
    folder = tmp_path / "runs/supair/sprites/paper"
    (folder / "seed0").mkdir(parents=True)
    (folder / "seed0" / "config.json").write_text("{}")
    (folder / "seed1").write_text("")
    assert table2.main(options) == 1
    out = capsys.readouterr().out
    assert "seed 2" in out and "2 of 3 runs have not" in out
    assert f"Failed: {folder}/seed0/config.json: this directory holds another run" in out
    assert (
        f"Failed: {folder}/seed1: cannot be used (Not a directory)" in out
        or f"Failed: {folder}/seed1: cannot be used (File exists)" in out
    )


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_signals_between_runs_end_with_the_table_too(small, capsys, monkeypatch, signum):
    monkeypatch.setattr(runs, "run_apart", lambda *_: os.kill(os.getpid(), signum))
    options = ["--seeds", "0", "--datasets", "sprites", "--models", "supair", "--recipe", "paper", "--epochs", "1", *small]
    assert table2.main(options) == 128 + signum
    captured = capsys.readouterr()
    assert "Interrupted: stopped between training steps" in captured.err and "1 of 1 runs have not" in captured.out


def test_results_are_read_off_the_log():
    lines = [
        {"test_accuracy": 0.5 + epoch / 100, "test_elbo": min(epoch, 12) * 100.0, "train_seconds": epoch}
        for epoch in range(1, 26)
    ]
    assert result_at(lines, 4, 20) == Result(seed=4, epoch=20, accuracy=0.7, elbo=1200.0, train_seconds=20)
    assert result_at(lines, 4, 26) is None
    # Epochs 16-20 are 20 nats or 1.7 % above 11-15 on average, 17-21 no longer above 12-16.
    assert final_result(lines, 4, least=5, convergence=Convergence(window=5, gain=0.01)) == Result(
        seed=4, epoch=21, accuracy=0.71, elbo=1200.0, train_seconds=21, converged=True
    )
    assert final_result(lines[:20], 4, least=5, convergence=Convergence(window=5, gain=0.01)) is None
    capped = final_result(lines[:9], 4, least=5, convergence=Convergence(max_epochs=9))
    assert capped.epoch == 9 and not capped.converged


@pytest.mark.parametrize(
    "arguments, code, message",
    [
        (["--datasets", "cifar"], 2, "invalid choice"),
        (["--epochs", "0"], 2, "--epochs: expected at least 1, found 0"),
        (["--together", "0"], 2, "--together: expected an integer of at least 1, found 0"),
        (["--seeds", "1", "1"], 2, "--seeds: expected each only once, found 1 1"),
        (["--datasets", "sprites", "sprites"], 2, "--datasets: expected each only once"),
        (["--seeds", "-1"], 2, "--seeds: expected numbers from 0"),
        (["--mnist", "/nowhere.npz", "--datasets", "multi_mnist"], 1, "error: /nowhere.npz: no such file"),
        (["--json", "/nowhere/table.json"], 2, "argument --json: /nowhere/table.json is a folder, or in one that does not exist"),
    ],
)
def test_wrong_options_are_refused(tmp_path, capsys, arguments, code, message):
    options = [
        "--quick",
        "--no-xla",
        "--datasets",
        "sprites",
        "--data",
        str(tmp_path),
        "--runs",
        str(tmp_path / "runs"),
        *arguments,
    ]
    with pytest.raises(SystemExit) as end:
        _setup.exit_with(lambda: table2.main(options))
    assert message in f"{end.value.code} {capsys.readouterr().err}"
    assert end.value.code == 2 if code == 2 else end.value.code.startswith("error: ")


def test_an_error_is_one_line_and_exit_code_1(tmp_path):
    command = [sys.executable, ROOT / "reproduce" / "table2.py", "--quick", "--mnist", tmp_path / "no.npz", "--data", tmp_path]
    result = subprocess.run([*map(str, command), "--no-xla", "--runs", str(tmp_path)], capture_output=True, text=True)
    assert result.returncode == 1 and "Traceback" not in result.stderr
    assert result.stderr.splitlines()[-1].startswith(
        f"error: {tmp_path}/no.npz: no such file; give the MNIST digits with --mnist"
    )


def test_matrix_products_are_counted():
    multiply = tf.function(lambda a, b: tf.matmul(a, b, transpose_a=True), jit_compile=True)
    a, b = tf.zeros([5, 7, 3]), tf.zeros([5, 7, 11])
    hlo = multiply.experimental_get_compiler_ir(a, b)(stage="hlo")
    assert benchmark.matmul_flop(hlo) == 2 * 5 * 3 * 7 * 11
