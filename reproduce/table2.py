"""Table 2: count accuracy and ELBO on the test set: published, recorded and measured here.

    python reproduce/table2.py --quick       a first look: one seed, two data sets, two epochs
    python reproduce/table2.py               both models, four data sets, five seeds, 20 epochs
    python reproduce/table2.py --recorded    train nothing: all recorded runs

The default recipe is `robust`; --recipe paper is as the authors train.  Can be stopped and started
again at any time.
"""

import argparse
import dataclasses
import itertools
import statistics
from dataclasses import dataclass
from typing import Any

import common

from data import DATASETS, SIZES
from reproduce import fig4_progress
from reproduce.experiments import MODELS, PAPER_SEEDS, RECIPES, TABLE_2, TITLES, Experiment, title
from reproduce.records import RECORDED, read_record
from reproduce.train import describe_work, read_logs, train_missing
from supair.config import PAPER_EPOCHS

QUICK_DATASETS, QUICK_EPOCHS = ("multi_mnist", "sprites"), 2
ALL_MODELS = ("supair", "supair_no_background", "supair_poon_domingos", "air")
OUTDATED = "recorded with another configuration than today's recipe"
# What the table shows of a row of the log, the factor of its unit, and digits behind the point.
NUMBERS = {"accuracy": (100, 1), "elbo": (1, 0), "train_elbo_mean": (1, 0)}
NUMBERS |= {"average_precision": (100, 1), "train_seconds": (1, 0)}
OTHER_COLUMNS = ["train ELBO", "box AP, %", "train s"]
NOTES = """
Means ± standard deviations over all seeds. ELBO: of the test scenes; train ELBO: of the first
10,000 training scenes, as the authors' code measures training batches; both by the paper's p(N).
Box AP: average precision at IoU 0.5. Train s: seconds of training steps alone. AIR's ELBOs are of
another density of the pixels than SuPAIR's. Converged: as `supair.Convergence` says. In training
`robust` charges for every object a fifth of a box of background (`object_price`, ours): the sharper
the background, the more a second box gains by what the first leaves over. Best view: some of the
runs; of a scene and its mirror images the best description by the bound (ours)."""


@dataclass(frozen=True)
class Row:
    """A model on a data set, after so many epochs or converged."""

    model: str
    recipe: str
    dataset: str
    budget: str
    # By column ("recorded", "here", "quick") and seed, what the log says; None: not so far yet.
    results: dict[str, dict[int, dict[str, Any] | None]]
    note: str = ""

    def measured(self, column: str) -> dict[int, dict[str, Any]]:
        return {seed: result for seed, result in self.results[column].items() if result}


def collect(options: argparse.Namespace, variants: list, datasets: list) -> list[Row]:
    """The table's rows of some data sets and variants, (model, recipe)."""
    rows, here = [], "quick" if options.quick else "here"
    budgets = [f"{options.epochs} epochs", "converged"][: 1 + options.converge]
    for (model, recipe), budget, dataset in itertools.product(variants, budgets, datasets):
        key, logs, record = (model, recipe, dataset), {}, None
        if not options.quick:
            record = read_record(*key)
            logs["recorded"] = read_logs(*key, options.seeds if options.recorded else None, None)
        if not options.recorded:
            logs[here] = read_logs(*key, options.seeds, options.runs)
        known = MODELS.get(model)
        criterion = (known or MODELS["supair"]).convergence if budget == "converged" else None
        results = {column: {} for column in logs}
        for column, of_seeds in logs.items():
            for seed, log in of_seeds.items():
                results[column][seed] = _result(log, options.epochs, criterion)
        if record and not (known and record.is_current(Experiment(model, dataset, recipe, 0))):
            apart = {**dict.fromkeys(results, {}), "recorded": results["recorded"]}
            rows.append(Row(*key, budget, apart, OUTDATED))
            results["recorded"] = {}
        if known:
            rows.append(Row(*key, budget, results))
        if model == "supair" and not options.quick:
            best: dict = {column: {} for column in results}
            for column, seed in [(c, s) for c in results for s in results[c]]:
                found = _result(logs[column][seed], options.epochs, criterion, "best_view")
                best[column] |= {seed: found} if found else {}
            rows.append(Row("best_view", recipe, dataset, budget, best))
    return sorted(rows, key=lambda row: (bool(row.note), row.model == "best_view"))


