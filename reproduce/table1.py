"""Table 1: the number of trained parameters, published and counted.

    python reproduce/table1.py

Exits with 1 if a number differs.  The paper's numbers of AIR fit linear heads; beside them stand
those of AIR as its Pyro implementation recommends it, which Table 2 uses.
"""

import common

from reproduce.experiments import TABLE_1, TABLE_1_PARTS, TITLES, Experiment


def count_supair() -> tuple[int, ...]:
    """Trained parameters of each of `TABLE_1_PARTS`."""
    model = Experiment("supair", "multi_mnist", "paper", 0).build()
    parts = model.inference, model.object_spn, model.background_spn
    return *(part.count_params() for part in parts), 0, model.count_params()


def count_air(name: str) -> tuple[tuple[int, ...], int]:
    """Those of AIR as the paper counts them, and how many it leaves out.

    Left out are the guide's head and all initial states and latent variables.
    """
    model = Experiment(name, "multi_mnist", "paper", 0).build()
    initial_state = 2 * model.config.lstm_units  # state and cell
    lstms = model.lstm, model.baseline_lstm
    guide, baseline = (lstm.count_params() - initial_state for lstm in lstms)
    baseline += model.baseline_head.count_params()
    counts = guide, model.encoder.count_params() + model.decoder.count_params(), 0, baseline
    return (*counts, sum(counts)), model.count_params() - sum(counts)


def format_table(model: str, columns: dict[str, tuple[int, ...]]) -> str:
    """A model's half of the table; the first column is held against the published numbers."""
    lines = [f"{TITLES[model]:<20}{'published':>12}" + "".join(f"{name:>12}" for name in columns)]
    for part, published, *counted in zip(TABLE_1_PARTS, TABLE_1[model], *columns.values()):
        mark = "" if counted[0] == published else "   differs"
        numbers = "".join(f"{number:>12,}" for number in (published, *counted))
        lines.append(f"{part:<20}{numbers}{mark}")
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
    common.parser(__doc__).parse_args(argv)
    supair = count_supair()
    (linear, of_linear), (pyro, of_pyro) = map(count_air, ("air_linear", "air"))
    print(format_table("supair", {"ours": supair}))
    print("\n" + format_table("air", {"linear": linear, "pyro": pyro}))
    print(
        "The paper does not count the guide's head and initial values, "
        f"{of_linear:,} (linear) and {of_pyro:,} (pyro)."
    )
    return 0 if {"supair": supair, "air": linear} == TABLE_1 else 1


if __name__ == "__main__":
    common.run(main)
