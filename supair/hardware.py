"""What machine this is."""

from __future__ import annotations

import os
import platform
from pathlib import Path

import tensorflow as tf


def describe_machine() -> dict[str, str | int]:
    """GPU or processor, threads, and versions."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    details_of = tf.config.experimental.get_device_details
    gpus = map(details_of, tf.config.list_physical_devices("GPU"))
    gpu = ", ".join(details.get("device_name", "GPU") for details in gpus)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "hardware": gpu or next(iter(names), "") or platform.machine(),
        "threads": tf.config.threading.get_intra_op_parallelism_threads() or cores,
        "python": platform.python_version(),
        "tensorflow": tf.__version__,
    }
