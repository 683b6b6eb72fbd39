"""Functions for a process of their own."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import tiny

ROOT = Path(__file__).resolve().parent.parent
# As in conftest: what builds graphs sooner, for processes of their own.
QUICKLY = "import tensorflow as tf; tf.config.optimizer.set_experimental_options({'disable_meta_optimizer': True}); "
TEAM_SECONDS = 240  # in which machines have to have done what a test waits for


def signal_self(number: int) -> None:
    os.kill(os.getpid(), number)
    time.sleep(60)


def deaf(path) -> None:
    """Does not react to signals, like a call into a library that compiles."""
    signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM))
    path.touch()
    time.sleep(60)


@contextlib.contextmanager
def team(command: list[str], size: int = 2, checkpoint_seconds: float = 60):
    """The same command of ours, in a process for each of several machines of TF_CONFIG, which are all this one.

    Yields the processes, and kills what is left of them at the end.
    """
    supair = f"{QUICKLY}import runpy; from supair import training; training.CHECKPOINT_SECONDS = {checkpoint_seconds}; "
    supair += "runpy.run_module('supair', run_name='__main__')"
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(size)]
        for one in sockets:
            one.bind(("localhost", 0))
        addresses = [f"localhost:{one.getsockname()[1]}" for one in sockets]
    processes = []
    try:
        for index in range(size):
            config = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}
            environment = {**os.environ, "TF_CONFIG": json.dumps(config), "TF_CPP_MIN_LOG_LEVEL": "3"}
            process = [sys.executable, "-c", supair, *command]
            processes.append(subprocess.Popen(process, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True))
        yield processes
    finally:
        for process in processes:
            process.kill()
            process.wait()


def wait_for_lines(log: Path, number: int, processes: list[subprocess.Popen]) -> None:
    """Until a log has so many lines, or a process has ended."""
    end = time.monotonic() + TEAM_SECONDS
    while not (log.exists() and len(log.read_text().splitlines()) >= number) and time.monotonic() < end:
        if any(process.poll() is not None for process in processes):
            return
        time.sleep(0.05)


def write_squares(folder: Path) -> list[str]:
    """Scenes in a file, and what trains a small model on them."""
    scenes = tiny.scenes(64)
    np.savez(folder / "squares.npz", images=scenes.images[:], counts=scenes.counts)
    # The paper's recipe: with an earlier `robust`, at twice the rate, rounding grew beyond 1e-3 of the bound in 200 of these steps.
    options = "--side 12 --patch-size 6 --max-objects 1 --batch-size 8 --no-xla --recipe paper".split()
    return ["train", "--images", str(folder / "squares.npz"), *options]
