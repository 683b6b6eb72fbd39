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
    assert 0 < result["step_ms"] and 100 < result["peak_rss_mb"]


def test_a_peer_is_measured_and_its_density_integrates_to_one(monkeypatch, capsys):
    monkeypatch.setattr("sys.stdin", io.StringIO("\n"))
    benchmark.measure(json.dumps(case := {"peer": "rat_spn", "variables": 8}))
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert case.items() <= result.items() and result["integral"] == pytest.approx(1, abs=1e-5)
    assert result["parameters"] == 8 * 20 * 6 * 2 + 6 * (2 * 400 * 20 + 400)
    assert min(result["step_ms"], result["log_prob_ms"]) > 0


def test_operations_belong_to_the_parts_that_made_them():
    leaves, of_sums = (
        "while/object_spn/leaves_1/MatMul_2",
        "gradient_tape/while/object_spn/sums_1_0/m",
    )
    scopes = {"a.1": leaves, "b": of_sums, "c": "while/optimizer/adam/Mul", "d": "while/AddN"}
    hlo = [f'  %{k} = f32[2] dot(%a.1), metadata={{op_name="{v}"}}' for k, v in scopes.items()]
    found = benchmark.parts_of_operations("\n".join([*hlo, "  ROOT %e = f32[2] copy(%x)"]))
    parts = ["object_spn/leaves", "object_spn/sums", "optimizer", "object_spn/leaves", "other"]
    assert found == dict(zip([*scopes, "e"], parts))  # d is named by its operand


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
