"""Functions for a process of their own."""

import os
import signal
import time


def signal_self(number: int) -> None:
    os.kill(os.getpid(), number)
    time.sleep(60)


def deaf(path) -> None:
    """Does not react to signals, like a call into a library that compiles."""
    signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM))
    path.touch()
    time.sleep(60)
