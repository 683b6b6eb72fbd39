"""Table 1: the number of trained parameters, published against counted.

    python reproduce/table1.py

Exits with 1 if a number differs.  AIR is counted with linear heads ("table1"), which is what the paper's numbers fit,
and with the heads that its Pyro implementation recommends and Table 2 uses ("pyro").
"""

from __future__ import annotations

import _setup

from reproduce.experiments import TABLE_1, TITLES
from supair.air import AIR
from supair.config import AirConfig, ModelConfig, table1_air
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


def count_air(config: AirConfig) -> tuple[dict[str, int], int]:
    """Trained parameters of each part of AIR as the paper counts them, and how many it leaves out.

    Left out are the guide's head and all initial states and latent variables.
    """
    model = AIR(config)
    initial_state = 2 * config.lstm_units  # state and cell
    gates, baseline_gates = (lstm.count_params() - initial_state for lstm in (model.lstm, model.baseline_lstm))
    counts = {
        "Inference network": gates,
        "Object model": model.encoder.count_params() + model.decoder.count_params(),
        "Background model": 0,
        "Baselines": baseline_gates + model.baseline_head.count_params(),
    }
    total = sum(counts.values())
    return {**counts, "Total": total}, model.count_params() - total


def show(title: str, published: dict[str, int], columns: dict[str, dict[str, int]]) -> None:
    print(f"{title:<20}{'published':>12}" + "".join(f"{name:>12}" for name in columns))
    counted = next(iter(columns.values()))
    for part, number in published.items():
        mark = "" if counted[part] == number else "   differs"
        print(f"{part:<20}{number:>12,}" + "".join(f"{column[part]:>12,}" for column in columns.values()) + mark)


def main(argv: list[str] | None = None) -> int:
    _setup.parser(__doc__).parse_args(argv)
    supair, (air, left_out), (pyro, pyro_left_out) = count_supair(), count_air(table1_air()), count_air(AirConfig())
    show(TITLES["supair"], TABLE_1["supair"], {"ours": supair})
    print()
    show(TITLES["air"], TABLE_1["air"], {"table1": air, "pyro": pyro})
    print(f"Not counted in the paper: the guide's head and initial values, {left_out:,} (table1) and {pyro_left_out:,} (pyro).")
    return 0 if {"supair": supair, "air": air} == TABLE_1 else 1


if __name__ == "__main__":
    _setup.exit_with(main)
