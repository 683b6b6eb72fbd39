"""Hard knocks: damaged files, processes killed at any moment, full disks, and several processes at the same work.

    python tests/hard_knocks.py                      everything, a quarter of an hour on two cores; one line a class
    python tests/hard_knocks.py --only kill_training disk_full

Everything that is damaged must be refused with one line of our own errors or do no harm; what was interrupted must go on to
the curve and the weights of an undisturbed run.  Ends with exit code 1 at the first class with a failure.  Runs are tiny and,
so that there are many moments to be killed at, not even traced: TensorFlow executes them operation by operation.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import hashlib
import json
import multiprocessing
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests"), str(ROOT / "reproduce")]
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"  # before TensorFlow is imported
os.environ["PYTHONPATH"] = os.pathsep.join(sys.path[:3])  # for the process that starts the others

import jobs
import numpy as np
import tensorflow as tf
import tiny

import data
from reproduce import claims, runs
from reproduce.experiments import Experiment
from supair import ConfigError, TrainingError, files, training

OURS = (data.DataError, TrainingError, ConfigError)
EPOCHS = 2  # of a tiny run, 5 steps each
LINES = [3, 5, 6, 9, 10]  # steps of its log
MODEL = dataclasses.replace(tiny.MODEL, num_steps=1, object=dataclasses.replace(tiny.MODEL.object, repetitions=1))
SIZES = (1000, 100)  # scenes of a data set
NOBODY = 65534


class Failure(Exception):
    """A case that did not end as it must."""


# Processes.  This one only starts others and looks at files, so that what it starts has a TensorFlow that is imported but not
# yet in use; a crash of theirs, or a hang, is a failure of the case that they were at.

_processes = multiprocessing.get_context("forkserver")
_processes.set_forkserver_preload(["hard_knocks"])


class Child:
    """A function in a process of its own, which gets a function `tell` as its first argument."""

    def __init__(self, function, *arguments):
        self._pipe, pipe = _processes.Pipe()
        self.process = _processes.Process(target=_child, args=(pipe, function, *arguments))
        self.process.start()
        pipe.close()

    def hear(self, seconds: float = 120):
        """The next thing told; None if there is none in time, or the process ended without."""
        try:
            return self._pipe.recv() if self._pipe.poll(seconds) else None
        except (EOFError, ConnectionError):
            return None

    def kill(self) -> None:
        self.process.kill()
        self.process.join()

    def result(self):
        """What the function returned.

        Raises:
          Failure: if it raised anything, crashed, or is silent for two minutes.
        """
        last = None
        while (told := self.hear()) and told[0] not in ("returned", "raised"):
            last = told
        self.process.join(10 if told else 0)
        if told is None:
            code = self.process.exitcode
            self.kill()
            raise Failure(f"{last}: {'hangs' if code is None else f'crashed with exit code {code}'}")
        if told[0] == "raised":
            raise Failure(f"{last}: {told[1]}")
        return told[1]


def _child(pipe, function, *arguments):
    tf.config.run_functions_eagerly(True)
    tf.config.threading.set_intra_op_parallelism_threads(1)
    training.CHECKPOINT_SECONDS = 0  # at every line of the log
    training.tqdm = _Silent
    training.STEPS_PER_CALL = {"CPU": 1, "GPU": 1}
    with open(os.devnull, "w") as nothing:
        for number in (1, 2):
            os.dup2(nothing.fileno(), number)
    try:
        pipe.send(("returned", function(lambda *what: pipe.send(what), *arguments)))
    except OURS as error:
        pipe.send(("returned", error))
    except BaseException as error:
        pipe.send(("raised", f"{type(error).__name__}: {error}"))


class _Silent(training.tqdm):
    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **{**options, "disable": True})


def require(good: bool, message: str) -> None:
    if not good:
        raise Failure(message)


def one_line(error: Exception, *names: str) -> str:
    """The message of an error of ours, which is one line and names what is wrong."""
    message = str(error)
    require(message and "\n" not in message and all(name in message for name in names), f"a poor message: {message!r}")
    return message


# Damage.


def damages(path: Path, rng: random.Random, rounds: int):
    """(name, damage) for every kind of damage at every kind of place; a damage returns the new content."""
    size = path.stat().st_size
    yield "emptied", lambda content: b""
    for _ in range(rounds):
        places = {
            "start": 0,
            "header": rng.randrange(1, max(2, min(256, size // 8))),
            "middle": rng.randrange(size // 8, size - size // 8),
            "end": size - rng.randrange(1, min(16, size)),
        }
        for place, at in places.items():
            bit, digit = 1 << rng.randrange(8), rng.randrange(1, 10)
            yield f"bit {bit} of byte {at} ({place})", lambda c, at=at, bit=bit: c[:at] + bytes([c[at] ^ bit]) + c[at + 1 :]
            yield f"inverted byte {at} ({place})", lambda c, at=at: c[:at] + bytes([c[at] ^ 255]) + c[at + 1 :]
            yield f"another digit behind byte {at} ({place})", lambda c, at=at, digit=digit: _other_digit(c, at, digit)
            yield f"cut off at byte {at} ({place})", lambda c, at=at: c[:at]
            yield f"64 zeros from byte {at} ({place})", lambda c, at=at: (c[:at] + bytes(64) + c[at + 64 :])[: len(c)]


def _other_digit(content: bytes, at: int, digit: int) -> bytes:
    found = re.compile(rb"[0-9]").search(content, at)
    if not found:
        return content
    changed = (int(found[0]) + digit) % 10
    return content[: found.start()] + str(changed).encode() + content[found.end() :]


def damage_everywhere(tell, path: Path, rng: random.Random, rounds: int, use) -> list[int]:
    """Damage a file in all ways, one after the other; `use` must raise an error of ours or return without harm.

    Returns:
      the numbers of cases and of those refused.
    """
    content, counts = path.read_bytes(), [0, 0]
    for name, damage in damages(path, rng, rounds):
        damaged = damage(content)
        if damaged == content:
            continue
        path.write_bytes(damaged)
        tell(path.name, name)
        counts[0] += 1
        try:
            use()
        except OURS as error:
            one_line(error)
            counts[1] += 1
    path.write_bytes(content)
    use()
    return counts


def damaged_data(folder: Path, rng: random.Random, rounds: int = 4) -> str:
    """HDF5 files: refused, or their scenes are the same."""
    cases, refused = Child(_damaged_data, folder, rng, rounds).result()
    return f"{cases} cases: {refused} refused, {cases - refused} harmless"


def _damaged_data(tell, folder, rng, rounds):
    counts = np.zeros(2, int)
    for dataset in ("sprites", "noisy_mnist"):
        good = content_of(data.load(dataset, 0, folder, (30, 10)))
        path = data.store.path_of(dataset, 0, folder, (30, 10))

        def use(dataset=dataset, good=good):
            require(content_of(data.load(dataset, 0, folder, (30, 10))) == good, "other scenes")

        counts += damage_everywhere(tell, path, rng, rounds, use)
    return counts.tolist()


def content_of(scenes) -> str:
    digest = hashlib.sha256()
    for part, file in sorted(scenes.items()):
        for array in (file.images[:], file.counts, file.boxes):
            digest.update(f"{part} {array.shape} {array.dtype} {file.white}".encode() + array.tobytes())
    return digest.hexdigest()


def damaged_runs(folder: Path, rng: random.Random, rounds: int = 2) -> str:
    """Checkpoints, configuration and log of a run: refused, or the run is in the state of one of its checkpoints."""
    cases, refused = Child(_damaged_runs, folder, rng, rounds).result()
    return f"{cases} cases: {refused} refused, {cases - refused} harmless"


def _damaged_runs(tell, folder, rng, rounds):
    directory = folder / "run"
    states, logs = {}, {}
    training.CHECKPOINT_SECONDS = 60  # only at the ends of epochs
    for epoch in (1, 2):
        with tiny.run(directory, model=MODEL) as run:
            run.train(epoch)
            states[run.step], logs[run.step] = digest_of(run), curve_of(directory)
    lines = {step: files.read_log(directory / "log.jsonl")[: len(log)] for step, log in logs.items()}
    kept = folder / "kept"
    shutil.copytree(directory, kept)

    def use():
        expected = {digest: step for step, digest in states.items()}
        read = files.read_log(directory / "log.jsonl")  # as tables and figures do, before the run repairs anything
        require(read == lines[10][: len(read)], "other numbers in the log")
        try:
            with tiny.run(directory, model=MODEL) as run:
                require(expected.get(digest_of(run)) == run.step, f"weights of no checkpoint at step {run.step}")
                require(curve_of(directory) == logs[run.step], "another log")
            model = training.SuPAIR(MODEL, 0)
            training.load_weights(model, directory)
            require(digest_of(model) in weights, "loaded weights of no checkpoint")
        finally:  # what the run has repaired or written
            for path in (directory / "log.jsonl", directory / "config.json"):
                if path != damaged:
                    shutil.copy(kept / path.name, path)

    weights = set()
    for step in states:
        model = training.SuPAIR(MODEL, 0)
        training._checkpoint(model).restore(str(kept / f"checkpoints/ckpt-{step}")).expect_partial()
        weights.add(digest_of(model))
    counts = np.zeros(2, int)
    for name in ("checkpoints/checkpoint", "checkpoints/ckpt-10.index", "checkpoints/ckpt-10.data-00000-of-00001",
                 "config.json", "log.jsonl"):  # fmt: skip
        damaged = directory / name
        counts += damage_everywhere(tell, damaged, rng, rounds * (3 if "json" not in name else 2), use)
    return counts.tolist()


def digest_of(run) -> str:
    """Of the state of a run, or of a model's weights."""
    if isinstance(run, training.Run):
        state = [*run.model.variables, *run.optimizer.variables, run._elbo_sum]
    else:
        state = run.variables
    return hashlib.sha256(b"".join(variable.numpy().tobytes() for variable in state)).hexdigest()


