"""Train experiments as far as that is not done yet, each run in a process of its own.

    python reproduce/train.py --model supair --dataset grid_mnist --recipe robust --seeds 0-4
    python reproduce/train.py ... --dask local               as many at once as there are cores
    python reproduce/train.py ... --dask tcp://HOST:8786     on a Dask cluster

Safe to stop at any time and to call again: runs go on from their last epoch.  The machines of a
cluster need the repository, --runs and --data at the same paths; if one is lost, another goes on
with its run.  Keep --threads the same for runs that are to be repeated bit by bit.
"""

import argparse
import contextlib
import functools
import math
import os
import statistics
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import common

import data
from reproduce.experiments import DATA_SEED, MODELS, PAPER_SEEDS, RECIPES, Experiment
from reproduce.records import RECORDED, read_record
from supair import cli
from supair.config import PAPER_EPOCHS, ConfigError, TrainingError
from supair.run import is_finished

SCRIPT = Path(__file__).resolve()
LOCK_TIMEOUT = 60  # seconds in which the process of a lost worker has ended, too
STARTING = 25  # seconds until a run's first step: imports and compilation
MEASURING = 1.2  # time of a run with its measurements, to that of its training steps alone
LONG = 300  # seconds of training, beyond which a script says how to see results at once
Logs = dict[int, list[dict[str, Any]]]  # rows by seed


def train_missing(
    experiments: Sequence[Experiment],
    epochs: int,
    converge: bool,
    options: argparse.Namespace,
    on_end: Callable[[Experiment], None] = lambda experiment: None,
) -> list[str]:
    """Train the runs that have not done so many epochs, or beyond these have not converged.

    `options` are those of `common.add_training`; `on_end` is called whenever a run has ended.
    Returns a line for every run that failed; the others went on.
    """
    missing, failures = [], []
    for experiment in experiments:
        try:
            if not is_done(experiment, epochs, converge, options.runs):
                missing.append(experiment)
        except TrainingError as error:
            failures.append(str(error))
            print(f"error: {error}", file=sys.stderr)
    if options.no_train or not missing:
        return failures
    if options.dask not in (None, "local") and not options.threads:
        raise ConfigError("--dask ADDRESS: give --threads N, the processor threads of each run")
    work, seconds = describe_work(experiments, epochs, converge, options.runs)
    print(work, flush=True)
    if seconds > LONG:
        modes = ("recorded", "pretrained", "quick")
        known = [f"--{mode}" for mode in modes if getattr(options, mode, None) is False]
        print(f"At once: {', '.join(known) or 'python reproduce/table2.py --recorded'}", flush=True)
    for dataset in dict.fromkeys(experiment.dataset for experiment in missing):
        load(dataset, options)  # made once, if at all
    commands = [_command(experiment, epochs, converge, options) for experiment in missing]
    ends = _on_dask(commands, options) if options.dask else enumerate(map(run_process, commands))
    for number, (index, failure) in enumerate(ends, 1):
        head = f"[{number}/{len(missing)}] {missing[index].title}"
        print(f"{head}: {failure or 'done'}", file=sys.stderr if failure else None, flush=True)
        if failure:
            failures.append(f"{missing[index].title}: {failure}")
        on_end(missing[index])
    return failures


def describe_work(
    experiments: Sequence[Experiment], epochs: int, converge: bool, runs: Path
) -> tuple[str, float]:
    """How many runs are done, and how long the others take, also in seconds, to so many epochs."""
    missing, scenes, seconds = 0, 0, 0.0
    for experiment in experiments:
        with contextlib.suppress(TrainingError):  # of which `train_missing` tells
            rows = experiment.read_rows(runs)
            criterion = MODELS[experiment.model].convergence if converge else None
            if not is_finished(rows, epochs, criterion):
                steps = epochs * experiment.steps_per_epoch - (rows[-1]["step"] if rows else 0)
                left = max(0, steps) * experiment.training_config().batch_size
                missing, scenes = missing + 1, scenes + left
                seconds += STARTING + left / _scenes_per_second(experiment.model) * MEASURING
    end = f"epoch {epochs}{' and on until converged' * converge}"
    head = f"{len(experiments) - missing} of {len(experiments)} runs to {end} are in {runs}"
    time = f"{seconds / 3600:.1f} h" if seconds > 5400 else f"{math.ceil(seconds / 60)} min"
    work = f"; to train: {scenes:,} scenes, about {time} on two cores as recorded"
    return f"{head}{work if missing else '.'}", seconds


