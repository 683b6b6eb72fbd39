"""Table 1: the number of trained parameters, published against counted.

    python reproduce/table1.py

Exits with 1 if a number differs.
"""

from __future__ import annotations

import _setup
from reproduce.experiments import TABLE_1
from supair.config import ModelConfig
from supair.model import SuPAIR


def count_supair() -> dict[str, int]:
    """Trained parameters of each part of SuPAIR."""
    model = SuPAIR(ModelConfig())
    counts = {
        "Inference network": model.inference.count_params(),
        "Object model": model.object_spn.count_params(),
        "Background model": model.background_spn.count_params(),
        "Baselines": 0,
    }
    return {**counts, "Total": model.count_params()}


def main(argv: list[str] | None = None) -> int:
    _setup.parser(__doc__).parse_args(argv)
    published, counted = TABLE_1["supair"], count_supair()
    print(f"{'SuPAIR':<20}{'published':>12}{'ours':>12}")
    for part, number in published.items():
        print(f"{part:<20}{number:>12,}{counted[part]:>12,}{'' if counted[part] == number else '   differs'}")
    return 0 if counted == published else 1


if __name__ == "__main__":
    _setup.exit_with(main)
