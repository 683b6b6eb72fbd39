"""Every command and snippet of the README, with tiny models and data sets."""

import functools
import importlib
import re
import shlex
from pathlib import Path

import pytest
import tiny_reproduce

import data
from reproduce import fig4_progress, fig5_learning, fig6_noise
from supair import __main__, config

README = (Path(__file__).parents[2] / "README.md").read_text()
BLOCKS = re.findall(r"^```(bash|python)\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
COMMANDS = [text.splitlines() for kind, text in BLOCKS if kind == "bash"]
COMMANDS += [[command] for command in re.findall(r"^\| `(python .*?)` \|", README, re.MULTILINE)]
SNIPPETS = [text for kind, text in BLOCKS if kind == "python"]
# They install, or are this test or a tool beside it.
ELSEWHERE = ("python3 -m venv ", "pip install ", "python -m pytest ", "ruff ")
A_RUN = "--epochs=1 --datasets=sprites --models=air --seeds=0".split()
TRAIN = ["--runs", "runs", "--data", "data", "--no-xla"]
# What makes a command short, and None at the end: it is run as it is, since it trains nothing.
TINY = {
    "reproduce/table1.py": None,
    "reproduce/table2.py --recorded": None,
    "reproduce/table2.py --quick": [*TRAIN, "--epochs=1", "--datasets=sprites"],
    "reproduce/table2.py": [*TRAIN, *A_RUN],
    "reproduce/fig4_progress.py": [*TRAIN, "--output=figures"],
    "reproduce/fig5_learning.py": [*TRAIN, "--output=figures", "--seeds=0"],
    "reproduce/fig6_noise.py": [*TRAIN, "--output=figures"],
    "reproduce/train.py": [*TRAIN, "--epochs=1", "--seeds=0"],
    "-m data letters": ["--sizes", "12", "3"],
    "-m supair train": ["--steps=1", "--batch-size=4", "--no-xla"],
    "-m supair detect": [],
}


@pytest.fixture
def tiny(small, monkeypatch, tmp_path):
    """As `small`, in a folder of its own, and an epoch for 20."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(__main__, "LEAST_EPOCH", 1)
    monkeypatch.setitem(config.PAPER_MODELS, "multi_mnist", tiny_reproduce.SUPAIR)
    for script in (fig4_progress, fig5_learning, fig6_noise):
        monkeypatch.setattr(script, "PAPER_EPOCHS", 1)
        monkeypatch.setattr(script, "DATASETS", ("noisy_mnist",))
    monkeypatch.setattr(fig4_progress, "EPOCHS", (1,))
    curves = {key: style for key, style in fig5_learning.CURVES.items() if key[1] == "paper"}
    monkeypatch.setattr(fig5_learning, "CURVES", curves)


@pytest.mark.parametrize("commands", COMMANDS, ids=" && ".join)
def test_a_command_of_the_readme(commands, request):
    parts = [part.removeprefix(".venv/bin/") for line in commands for part in line.split(" && ")]
    for part in parts:
        if part.startswith(ELSEWHERE):
            continue
        of_python = part.removeprefix("python ")
        [known, *_] = [start for start in TINY if of_python.startswith(start)]
        if TINY[known] is not None:
            request.getfixturevalue("tiny")
        first, *words = shlex.split(of_python)
        name = f"{words.pop(0)}.__main__" if first == "-m" else first[:-3].replace("/", ".")
        assert importlib.import_module(name).main([*words, *(TINY[known] or [])]) == 0


@pytest.mark.parametrize("snippet", SNIPPETS)
def test_a_snippet_of_the_readme(snippet, tiny, capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(data, "load", functools.partial(data.load, directory=tmp_path))
    exec(snippet.replace("epochs=10", "epochs=1"), {})
    assert capsys.readouterr().out
