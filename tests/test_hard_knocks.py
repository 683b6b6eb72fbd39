"""A little of `hard_knocks.py`, and claims between processes."""

import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import hard_knocks
import jobs
import pytest
import tiny

from reproduce import claims, runs
from reproduce.experiments import Experiment
from reproduce.runs import Job, Settings, Work
from supair import TrainingError, files, training

# Does jobs 0 ... 19: a line in a file for each, after a moment's work.  The first process never ends its first job.
WORKER = """
import sys, time
from pathlib import Path
from reproduce import claims
claims.EXPIRY = 1
claims._me = lambda: {"host": sys.argv[2], "pid": 1}
numbers = claims._numbers
claims._numbers = lambda directory: (numbers(directory), time.sleep(0.02))[0]  # so that several look, and then several claim
folder, left = Path(sys.argv[1]), set(range(20))
while left:
    for job in sorted(left):
        claim = claims.claim(folder / str(job))
        if claim and not (folder / str(job) / "done").exists():
            with open(folder / "started", "a") as file:
                file.write(f"{job} {sys.argv[2]}\\n")
            time.sleep(60 if sys.argv[2] == "0" else 0.02)
            with open(folder / "done", "a") as file:
                file.write(f"{job}\\n")
            (folder / str(job) / "done").touch()
        if claim:
            claim.release()
            left.remove(job)
    time.sleep(0.05)
"""


def test_four_processes_do_everything_once_and_take_over_from_one_that_is_killed(tmp_path):
    def start(name):
        return subprocess.Popen([sys.executable, "-c", WORKER, tmp_path, name], cwd=hard_knocks.ROOT)

    killed = start("0")
    while not (tmp_path / "started").exists():
        time.sleep(0.01)
    others = [start(name) for name in "123"]
    time.sleep(0.5)
    assert len((tmp_path / "started").read_text().splitlines()) - 1 <= 19
    killed.kill()
    assert [process.wait(60) for process in (*others, killed)] == [0, 0, 0, -signal.SIGKILL]
    done = (tmp_path / "done").read_text().split()
    assert sorted(map(int, done)) == list(range(20))
    started = [line.split() for line in (tmp_path / "started").read_text().splitlines()]
    twice = {job for job, _ in started if [other for other, _ in started].count(job) > 1}
    assert len(started) == 21 and twice == {job for job, name in started if name == "0"}


def test_a_claim_that_is_kept_alive_is_not_taken_over_and_one_that_is_released_is(tmp_path, monkeypatch):
    monkeypatch.setattr(claims, "EXPIRY", 0.3)
    held = claims.claim(tmp_path)
    monkeypatch.setattr(claims, "_me", lambda: {"host": "another"})
    until = time.monotonic() + 1
    while time.monotonic() < until:
        assert claims.claim(tmp_path) is None
        time.sleep(0.02)
    held.release()
    again = claims.claim(tmp_path)
    assert again is not None and [path.name for path in tmp_path.glob("claim.*")] == ["claim.1"]
    again.release()


def test_a_dead_process_of_this_machine_is_noticed_at_once(tmp_path):
    take = "import sys; from pathlib import Path; from reproduce import claims; assert claims.claim(Path(sys.argv[1]))"
    subprocess.run([sys.executable, "-c", take, tmp_path], cwd=hard_knocks.ROOT, check=True)
    claims.claim(tmp_path).release()


def test_work_leaves_claimed_runs_alone_and_comes_back_to_them(tmp_path, monkeypatch, capsys):
    jobs = [Job(Experiment("supair", "sprites", "paper", seed), 1) for seed in range(3)]
    done = []

    def train(jobs, settings):
        done.extend(job.experiment.seed for job in jobs)
        line = {"step": 1, "epoch": 1, "test_accuracy": 0.5, "test_elbo": 1, "train_seconds": 1}
        files.append_line(settings.runs / jobs[0].experiment.path / "log.jsonl", line)

    monkeypatch.setattr(runs, "run_apart", train)
    monkeypatch.setattr(runs, "matmul_gflops", lambda: 100.0)
    monkeypatch.setattr(runs, "check_configuration", lambda *_: None)
    monkeypatch.setattr(claims, "EXPIRY", 1)
    held = claims.claim(tmp_path / jobs[0].experiment.path)
    work = Work(jobs, Settings(tmp_path, tmp_path, tmp_path))
    assert work.train(wait=False) == 0 and done == [1, 2] and work.elsewhere == jobs[:1]
    release = threading.Timer(0.3, held.release)
    release.start()
    assert work.train() == 0 and done == [1, 2, 0] and not work.elsewhere
    assert "Waiting for 1 jobs of other processes" in capsys.readouterr().out


def test_a_run_that_cannot_save_itself_is_ended_all_the_same(tmp_path, monkeypatch):
    """As while it compiles: in two seconds after Ctrl-C, and with the run as its last checkpoint left it."""
    asked = []

    def ask():
        while not (tmp_path / "deaf").exists():
            time.sleep(0.01)
        asked.append(time.monotonic())
        os.kill(os.getpid(), signal.SIGINT)

    before = signal.signal(signal.SIGINT, runs._pass_on)
    try:
        threading.Thread(target=ask, daemon=True).start()
        with pytest.raises(training.Interrupted) as interrupt:
            runs.call_apart(jobs.deaf, tmp_path / "deaf")
        assert time.monotonic() - asked[0] < 2 and interrupt.value.signum == signal.SIGINT
    finally:
        signal.signal(signal.SIGINT, before)


def test_killed_while_making_data(tmp_path):
    assert hard_knocks.kill_data_making(tmp_path, random.Random(0), 5).startswith("5 kills")


def test_killed_between_the_first_checkpoint_and_the_list_of_checkpoints(tmp_path):
    with tiny.run(tmp_path) as run:
        run.save()
    (tmp_path / "checkpoints" / "checkpoint").unlink()
    with tiny.run(tmp_path) as run:
        assert run.step == 0


@pytest.mark.parametrize("name", ["log.jsonl", "sessions.jsonl", "checkpoint"])
def test_a_changed_byte_is_noticed(tmp_path, name):
    path = tmp_path / name
    line = {"step": 1, "epoch": 1, "test_accuracy": 0.5, "train_seconds": 1}
    if name == "checkpoint":
        (tmp_path / "checkpoints").mkdir()
        (tmp_path / "checkpoints" / name).write_bytes(b"\xff\xfe")
        with pytest.raises(TrainingError, match="its checkpoint or log is damaged"):
            tiny.run(tmp_path)
        with pytest.raises(TrainingError, match="does not fit the model, or is damaged"):
            training.load_weights(None, tmp_path)
        return
    files.append_line(path, line)
    assert files.read_log(path) == [line]
    path.write_text(path.read_text().replace("0.5", "0.6"))
    with pytest.raises(TrainingError, match=f"{name}: damaged .its content does not match its checksum"):
        files.read_lines(path)
    path.write_bytes(b"\xff" + path.read_bytes())
    with pytest.raises(TrainingError, match=f"{name}: damaged"):
        runs._note_session(Path(path), 0, 1)
