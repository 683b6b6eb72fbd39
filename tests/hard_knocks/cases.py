"""What is tried, case by case: disturbances and damages, hostile files, odd environments."""

import os
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import h5py
import numpy as np
from PIL import Image

import data
from reproduce import records, table2
from supair import run
from supair.detect.images import read_images
from supair.detect.load import load_model
from tests import tiny
from tests.hard_knocks import harness as h

READERS = {  # what uses the files that `prepare` puts in a folder
    "scenes.h5": lambda folder: data.store.read(folder / "scenes.h5"),
    "mnist.npz": lambda folder: data.scenes.load_mnist(folder / "mnist.npz"),
    "air-paper-sprites.csv": lambda folder: records.read_record("air", "paper", "sprites", folder),
    "air-paper-sprites.json": lambda folder: records.read_record("air", "paper", "sprites", folder),
}
OF_RUN = "run/config.json", "run/log.jsonl", "run/checkpoints/epoch-00001.safetensors"
OF_MODEL = "model/config.json", "model/weights.safetensors"
USES = {
    **dict.fromkeys(OF_RUN, lambda folder: load_model(folder / "run")),
    **dict.fromkeys(OF_MODEL, lambda folder: load_model(folder / "model")),
    "out.json": lambda folder: table2.parse(["--recorded", f"--json={folder / 'out.json'}"]),
    **READERS,
}
KINDS = {
    "a pipe": os.mkfifo,
    "a folder": Path.mkdir,
    "without end": lambda path: path.symlink_to("/dev/zero"),
    "empty": Path.touch,
    "nested 100,000 deep": lambda path: path.write_text("[" * 100_000),
}


def prepare(folder: Path) -> None:
    tiny.train(folder / "run", 1, h.CONFIG, h.MODEL)
    h.write_model(folder / "model")
    h.make_data(folder / "data")
    os.rename(next((folder / "data").iterdir()), folder / "scenes.h5")
    np.savez(folder / "mnist.npz", x_train=PIXELS[None, :28, :28], x_test=PIXELS[None, :28, :28])
    for path in records.RECORDED.glob("air-paper-sprites.*"):
        shutil.copy(path, folder)
    (folder / "pictures").mkdir()
    for kind in ("png", "tiff"):
        Image.fromarray(PIXELS).save(folder / "pictures" / f"a.{kind}")


def set_key(path: Path, key: str, value: str) -> None:
    path.write_text(re.sub(f'"{key}": [^,\n]+', f'"{key}": {value}', path.read_text()))


def fill_weights(path: Path, value: float) -> None:
    about = run.read_configuration(path.parent)
    tensors = {name: 0 * x + np.float64(value) for name, x in run._parse(path, about)[1].items()}
    path.write_bytes(run._serialise(tensors, about))


def put_images(path: Path, make: Callable[[h5py.Group], Any]) -> None:
    with h5py.File(path, "r+") as file:
        del file["train/images"]
        make(file["train"])


def pack_digits(path: Path, number: int, size: int) -> None:
    header = f"{{'descr': '|u1', 'fortran_order': False, 'shape': ({number}, 28, 28), }}".ljust(117)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name in ("x_train.npy", "x_test.npy"):
            file.writestr(name, b"\x93NUMPY\x01\x00v\x00" + header.encode() + b"\n" + bytes(size))


def all_hostile() -> Iterator[tuple[str, str, Callable[[Path], Any]]]:
    """A file of `prepare`, what becomes of it, and how."""
    yield from ((place, kind, make) for place in USES for kind, make in KINDS.items())
    sizes = "num_steps 1000000000,scene_size 10000,lstm_units 10000,depth 1000000000,num_sums 10000"
    for text in f"{sizes},variance_max 1e300,count_penalty NaN,seed 1{40 * '0'}".split(","):
        yield "model/config.json", text, lambda path, text=text: set_key(path, *text.split())
    for x in (1e300, np.nan, np.inf):
        yield "model/weights.safetensors", f"{x}", lambda path, x=x: fill_weights(path, x)
    tensor = b'{"a":{"dtype":"F32","shape":[2500000000],"data_offsets":[0,10000000000]}}'
    for n in (len(tensor), 2**60):  # the header's size
        content = n.to_bytes(8, "little") + tensor
        yield "model/weights.safetensors", f"{n}", lambda path, c=content: path.write_bytes(c)
    for n, size in ((13_000_000, 100), (13 * 10**9, 100), (400_000, 28 * 28 * 400_000)):
        yield "mnist.npz", f"{n} digits", lambda path, n=n, size=size: pack_digits(path, n, size)
    shape, huge = (1000, 50, 50), (4_000_000, 50, 50)
    outside = {"external": [("/etc/passwd", 0, 2_500_000)]}
    for text, make in {
        "link": lambda part: part.update(images=h5py.ExternalLink("other.h5", "/images")),
        "virtual": lambda p: p.create_virtual_dataset("images", h5py.VirtualLayout(shape, "u1")),
        "a system file": lambda part: part.create_dataset("images", shape, "u1", **outside),
        "10 GB": lambda part: part.create_dataset("images", huge, "u1"),
        "10 GB in chunks": lambda p: p.create_dataset("images", huge, "u1", chunks=(1, 50, 50)),
    }.items():
        yield "scenes.h5", text, lambda path, make=make: put_images(path, make)


