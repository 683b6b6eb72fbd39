"""Crash tests: work, in a process of its own, is disturbed, or gets damaged files; see `cases`."""

import functools
import itertools
import multiprocessing
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import numpy as np
import psutil
from safetensors.numpy import load as parse_tensors

import data
import supair
from supair import __main__ as command_line
from supair import cli
from supair.config import ConfigError, TrainingError, resolve
from supair.run import load_weights, read_rows, write_weights
from tests import tiny

ROOT = Path(__file__).resolve().parents[2]
MODEL = replace(tiny.MODEL, num_steps=1, object=replace(tiny.MODEL.object, repetitions=1))
CONFIG = replace(tiny.TRAINING, batch_size=16, log_every=1)  # two steps an epoch
EPOCHS = 3  # in the last one, a checkpoint goes

# Processes are forked from one that has imported TensorFlow, which takes seconds.
_server = multiprocessing.get_context("forkserver")
_needed = "supair.training", "supair.model", "supair.detect.results"
_server.set_forkserver_preload(["tests.hard_knocks.cases", *_needed])
os.environ["PYTHONPATH"] = str(ROOT)
os.environ["PYTHONWARNINGS"] = "ignore:resource_tracker"  # tells of semaphores of those killed


class Child:
    """A process in which `cli.run` calls a function, as in a script."""

    def __init__(self, function: Callable, *arguments: Any):
        self._output = tempfile.NamedTemporaryFile()
        self.process = _server.Process(target=_run, args=(self._output.name, function, *arguments))
        self.process.start()

    @property
    def output(self) -> str:
        return Path(self._output.name).read_text()

    def wait_for(self, condition: Callable[[], Any]) -> None:
        end = time.monotonic() + 120
        while self.process.is_alive() and not condition() and time.monotonic() < end:
            time.sleep(0.002)

    def kill(self) -> None:
        self.process.kill()
        self.process.join()

    def outcome(self, *names: Any) -> str:
        """Its end: done, refused in one line that has these names, a signal, or killed by one."""
        self.process.join(300)  # None: it hangs
        code, output = self.process.exitcode, self.output
        self.kill()
        assert code is not None and "Traceback" not in output, f"{code}: {output[-2000:]}"
        if code == 2:  # of argparse
            assert all(str(name) in output for name in names), output
        if code == 1:
            error = output.rpartition("error: ")[2]
            assert error.count("\n") == 1 and all(str(name) in error for name in names), output
        if code < 0:
            return f"killed by {signal.Signals(-code).name}"
        return ("done", "refused", "refused")[code] if code < 3 else signal.Signals(code - 128).name

    def expect(self, outcome: str, *names: Any) -> None:
        assert self.outcome(*names) == outcome, f"expected {outcome}: {self.output[-500:]}"


def _run(output: str, function: Callable, *arguments: Any) -> None:
    os.dup2(os.open(output, os.O_WRONLY), 1)
    os.dup2(1, 2)
    do(function, *arguments)


def do(function: Callable, *arguments: Any) -> None:
    """Call a function as a script does, small as its work may be."""
    import tensorflow as tf

    from supair import training

    # Operation by operation and step by step, there are the most moments.
    tf.config.run_functions_eagerly(True)
    tf.config.threading.set_intra_op_parallelism_threads(1)
    training.steps_per_call = lambda: 1
    function = tf.autograph.experimental.do_not_convert(function)
    cli.run(lambda: function(*arguments) or 0, data.DataError)


class Work(NamedTuple):
    do: Callable[[Path], None]  # in a folder, as far as something is left to do
    result: Callable[[Path], Any]  # what is there when it is done


@functools.cache
def undisturbed(work: Work) -> tuple[Any, float]:
    """The result, and how many seconds that takes."""
    Child(os.getpgrp).kill()  # so that all is imported
    with tempfile.TemporaryDirectory() as folder:
        began = time.monotonic()
        Child(work.do, Path(folder) / "it").expect("done")
        return work.result(Path(folder) / "it"), time.monotonic() - began


