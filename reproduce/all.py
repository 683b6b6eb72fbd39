"""Everything that the paper shows: trains all runs, then prints Table 2 and draws Figures 4, 5 and 6.

    python reproduce/all.py               on one machine, days on two cores; can be stopped and started again at any time
    python reproduce/all.py --shard 2/8   the second of eight machines that share --runs

First comes one seed of everything at 20 epochs, then the other seeds, then convergence, then the Poon-Domingos structure.
A shard is every eighth run, so no two machines ever do the same; the table and the figures are made once all is done, by
whoever ends last or by calling this again.
"""

from __future__ import annotations

import argparse

import _setup
import fig4_progress
import fig5_learning
import fig6_noise
import table2
from data import DATASETS
from reproduce.experiments import PAPER_SEEDS, Experiment
from reproduce.runs import Job, Work
from supair.config import PAPER_EPOCHS


def all_jobs() -> list[Job]:
    """What the paper shows, in the order of how soon one wants to see it."""

    def jobs(variants, datasets=DATASETS, converge=False):
        experiments = [
            Experiment(m, dataset, recipe, seed) for seed in PAPER_SEEDS for m, recipe in variants for dataset in datasets
        ]
        return [Job(experiment, PAPER_EPOCHS, converge) for experiment in experiments]

    in_table_2 = [variant for variant in fig5_learning.CURVES if variant[0] in table2.PAPER_MODELS]
    return [
        *jobs(fig5_learning.CURVES),
        *jobs(in_table_2, converge=True),
        *jobs([("supair_poon_domingos", "paper")], ["multi_mnist"]),
    ]


def main(argv: list[str] | None = None) -> int:
    arguments = parse(argv)
    settings = _setup.settings(arguments)
    jobs = all_jobs()
    index, number = arguments.shard
    of_shard = list(dict.fromkeys(job.experiment for job in jobs))[index - 1 :: number]
    code = Work([job for job in jobs if job.experiment in of_shard], settings).train()
    if code:
        return code
    missing = Work(jobs, settings).unfinished()
    if missing:
        print(f"This shard is done; {len(missing)} jobs of the others are not. Call this again once they are, for the figures.")
        return 0
    options = ["--runs", str(arguments.runs), "--data", str(arguments.data), "--mnist", str(arguments.mnist)]
    options += ["--no-xla"] if arguments.no_xla else []
    figures = [*options, "--output", str(arguments.output)]
    return max(table2.main(options), *(figure.main(figures) for figure in (fig4_progress, fig5_learning, fig6_noise)))


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
