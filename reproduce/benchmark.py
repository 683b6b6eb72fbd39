"""How long a training step takes, next to how fast this machine multiplies matrices.

    python reproduce/benchmark.py                 everything
    python reproduce/benchmark.py --no-growth     the steps alone; three and a half minutes on two cores
    python reproduce/benchmark.py --together 5    besides, SuPAIR with 5 seeds in one step

Prints for SuPAIR (batch 256) and AIR (batch 64) the median time of a training step, the time to compile it, peak memory
with the data set, the speed of inference, the machine's rate of float32 matrix products measured in the same run, and
the step's share of it; an epoch of both at the same batches; then how SuPAIR's step grows with batch, scene side and
number of steps, as numbers and as a figure.  Every case runs in a process of its own.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import re
import resource
import statistics
import subprocess
import sys
import time
from math import prod
from pathlib import Path

import _setup
from tqdm import tqdm

GROWTH = {"batch": (32, 64, 128, 256, 512, 1024), "side": (50, 100, 150, 200), "steps": (1, 2, 3, 4, 6, 8, 10)}
PAPER = {"model": "supair", "batch": 256, "side": 50, "steps": 3, "together": 1}
AIR_PAPER = {**PAPER, "model": "air", "batch": 64}
EPOCH_BATCHES = (256, 64)  # at which an epoch of both models is compared


def measure(case: dict, seconds: float, data: Path, mnist: Path) -> dict:
    """Time one case in this process: {"model", "batch", "side", "steps", "together"}."""
    import numpy as np
    import tensorflow as tf

    import data as scenes
    from reproduce.experiments import Experiment
    from supair.evaluation import EVALUATION_BATCH, Evaluator, sample_noise
    from supair.hardware import matmul_gflops
    from supair.together import Together
    from supair.training import Optimizer, make_train_steps, steps_per_call

    batch, side, steps, together = (case[name] for name in ("batch", "side", "steps", "together"))
    experiments = [Experiment(case["model"], "multi_mnist", "paper", seed) for seed in range(together)]
    experiment = experiments[0]
    config = dataclasses.replace(experiment.model_config(), scene_size=side, num_steps=steps)
    models = [of_seed.build(config) for of_seed in experiments]
    model = models[0] if together == 1 else Together(models)
    optimizer = Optimizer(model, dataclasses.replace(experiment.training_config(), batch_size=batch))
    scene_file = scenes.load("multi_mnist", 0, data, mnist=mnist)
    train_steps = make_train_steps(model, optimizer, batch, scene_file["train"].white)
    number = steps_per_call()
    # Larger scenes are the paper's on a larger canvas.
    images = np.zeros([number * batch, side, side], np.uint8)
    images[:, :50, :50] = np.resize(scene_file["train"].images[: number * batch], [number * batch, 50, 50])
    noise = np.stack([[sample_noise(model, seed, step, batch) for seed in range(together)] for step in range(number)])
    images, noise = tf.constant(images), tf.constant(noise)

    def make_steps(steps):
        train_steps(images, noise, tf.constant(0), tf.constant(steps)).numpy()

    start = time.perf_counter()
    make_steps(0)
    result = {**case, "compile_s": time.perf_counter() - start}
    make_steps(number)
    times, rates, end = [], [], time.perf_counter() + seconds
    while len(times) < 3 or time.perf_counter() < end:
        start = time.perf_counter()
        make_steps(number)
        times.append((time.perf_counter() - start) / number)
        rates.append(matmul_gflops(seconds=0.1))  # in between, because a shared machine's rate changes within seconds
    step_s = statistics.median(times)
    whole = case in (PAPER, AIR_PAPER)
    if whole:
        evaluator = Evaluator(model, scene_file["test"])
        evaluator.quick()
        start = time.perf_counter()
        evaluator.quick()
        result["inference_scenes_per_s"] = len(scene_file["test"]) / (time.perf_counter() - start)
        result["inference_batch"] = EVALUATION_BATCH
    result |= {
        "step_ms": 1e3 * step_s,
        "step_ms_fastest": 1e3 * min(times),
        "scenes_per_s": batch * together / step_s,
        "epoch_s": len(scene_file["train"]) // batch * step_s,
        "peak_rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "matmul_gflops": statistics.median(rates),
    }
    if whole:
        hlo = train_steps.experimental_get_compiler_ir(images, noise, tf.constant(0), tf.constant(0))(stage="hlo")
        result["step_gflop"] = matmul_flop(hlo) / 1e9
        result["share_of_matmul_rate"] = result["step_gflop"] / step_s / result["matmul_gflops"]
    return result


def matmul_flop(hlo: str) -> int:
    """Floating point operations in all matrix products of a module in HLO text; a loop's body counts once."""
    shapes = {
        name: [int(size) for size in sizes.split(",") if size]
        for name, sizes in re.findall(r"%?([\w.\-]+) = \w+\[([\d,]*)\]", hlo)
    }
    total = 0
    for output, left, contracted in re.findall(
        r"= \w+\[([\d,]*)\]\S* dot\((?:\w+\[[\d,]*\]\S* )?%?([\w.\-]+),.*?lhs_contracting_dims=\{([\d,]*)\}", hlo
    ):
        inner = prod(shapes[left][int(axis)] for axis in contracted.split(",") if axis)
        total += 2 * inner * prod(int(size) for size in output.split(",") if size)
    return total