def _result(log: list[dict], epochs: int, criterion, part: str = "") -> dict[str, Any] | None:
    """What a log says after so many epochs or, by a criterion, of convergence after these;
    or a part of that row, if it is there."""
    ends = [row for row in log if "elbo" in row]
    elbos = [row["elbo"] for row in ends]
    epoch = criterion.last_epoch(elbos, epochs) if criterion else epochs
    if epoch is None or epoch > len(ends):
        return None
    row = ends[epoch - 1].get(part) if part else ends[epoch - 1]
    if not row:
        return None
    found = {name: row.get(name) for name in ("epoch", *NUMBERS, "collapse")}
    converged = not criterion or criterion.reached(elbos[:epoch])
    return {**found, "mark": "" if converged else "not converged"}


def format_table(rows: list[Row]) -> str:
    """The table as text; below a row stand the seeds of its last column."""
    columns = list(rows[0].results)
    blank, last, full = [""] * len(columns), columns[-1], "quick" not in columns
    table = [
        ["Table 2", "count accuracy, %", *blank, "ELBO, nats", *blank, *OTHER_COLUMNS],
        ["", *["published", *columns] * 2],
    ]
    head, behind = None, []
    for row in rows:
        for column in columns if row.budget != "converged" else ():
            if seeds := [str(seed) for seed, result in row.results[column].items() if not result]:
                which = f"{title(row.model, row.recipe)}, {TITLES[row.dataset]}, {column}"
                behind.append([f"Not at {row.budget}: {which}: seeds {' '.join(seeds)}"])
        optional = row.note or row.budget == "converged" or row.model == "best_view"
        if optional and not any(row.measured(column) for column in columns):
            continue
        part = ", ".join(filter(None, [title(row.model, row.recipe), row.budget, row.note]))
        if part != head:
            table.append([part])
        head = part
        table.append([TITLES[row.dataset], *_cells(row)])
        for seed, result in row.measured(last).items():
            alone = {column: {seed: result} if column == last else {} for column in columns}
            mark = f"collapsed: {result['collapse']}" if result["collapse"] else result["mark"]
            label = f"  seed {seed}, epoch {result['epoch']:.0f}"
            table.append([label, *_cells(dataclasses.replace(row, results=alone), ""), mark])
    if any(cell.endswith("*") for line in table for cell in line):
        behind.append(["* with seeds that collapsed: their counts are of no use."])
    widths = [22, *[10, *[14] * len(columns)] * 2, 13, 13, 11, 0]
    table += [*behind, [NOTES]] if full else behind
    return "\n".join("".join(map(str.ljust, line, widths)).rstrip() for line in table)


def _cells(row: Row, nothing: str = "-") -> list[str]:
    """A row's numbers; without `nothing` for those that there are not, only measured ones."""
    cells, published = [], TABLE_2.get((row.model, row.dataset)) if nothing else None
    for name, (unit, digits) in NUMBERS.items():
        texts = []
        for column in row.results:
            found = [result[name] for result in row.measured(column).values()]
            values = [unit * value for value in found if value is not None]
            text = f"{statistics.mean(values):.{digits}f}" if values else nothing
            spread = f" ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else ""
            marked = nothing and any(r["collapse"] for r in row.measured(column).values())
            texts.append(f"{text}{spread}{'*' if marked else ''}")
        if name not in ("accuracy", "elbo"):
            cells += texts[-1:]
            continue
        told = f"{unit * getattr(published, name):.{digits}f}" if published else nothing
        cells += [told, *texts]
    return cells


