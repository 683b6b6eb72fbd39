"""Convert results/, one folder a run, into reproduce/recorded/, one table a model and data set.

    python reproduce/convert_results.py OLD_ROOT NEW_DATA

OLD_ROOT holds results/ and the repository's history, NEW_DATA the data sets of `python -m data`.
Nothing is measured or typed here; what a log cannot say stays empty:

* `mean_iou` and `average_precision`: old logs compared with boxes that had margins;
* configurations get today's names (`translate`); position_bias, which no model has any more, stays
  where it was set, so that those records are seen not to be today's;
* the data's checksum becomes that of images and counts alone, which have not changed;
* sessions that made none of the rows are left out.
"""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import sys
from pathlib import Path

import common
import numpy as np

import data
from reproduce.records import BOXES, RECORDED, Record, write_record
from supair.run import write_whole

CLASSES = {
    ("area", "shared"): "SuPAIR",
    ("exact", "shared"): "ExactSuPAIR",
    ("area", "per_step"): "PerStepSuPAIR",
    ("area", "mixture"): "MixtureSuPAIR",
}
WARM_UP = {
    "doubt": "keep_prob",
    "price": "last_step_penalty",
    "early_rate": "initial_learning_rate_factor",
}


def write_boxes(dataset: str, rows: list) -> None:
    """Keep the boxes of a log for Figure 4, beside those of other data sets."""
    path, content = RECORDED / BOXES, io.BytesIO()
    arrays = dict(np.load(path)) if path.exists() else {}
    rows = [row for row in rows if "examples" in row]
    arrays[f"{dataset}_epochs"] = np.array([row["epoch"] for row in rows])
    for name in ("z_pres", "boxes"):
        arrays[f"{dataset}_{name}"] = np.float32([row["examples"][name] for row in rows])
    np.savez_compressed(content, **arrays)
    write_whole(path, content.getvalue())


ADAM = {"beta_1": 0.9, "beta_2": 0.999, "epsilon": 1e-8}
# The kernel names both kinds of EPYC alike; from this commit on, runs were on the newer.
FIRST_ON_ZEN_5 = "83ca451"
DRAWN = "fig4_progress fig5_learning fig5_learning_epochs fig6_noise queries digits growth"
FIGURES = [f"{name}.png" for name in (*DRAWN.split(), "letters")]


def json_lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def translate(old: dict) -> dict:
    """An old config.json, without the seed, as today's code would write it."""
    model, training = dict(old["model"]), dict(old["training"])
    is_air = "window_size" in model
    warm_up = model.pop("warm_up", None)
    kind = model.pop("downsampling", "area"), model.pop("object_models", "shared")
    assert model.pop("object_classes", 3) == 3
    if model.get("position_bias") is None:
        model.pop("position_bias", None)
    if model.pop("initial_pres_logit", None) is not None:
        raise ValueError("a form of AIR that no record outside of earlier/ has")
    rate, of_baseline = training.pop("learning_rate"), training.pop("baseline_learning_rate", None)
    training.pop("seed")
    assert (of_baseline is not None) == is_air
    for name, value in ADAM.items():
        assert training.pop(name) == value  # today's code has no others
    training |= {
        "learning_rates": {"air": rate, "baseline": of_baseline}
        if is_air
        else {"inference": rate, "object": rate, "background": rate},
        "steps_per_epoch": None,
        "averaging": training.get("averaging"),
        "warm_up": warm_up and {WARM_UP.get(name, name): x for name, x in warm_up.items()},
    }
    return {
        **old,
        "model": {"class": "AIR" if is_air else CLASSES[kind], **model},
        "training": training,
    }


def hardware(session: dict, zen_5: set[str]) -> str:
    kind = "Zen 5" if session.get("commit", "").rstrip("+") in zen_5 else "Milan"
    processor = session["processor"]
    return f"{processor} ({kind})" if processor == "AMD EPYC" else processor


def of_zen_5(root: Path) -> set[str]:
    command = [
        "git",
        "-C",
        str(root),
        "log",
        "--format=%h",
        "--abbrev=10",
        f"{FIRST_ON_ZEN_5}^..HEAD",
    ]
    return set(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split())


def provenance(folder: Path, zen_5: set[str]) -> dict:
    """What made a run: its sessions, as far as they differ, its note and its step's seconds."""
    record, sessions = (
        json.loads((folder / "record.json").read_text()),
        json_lines(folder / "sessions.jsonl"),
    )
    made = []
    for session, after in zip(sessions, [*sessions[1:], None]):
        if after and after["step"] <= session["step"]:
            continue  # it ended before its first checkpoint
        assert session["gpu"] == "none"
        about = {
            "hardware": hardware(session, zen_5),
            "threads": int(session["cores"]),
            **{name: session[name] for name in ("python", "tensorflow", "commit", "date")},
        }
        if session["together"] != 1:
            about["together"] = session["together"]
        if about not in made:
            made.append(about)
    return {
        "sessions": made,
        **{name: record[name] for name in ("seconds_per_step", "note") if record[name]},
    }


