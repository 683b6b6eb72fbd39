"""What every command needs, without TensorFlow: errors in one line, and an end in order."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable

from supair.config import ConfigError, TrainingError

os.environ["KERAS_BACKEND"] = "tensorflow"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")  # several processes share a GPU


def run(main: Callable[[], int], *errors: type[Exception]) -> None:
    """Call a command's main function, and exit with its code or a line about what is wrong.

    `errors` are exceptions that are told so, beside ours and the operating system's.
    """
    for name in ("stdin", "stdout", "stderr"):
        if getattr(sys, name) is None:  # closed: or a file of ours would take its place
            setattr(sys, name, open(os.devnull, "r+"))
    signals: list[int] = []

    def end(signum: int, frame: object) -> None:
        signals.append(signum)
        raise KeyboardInterrupt  # so that files half written are removed

    for name in "SIGINT SIGTERM SIGHUP SIGQUIT SIGUSR1 SIGUSR2 SIGXCPU SIGALRM".split():
        number = getattr(signal, name, None)
        if number and signal.getsignal(number) is not signal.SIG_IGN:  # as `nohup` sets it
            signal.signal(number, end)
    try:
        sys.exit(main())
    except BaseException as error:
        if signals:  # C code on the way may have made another error of it
            sys.exit(128 + signals[0])
        if isinstance(error, (ConfigError, TrainingError, OSError, *errors)):
            sys.exit(f"error: {error}")
        raise
