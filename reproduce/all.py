"""Everything that the paper shows: trains all runs, prints Table 2, and draws Figures 4, 5 and 6.

    python reproduce/all.py               on one machine, days on two cores; can be stopped and started again at any time
    python reproduce/all.py --shard 2/8   the second of eight machines that share nothing, or --runs

First come 20 epochs of everything, seed by seed, then convergence, then the Poon-Domingos structure; table and figures are
made after each of the three.

Several machines (or processes of one) that share --runs and --data, call the same command, and share the work: each takes
the next run that nobody has, and in the end waits for the others and takes over the runs of those that died.  Start and
stop them as you like.  A dead machine is noticed after five minutes without a sign of life.

A shard is every eighth run, so no two machines ever do the same, even if they share nothing and the runs are brought together
later.  With shards, table and figures are made once all is done, by whoever ends last or by calling this again.

The machines should be of one kind, or Figure 5's seconds compare machines.
"""

from __future__ import annotations

import argparse
import sys

import _setup
import fig4_progress
import fig5_learning
import fig6_noise
import table2

from data import DATASETS
from reproduce.experiments import PAPER_SEEDS, Experiment
from reproduce.runs import Job, Work
from supair.config import PAPER_EPOCHS, TrainingError


def phases() -> list[list[Job]]:
    """What the paper shows, in the order of how soon one wants to see it."""

    def jobs(variants, datasets=DATASETS, converge=False):
        experiments = [
            Experiment(m, dataset, recipe, seed) for seed in PAPER_SEEDS for m, recipe in variants for dataset in datasets
        ]
        return [Job(experiment, PAPER_EPOCHS, converge) for experiment in experiments]

    in_table_2 = [variant for variant in fig5_learning.CURVES if variant[0] in table2.PAPER_MODELS]
    return [
        jobs(fig5_learning.CURVES),
        jobs(in_table_2, converge=True),
        jobs([("supair_poon_domingos", "paper")], ["multi_mnist"]),
    ]


def main(argv: list[str] | None = None) -> int:
    arguments = parse(argv)
    settings = _setup.settings(arguments)
    everything = [job for jobs in phases() for job in jobs]
    index, number = arguments.shard
    mine = set(list(dict.fromkeys(job.experiment for job in everything))[index - 1 :: number])
    code, elsewhere = 0, []
    for jobs in phases():
        work = Work([job for job in jobs if job.experiment in mine], settings)
        code = max(code, work.train(wait=False))
        if code > 1:  # stopped by a signal
            return code
        elsewhere += work.elsewhere
        if number == 1:
            code = max(code, show(arguments))
    if elsewhere:
        code = max(code, Work(elsewhere, settings).train())
        if code > 1:
            return code
        if number == 1:
            code = max(code, show(arguments))
    if number > 1:
        whole = Work(everything, settings)
        if missing := whole.unfinished():
            print(
                f"This shard is done; {len(missing)} jobs of the others are not. Call this again once they are, for the figures."
            )
            return 1 if whole.failures else code
        code = max(code, show(arguments))
    return code


def show(arguments: argparse.Namespace) -> int:
    """Print the tables and draw the figures of the runs that there are; one that cannot be made is told, and the others are."""
    options = ["--no-train", "--runs", str(arguments.runs), "--data", str(arguments.data), "--mnist", str(arguments.mnist)]
    variants = ["--models", "supair", "supair_no_background", "supair_poon_domingos", "--epochs", str(PAPER_EPOCHS)]
    code = max(table2.main(options), table2.main([*options, *variants]))
    for figure in (fig4_progress, fig5_learning, fig6_noise):
        try:
            code = max(code, figure.main([*options, "--output", str(arguments.output)]))
        except TrainingError as error:
            print(f"error: {error}", file=sys.stderr)
            code = 1
    return code


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = _setup.parser(__doc__)
    parser.add_argument("--shard", type=_shard, default=(1, 1), metavar="K/N", help="do the K-th of N shares of the runs")
    _setup.add_output(parser)
    _setup.add_training(parser)
    return parser.parse_args(argv)


def _shard(text: str) -> tuple[int, int]:
    try:
        index, number = map(int, text.split("/"))
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected K/N as in 2/8, found {text}") from None
    if not 1 <= index <= number:
        raise argparse.ArgumentTypeError(f"expected K/N with 1 <= K <= N, found {text}")
    return index, number


if __name__ == "__main__":
    _setup.exit_with(main)
