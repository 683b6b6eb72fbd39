"""How long a training step takes, where in it time goes, and how long others take.

python reproduce/benchmark.py                     SuPAIR and AIR; the figure `growth`; 15 min
python reproduce/benchmark.py --against COMMIT    this tree and another in turn, recipe robust
python reproduce/benchmark.py --profile           where SuPAIR's step goes, on one thread
python reproduce/benchmark.py --peers             `rat_spn` alone beside other packages
"""

from __future__ import annotations

import collections
import dataclasses
import importlib.metadata
import importlib.util
import json
import os
import re
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAPER = {"model": "supair", "recipe": "paper", "batch": 256, "side": 50, "steps": 3, "sums": 20}
CASES = [{**PAPER, "model": model, "batch": b} for model in ("supair", "air") for b in (256, 64)]
AGAINST = [{**CASES[0], "recipe": "robust"}, {**CASES[3], "recipe": "robust"}]
GROWTH = {
    "batch": (32, 64, 128, 256, 512, 1024),
    "side": (50, 100, 150, 200),
    "steps": (1, 2, 3, 4, 6, 8, 10),
    "sums": (5, 10, 20, 40),
}
LABELS = {"batch": "scenes a batch", "side": "side of a scene, pixels", "steps": "N_max"}
LABELS |= {"sums": "sums, Gaussians a region", "variables": "variables"}
PEERS = {"rat_spn": "tensorflow", "SPFlow RatSPN": "spflow", "SPFlow Einet": "spflow"}
PEERS |= {"DeeProb-kit": "deeprob-kit"}  # by name: the package whose version is told
PEER_SIZES, PEER_BATCH = (64, 256, 784, 2500), 256  # variables
_TAPE = "gradient_tape/|while/"  # of the training loop and its gradients
_SCOPE = rf'op_name="(?:{_TAPE})*(?!{_TAPE})([a-z_]+?)[_\d]*/(?:(leaves|sums)\w*/)?'
CHILD = "import benchmark, sys; benchmark.measure(sys.argv[1])"


def prepare(case: dict):
    """The compiled training steps of a case with their arguments, and how many steps they make."""
    import numpy as np
    import tensorflow as tf

    import data
    from reproduce.experiments import Experiment
    from supair import air, model, training

    batch, side, steps = case["batch"], case["side"], case["steps"]
    experiment = Experiment(case["model"], "multi_mnist", case["recipe"], 0)
    config = dataclasses.replace(experiment.model_config(), scene_size=side, num_steps=steps)
    if case["model"] == "supair":
        sizes = dict.fromkeys(("num_components", "num_sums"), case["sums"])
        config = dataclasses.replace(config, object=dataclasses.replace(config.object, **sizes))
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
    return train_steps, [tf.constant(array) for array in (*inputs, number)], number


def time_calls(**functions) -> dict[str, float]:
    """The median milliseconds of functions, each called once for every line on stdin."""
    import numpy as np

    times = {name: [] for name in functions}
    print("ready", flush=True)
    for _ in sys.stdin:
        for name, function in functions.items():
            start = time.perf_counter()
            np.asarray(function())  # waits for the result
            times[name].append(1e3 * (time.perf_counter() - start))
        print("done", flush=True)
    return {name: float(np.median(ms)) for name, ms in times.items()}


def measure(case_text: str) -> None:
    """Time a case; a measurement for every line on stdin.  Its packages are those of any tree."""
    case = json.loads(case_text)
    if "peer" in case:
        return measure_peer(case)
    train_steps, inputs, number = prepare(case)
    train_steps(*inputs).numpy()  # compiles
    step_ms = time_calls(steps=lambda: train_steps(*inputs))["steps"] / number
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({**case, "step_ms": step_ms, "peak_rss_mb": peak}))


def measure_peer(case: dict) -> None:
    """As `measure`, of a RAT-SPN alone: depth 2, 6 repetitions, 20 Gaussians, 20 sums a region."""
    import numpy as np

    log_prob, train_step, parameters = build_peer(case["peer"], case["variables"])
    x = np.random.default_rng(0).standard_normal([PEER_BATCH, case["variables"]], np.float32)
    # The density of one variable, the others not observed, on a grid.
    grid = np.full([64, PEER_BATCH, case["variables"]], np.nan, np.float32)
    grid[..., 0] = np.linspace(-6, 6, 64 * PEER_BATCH).reshape(64, -1)
    density = np.exp([log_prob(part) for part in grid])
    train_step(x)  # compiles
    about = {"version": importlib.metadata.version(PEERS[case["peer"]]), "parameters": parameters}
    about["integral"] = float(np.trapezoid(density.ravel(), grid[..., 0].ravel()))
    times = time_calls(step_ms=lambda: train_step(x), log_prob_ms=lambda: log_prob(x))
    print(json.dumps(case | about | times))


