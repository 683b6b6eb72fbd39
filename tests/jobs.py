"""A function for a process of its own."""

import os
import time


def signal_self(number: int) -> None:
    os.kill(os.getpid(), number)
    time.sleep(60)
