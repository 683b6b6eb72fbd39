"""What every command needs, without TensorFlow: a clean screen, errors in one line, a good end."""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import signal
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from supair.config import ConfigError, TrainingError

os.environ["KERAS_BACKEND"] = "tensorflow"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "1")  # warnings and errors
os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")  # several processes share a GPU
_WARNING = re.compile(r"^(?!I\d{4} |WARNING: All log messages |E.* cuInit).", re.MULTILINE)


class _Log:
    """A file for what C++ writes to descriptor 2 once TensorFlow is imported, not `sys.stderr`."""

    path = os.devnull

    def find_spec(self, name: str, *_) -> None:  # called before every import
        if name == "tensorflow" and sys.stderr is sys.__stderr__:  # not yet
            sys.stderr = open(os.dup(2), "w", buffering=1, errors="backslashreplace")  # the screen
            with contextlib.suppress(OSError):  # if there is no folder to write to
                self.path = tempfile.mkstemp(".log", f"supair-{os.getpid()}-")[1]
            os.dup2(os.open(self.path, os.O_WRONLY | os.O_APPEND), 2)

    def close(self, failed: bool) -> str:
        """Where the file is, if something failed and it may tell why; else it is removed."""
        with contextlib.suppress(OSError):
            if failed and _WARNING.search(Path(self.path).read_text(errors="replace")):
                return f"; what TensorFlow said: {self.path}"
            if self.path != os.devnull:
                os.unlink(self.path)
        return ""


log = _Log()


def positive(text: str) -> int:
    """An integer of at least 1, for argparse."""
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"expected an integer of at least 1, found {text}")
    return int(text)


def run(main: Callable[[], int], *errors: type[Exception]) -> None:
    """Call a command's main function, and exit with its code or a line about what is wrong.

    `errors` are exceptions that are told so, beside ours and the operating system's.
    """
    signals: list[int] = []

    def end(signum: int, frame: object) -> None:
        signals.append(signum)
        raise KeyboardInterrupt  # so that files half written are removed

    for name in "SIGINT SIGTERM SIGHUP SIGQUIT SIGUSR1 SIGUSR2 SIGXCPU SIGALRM".split():
        number = getattr(signal, name, None)
        if number and signal.getsignal(number) is not signal.SIG_IGN:  # as `nohup` sets it
            signal.signal(number, end)
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:  # closed: no other file shall get its descriptor
            setattr(sys, name, open(os.devnull, mode))
    sys.stdout.reconfigure(errors="backslashreplace")  # its encoding may lack letters
    sys.meta_path.insert(0, log)
    try:
        code = main()
    except BaseException as error:
        said = log.close(failed=not signals)
        if signals:  # C code on the way may have made another error of it
            sys.exit(128 + signals[0])
        if isinstance(error, (ConfigError, TrainingError, OSError, *errors)):
            sys.exit(f"error: {error}{said}")
        if said:
            print(said[2:], file=sys.stderr)
        raise
    log.close(failed=bool(code))
    sys.exit(code)
