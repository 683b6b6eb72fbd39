"""How long a training step takes, next to how fast this machine multiplies matrices.

    python reproduce/benchmark.py                     SuPAIR and AIR; then the figure `growth`
    python reproduce/benchmark.py --against COMMIT    this tree and another in turn, recipe robust

Peak memory is without the data set; the rate of float32 products is measured between steps.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
import resource
import subprocess
import sys
import tempfile
import time
from math import prod
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAPER = {"model": "supair", "recipe": "paper", "batch": 256, "side": 50, "steps": 3}
CASES = [{**PAPER, "model": model, "batch": b} for model in ("supair", "air") for b in (256, 64)]
AGAINST = [{**CASES[0], "recipe": "robust"}, {**CASES[3], "recipe": "robust"}]
GROWTH = {
    "batch": (32, 64, 128, 256, 512, 1024),
    "side": (50, 100, 150, 200),  # pixels
    "steps": (1, 2, 3, 4, 6, 8, 10),  # N_max
}
CHILD = "import benchmark, sys; benchmark.measure(sys.argv[1])"


def measure(case_text: str) -> None:
    """Time a case; a measurement for every line on stdin.  Its packages are those of any tree."""
    import numpy as np
    import tensorflow as tf

    import data
    from reproduce.experiments import Experiment
    from supair import air, model, training

    case = json.loads(case_text)
    batch, side, steps = case["batch"], case["side"], case["steps"]
    experiment = Experiment(case["model"], "multi_mnist", case["recipe"], 0)
    config = dataclasses.replace(experiment.model_config(), scene_size=side, num_steps=steps)
    network = (air.AIR if case["model"] == "air" else model.SuPAIR)(config, 0)
    number = training.steps_per_call()
    paper_images = data.make("multi_mnist", 0, (2560, 1))["train"].images
    larger = [(0, 0), (0, 0), (0, side - 50), (0, side - 50)]  # the paper's on a larger canvas
    images = np.pad(np.resize(paper_images, [number, batch, 50, 50]), larger)
    how = dataclasses.replace(experiment.training_config(), batch_size=batch)
    extra_noise = getattr(getattr(how, "warm_up", None), "extra_noise", 0)
    shape = [number, batch, steps, network.noise_size + extra_noise]
    noise = np.random.default_rng(0).standard_normal(shape, np.float32)
    train_steps, inputs = make_steps(training, network, how, images, noise)
    inputs = [tf.constant(array) for array in inputs]
    matrices = tf.random.stateless_normal([2, 1024, 1024], [0, 0])
    multiply = tf.function(tf.matmul, jit_compile=True)

    def seconds(function, *arguments):
        start = time.perf_counter()
        function(*arguments).numpy()
        return time.perf_counter() - start

    seconds(train_steps, *inputs, tf.constant(number))  # compiles
    seconds(multiply, *matrices)
    times, rates = [], []
    print("ready", flush=True)
    for _ in sys.stdin:
        times.append(seconds(train_steps, *inputs, tf.constant(number)) / number)
        fastest = min(seconds(multiply, *matrices) for _ in range(5))  # of a shared machine
        rates.append(2 * 1024**3 / 1e9 / fastest)
        print("done", flush=True)
    step_s, rate = np.median(times), np.median(rates)
    result = {**case, "step_ms": 1e3 * step_s, "matmul_gflops": rate}
    result["epoch_s"] = data.SIZES["multi_mnist"][0] // batch * step_s
    result["peak_rss_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    hlo = train_steps.experimental_get_compiler_ir(*inputs, tf.constant(0))(stage="hlo")
    result["step_gflop"] = matmul_flop(hlo) / 1e9
    result["share_of_matmul_rate"] = result["step_gflop"] / step_s / rate
    print(json.dumps(result))


def make_steps(training, model, config, images, noise):
    """The compiled training step, and its arguments but for the last, the number of steps."""
    if hasattr(training, "LearningRate"):
        optimizer = training.Optimizer(model, config, 1)
        return training.make_train_steps(model, optimizer, config, 255), (images, noise)
    # As at commit 9f8b7b8: noise has an axis for models trained together, a call a first step.
    optimizer = training.Optimizer(model, config)
    train_steps = training.make_train_steps(model, optimizer, config.batch_size, 255)
    return train_steps, (images.reshape(-1, *images.shape[2:]), noise[:, None], 0)


def matmul_flop(hlo: str) -> int:
    """Operations in all matrix products of a module in HLO text; a loop's body counts once."""
    found = re.findall(r"%?([\w.\-]+) = \w+\[([\d,]*)\]", hlo)
    shapes = {name: [int(size) for size in re.findall(r"\d+", sizes)] for name, sizes in found}
    product = r"%?([\w.\-]+) = \w+\S* dot\((?:\w+\[[\d,]*\]\S* )?%?([\w.\-]+),"
    total = 0
    for output, left, axes in re.findall(product + r".*?lhs_contracting_dims=\{([\d,]*)\}", hlo):
        inner = prod(shapes[left][int(axis)] for axis in re.findall(r"\d+", axes))
        total += 2 * inner * prod(shapes[output])
    return total