HOSTILE = list(all_hostile())
PIXELS = np.random.default_rng(0).integers(0, 255, [40, 40], np.uint8)


def use(place: str, folder: Path) -> None:
    """Within a gigabyte more than Python with TensorFlow has, and two seconds of computing."""
    if "/" in place:
        h.supair.SuPAIR(h.MODEL, 0)  # so that TensorFlow has started
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + 2**30, resource.RLIM_INFINITY))
    began = time.process_time()
    try:
        USES[place](folder)
    finally:
        assert time.process_time() - began < 2


def hostile(folder: Path, rng: Random, times: int) -> Iterator[str]:
    """Files that are something else than their names say, or claim what no machine holds."""
    h.Child(prepare, folder / "whole").expect("done")
    for index, (place, kind, make) in enumerate(rng.sample(HOSTILE, times)):
        path = shutil.copytree(folder / "whole", folder / f"it{index}") / place
        if kind in KINDS:
            path.unlink(missing_ok=True)
        make(path)
        before, user = path.lstat(), h.Child(use, place, folder / f"it{index}")
        outcome, after = user.outcome(path.name), path.lstat()
        assert outcome == "refused", f"{place}, {kind}: {outcome}, {user.output}"
        same = (before.st_mode, before.st_size) == (after.st_mode, after.st_size)
        assert same, f"{place}, {kind}: the file has changed"
        yield place


def damage_others(folder: Path, rng: Random, times: int) -> None:
    """Numbers and pixels that are other ones cannot be found, but nothing is missing."""
    prepare(folder)
    uses = {place: lambda use=use: use(folder) or True for place, use in READERS.items()}
    pictures = folder / "pictures"
    uses["pictures"] = lambda: all(np.ndim(p) in (2, 3) for p in read_images(pictures).pictures)
    places = [*READERS, "pictures/a.png", "pictures/a.tiff"]
    h.damage_files({place: [folder / place] for place in places}, uses, rng, times)


# Shell commands that run "$@", a training, in an odd environment; $0 is its folder.
VARIABLES = """HOME=/nowhere,HOME=/proc,TMPDIR=/nowhere,LC_ALL=C,LC_ALL=tr_TR.UTF-8,LC_ALL=xx_XX,
LC_ALL=POSIX PYTHONCOERCECLOCALE=0 PYTHONUTF8=0,PYTHONIOENCODING=latin-1,KERAS_BACKEND=torch,
TF_USE_LEGACY_KERAS=1,PYTHONOPTIMIZE=1,PYTHONHASHSEED=7,PYTHONDEVMODE=1,TF_CPP_MIN_LOG_LEVEL=0,
CUDA_VISIBLE_DEVICES=,COLUMNS=1 TERM=dumb,TZ=Nowhere/Nothing,OMP_NUM_THREADS=1"""
ODD = [f'{variables.strip()} "$@"' for variables in VARIABLES.split(",")]
ODD += ['"$@" <&-', '"$@" >&-', '"$@" 2>&-', '"$@" <&- >&- 2>&-', 'env -u HOME "$@"']
ODD += ['env -i PYTHONPATH="$PYTHONPATH" "$@"', 'setsid -w "$@" </dev/null', 'ulimit -n 64; "$@"']
ODD += ['trap "" HUP; "$@" & sleep 3; kill -HUP $!; wait $!', 'cd /proc; "$@"']
ODD += ['mkdir "$0.cwd"; cd "$0.cwd"; rmdir "$0.cwd"; "$@"', 'taskset -c 0 "$@"']
ODD += ['umask 077; "$@" && [ -z "$(find "$0" -perm /077)" ]']
ODD += ['umask 002; "$@" && [ -z "$(find "$0" ! -perm -660)" ]']