def build_peer(peer: str, size: int):
    """Functions of arrays [n, size]: log_prob (NaN: not observed) and a step of Adam; and how many
    parameters are trained."""
    if peer == "rat_spn":
        import keras
        import tensorflow as tf

        from rat_spn import RatSpn, random_region_graph

        spn = RatSpn(random_region_graph(size, 2, 6, seed=0), 20, 20, 0.01, 1.0, seed=0)
        adam, log_prob = keras.optimizers.Adam(), tf.function(spn.log_prob, jit_compile=True)
        adam.build(spn.trainable_variables)

        @tf.function(jit_compile=True)
        def train_step(x):
            with tf.GradientTape() as tape:
                loss = -tf.reduce_mean(spn.log_prob(x))
            adam.apply(tape.gradient(loss, spn.trainable_variables))
            return loss

        return log_prob, train_step, spn.count_params()
    import torch

    torch.manual_seed(0)
    if peer == "DeeProb-kit":
        from deeprob.spn.models.ratspn import GaussianRatSpn

        model = GaussianRatSpn(size, 1, 2, 6, 20, 20, random_state=0, optimize_scale=True)
    else:
        from spflow.modules.leaves import Normal
        from spflow.zoo.einet.einet import Einet
        from spflow.zoo.rat.rat_spn import RatSPN

        leaves = [Normal(range(size), out_channels=20, num_repetitions=6)]
        if peer == "SPFlow Einet":
            model = Einet(leaves, 1, 20, 20, 2, 6, layer_type="einsum")
        else:
            model = RatSPN(leaves, 1, 20, 6, 2, outer_product=True)
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    adam = torch.optim.Adam(weights, 1e-3)
    call = getattr(model, "log_likelihood", model)

    def torch_step(x):
        adam.zero_grad()
        (-call(torch.tensor(x)).mean()).backward()
        adam.step()

    @torch.no_grad()
    def torch_log_prob(x):
        return call(torch.tensor(x)).reshape(len(x))

    return torch_log_prob, torch_step, sum(weight.numel() for weight in weights)


def profile(case: dict) -> dict[str, dict[str, float]]:
    """Milliseconds of a step on one thread by part of the model, in matrix products and in all."""
    import tensorflow as tf
    from tensorflow.tsl.profiler.protobuf import xplane_pb2

    tf.config.threading.set_intra_op_parallelism_threads(1)
    train_steps, inputs, number = prepare(case)
    train_steps(*inputs)  # compiles
    hlo = train_steps.experimental_get_compiler_ir(*inputs)(stage="optimized_hlo")
    with tempfile.TemporaryDirectory() as folder:
        tf.profiler.experimental.start(folder)
        train_steps(*inputs).numpy()
        tf.profiler.experimental.stop()
        [file] = Path(folder).rglob("*.xplane.pb")
        planes = xplane_pb2.XSpace.FromString(file.read_bytes()).planes
    [cpu] = (plane for plane in planes if plane.name == "/host:CPU")
    parts, found = parts_of_operations(hlo), collections.defaultdict(collections.Counter)
    for event in (event for line in cpu.lines for event in line.events):
        name, ms = cpu.event_metadata[event.metadata_id].name, event.duration_ps / 1e9 / number
        if name in parts:
            found[parts[name]]["all"] += ms
            found[parts[name]]["products"] += ms * name.startswith(("MatMul", "dot"))
    return dict(sorted(found.items(), key=lambda item: -item[1]["all"]))


def parts_of_operations(hlo: str) -> dict[str, str]:
    """The part of the model, such as "object_spn/leaves", of each operation of a module's text;
    without a scope, as in a gradient written by hand, that of the first operand which has one."""
    parts: dict[str, str] = {}
    for name, rest in re.findall(r"^ *(?:ROOT )?%([\w.\-]+) = (.*)", hlo, re.MULTILINE):
        near = [parts.get(operand, "other") for operand in re.findall(r"%([\w.\-]+)", rest)]
        parts[name] = next((part for part in near if part != "other"), "other")
        if scope := re.search(_SCOPE, rest):
            parts[name] = "/".join(filter(None, scope.groups()))
    return parts


