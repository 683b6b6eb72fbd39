"""Training shared by devices and by machines: the same curve as on one device."""

import dataclasses
import os
import signal
import subprocess
import sys
from pathlib import Path

import jobs
import numpy as np
import pytest
import tensorflow as tf
import tiny

from supair import ConfigError, Run, SuPAIR, WarmUp, __main__, choose_strategy, train
from supair.air import AIR
from supair.config import AirConfig
from supair.distribution import Team
from supair.files import read_log

SMALLER = dataclasses.replace(  # compiles sooner; two devices stop in the middle of its warm-up
    tiny.MODEL, object=dataclasses.replace(tiny.MODEL.object, repetitions=1), warm_up=WarmUp(steps=25)
)
TINY_AIR = AirConfig(scene_size=12, window_size=6, num_steps=2, lstm_units=8, hidden_units=6, head_units=3, what_size=2)
TWO_DEVICES = f"""
import sys; {jobs.QUICKLY}
cpu, = tf.config.list_physical_devices("CPU")
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
import test_distribution
from supair import training
evaluator = training.Evaluator
training.Evaluator = lambda model, scenes, compiled: evaluator(model, scenes, compiled=False)  # only steps are compiled
strategy = test_distribution.choose_strategy()
for name in ("supair", "air"):
    test_distribution.train_tiny(sys.argv[1], name, 3, name == "supair", strategy)
"""


def make_run(directory, name: str, compiled: bool = False, strategy=None) -> Run:
    config = tiny.TRAINING if name == "supair" else dataclasses.replace(tiny.TRAINING, baseline_learning_rate=1e-2)
    with Team(strategy).scope():
        model = SuPAIR(SMALLER, 3) if name == "supair" else AIR(TINY_AIR, 3)
    data = {"train": tiny.scenes(), "test": tiny.scenes(20, 1)}
    return Run(Path(directory) / name, model, config, data, {}, compiled, strategy)


def train_tiny(directory, name: str, epochs: int, compiled: bool = False, strategy=None) -> np.ndarray:
    """Step, training and test ELBO of every line of the log."""
    with make_run(directory, name, compiled, strategy) as run:
        run.train(epochs)
    return curve(Path(directory) / name)


def curve(run: Path) -> np.ndarray:
    lines = read_log(run / "log.jsonl")
    return np.array([(line["step"], line["train_elbo"], line.get("test_elbo", 0.0)) for line in lines])


def test_two_devices_train_as_one_and_one_goes_on_where_two_stopped(tmp_path):
    environment = {**os.environ, "PYTHONPATH": f"{jobs.ROOT}:{jobs.ROOT / 'tests'}"}
    environment["XLA_FLAGS"] = "--xla_backend_optimization_level=0"  # compiles sooner
    command = [sys.executable, "-c", TWO_DEVICES, tmp_path / "two"]
    process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
    epochs = {"supair": 6, "air": 3}
    one = {name: train_tiny(tmp_path / "one", name, epochs[name]) for name in epochs}
    error = process.communicate(timeout=jobs.TEAM_SECONDS)[1]
    assert process.returncode == 0, error
    for name in epochs:
        assert curve(tmp_path / "two" / name)[-1, 0] == 15
        two = train_tiny(tmp_path / "two", name, epochs[name])
        np.testing.assert_allclose(two, one[name], rtol=1e-4, atol=1e-3)
        assert np.ptp(two[:, 1]) > 1  # it learns


def test_two_machines_train_as_one_and_end_together(tmp_path):
    command = jobs.write_squares(tmp_path)
    with jobs.team([*command, "--output", str(tmp_path / "two"), "--steps", "100000"]) as workers:
        jobs.wait_for_lines(tmp_path / "two" / "log.jsonl", 2, workers)
        workers[1].send_signal(signal.SIGINT)
        errors = [worker.communicate(timeout=60)[1] for worker in workers]
    assert [worker.returncode for worker in workers] == [130, 130], errors
    assert "which is saved" in errors[0]
    saved = int(tf.train.latest_checkpoint(tmp_path / "two" / "checkpoints").rpartition("-")[2])
    assert saved >= curve(tmp_path / "two")[-1, 0] > 0

    last = int(curve(tmp_path / "two")[-1, 0]) + 50  # alone, from where they stopped
    for name in ("one", "two"):
        assert __main__.main([*command, "--output", str(tmp_path / name), "--steps", str(last)]) == 0
    one, two = (curve(tmp_path / name) for name in ("one", "two"))
    np.testing.assert_allclose(two, one, rtol=1e-3, atol=1e-2)
    assert one[-1, 1] > one[0, 1] + 10


def test_a_strategy_over_one_device(tmp_path):
    """And a single step, whose LSTM has a kernel that nothing depends on."""
    strategy = tf.distribute.MirroredStrategy(["CPU:0"])
    config = dataclasses.replace(tiny.MODEL, num_steps=1)
    with tiny.run(tmp_path / "plain", model=config) as run:
        run.train(1)
    with strategy.scope():
        model = SuPAIR(config, 3)
    with Run(tmp_path / "mirrored", model, tiny.TRAINING, run.data, {}, False, strategy) as run:
        run.train(1)
    np.testing.assert_allclose(curve(tmp_path / "mirrored"), curve(tmp_path / "plain"), rtol=1e-4, atol=1e-3)


def test_what_cannot_be_shared_is_refused(tmp_path):
    data = {"train": tiny.scenes(), "test": tiny.scenes(20, 1)}
    strategy = tf.distribute.MirroredStrategy(["CPU:0"])
    with pytest.raises(ConfigError, match="made in the scope of the run's strategy"):
        tiny.run(tmp_path / "a", strategy=strategy)
    with strategy.scope():
        model = SuPAIR(tiny.MODEL, 3)
        with pytest.raises(ConfigError, match="make and train the run outside of it"):
            Run(tmp_path / "b", model, tiny.TRAINING, data, {}, False, strategy)
    with pytest.raises(ConfigError, match="made in the scope of the run's strategy"):
        Run(tmp_path / "b", model, tiny.TRAINING, data, {})
    with (
        Run(tmp_path / "c", model, tiny.TRAINING, data, {}, False, strategy) as run,
        tiny.run(tmp_path / "d", data=data) as other,
        pytest.raises(ConfigError, match="one run at a time under a strategy"),
    ):
        train([run, other], 1)
    team = Team(strategy)
    team.size = 3
    with pytest.raises(ConfigError, match="a batch that 3 devices can share equally, found 8 scenes"):
        team.check(model.trainable_variables, 8)
    assert choose_strategy() is tf.distribute.get_strategy()  # one CPU device


@pytest.mark.parametrize(
    "config",
    [
        "{",
        "3",
        "{}",
        '{"cluster": {"worker": ["localhost:1"]}}',
        '{"cluster": {"worker": ["localhost:1"]}, "task": {"type": "worker", "index": 3}}',
        '{"cluster": {"worker": "localhost:1"}, "task": {"type": "worker", "index": 0}}',
        '{"cluster": {"worker": ["localhost:1"], "ps": ["localhost:2"]}, "task": {"type": "ps", "index": 0}}',
    ],
)
def test_a_broken_tf_config_is_refused(monkeypatch, config):
    monkeypatch.setenv("TF_CONFIG", config)
    with pytest.raises(ConfigError, match="TF_CONFIG: expected a chief, workers and a task of theirs, like "):
        choose_strategy()