def curve_of(directory: Path) -> list[dict]:
    """The log without what depends on the clock."""
    lines = files.read_log(directory / "log.jsonl")
    return [{name: value for name, value in line.items() if name != "train_seconds"} for line in lines]


def damaged_notes(folder: Path, rng: random.Random, rounds: int = 4) -> str:
    """sessions.jsonl and record.json, and a log as the tables read it: refused, or the numbers are the same."""
    cases, refused = Child(_damaged_notes, folder, rng, rounds).result()
    return f"{cases} cases: {refused} refused, {cases - refused} harmless"


def _damaged_notes(tell, folder, rng, rounds):
    import record

    experiment = Experiment("supair", "sprites", "paper", 0)
    directory = folder / "runs" / experiment.path
    directory.mkdir(parents=True)
    config = files.run_configuration(
        experiment.model_config(), experiment.training_config(), runs._identity(experiment, "0" * 64)
    )
    (directory / "config.json").write_text(json.dumps(config))
    for step in (1, 2):
        line = {"step": step, "epoch": step, "train_seconds": 1.5, "train_elbo": 2.5, "test_accuracy": 0.5, "test_elbo": 3.5}
        files.append_line(directory / "log.jsonl", line)
        runs._note_session(directory / "sessions.jsonl", step, 1)
    record.RECORDED = folder / "results"

    def make_record():
        record.main(["--runs", str(folder / "runs"), "--seconds-per-step", "0.125", "--note", "a note", experiment.path])

    with contextlib.redirect_stdout(open(os.devnull, "w")):
        make_record()
        counts = np.zeros(2, int)
        recorded = record.RECORDED / experiment.path
        good, sessions = runs.log_lines(record.RECORDED, experiment), (directory / "sessions.jsonl").read_text()
        require([line["train_seconds"] for line in good] == [0.125, 0.25], "seconds of the record")

        def use_record():
            lines = runs.log_lines(record.RECORDED, experiment)
            require(lines == good[: len(lines)], "other numbers")

        for name in ("record.json", "log.jsonl"):
            counts += damage_everywhere(tell, recorded / name, rng, 2 * rounds, use_record)

        def use_sessions():
            try:
                runs._note_session(directory / "sessions.jsonl", 3, 1)
                make_record()
                copied = (recorded / "sessions.jsonl").read_text().splitlines(keepends=True)
                require(sessions.startswith("".join(copied[:-1])), "other sessions")
            finally:
                damaged.write_bytes(damaged.read_bytes())

        damaged = directory / "sessions.jsonl"
        counts += damage_everywhere(tell, damaged, rng, rounds, use_sessions)
    return counts.tolist()