def make_steps(training, model, config, images, noise):
    """The compiled training step, and its arguments but for the last, the number of steps."""
    if hasattr(training, "LearningRate"):
        optimizer = training.Optimizer(model, config, 1)
        return training.make_train_steps(model, optimizer, config, 255), (images, noise)
    # As at commit 9f8b7b8: noise has an axis for models trained together, a call a first step.
    optimizer = training.Optimizer(model, config)
    train_steps = training.make_train_steps(model, optimizer, config.batch_size, 255)
    return train_steps, (images.reshape(-1, *images.shape[2:]), noise[:, None], 0)


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


def draw(columns: dict[str, dict[str, list[dict]]], rows: dict[str, str]):
    """Measurements, the rows, against sizes, the columns, a line for each label; logarithmic."""
    import common  # not in the processes that measure memory

    figure = common.new_figure(12, 5.5, layout="constrained")
    panels = figure.subplots(len(rows), len(columns), sharex="col", sharey="row", squeeze=False)
    for of_size, (size, lines) in zip(panels.T, columns.items()):
        for axes, (measured, title) in zip(of_size, rows.items()):
            for label, results in lines.items():
                sizes = [result[size] for result in results]
                axes.loglog(sizes, [result[measured] for result in results], "o-", label=label)
            axes.set(xticks=sizes, xticklabels=sizes, xlabel=LABELS[size], ylabel=title)
            axes.xaxis.minorticks_off()
            axes.yaxis.get_major_locator().set_params(subs=(1, 2, 5))
            axes.yaxis.set(major_formatter="{x:g}", minor_formatter="")
            axes.label_outer()
    if len(lines) > 1:
        panels[0, 0].legend(loc="center right", ncols=2)
    return figure


def main(argv: list[str] | None = None) -> int:
    import common  # not in the children: it imports the packages of this tree

    parser = common.parser(__doc__)
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--against", metavar="COMMIT", help="compare the steps, and do no more")
    what.add_argument("--profile", action="store_true", help="where a step's time goes, no more")
    what.add_argument("--peers", action="store_true", help="`rat_spn` alone; the extra 'peers'")
    parser.add_argument("--turns", type=common.positive, default=10, help="calls of a case's step")
    common.add_json(parser, "the numbers")
    common.add_output(parser)
    options = parser.parse_args(argv)
    if options.peers and not importlib.util.find_spec("spflow"):
        parser.error("argument --peers: needs: pip install -e '.[peers]'")
    found = ["git", "-C", str(ROOT), "cat-file", "-e", f"{options.against}^{{commit}}"]
    if options.against and subprocess.run(found, stderr=subprocess.DEVNULL).returncode:
        parser.error(f"argument --against: expected a commit, found {options.against}")
    from supair.hardware import describe_machine

    content = {"machine": describe_machine(), "commit": common.commit()}
    print(*content["machine"].values(), sep=", ")
    if options.against:
        content |= compare(options.against, options.turns)
    elif options.profile:
        content["profile"] = profile(AGAINST[0])
        for name, row in content["profile"].items():
            print(f"{name:24}{row['all']:8.1f} ms, {row['products']:.1f} of it in products")
    elif options.peers:
        cases = {peer: [{"peer": peer, "variables": n} for n in PEER_SIZES] for peer in PEERS}
        rows = {"step_ms": "ms a training step", "log_prob_ms": "ms for log_prob"}
        peers = {k: [take_turns(c, options.turns)[0] for c in v] for k, v in cases.items()}
        content["peers"] = peers
        common.save_figure(draw({"variables": peers}, rows), options.output / "peers")
    else:
        content["cases"] = [take_turns(case, options.turns)[0] for case in CASES]
        content["growth"] = {
            name: [take_turns({**PAPER, name: size}, options.turns)[0] for size in sizes]
            for name, sizes in GROWTH.items()
        }
        columns = {name: {"": results} for name, results in content["growth"].items()}
        rows = {"step_ms": "ms a training step", "peak_rss_mb": "peak memory, MB"}
        common.save_figure(draw(columns, rows), options.output / "growth")
    if options.json:
        common.write_json(options.json, content)
    return 0


if __name__ == "__main__":
    import common

    common.run(main)