def require_undisturbed(work: Work, folder: Path, child: Child | None = None) -> None:
    """Done once more, or by this process, the work ends as if nothing had happened."""
    for left in folder.rglob("*.partial"):
        os.utime(left, (0, 0))  # as if long ago
    (child or Child(work.do, folder)).expect("done")
    assert work.result(folder) == undisturbed(work)[0], "another result than the undisturbed one"
    assert not (left := [*folder.rglob("*.partial")]), f"left behind: {left}"


def goes_on(work: Work, disturb: Callable, folder: Path, rng: Random, times: int) -> Iterator[str]:
    """Disturb the work, each time in a new folder; it must go on as if nothing had happened."""
    undisturbed(work)  # with nothing beside it, for its time
    for index in range(times):
        outcome = disturb(work, folder / f"it{index}", rng, index)
        require_undisturbed(work, folder / f"it{index}")
        yield outcome


def train(folder: Path) -> None:
    print("starts", flush=True)
    tiny.train(folder, EPOCHS, CONFIG, MODEL)


def run_in(folder: Path):
    """The log without what depends on clock and machine, and the newest checkpoint."""
    clock = dict.fromkeys(("train_seconds", "seconds_left_out", "provenance"))
    rows = [{**row, **clock} for row in read_rows(folder)]
    newest = parse_tensors(max((folder / "checkpoints").iterdir()).read_bytes())
    return rows, {name: (array.shape, array.tobytes()) for name, array in newest.items()}


def make_data(folder: Path) -> None:
    data.load("sprites", 0, folder, (1000, 100))


def data_in(folder: Path):
    [path] = folder.glob("*.h5")  # beside what a killed process leaves
    parts = data.store.read(path).values()
    return [(p.white, *(a[:].tobytes() for a in (p.images, p.counts, p.boxes))) for p in parts]


def write_model(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    write_weights(supair.SuPAIR(MODEL, CONFIG.seed), folder, resolve("SuPAIR", MODEL, CONFIG, {}))


def detect(folder: Path) -> None:
    write_model(folder / "model")
    np.savez(folder / "images", images=tiny.scenes(40).images)
    words = f"--model={folder}/model", f"--images={folder}/images.npz", f"--output={folder}/found"
    command_line.main(["detect", *words])


def found_in(folder: Path):
    return [(folder / "found" / name).read_bytes() for name in ("counts.csv", "boxes.json")]


TRAINING, DATA, DETECTION = Work(train, run_in), Work(make_data, data_in), Work(detect, found_in)


def catch(work: Work, folder: Path, rng: Random, started: bool = False) -> Child:
    """The work's process at a random moment before its end."""
    seconds = undisturbed(work)[1]
    while True:
        child = Child(work.do, folder)
        if started:
            child.wait_for(lambda: child.output)  # noqa: B023
        time.sleep(rng.uniform(0, seconds))
        if child.process.is_alive():
            return child
        shutil.rmtree(folder)
        seconds /= 2  # the machine has less to do than before


def kill(work: Work, folder: Path, rng: Random, index: int) -> str:
    catch(work, folder, rng).kill()
    return f"{len([*folder.glob('checkpoints/epoch-*'), *folder.glob('*.h5')])} whole files"


def sweep(folder: Path, *more: str) -> None:
    """Two runs of two epochs by reproduce/train.py."""
    options = "--model supair --dataset sprites --recipe robust --no-xla --threads 1 --seeds 0-1"
    options = [*options.split(), "--epochs=2", f"--runs={folder}/runs", f"--data={folder}", *more]
    os.execv(sys.executable, [sys.executable, str(ROOT / "tests/tiny_reproduce.py"), *options])


def sweep_on_dask(folder: Path) -> None:
    sweep(folder, "--dask=local")


def runs_in(folder: Path):
    first, second = sorted(folder.glob("runs/*/*/*/seed*"))
    return run_in(first), run_in(second)


def kill_sweep(work: Work, folder: Path, rng: Random, index: int) -> str:
    """Its processes end with it."""
    child = catch(work, folder, rng)
    others = psutil.Process(child.process.pid).children(recursive=True)
    child.kill()
    assert not psutil.wait_procs(others, 20)[1], "processes left behind"
    return f"{len(others)} processes ended with it"


def do_until(work: Work, folder: Path, moment: int) -> None:
    """Work, and be killed before so-and-so-many-th thing done to a file in the folder."""
    things, moments = ("open", "os.rename", "os.remove", "os.mkdir"), itertools.count(1)

    def count(event: str, arguments: tuple) -> None:
        if event in things and str(folder) in str(arguments[0]) and next(moments) == moment:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(count)
    work.do(folder)


def kill_writing(work: Work, folder: Path, rng: Random, index: int) -> str:
    return Child(do_until, work, folder, 1 + (14 + 11 * index) % 40).outcome()


def send_signal(work: Work, folder: Path, rng: Random, index: int) -> str:
    signum = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)[index % 3]
    child = catch(work, folder, rng, started=True)
    subprocess.call(["kill", f"-{signum}", str(child.process.pid)])
    assert (outcome := child.outcome()) in (signum.name, "done"), outcome
    return outcome