# Kills.


def train_tiny(tell, directory: Path, stop: str | None = None) -> tuple[str, list[dict]]:
    """Train a tiny run as far as it is not done; returns its final state's digest and its curve."""

    class Telling(training.Run):
        def save(self):
            tell("saves")
            super().save()
            tell("saved")

    tiny.Run = Telling
    tell("starts")
    with tiny.run(directory, model=MODEL) as run:
        run.train(EPOCHS)
        return digest_of(run), curve_of(directory)


def undisturbed(folder: Path) -> tuple[tuple[str, list[dict]], float]:
    """What a tiny run ends with that nothing disturbs, and how many seconds it takes."""
    began = time.monotonic()
    end = Child(train_tiny, folder / "undisturbed").result()
    require(not isinstance(end, Exception) and [line["step"] for line in end[1]] == LINES, f"the undisturbed run: {end}")
    return end, time.monotonic() - began


def require_same(end, expected) -> None:
    require(not isinstance(end, Exception), f"refused to go on: {end}")
    require(end[1] == expected[1], "another curve than the undisturbed run's")
    require(end[0] == expected[0], "other weights than the undisturbed run's")


def require_whole(directory: Path) -> None:
    """No file of a run is half-written: each is whole, or has not got its name yet; a log's last line may be cut off."""
    if (directory / "config.json").exists():
        json.loads((directory / "config.json").read_text())
    files.read_log(directory / "log.jsonl")
    for index in (directory / training.CHECKPOINTS).glob("*.index"):
        reader = tf.train.load_checkpoint(str(index.with_suffix("")))
        for name in reader.get_variable_to_shape_map():
            reader.get_tensor(name)