@functools.cache
def _scenes_per_second(model: str) -> float:
    """The median of the model's recorded runs."""
    paces = []
    for path in RECORDED.glob(f"{model}-*.csv"):
        record = read_record(*path.stem.split("-"))
        batch = record.configuration["training"]["batch_size"]
        paces += [batch * r[-1]["step"] / r[-1]["train_seconds"] for r in record.rows.values()]
    return statistics.median(paces)


def load(dataset: str, options: argparse.Namespace) -> dict[str, data.SceneFile]:
    """A data set, made first if it is not there."""
    return data.load(dataset, DATA_SEED, options.data, mnist=options.mnist)


def is_done(experiment: Experiment, epochs: int, converge: bool, runs: Path) -> bool:
    """Whether the log says so; TrainingError if it cannot be read or is another run's."""
    criterion = MODELS[experiment.model].convergence if converge else None
    return is_finished(experiment.read_rows(runs, with_tensors=True), epochs, criterion)


def read_logs(model, recipe, dataset, seeds: Sequence[int] | None, runs: Path | None) -> Logs:
    """The logs of recorded runs, or of those below `runs` that there are and that can be read.

    `seeds=None` gives all recorded ones.
    """
    if runs is None:
        record = read_record(model, recipe, dataset)
        logs = record.rows if record else {}
        return {seed: logs[seed] for seed in (logs if seeds is None else seeds) if seed in logs}
    logs = {}
    for seed in seeds:
        with contextlib.suppress(TrainingError):  # of which `train_missing` tells
            if rows := Experiment(model, dataset, recipe, seed).read_rows(runs):
                logs[seed] = rows
    return logs


def _command(experiment: Experiment, epochs: int, converge: bool, options) -> list[str]:
    """The arguments of Python for one run."""
    values = {**vars(experiment), "epochs": epochs, "threads": options.threads}
    values["seeds"] = values.pop("seed")
    values["lock-timeout"] = LOCK_TIMEOUT if options.dask else 0
    values |= {name: getattr(options, name).resolve() for name in ("runs", "data", "mnist")}
    flags = ["--in-this-process", *["--converge"] * converge, *["--no-xla"] * options.no_xla]
    given = [f"--{name}={value}" for name, value in values.items() if value is not None]
    return [str(SCRIPT), *given, *flags]


