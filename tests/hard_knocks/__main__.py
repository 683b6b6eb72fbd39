"""Disturb work in many ways; print what came of it, and exit with 1 if it did not go on."""

import argparse
import sys
import time
from collections import Counter
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[2] / "reproduce"))  # as for the tests
from tests.hard_knocks.cases import CASES  # noqa: E402

names = [case.name for case in CASES]
parser = argparse.ArgumentParser("python -m tests.hard_knocks", description=__doc__)
parser.add_argument("--full", action="store_true", help="an hour, instead of two minutes")
parser.add_argument("--only", nargs="+", choices=names, default=names, metavar="NAME")
parser.add_argument("--seed", type=int, default=0, help="of moments and places (default: 0)")
arguments = parser.parse_args()
failures, kinds = 0, Counter()
for case in [case for case in CASES if case.name in arguments.only]:
    found, began, verdict = Counter(), time.monotonic(), "passed"
    try:
        found.update(case.outcomes(case.many if arguments.full else case.few, arguments.seed))
    except AssertionError as failure:
        verdict, failures = f"FAILED: {failure}", failures + 1
    kinds[case.kind] += found.total()
    print(f"{case.name}: {case.kind}; {case.holds}")
    print(f"  {found.total()} times in {time.monotonic() - began:.0f} s: {verdict}")
    for outcome, times in sorted(found.items()):
        print(f"  {times:>6}  {outcome}", flush=True)
for kind, times in kinds.items():
    print(f"{times:>6}  {kind}")
print(f"{failures} cases failed")
sys.exit(1 if failures else 0)