def kill_training(folder: Path, rng: random.Random, number: int = 50) -> str:
    """kill -9 at any moment from the start of the process; then the run goes on to the same end."""
    expected, seconds = undisturbed(folder)

    def moment(child):
        time.sleep(rng.uniform(0, 0.6 * seconds))

    return _kill_runs(folder, number, moment, expected)


def kill_checkpointing(folder: Path, rng: random.Random, number: int = 50) -> str:
    """kill -9 while a checkpoint is being written, the first or a later one."""
    expected, _ = undisturbed(folder)
    seconds = [0.05]  # that writing took at most

    def moment(child):
        for _ in range(rng.randrange(1, 4)):
            while (told := child.hear()) and told[0] not in ("saves", "returned"):
                pass
            if not told or told[0] == "returned":
                return
            began = time.monotonic()
        time.sleep(rng.uniform(0, seconds[0]))
        if child.hear(0):  # it was written already
            seconds[0] = 0.8 * (time.monotonic() - began)

    return _kill_runs(folder, number, moment, expected)


def _kill_runs(folder: Path, number: int, moment, expected) -> str:
    killed = ended = 0
    while killed < number:
        directory = folder / f"run{ended}"
        while killed < number and not _is_done(directory):
            child = Child(train_tiny, directory)
            moment(child)
            child.kill()
            killed += 1
            require_whole(directory)
        require_same(Child(train_tiny, directory).result(), expected)
        ended += 1
    return f"{killed} kills in {ended} runs, every one with the undisturbed curve and weights"


def _is_done(directory: Path) -> bool:
    return any((directory / training.CHECKPOINTS).glob(f"ckpt-{LINES[-1]}.index"))


def make_data(tell, folder: Path, seed: int = 0) -> str:
    """Load a data set, made first if it is not there; returns the content's digest."""
    tell("starts")
    return content_of(data.load("sprites", seed, folder, SIZES))