def odd(folder: Path, rng: Random, times: int) -> Iterator[str]:
    names = "it", "[brackets]*?", "back\\slash", "bl ank and ümläut"
    code = "import sys; sys.path.remove(''); "  # as in a script
    code += "from tests.hard_knocks.harness import *; do(train, Path(sys.argv[1]))"
    for index, shell in enumerate(rng.sample(ODD, times)):
        place = folder / names[index % 4] / str(index)
        place.parent.mkdir(exist_ok=True)
        command = ["sh", "-c", shell, place, sys.executable, "-c", code, place]
        ended = subprocess.run(command, capture_output=True, text=True, timeout=300)
        told = f"{shell}: {ended.returncode}: {ended.stderr[-2000:]}"
        assert ended.returncode == 0 and "Traceback" not in ended.stderr, told
        assert h.run_in(place) == h.undisturbed(h.TRAINING)[0], shell
        yield "done"


class Case(NamedTuple):
    name: str
    kind: str  # of which the numbers are added up
    holds: str
    # A work and what disturbs it; or a function and its arguments, but for a folder, random numbers
    # and how many times.
    run: tuple
    few: int  # times among the tests
    many: int  # times with --full

    def outcomes(self, times: int, seed: int) -> Iterator[str]:
        function, *arguments = self.run if callable(self.run[0]) else (h.goes_on, *self.run)
        with tempfile.TemporaryDirectory() as folder:
            os.chmod(folder, 0o755)  # for other users
            yield from function(*arguments, Path(folder), Random(seed), times)


TRAIN, DATA, DETECT = h.TRAINING, h.DATA, h.DETECTION
SWEEP, ON_DASK = h.Work(h.sweep, h.runs_in), h.Work(h.sweep_on_dask, h.runs_in)
KILL, STOP, ODDITY, DAMAGE = "kill -9", "other signals", "odd environments", "corruptions"
SAME, CODE = "goes on to the undisturbed end", "exit code 128 + n, goes on to the same end"
LINE, TRUE = "one line names the folder, later goes on", "refused by name, or the right numbers"
FORM = "refused by name, or whole"  # if nothing can tell one number from another
CASES = [
    Case("kill_training", KILL, SAME, (TRAIN, h.kill), 3, 40),
    Case("kill_writing", KILL, SAME, (TRAIN, h.kill_writing), 3, 24),
    Case("kill_data_making", KILL, SAME, (DATA, h.kill), 2, 16),
    Case("kill_detection", KILL, SAME, (DETECT, h.kill), 2, 16),
    Case("kill_sweeps", KILL, "all processes end, " + SAME, (SWEEP, h.kill_sweep), 0, 2),
    Case("kill_sweeps_on_dask", KILL, "all processes end, " + SAME, (ON_DASK, h.kill_sweep), 0, 2),
    Case("signals", STOP, CODE, (TRAIN, h.send_signal), 3, 24),
    Case("full_disk", ODDITY, LINE, (TRAIN, h.fill_disk), 2, 12),
    Case("full_disk_data", ODDITY, LINE, (DATA, h.fill_disk), 1, 6),
    Case("read_only", ODDITY, LINE, (TRAIN, h.write_protect), 1, 4),
    Case("read_only_data", ODDITY, LINE, (DATA, h.write_protect), 1, 4),
    Case("vanished", ODDITY, LINE, (TRAIN, h.vanish), 1, 6),
    Case("same_run", ODDITY, LINE, (TRAIN, h.come_second), 2, 6),
    Case("same_data", ODDITY, SAME, (DATA, h.do_thrice), 1, 4),
    Case("copied_run", ODDITY, SAME, (TRAIN, h.copy), 1, 4),
    Case("variables_and_shells", ODDITY, SAME, (odd,), 2, len(ODD)),
    Case("damaged_run", DAMAGE, TRUE, (h.damaged, h.damage_run), 30, 120),
    Case("damaged_data", DAMAGE, TRUE, (h.damaged, h.damage_data), 20, 60),
    Case("damaged_others", DAMAGE, FORM, (h.damaged, damage_others), 30, 120),
    Case("hostile_files", "hostile files", "one line names them", (hostile,), 8, len(HOSTILE)),
]