def take_turns(case: dict, turns: int, trees=(ROOT,)) -> list[dict]:
    """Measure a case in each of the trees, in processes of their own that take turns."""
    options = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    # This file is imported from here, all else from the working directory.
    options["env"] = {**os.environ, "PYTHONPATH": str(ROOT / "reproduce")}
    options["start_new_session"] = True  # Ctrl-C is for this process alone
    command = [sys.executable, "-c", CHILD, json.dumps(case)]
    children = [subprocess.Popen(command, cwd=tree, **options) for tree in trees]
    try:
        for turn in range(turns + 1):
            for child in children:
                if turn > 0:
                    print(file=child.stdin, flush=True)
                if not child.stdout.readline():
                    raise SystemExit(f"error: {case} could not be measured")
        results = [json.loads(child.communicate()[0]) for child in children]
    finally:
        for child in children:
            child.kill()
    print(*results, sep="\n", flush=True)
    return results


def compare(commit: str, turns: int) -> dict:
    """Every case's results in this tree and at a commit, and their ratios."""
    git, found = ["git", "-C", str(ROOT), "archive", commit], {"against": commit}
    with tempfile.TemporaryDirectory() as folder:
        archive = subprocess.run(git, capture_output=True)
        if archive.returncode:
            raise SystemExit(f"error: --against {commit}: {archive.stderr.decode().strip()}")
        subprocess.run(["tar", "-x", "-C", folder], input=archive.stdout, check=True)
        for case in AGAINST:
            results = take_turns(case, turns, (ROOT, Path(folder).resolve()))
            step, memory = (results[0][key] / results[1][key] for key in ("step_ms", "peak_rss_mb"))
            print(f"  this tree / {commit}: step {step:.3f}, memory {memory:.3f}", flush=True)
            found[case["model"]] = {"step_ratio": step, "memory_ratio": memory, "trees": results}
    return found


def draw(growth: dict[str, list[dict]]):
    """Time of a step (logarithmic) and peak memory against batch, side and number of steps."""
    import common  # not in the processes that measure memory

    figure = common.new_figure(9, 4.5, layout="constrained")
    panels = figure.subplots(2, len(growth), sharex="col", sharey="row")
    for (above, below), (name, results) in zip(panels.T, growth.items()):
        sizes = [result[name] for result in results]
        above.loglog(sizes, [result["step_ms"] for result in results], "o-")
        below.plot(sizes, [result["peak_rss_mb"] for result in results], "o-")
        below.set(xlabel=name, xticks=sizes, xticklabels=sizes)
        below.minorticks_off()
    panels[0, 0].set(ylabel="ms a training step")
    panels[1, 0].set(ylabel="peak memory, MB", ylim=(0, None))
    return figure


def main(argv: list[str] | None = None) -> int:
    import common  # not in the children: it imports the packages of this tree

    parser = common.parser(__doc__)
    parser.add_argument("--against", metavar="COMMIT", help="compare the steps, and do no more")
    parser.add_argument("--turns", type=common.positive, default=10, help="calls of a case's step")
    common.add_json(parser, "the numbers")
    common.add_output(parser)
    options = parser.parse_args(argv)
    found = ["git", "-C", str(ROOT), "cat-file", "-e", f"{options.against}^{{commit}}"]
    if options.against and subprocess.run(found, stderr=subprocess.DEVNULL).returncode:
        parser.error(f"argument --against: expected a commit, found {options.against}")
    if not options.against:
        print("About half an hour; at once: recorded/benchmark.json and figures/growth.png")
    from supair.hardware import describe_machine

    content = {"machine": describe_machine(), "commit": common.commit()}
    print(*content["machine"].values(), sep=", ")
    if options.against:
        content |= compare(options.against, options.turns)
    else:
        content["cases"] = [take_turns(case, options.turns)[0] for case in CASES]
        content["growth"] = {
            name: [take_turns({**PAPER, name: size}, options.turns)[0] for size in sizes]
            for name, sizes in GROWTH.items()
        }
        common.save_figure(draw(content["growth"]), options.output / "growth")
    if options.json:
        common.write_json(options.json, content)
    return 0


if __name__ == "__main__":
    import common

    common.run(main)