def format_markdown(rows: list[Row]) -> str:
    """The README's table: recorded runs of both recipes after so many epochs."""
    known = {(row.model, row.recipe, row.dataset): row for row in rows[::-1] if not row.note}
    lines = []
    for model, dataset in [*TABLE_2, *(("best_view", dataset) for dataset in DATASETS)]:
        recipes = [known[model, recipe, dataset] for recipe in ("robust", "paper")]
        (told, robust, nats, test, train, *_), (_, paper, _, paper_test, *_) = map(_cells, recipes)
        seeds = "; ".join(str(len(row.measured("recorded"))) for row in recipes)
        cells = TITLES[model], TITLES[dataset], told, robust, paper, nats, train, test, paper_test
        lines.append("| " + " | ".join([*cells, seeds]) + " |")
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
    options = parse(argv)
    variants, datasets, failures = [], options.datasets, []
    for model in options.models:
        recipes = [recipe for recipe in options.recipe if recipe in MODELS[model].recipes]
        variants += [(model, recipe) for recipe in recipes or ["paper"]]
    if options.recorded and len(options.models) > 1:
        names = [path.stem.split("-") for path in sorted(RECORDED.glob("*.csv"))]
        variants += dict.fromkeys((m, recipe) for m, recipe, _ in names if m not in MODELS)
    if options.markdown:
        print(format_markdown(collect(options, variants, datasets)))
    elif options.quick:
        models, where = (" and ".join(map(TITLES.get, x)) for x in (options.models, datasets))
        print(f"A quick run: {models} on {where}, {options.epochs} of {PAPER_EPOCHS} epochs.")
    else:
        print(format_table(collect(options, variants, datasets)), flush=True)
    if not options.recorded:
        # Seed by seed, so that every data set has a first result early.
        each = itertools.product(options.seeds, variants, datasets)
        wanted = [Experiment(model, dataset, recipe, s) for s, (model, recipe), dataset in each]

        def on_end(run: Experiment) -> None:
            if not options.quick:
                print(format_table(collect(options, [(run.model, run.recipe)], [run.dataset])))
                print(describe_work(wanted, options.epochs, options.converge, options.runs)[0])

        failures = train_missing(wanted, options.epochs, options.converge, options, on_end)
        if options.quick or not options.no_train:
            print(f"\n{format_table(collect(options, variants, datasets))}")
    if options.quick and not (failures or options.no_train):
        shown = wanted[: len(datasets)], range(1, options.epochs + 1)[-5:]
        figure = fig4_progress.draw(fig4_progress.collect(options, *shown))
        print("\nScenes, and what is found in them after each epoch:", flush=True)
        common.save_figure(figure, options.runs / "boxes")
        print(f"The runs are in {options.runs}.\nNext: python reproduce/table2.py --recorded")
    if options.json:
        rows = [dataclasses.asdict(row) for row in collect(options, variants, datasets)]
        common.write_json(options.json, {"rows": rows})
    return 1 if failures else 0


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = common.parser(__doc__)
    each = {"nargs": "+", "action": common.Distinct}
    parser.add_argument(
        "--quick", action="store_true", help="a first look of minutes, kept in RUNS/quick"
    )
    for name, choices, default in (
        ("models", [*MODELS, "all"], "supair air"),
        ("datasets", [*SIZES], "the paper's four"),
        ("recipe", RECIPES, "robust; with --recorded both"),
    ):
        what = f"out of {', '.join(choices)} (default: {default})"
        parser.add_argument(f"--{name}", choices=choices, metavar="NAME", help=what, **each)
    common.add_seeds(parser, "0-4, or all recorded")
    parser.add_argument("--epochs", type=common.positive, metavar="N", help="default: 20")
    parser.add_argument("--converge", action="store_true", help="and on until converged")
    parser.add_argument("--markdown", action="store_true", help="--recorded as in README.md")
    common.add_json(parser, "the table")
    common.add_training(parser, recorded=True)
    options = parser.parse_args(argv)
    quick, recorded = options.quick, options.recorded
    if recorded and quick:
        parser.error("argument --quick: quick runs are not recorded")
    if options.markdown and (not recorded or options.models or options.datasets or options.recipe):
        parser.error("argument --markdown: goes with --recorded alone")
    if "all" in (options.models or ()):
        options.models = ALL_MODELS
    options.models = options.models or (["supair"] if quick else ["supair", "air"])
    options.datasets = options.datasets or (QUICK_DATASETS if quick else DATASETS)
    options.recipe = options.recipe or (RECIPES if recorded else ["robust"])
    for model, dataset in itertools.product(options.models, options.datasets):
        if dataset not in MODELS[model].configurations:
            parser.error(f"argument --datasets: {model} is not made for {dataset}")
    options.epochs = options.epochs or (QUICK_EPOCHS if quick else PAPER_EPOCHS)
    options.seeds = options.seeds or (None if recorded else [0] if quick else PAPER_SEEDS)
    options.converge |= recorded
    options.runs = options.runs / "quick" if quick else options.runs
    return options


if __name__ == "__main__":
    common.run(main)
