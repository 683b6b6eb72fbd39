"""benchmark.py: what a child measures, how children take turns, and what they are given."""

import io
import json
import subprocess

import benchmark
import pytest
import tensorflow as tf
import tiny_reproduce

from reproduce.experiments import Experiment

CASE = {"model": "air", "recipe": "robust", "batch": 2, "side": 60, "steps": 1}
FAKE_CHILD = """
import json, os, sys
print("ready", flush=True)
for turn, _ in enumerate(sys.stdin):
    print(os.path.basename(os.getcwd()), turn, end=" ", file=open("../log", "a"))
    print("done", flush=True)
print(json.dumps({"tree": os.getcwd(), **json.loads(sys.argv[1])}))
"""


def test_a_child_measures_once_for_every_line(monkeypatch, capsys):
    monkeypatch.setattr(Experiment, "model_config", lambda self: tiny_reproduce.AIR)
    monkeypatch.setattr("sys.stdin", io.StringIO("\n\n"))
    tf.config.run_functions_eagerly(True)
    benchmark.measure(json.dumps(CASE))
    tf.config.run_functions_eagerly(False)
    *progress, last = capsys.readouterr().out.splitlines()
    result = json.loads(last)
    assert progress == ["ready", "done", "done"] and CASE.items() <= result.items()
    assert result["epoch_s"] == pytest.approx(30_000 * result["step_ms"] / 1e3)
    share = result["step_gflop"] / result["matmul_gflops"] / result["step_ms"] * 1e3
    assert result["share_of_matmul_rate"] == pytest.approx(share) and 0 < share < 1


def test_children_take_turns_in_their_trees(monkeypatch, tmp_path):
    monkeypatch.setattr(benchmark, "CHILD", FAKE_CHILD)
    for tree in (trees := [tmp_path / "a", tmp_path / "b"]):
        tree.mkdir()
    results = benchmark.take_turns(CASE, 3, trees)
    assert results == [{"tree": str(tree), **CASE} for tree in trees]
    assert (tmp_path / "log").read_text() == "a 0 b 0 a 1 b 1 a 2 b 2 "
    monkeypatch.setattr(benchmark, "CHILD", "raise SystemExit(1)")
    with pytest.raises(SystemExit, match="air"):
        benchmark.take_turns(CASE, 3, trees)


def test_a_comparison_is_with_the_commits_files(monkeypatch):
    git_show = ["git", "-C", str(benchmark.ROOT), "show", "HEAD:supair/config.py"]
    committed = subprocess.run(git_show, capture_output=True, check=True).stdout

    def take_turns(case, turns, trees):
        assert trees[0] == benchmark.ROOT
        assert (trees[1] / "supair/config.py").read_bytes() == committed
        return [{"step_ms": 3.0, "peak_rss_mb": 5.0}, {"step_ms": 2.0, "peak_rss_mb": 4.0}]

    monkeypatch.setattr(benchmark, "take_turns", take_turns)
    found = benchmark.compare("HEAD", 1)
    assert (found["air"]["step_ratio"], found["air"]["memory_ratio"]) == (1.5, 1.25)
    with pytest.raises(SystemExit, match="--against nothing"):
        benchmark.compare("nothing", 1)
