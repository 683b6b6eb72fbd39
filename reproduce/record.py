"""Copy runs into results/, where they can be committed: configuration, log, sessions, and a note.

python reproduce/record.py --note "shared its cores" --seconds-per-step 0.124 supair/sprites/paper/seed3 [...]
"""

from __future__ import annotations

import json

import _setup
from reproduce.runs import RECORDED
from supair.training import TrainingError, read_log, write_whole


def main(argv: list[str] | None = None) -> int:
    parser = _setup.parser(__doc__)
    parser.add_argument("names", nargs="+", metavar="RUN", help="directories below --runs")
    parser.add_argument("--note", default="", help="what a reader must know about these runs")
    parser.add_argument(
        "--seconds-per-step", type=float, metavar="S",
        help="undisturbed time of a training step, for runs that shared their cores, whose own clock means nothing",
    )  # fmt: skip
    _setup.add_places(parser)
    arguments = parser.parse_args(argv)
    for name in arguments.names:
        source, target = arguments.runs / name, RECORDED / name
        if not read_log(source / "log.jsonl"):
            raise TrainingError(f"{source}: no run with a log")
        target.mkdir(parents=True, exist_ok=True)
        for file in ("config.json", "sessions.jsonl", "log.jsonl"):
            write_whole(target / file, (source / file).read_text())
        record = {"seconds_per_step": arguments.seconds_per_step, "note": arguments.note}
        write_whole(target / "record.json", json.dumps(record, indent=2) + "\n")
        print(target)
    return 0


if __name__ == "__main__":
    _setup.exit_with(main)
