"""Runs in processes of their own: what is trained, what is told, and how they end."""

import fcntl
import math
import signal
import subprocess
import sys
import threading
import time

import psutil
import pytest
import tiny_reproduce
from tiny_reproduce import row, write_run

from reproduce import train
from reproduce.experiments import Experiment
from supair.run import read_rows


def runs_of(*seeds):
    return [Experiment("supair", "sprites", "robust", seed) for seed in seeds]


WHICH = "--model supair --dataset sprites --recipe robust".split()


@pytest.fixture
def options(monkeypatch, tmp_path):
    """Options of train.py for tiny runs in processes."""
    tiny_reproduce.shrink(monkeypatch.setitem)
    monkeypatch.setattr(train, "SCRIPT", tiny_reproduce.SCRIPT)
    places = [f"--{name}={tmp_path / name}" for name in ("runs", "data")]
    return [*WHICH, *places, "--no-xla", "--threads=1"]


def without_seconds(rows):
    return [{**row, "train_seconds": None} for row in rows]


def wait_for(condition, seconds=300):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_missing_runs_are_trained_once_and_a_failure_stops_no_other(options, tmp_path, capfd):
    """Seed 0's folder is in use, seed 2's another run's: seed 1 is trained; then 0 alone."""
    first, second, third = (tmp_path / "runs" / run.path for run in runs_of(0, 1, 2))
    write_run(tmp_path / "runs", runs_of(2)[0], [row(1, 1.0)])
    config = third / "config.json"
    config.write_text(config.read_text().replace('"keep_prob": 0.3,', '"keep_prob": 0.4,'))
    first.mkdir(parents=True)
    with open(first / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert train.main([*options, "--seeds", "0-2", "--epochs", "1"]) == 1
    told = capfd.readouterr().err
    assert f"{first}: " in told and str(third) in told and "Traceback" not in told
    assert [len(read_rows(folder)) for folder in (first, second)] == [0, 1]
    before = (second / "log.jsonl").stat().st_mtime_ns
    assert train.main([*options, "--seeds", "0-1", "--epochs", "1"]) == 0
    assert (second / "log.jsonl").stat().st_mtime_ns == before
    made = read_rows(first)[0]["provenance"]
    assert made["threads"] == 1 and made["commit"]


def test_what_went_wrong_in_a_process(monkeypatch, tmp_path):
    """One that crashes leaves a log that is named."""
    assert train.run_process(["-c", "print('not to be told')"]) == ""
    assert train.run_process(["-c", "print('why'); exit(1)"]) == "why"
    assert "3" in train.run_process(["-c", "exit(3)"])
    assert "signal 9" in train.run_process(["-c", "import os; os.kill(os.getpid(), 9)"])
    monkeypatch.setattr(train.tempfile, "tempdir", str(tmp_path))
    code = f"import os; open(f'{tmp_path}/supair-{{os.getpid()}}-x.log', 'w'); os.abort()"
    told = train.run_process(["-c", code])
    [log] = tmp_path.iterdir()
    assert "signal 6" in told and str(log) in told


ENDS = [(signal.SIGKILL, -9), (signal.SIGTERM, 143), (signal.SIGINT, 130)]


@pytest.mark.parametrize("signum, expected", ENDS)
def test_a_run_ends_with_its_parent(options, tmp_path, signum, expected):
    command = [sys.executable, tiny_reproduce.SCRIPT, *options, "--epochs", "100000"]
    parent = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    folder = tmp_path / "runs" / runs_of(0)[0].path
    try:
        wait_for((folder / "lock").exists)
        [run] = psutil.Process(parent.pid).children()
        parent.send_signal(signum)
        assert parent.wait(timeout=20) == expected
        wait_for(lambda: not run.is_running(), 20)
        with open(folder / "lock") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    finally:
        parent.kill()


def test_a_killed_worker_costs_an_epoch_and_changes_nothing(options, tmp_path, capfd):
    """Two workers of a cluster that does not know this folder; one is killed with -9."""
    distributed = pytest.importorskip("distributed")
    runs = {name: tmp_path / name / runs_of(0)[0].path for name in ("runs", "undisturbed")}
    quiet, codes = {"memory_limit": 0, "dashboard_address": None}, []
    with distributed.LocalCluster(2, threads_per_worker=1, **quiet) as cluster:
        command = [*options, "--epochs=12", "--seeds=0-2", "--dask", cluster.scheduler_address]
        script = threading.Thread(target=lambda: codes.append(train.main(command)))
        script.start()
        wait_for(lambda: len(read_rows(runs["runs"])) >= 2)
        everything = psutil.Process().children(recursive=True)
        alive = [process for process in everything if process.status() != psutil.STATUS_ZOMBIE]
        [run] = [process for process in alive if "--seeds=0" in process.cmdline()]
        known, worker = read_rows(runs["runs"]), run.parent()
        worker.kill()
        wait_for(lambda: not run.is_running(), 20)
        script.join(timeout=300)
    assert codes == [0]
    assert [len(read_rows(tmp_path / "runs" / run.path)) for run in runs_of(0, 1, 2)] == [12] * 3
    rows = read_rows(runs["runs"])
    assert rows[: len(known)] == known, "an epoch that was done has been trained again"
    options += [f"--runs={tmp_path / 'undisturbed'}", "--epochs=12", "--seeds=0"]
    assert train.main(options) == 0
    assert without_seconds(rows) == without_seconds(read_rows(runs["undisturbed"]))


def test_the_time_to_go_is_told_before_it_begins(tmp_path):
    """Of runs of 2 epochs, the first has done one; at the pace recorded on two cores."""
    runs, size = runs_of(0, 1), runs_of(0)[0].steps_per_epoch
    write_run(tmp_path, runs[0], [row(size, 1.0)])
    told, seconds = train.describe_work(runs, 2, False, tmp_path)
    batch = runs[0].training_config().batch_size
    assert 128 / 0.069 <= (pace := train._scenes_per_second(runs[0].model)) <= 256 / 0.127
    expected = 2 * train.STARTING + 3 * size * batch / pace * train.MEASURING
    assert seconds == pytest.approx(expected) and f"{math.ceil(expected / 60)} min" in told


def test_ranges_of_seeds_and_wrong_options(capsys):
    assert train.parse([*WHICH, "--seeds", "0-2", "7"]).seeds == [0, 1, 2, 7]
    for wrong, named in (
        (["--seeds", "0-2", "1"], "--seeds"),
        (["--seeds", "2-0"], "--seeds"),
        (["--epochs", "0"], "--epochs"),
        (["--model=air", "--dataset=multi_mnist_80"], "--dataset"),
        (["--model", "supair_poon_domingos"], "--recipe"),
    ):
        with pytest.raises(SystemExit) as end:
            train.parse([*WHICH, *wrong])
        assert end.value.code == 2 and f"argument {named}: " in capsys.readouterr().err