def rows_of(folder: Path, pace: float | None) -> list[dict]:
    """An old log in the form of today's."""
    rows = []
    for line in json_lines(folder / "log.jsonl"):
        row = {name.removeprefix("test_"): value for name, value in line.items() if name != "crc32"}
        if pace:
            row["train_seconds"] = row["step"] * pace
        if "elbo" in row:
            row |= {"mean_iou": None, "average_precision": None}
        rows.append(row)
    return rows


def runs(root: Path, scenes: Path) -> None:
    """All runs outside of earlier/, failures included."""
    zen_5, checksums = of_zen_5(root), {}
    for group in sorted((root / "results").glob("*/*/*")):
        model, dataset, recipe = group.relative_to(root / "results").parts
        if model == "earlier" or not group.is_dir():
            continue
        if dataset not in checksums:
            checksums[dataset] = data.load(dataset, 0, scenes)["train"].checksum
        configurations, rows, about = [], {}, {}
        for folder in sorted(group.glob("seed*"), key=lambda path: int(path.name[4:])):
            seed = int(folder.name[4:])
            configuration = translate(json.loads((folder / "config.json").read_text()))
            configuration["data"]["checksum"] = checksums[dataset]
            configurations.append(configuration)
            about[seed] = provenance(folder, zen_5)
            rows[seed] = rows_of(folder, about[seed].get("seconds_per_step"))
        assert all(configuration == configurations[0] for configuration in configurations), group
        assert configurations[0]["experiment"] == {
            "model": model,
            "dataset": dataset,
            "recipe": recipe,
        }
        write_record(Record(configurations[0], rows, about))
        if (model, recipe) == ("supair", "paper") and dataset in ("multi_mnist", "sprites"):
            write_boxes(dataset, rows[0])


def paragraph(root: Path, start: str) -> str:
    """What results/README.md says of runs that have no note of their own."""
    text = (root / "results/README.md").read_text()
    return next(" ".join(part.split()) for part in text.split("\n\n") if part.startswith(start))


def letters(root: Path) -> None:
    """The example of other images, measured on 1,000 of them at the ends of epochs."""
    kept = ("step", "epoch", "accuracy", "elbo", "confusion")
    configurations, rows = [], []
    for folder in sorted((root / "results/letters").glob("seed*")):
        configurations.append(translate(json.loads((folder / "config.json").read_text())))
        for row in rows_of(folder, None):
            rows.append({"seed": int(folder.name[4:]), **{name: row[name] for name in kept}})
    same = {name: value for name, value in configurations[0].items() if name != "images"}
    assert all({**of_seed, "images": 0} == {**same, "images": 0} for of_seed in configurations)
    same["images"] = [of_seed["images"] for of_seed in configurations]
    note = paragraph(root, "`letters/`").split(" `earlier/letters/`")[0]
    write_rows("letters.json", note, rows, configuration=same)


def pyro(root: Path) -> None:
    names = {"s": "seconds", "acc": "accuracy", "M": "confusion"}
    lines = json_lines(root / "results/pyro/sprites_seed0.jsonl")
    rows = [{names.get(name, name): value for name, value in line.items()} for line in lines]
    note = paragraph(root, "`pyro/").replace("`M`", "`confusion`").replace("`acc`", "`accuracy`")
    write_rows("air_pyro.json", note, rows)


def rounded(value):
    if isinstance(value, dict):
        return {name: rounded(x) for name, x in value.items()}
    if isinstance(value, list):
        return [rounded(x) for x in value]
    return round(value, 4) if isinstance(value, float) else value


def measured(path: Path, zen_5: set[str]) -> dict:
    """What a script wrote with --json, with the machine as today's scripts name it."""
    content = json.loads(path.read_text())
    if "machine" in content:
        old = {**content["machine"], "commit": content.get("commit", "")}
        machine = {"hardware": hardware(old, zen_5), "threads": int(old["cores"])}
        content["machine"] = machine | {name: old[name] for name in ("python", "tensorflow")}
    return rounded(content)


def write_rows(name: str, note: str, rows: list[dict], **more) -> None:
    """A JSON file with a row on every line."""
    head = json.dumps({"note": note, **more}, indent=2).removesuffix("\n}")
    text = ",\n".join("    " + json.dumps(rounded(row)) for row in rows)
    write_whole(RECORDED / name, f'{head},\n  "rows": [\n{text}\n  ]\n}}\n')


def main() -> int:
    root, scenes = map(Path, sys.argv[1:])
    results = root / "results"
    shutil.rmtree(RECORDED, ignore_errors=True)
    (RECORDED / "figures").mkdir(parents=True)
    runs(root, scenes)
    letters(root)
    pyro(root)
    for name in FIGURES:
        shutil.copyfile(results / "figures" / name, RECORDED / "figures" / name)
    zen_5 = of_zen_5(root)
    notes = {
        "benchmark": "",
        "digits": paragraph(root, "`digits/`").split(" Seed 0 had")[0].split("b2c4bee. ")[1],
        "queries": "Those of runs/: 5 epochs with an earlier form of the recipe robust.",
    }
    for name, note in notes.items():
        paths = sorted([*results.glob(f"{name}*.json"), *results.glob(f"{name}/*.json")])
        content = [measured(path, zen_5) for path in paths]
        about = {"note": note, "measured": content} if note else content
        common.write_json(RECORDED / f"{name}.json", about)
    return 0


if __name__ == "__main__":
    common.run(main)
