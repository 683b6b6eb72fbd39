"""Claims: of several processes, on one machine or on several with one file system, each run is one's at a time.

A claim is a file `claim.N` in a run's directory that says who has the run.  Its holder sets the file's time anew while it
lives, so a claim whose time stands still for long is dead.  No file lock is needed, and no two clocks are compared.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import multiprocessing
import os
import platform
import threading
import time
from pathlib import Path

EXPIRY = 300  # seconds without a sign of life, after which a claim is dead
_seen: dict[Path, tuple[int, float]] = {}  # others' claims: their time, and when by our own clock we first saw that


class Claim:
    """A claim of this process to a run, with a thread that keeps it alive; see `claim`."""

    def __init__(self, path: Path):
        self._path, self._released = path, threading.Event()
        self._thread = threading.Thread(target=self._keep_alive, daemon=True)
        self._thread.start()

    def _keep_alive(self) -> None:
        while not self._released.wait(EXPIRY / 10):
            try:
                os.utime(self._path)
            except FileNotFoundError:  # this machine slept for so long that another process has taken the run over
                for process in multiprocessing.active_children():
                    process.kill()  # what it trains is no longer ours
                return
            except OSError:
                pass  # the run itself will tell what is wrong with its directory

    def release(self) -> None:
        """Let others have the run; what the file said of its holder goes, and the next claim takes its place."""
        self._released.set()
        self._thread.join()
        with contextlib.suppress(OSError):
            os.truncate(self._path, 0)
            os.utime(self._path, (0, 0))


def claim(directory: Path) -> Claim | None:
    """Claim a run; None if another process has it or still holds its lock.

    The newest claim is the one of the largest number, and never deleted: who takes a run over creates the next number, which
    only one process can.

    Raises:
      OSError: if the directory cannot be written to.
    """
    directory.mkdir(parents=True, exist_ok=True)
    numbers = _numbers(directory)
    if numbers and not _is_dead(directory / f"claim.{numbers[-1]}"):
        return None
    number = numbers[-1] + 1 if numbers else 0
    path = directory / f"claim.{number}"
    try:
        with open(path, "x") as file:
            json.dump({**_me(), "since": time.strftime("%Y-%m-%d %H:%M:%S")}, file)
    except FileExistsError:  # another was faster
        return None
    if _numbers(directory)[-1] > number:  # we looked long ago: ours fills a gap behind a newer one
        path.unlink()
        return None
    for old in numbers:
        (directory / f"claim.{old}").unlink(missing_ok=True)
    claimed = Claim(path)
    if _is_locked(directory):
        claimed.release()
        return None
    return claimed


def _numbers(directory: Path) -> list[int]:
    return sorted(int(path.suffix[1:]) for path in directory.glob("claim.*") if path.suffix[1:].isdigit())


def _is_locked(directory: Path) -> bool:
    """Whether the process that trained for a dead one is still about to save the run; no, where files cannot be locked."""
    try:
        with open(directory / "lock", "w") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        pass
    return False


def _me() -> dict[str, object]:
    """This process, and the machine or container in which its number means something."""
    with contextlib.suppress(OSError):
        return {"host": f"{platform.node()} {os.readlink('/proc/self/ns/pid')}", "pid": os.getpid()}
    return {"host": platform.node(), "pid": os.getpid()}


def _is_dead(path: Path) -> bool:
    """Whether a claim is released, its process is one of this machine that has ended, or its time has stood still."""
    try:
        changed = path.stat().st_mtime_ns
        if changed == 0:
            return True
        holder = json.loads(path.read_text())
        if holder["host"] == _me()["host"]:
            os.kill(holder["pid"], 0)
    except FileNotFoundError:
        return False  # taken over by another just now
    except ProcessLookupError:
        return True
    except (ValueError, KeyError, TypeError, PermissionError):
        pass  # just being written, or by a process killed at that, or another user's
    if _seen.get(path, (None,))[0] != changed:
        _seen[path] = changed, time.monotonic()
    return time.monotonic() - _seen[path][1] > EXPIRY
