"""What machine this is, and how fast it multiplies matrices."""

from __future__ import annotations

import os
import platform
import time
from pathlib import Path

import tensorflow as tf


def has_gpu() -> bool:
    return bool(tf.config.list_physical_devices("GPU"))


def describe_machine() -> dict[str, str]:
    """The processor or GPU, the number of cores, and versions."""
    info = Path("/proc/cpuinfo")
    names = (
        [line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")]
        if info.exists()
        else []
    )
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    gpus = [
        tf.config.experimental.get_device_details(gpu).get("device_name", "GPU") for gpu in tf.config.list_physical_devices("GPU")
    ]
    processor = names[0] if names else platform.processor() or platform.machine()
    return {
        "summary": gpus[0] if gpus else f"{cores} cores of {processor}",
        "processor": processor,
        "cores": str(cores),
        "gpu": ", ".join(gpus) or "none",
        "python": platform.python_version(),
        "tensorflow": tf.__version__,
    }


_multiply = tf.function(tf.matmul, jit_compile=True)


def matmul_gflops(size: int = 1024, seconds: float = 0.5) -> float:
    """Rate of square float32 matrix products of the given size, the best of several, in GFLOP/s."""
    a, b = tf.random.stateless_normal([2, size, size], [0, 0])
    _multiply(a, b).numpy()
    best, end = float("inf"), time.perf_counter() + seconds
    while time.perf_counter() < end:
        start = time.perf_counter()
        _multiply(a, b).numpy()
        best = min(best, time.perf_counter() - start)
    return 2 * size**3 / best / 1e9