def limited(work: Work, folder: Path, size: int = 2**40, user: int = 0) -> None:
    """Work, with files of at most this size and, if root, with the rights of this user."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
    if os.getuid() == 0:
        os.setegid(user)
        os.seteuid(user)
    work.do(folder)


def fill_disk(work: Work, folder: Path, rng: Random, index: int) -> str:
    """A small tmpfs; without the right to mount one, a limit on the size of files."""
    disk, size = folder.with_name(f"disk{index}"), int(4096 * 2 ** rng.uniform(0, 8))
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "none", disk]
    mounted = subprocess.call(mount, stderr=subprocess.DEVNULL) == 0
    try:
        outcome = Child(limited, work, disk / "it", 2**40 if mounted else size).outcome(disk)
        subprocess.call(["cp", "-r", disk / "it", folder])
    finally:
        if mounted:
            subprocess.call(["umount", "-l", disk])
    return outcome


def write_protect(work: Work, folder: Path, rng: Random, index: int) -> str:
    folder.mkdir()
    if index % 2:
        kill(work, folder, rng, index)
    subprocess.call(["chmod", "-R", "a-w,a+rX", folder])  # and 65534 is nobody
    outcome = Child(limited, work, folder, 2**40, 65534).outcome(folder, "Permission denied")
    assert outcome == "refused" or any(folder.glob("*.h5")), outcome  # which is only read
    subprocess.call(["chmod", "-R", "u+w", folder])
    return outcome


def come_second(work: Work, folder: Path, rng: Random, index: int) -> str:
    first = Child(work.do, folder)
    first.wait_for((folder / "config.json").exists)
    Child(work.do, folder).expect("refused", folder, "in use")
    if index % 2:
        first.kill()
        return "first killed"
    first.expect("done")
    return "first done"


def vanish(work: Work, folder: Path, rng: Random, index: int) -> str:
    child = Child(work.do, folder)
    child.wait_for(lambda: len(list(folder.glob("checkpoints/epoch-*"))) > index % 2)
    os.rename(folder, folder.with_name("elsewhere"))
    outcome = child.outcome(folder)
    assert outcome == "done" or not folder.exists(), outcome
    os.rename(folder.with_name("elsewhere"), folder)
    return outcome


def do_thrice(work: Work, folder: Path, rng: Random, index: int) -> str:
    for child in [Child(work.do, folder) for _ in range(3)]:
        child.expect("done")
    return "done"


def copy(work: Work, folder: Path, rng: Random, index: int) -> str:
    original = folder.with_name(f"original{index}")
    child = Child(work.do, original)
    child.wait_for(lambda: len(list(original.glob("checkpoints/epoch-*"))) > index % 2)
    subprocess.call(["cp", "-r", original, folder], stderr=subprocess.DEVNULL)
    require_undisturbed(work, folder)
    require_undisturbed(work, original, child)
    return "done"


FILES = r"\.json|\.jsonl|epoch-|\.h5|\.csv|\.npz|\.png|\.tiff"  # that messages must name
WAYS = {  # of changing a file from a byte on
    "bit": lambda rest, rng: bytes([rest[0] ^ 1 << rng.randrange(8)]) + rest[1:],
    "byte": lambda rest, rng: rng.randbytes(1) + rest[1:],
    "zeros": lambda rest, rng: bytes(len(rest[:64])) + rest[64:],
    "gap": lambda rest, rng: rest[1:],
    "end": lambda rest, rng: b"",
}


def parts_of(content: bytes) -> dict[str, tuple[int, int]]:
    """First and last byte, exclusive, of every part of a file that means something else."""
    size, header = len(content), 8 + int.from_bytes(content[:8], "little")
    if header > size:  # no safetensors
        return {"start": (0, 64), "middle": (64, size - 64), "end": (size - 64, size)}
    texts = re.finditer(rb'"(\w+)":"[^"]*"', content[:header])  # the metadata, and the last dtype
    parts = {match[1].decode(): match.span() for match in texts}
    return {"length": (0, 8), **parts, "names": (8, header), "tensors": (header, size)}


def damage_files(files: dict[str, list[Path]], uses: dict, rng: Random, times: int) -> None:
    """Damage the files of a name alike; every use must be refused or do no harm."""
    contents = {path: path.read_bytes() for paths in files.values() for path in paths}
    parts = {name: parts_of(contents[paths[0]]) for name, paths in files.items()}
    assert all(harmless() for harmless in uses.values()), "other numbers of what is whole"
    ways = [(name, *way) for name in files for way in itertools.product(parts[name], WAYS)]
    for name, part, way in itertools.islice(itertools.cycle(rng.sample(ways, len(ways))), times):
        at, refused = rng.randrange(*parts[name][part]), 0
        for path in files[name]:
            path.write_bytes(contents[path][:at] + WAYS[way](contents[path][at:], rng))
        for use, harmless in uses.items():
            print(f"{use} with {name}, {way} from byte {at} ({part})", flush=True)
            try:
                assert harmless(), "other numbers"
            except (ConfigError, TrainingError, data.DataError) as error:
                named = re.fullmatch(f".*({FILES}).*", str(error))
                assert named, f"expected one line with a file, found {error}"
                refused += 1
        print(f"outcome: {name}, refused by {refused} of {len(uses)}", flush=True)
        for path, content in contents.items():
            path.write_bytes(content)


def damage_run(folder: Path, rng: Random, times: int) -> None:
    def go_on(epochs: int = EPOCHS - 1):
        model, rows = tiny.train(folder, epochs, CONFIG, MODEL)
        return rows, [variable.numpy().tobytes() for variable in model.variables]

    def load():
        model = supair.SuPAIR(MODEL, CONFIG.seed)
        load_weights(model, folder)
        return [variable.numpy().tobytes() for variable in model.variables]

    states = [go_on(epoch) for epoch in range(1, EPOCHS + 1)][-2:]
    logs, weights = zip(*states)
    checkpoints = sorted((folder / "checkpoints").iterdir())
    files = {name: [folder / name] for name in ("config.json", "log.jsonl")}
    files |= {"newest checkpoint": checkpoints[1:], "both checkpoints": checkpoints}
    uses = {"read_rows": lambda: read_rows(folder) in logs, "load": lambda: load() in weights}
    damage_files(files, {**uses, "train": lambda: go_on() in states}, rng, times)  # which repairs


def damage_data(folder: Path, rng: Random, times: int) -> None:
    make_data(folder)
    expected = data_in(folder)
    uses = {"load": lambda: make_data(folder) or data_in(folder) == expected}
    damage_files({"data": list(folder.iterdir())}, uses, rng, times)


def damaged(function: Callable, folder: Path, rng: Random, times: int) -> Iterator[str]:
    child = Child(function, folder / "it", rng, times)
    child.expect("done")
    yield from re.findall("^outcome: (.*)$", child.output, re.MULTILINE)