def in_own_process(case: dict, arguments: argparse.Namespace) -> dict:
    command = [sys.executable, __file__, "--case", json.dumps(case), "--seconds", str(arguments.seconds)]
    command += ["--data", str(arguments.data), "--mnist", str(arguments.mnist)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode:
        sys.stderr.write(result.stderr)
        raise SystemExit(f"error: the case {case} failed with exit code {result.returncode}")
    return json.loads(result.stdout.splitlines()[-1])


def show(result: dict) -> dict:
    """Print a whole case."""
    from reproduce.experiments import TITLES

    title, batch, steps, side = TITLES[result["model"]], result["batch"], result["steps"], result["side"]
    print(f"{title}, Multi-MNIST, batch {batch}, {steps} steps, scenes of {side} x {side}:")
    print(f"  training step          {result['step_ms']:8.1f} ms median, {result['step_ms_fastest']:.1f} ms fastest")
    print(f"  training               {result['scenes_per_s']:8.0f} scenes/s")
    print(f"  inference              {result['inference_scenes_per_s']:8.0f} scenes/s")
    print(f"  first call (compiling) {result['compile_s']:8.1f} s")
    print(f"  peak memory            {result['peak_rss_mb']:8.0f} MB, with the data set")
    print(f"  matrix products        {result['matmul_gflops']:8.0f} GFLOP/s (1024 x 1024, float32)")
    print(
        f"  products in a step     {result['step_gflop']:8.1f} GFLOP, {result['share_of_matmul_rate']:.0%} of that rate",
        flush=True,
    )
    return result


def draw(growth: dict[str, list[dict]]):
    """Time of a step (logarithmic) and peak memory against batch, side and number of steps."""
    from matplotlib.figure import Figure  # not in the processes that measure memory

    names = {"batch": "scenes in a batch", "side": "scene side, pixels", "steps": "steps, N_max"}
    figure = Figure(figsize=(9, 4.5), layout="constrained")
    panels = figure.subplots(2, len(growth), sharex="col", sharey="row", squeeze=False)
    for (above, below), (name, results) in zip(panels.T, growth.items()):
        sizes = [result[name] for result in results]
        above.loglog(sizes, [result["step_ms"] for result in results], "o-")
        below.plot(sizes, [result["peak_rss_mb"] for result in results], "o-")
        for panel in (above, below):
            panel.grid(alpha=0.3)
        below.set_xlabel(names[name])
        below.set_xticks(sizes, [str(size) for size in sizes])
        below.minorticks_off()
    above, below = panels[:, 0]
    above.set_ylabel("ms a training step")
    above.yaxis.set_major_formatter("{x:.0f}")
    below.set_ylabel("peak memory, MB")
    below.set_ylim(bottom=0)
    return figure


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = _setup.parser(__doc__)
    parser.add_argument("--no-growth", dest="growth", action="store_false", help="only the paper's sizes, for both models")
    parser.add_argument("--together", type=_setup.positive, metavar="N", help="also time SuPAIR with N seeds in one step")
    parser.add_argument("--seconds", type=float, default=15, metavar="S", help="how long to time each case (default: 15)")
    _setup.add_json(parser, "the numbers")
    _setup.add_output(parser)
    parser.add_argument("--case", type=json.loads, help=argparse.SUPPRESS)
    _setup.add_places(parser)
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    arguments = parse(argv)
    if arguments.case:
        print(json.dumps(measure(arguments.case, arguments.seconds, arguments.data, arguments.mnist)))
        return 0
    import data as scenes
    from supair.hardware import describe_machine

    scenes.load("multi_mnist", 0, arguments.data, mnist=arguments.mnist)  # made here, so that no case's memory counts it
    machine = describe_machine()
    print(", ".join(f"{name} {value}" for name, value in machine.items() if name != "summary"))
    paper, air = (show(in_own_process(case, arguments)) for case in (PAPER, AIR_PAPER))
    epochs = []
    print("One epoch of Multi-MNIST, 60,000 scenes, training steps alone:")
    for batch in EPOCH_BATCHES:
        known = {(result["model"], result["batch"]): result for result in (paper, air)}
        supair_s, air_s = (
            (known.get((model, batch)) or in_own_process({**PAPER, "model": model, "batch": batch}, arguments))["epoch_s"]
            for model in ("supair", "air")
        )
        epochs.append({"batch": batch, "supair_s": supair_s, "air_s": air_s})
        print(
            f"  batch {batch:<5}            SuPAIR {supair_s:.1f} s, AIR {air_s:.1f} s: {supair_s / air_s - 1:+.0%} (paper: -40%)"
        )
    together = None
    if arguments.together:
        together = in_own_process({**PAPER, "together": arguments.together}, arguments)
        print(
            f"SuPAIR, {arguments.together} seeds in one step: {together['step_ms']:.1f} ms, "
            f"{together['step_ms'] / arguments.together:.2f} ms a seed (alone {paper['step_ms']:.2f})"
        )
    growth = {}
    if arguments.growth:
        cases = [(name, {**PAPER, name: value}) for name, values in GROWTH.items() for value in values]
        for name, case in tqdm(cases, desc="growth", unit="case"):
            growth.setdefault(name, []).append(paper if case == PAPER else in_own_process(case, arguments))
        for name, results in growth.items():
            print(f"\n{name:>8}{'ms/step':>10}{'scenes/s':>10}{'peak MB':>9}")
            for result in results:
                print(f"{result[name]:>8}{result['step_ms']:>10.1f}{result['scenes_per_s']:>10.0f}{result['peak_rss_mb']:>9.0f}")
        _setup.save_figure(draw(growth), arguments.output / "growth")
    if arguments.json:
        figures = {"machine": machine, "matmul_gflops": paper["matmul_gflops"], "supair": paper, "air": air}
        figures |= {"epochs": epochs, "together": together, "growth": growth}
        _setup.write_json(arguments.json, figures)
    return 0


if __name__ == "__main__":
    _setup.exit_with(main)