def kill_data_making(folder: Path, rng: random.Random, number: int = 50) -> str:
    """kill -9 at any moment of making a data set; the file is there whole or not at all."""
    child = Child(make_data, folder / "undisturbed")
    child.hear()
    began = time.monotonic()
    expected, seconds = child.result(), time.monotonic() - began
    path = data.store.path_of("sprites", 0, folder / "killed", SIZES)
    there = 0
    for _ in range(number):
        child = Child(make_data, folder / "killed")
        child.hear()
        time.sleep(rng.uniform(0, seconds))
        child.kill()
        if path.exists():
            there += 1
            require(content_of(data.store.read(path)) == expected, "other scenes")
            path.unlink()
    leftovers = list(path.parent.iterdir())
    for leftover in leftovers:
        os.utime(leftover, (0, 0))  # as if long ago
    require(Child(make_data, path.parent).result() == expected, "other scenes")
    require(list(path.parent.iterdir()) == [path], f"left behind: {list(path.parent.iterdir())}")
    return f"{number} kills: the file there and whole after {there}, not there after {number - there}; {len(leftovers)} leftovers removed"


# Disks.


@contextlib.contextmanager
def small_disk(folder: Path, kilobytes: int):
    """A function that gives the folder, which is a disk of so many kilobytes, more room."""
    folder.mkdir()
    options = ["-t", "tmpfs", "-o", f"size={kilobytes}k", "none", str(folder)]
    if subprocess.run(["mount", *options], check=False, capture_output=True).returncode:
        yield None
        return
    try:
        yield lambda: subprocess.run(["mount", "-o", "remount,size=64m", str(folder)], check=True)
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def limited(tell, kilobytes: int, function, *arguments):
    """Call a function that cannot write files of more than so many kilobytes."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (1024 * kilobytes,) * 2)
    return function(tell, *arguments)


def disk_full(folder: Path, rng: random.Random, number: int = 8) -> str:
    """A small tmpfs (without the right to mount one: a limit on files' sizes): one clear error; with room, the same end."""
    (expected, _), scenes = undisturbed(folder), Child(make_data, folder / "undisturbed-data").result()
    largest = {"data": 4_000, "run": 600}
    how, cases, refused = "a small tmpfs", 0, 0
    for what, function, end in (("data", make_data, scenes), ("run", train_tiny, expected)):
        for kilobytes in sorted(int(4 * (largest[what] / 4) ** (k / (number // 2 - 1))) for k in range(number // 2)):
            disk = folder / f"{what}{kilobytes}"
            with small_disk(disk, kilobytes) as enlarge:
                if enlarge:
                    first = Child(function, disk / "it").result()
                    enlarge()
                else:
                    how = "a limit on files' sizes"
                    first = Child(limited, kilobytes, function, disk / "it").result()
                cases += 1
                if isinstance(first, Exception):
                    refused += 1
                    one_line(first, str(disk))
                second = Child(function, disk / "it").result()
                require(
                    second == end,
                    f"{what} on {kilobytes} KB, then with room: {second if isinstance(second, Exception) else 'another end'}",
                )
    return f"{cases} cases ({how}): {refused} refused, and all went on with room"


def read_only(folder: Path, rng: random.Random) -> str:
    """Folders that this user must not write to: an error that names them; what only reads still works."""
    folder.chmod(0o755)
    end, _ = undisturbed(folder)
    scenes = Child(make_data, folder / "data").result()
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o555 if path.is_dir() else 0o444)
    try:
        cases = (
            (train_tiny, folder / "new"),
            (train_tiny, folder / "undisturbed"),
            (make_data, folder / "new"),
            (make_data, folder / "data", 1),
        )
        for function, path, *others in cases:
            error = Child(as_nobody, function, path, *others).result()
            require(isinstance(error, OURS), f"{function.__name__} in {path}: {error}")
            one_line(error, str(path), "Permission denied")
        require(Child(as_nobody, make_data, folder / "data").result() == scenes, "other scenes")
        require(Child(as_nobody, _only_curve, folder / "undisturbed").result() == end[1], "another curve")
    finally:
        for path in (folder, *folder.rglob("*")):
            path.chmod(0o755 if path.is_dir() else 0o644)
    return f"{len(cases)} cases refused, 2 that only read work" + (
        " (as nobody, because root may write anywhere)" * (os.getuid() == 0)
    )


def as_nobody(tell, function, *arguments):
    """Call a function without root's rights."""
    if os.getuid() == 0:
        os.setegid(NOBODY)
        os.seteuid(NOBODY)
    return function(tell, *arguments)


def _only_curve(tell, directory):
    return curve_of(directory)


# Several processes.


def same_run(folder: Path, rng: random.Random, number: int = 4) -> str:
    """Two processes on the same run: one trains, the other is refused; if that one is killed, the next goes on."""
    expected, _ = undisturbed(folder)
    for k in range(number):
        directory = folder / f"run{k}"
        first = Child(train_tiny, directory)
        while first.hear()[0] != "saved":  # the first checkpoint: it has the run
            pass
        time.sleep(rng.uniform(0, 1))
        second = Child(train_tiny, directory).result()
        require(isinstance(second, TrainingError) and "in use by another process" in str(second), f"not refused: {second}")
        if k % 2:
            first.kill()
            require_same(Child(train_tiny, directory).result(), expected)
        else:
            require_same(first.result(), expected)
    makers = [Child(make_data, folder / "data") for _ in range(3)]
    require(len({maker.result() for maker in makers}) == 1, "processes that made the same data have others")
    require(len(list((folder / "data").iterdir())) == 1, "more than one file of the same data")
    return f"{number} runs, {number // 2} of them killed; 3 processes that make the same data"


def shared_sweep(folder: Path, rng: random.Random, number: int = 8) -> str:
    """Four processes, as if on four machines, do the same jobs; one is killed while it trains, and another takes its run over."""
    workers = [Child(sweep, folder, number, f"host {k}") for k in range(4)]
    victim = workers.pop()
    _, killed_at = victim.hear()
    time.sleep(rng.uniform(0, 1))
    victim.kill()
    done = [job for worker in workers for job in worker.result()] + [
        told[1] for told in iter(lambda: victim.hear(1), None) if told[0] == "trained"
    ]
    require(sorted(done) == list(range(number)), f"done: {sorted(done)}, expected every one of {number} once")
    return f"{number} jobs done once each by 4 processes, one of them killed at job {killed_at}"


def sweep(tell, folder: Path, number: int, host: str) -> list[int]:
    """Do a list of jobs with everybody else who does it; returns what was done here."""

    def train_one(jobs, settings):
        seed = jobs[0].experiment.seed
        tell("starts", seed)
        with tiny.run(settings.runs / jobs[0].experiment.path, dataclasses.replace(tiny.TRAINING, seed=seed), MODEL) as run:
            run.train(1)
        tell("trained", seed)
        done.append(seed)

    done: list[int] = []
    claims.EXPIRY = 5
    claims._me = lambda: {"host": host, "pid": os.getpid()}
    runs.check_configuration, runs.matmul_gflops, runs.run_apart = lambda *_: None, lambda: 100.0, train_one
    jobs = [runs.Job(Experiment("supair", "sprites", "paper", seed), 1) for seed in range(number)]
    work = runs.Work(jobs, runs.Settings(folder, folder, folder))
    require(work.train() == 0 and not work.unfinished(), f"not all done: {work.failures}")
    return done


def ctrl_c(folder: Path, rng: random.Random) -> str:
    """Ctrl-C in a terminal, while the paper's model compiles, trains and measures: two seconds, exit code 130, and resumed."""
    command = [sys.executable, ROOT / "reproduce" / "table2.py", "--quick", "--datasets", "sprites"]
    command += ["--runs", folder / "runs", "--data", folder / "data"]
    directory = folder / "runs/quick/supair/sprites/paper/seed0"
    data.load("sprites", 0, folder / "data")
    outcomes = []
    for moment, path in (("compiling", "config.json"), ("training", "checkpoints/ckpt-0.index"), ("measuring", "log.jsonl")):
        before = (directory / path).stat().st_mtime_ns if (directory / path).exists() else 0
        script = subprocess.Popen(
            list(map(str, command)), start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        while script.poll() is None and (not (directory / path).exists() or (directory / path).stat().st_mtime_ns == before):
            time.sleep(0.02)
        time.sleep(rng.uniform(0.5, 2))
        began = time.monotonic()
        os.killpg(script.pid, signal.SIGINT)
        output, code = script.communicate()[0].decode(), script.returncode
        seconds = time.monotonic() - began
        require(code == 130 and "Interrupted" in output and "Traceback" not in output, f"{moment}: exit code {code}, {output}")
        require(seconds < 2, f"{moment}: {seconds:.1f} s")
        require_whole(directory)
        steps = (
            json.loads((directory / "log.jsonl").read_text().splitlines()[-1])["step"]
            if (directory / "log.jsonl").exists()
            else 0
        )
        outcomes.append(f"{moment} {seconds:.2f} s (step {steps} logged)")
        if path == "config.json":
            shutil.rmtree(directory)
    return ", ".join(outcomes)


def lost_machine(folder: Path, rng: random.Random, number: int = 4) -> str:
    """Two machines share one run, and one is killed: the other ends with a line, and the run goes on alone."""
    command, outcomes = jobs.write_squares(folder), []
    log = folder / "two/log.jsonl"
    reached = 0
    for index in range(number):
        lines = len(log.read_text().splitlines()) if log.exists() else 0
        options = ["--output", str(folder / "two"), "--steps", "1000000"]
        with jobs.team([*command, *options], checkpoint_seconds=0) as team:
            jobs.wait_for_lines(log, lines + 1, team)
            time.sleep(rng.uniform(0, 2))
            killed, left = team[index % 2], team[1 - index % 2]
            killed.kill()
            began = time.monotonic()
            try:
                error = left.communicate(timeout=120)[1]
            except subprocess.TimeoutExpired:
                raise Failure("the other has not ended after two minutes") from None
        last = error.strip().splitlines()[-1]
        require(left.returncode == 1 and last.startswith("error: ") and "Traceback" not in error, f"{left.returncode} {error}")
        outcomes.append(f"{time.monotonic() - began:.1f} s")
        require_whole(folder / "two")
        saved = int(tf.train.latest_checkpoint(folder / "two/checkpoints").rpartition("-")[2])
        require(saved > reached, f"step {saved} saved, and {reached} before")
        reached = saved
    steps = json.loads(log.read_text().splitlines()[-1])["step"] + 100
    for name in ("one", "two"):
        alone = [sys.executable, "-m", "supair", *command, "--output", str(folder / name), "--steps", str(steps)]
        require(subprocess.run(alone, cwd=ROOT, capture_output=True, check=False).returncode == 0, "it does not go on")
    one, two = (np.array([line["train_elbo"] for line in files.read_log(folder / name / "log.jsonl")]) for name in ("one", "two"))
    difference = np.max(np.abs(two - one)) / np.ptp(one)
    require(difference < 1e-2, f"another curve, by {difference:.1e} of its range")
    return f"the other ended after {', '.join(outcomes)}; curves differ by {difference:.1e} of their range after {steps} steps"


CLASSES = [
    damaged_data,
    damaged_runs,
    damaged_notes,
    kill_training,
    kill_checkpointing,
    kill_data_making,
    disk_full,
    read_only,
    same_run,
    shared_sweep,
    ctrl_c,
    lost_machine,
]


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [function.__name__ for function in CLASSES]
    parser.add_argument("--only", nargs="+", choices=names, default=names, metavar="CLASS", help=f"some of: {', '.join(names)}")
    parser.add_argument("--seed", type=int, default=0, help="of the moments and places (default: 0)")
    arguments = parser.parse_args(argv)
    for function in CLASSES:
        if function.__name__ not in arguments.only:
            continue
        began = time.monotonic()
        with tempfile.TemporaryDirectory() as folder:
            try:
                outcome, code = function(Path(folder), random.Random(arguments.seed)), 0
            except (Failure, *OURS) as failure:
                outcome, code = f"FAILED: {failure}", 1
        print(f"{function.__name__:<20}{outcome} ({time.monotonic() - began:.0f} s)", flush=True)
        if code:
            return code
    return 0


if __name__ == "__main__":
    import hard_knocks

    sys.exit(hard_knocks.main())  # under its own name, so that the processes it starts find it
