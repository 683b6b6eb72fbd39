"""What machine this is."""

from __future__ import annotations

import os
import platform
from pathlib import Path

import tensorflow as tf


def has_gpu() -> bool:
    return bool(tf.config.list_physical_devices("GPU"))


def describe_machine() -> dict[str, str | int]:
    """GPU or processor, threads, and versions."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    gpus = [
        tf.config.experimental.get_device_details(gpu).get("device_name", "GPU")
        for gpu in tf.config.list_physical_devices("GPU")
    ]
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "hardware": ", ".join(gpus) or next(iter(names), "") or platform.machine(),
        "threads": tf.config.threading.get_intra_op_parallelism_threads() or cores,
        "python": platform.python_version(),
        "tensorflow": tf.__version__,
    }