def _on_dask(commands: list[list[str]], options) -> Iterator[tuple[int, str]]:
    """Train as many runs at once as there are workers; yields the number of each that has ended and
    what went wrong."""
    try:
        import cloudpickle
        from dask.distributed import Client, LocalCluster, as_completed, get_worker
        from dask.system import CPU_COUNT
    except ImportError as error:
        needs = "the extra 'cluster' needs: pip install distributed"
        raise ConfigError(f"--dask: {error}; {needs}") from None

    def run_on_worker(arguments: list[str]) -> str:
        """Until nobody wants the run any more, because the script that did has ended."""
        task = get_worker().state.tasks[get_worker().get_current_task()]
        os.environ["TQDM_DISABLE"] = "1"  # the bars of several runs overwrite each other
        return run_process(arguments, lambda: task.state == "executing")

    # Sent as code, because this module is not on the workers' path.
    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    with contextlib.ExitStack() as stack:
        address, threads = options.dask, []
        if address == "local":
            workers = max(1, min(CPU_COUNT // (options.threads or 1), len(commands)))
            threads = [f"--threads={options.threads or CPU_COUNT // workers}"]
            local = {"memory_limit": 0, "dashboard_address": None}
            address = stack.enter_context(LocalCluster(workers, threads_per_worker=1, **local))
        submit = stack.enter_context(Client(address)).submit
        futures = [submit(run_on_worker, [*line, *threads], pure=False) for line in commands]
        for future in as_completed(futures):
            failed = future.status != "finished"
            yield futures.index(future), repr(future.exception()) if failed else future.result()


def run_process(arguments: list[str], is_wanted: Callable[[], bool] = lambda: True) -> str:
    """Run Python with arguments of this script; it ends with this process, however that ends.

    Returns what went wrong; "" if nothing did.
    """
    command, pipe = [sys.executable, *arguments], subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as child:
        while child.poll() is None:
            if not is_wanted():
                return "stopped"
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(timeout=1)
        said = child.stdout.read().strip()
    code = child.returncode
    how = f"ended by signal {-code}; call again to go on" if code < 0 else f"exit code {code}"
    logs = Path(tempfile.gettempdir()).glob(f"supair-{child.pid}-*.log")  # see `supair.cli`
    where = "".join(f"; what TensorFlow said: {path}" for path in logs)
    return (said or how) + where if code else ""


def _end_with_parent() -> None:
    while os.read(sys.stdin.fileno(), 1):
        pass
    cli.log.close(failed=False)
    os._exit(1)


def train_one(experiment: Experiment, options: argparse.Namespace) -> None:
    """Train one run in this process."""
    import tensorflow as tf

    from supair.training import train

    if options.threads:
        tf.config.threading.set_intra_op_parallelism_threads(options.threads)
        tf.config.threading.set_inter_op_parallelism_threads(options.threads)
    scenes, config = load(experiment.dataset, options), experiment.training_config()
    criterion = MODELS[experiment.model].convergence if options.converge else None
    train(
        options.runs / experiment.path,
        experiment.build(),
        scenes,
        config,
        options.epochs,
        convergence=criterion,
        identity=experiment.identity(scenes["train"].checksum),
        provenance={"commit": common.commit()},
        title=experiment.title,
        compiled=not options.no_xla,
        lock_timeout=options.lock_timeout,
    )


def main(argv: list[str] | None = None) -> int:
    options = parse(argv)
    which = options.model, options.dataset, options.recipe
    experiments = [Experiment(*which, seed) for seed in options.seeds]
    if not options.in_this_process:
        failures = train_missing(experiments, options.epochs, options.converge, options)
        return 1 if failures else 0
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        train_one(experiments[0], options)
        return 0
    except (ConfigError, TrainingError, data.DataError, OSError) as error:
        print(error)  # on standard output, for `run_process`
        return 1


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = common.parser(__doc__)
    for name, choices in (("model", MODELS), ("dataset", data.SIZES), ("recipe", RECIPES)):
        named = {"choices": choices, "metavar": "NAME", "help": f"out of {', '.join(choices)}"}
        parser.add_argument(f"--{name}", required=True, **named)
    common.add_seeds(parser, "0-4")
    parser.add_argument("--epochs", type=common.positive, default=PAPER_EPOCHS, help="default: 20")
    parser.add_argument("--converge", action="store_true", help="and on until converged")
    # Of the process of one run, which `run_process` starts:
    parser.add_argument("--in-this-process", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--lock-timeout", type=float, default=0.0, help=argparse.SUPPRESS)
    common.add_training(parser)
    parser.set_defaults(seeds=PAPER_SEEDS)
    options = parser.parse_args(argv)
    for name, known in (("dataset", "configurations"), ("recipe", "recipes")):
        if getattr(options, name) not in getattr(MODELS[options.model], known):
            parser.error(f"argument --{name}: not one of those of {options.model}")
    return options


if __name__ == "__main__":
    common.run(main)
