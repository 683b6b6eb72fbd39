"""What several test files share."""

import dataclasses

import hypothesis
import keras
import pytest
import table2
import tensorflow as tf
import tiny

import data
from reproduce import experiments, runs
from supair import paper_model
from supair.config import AirConfig

hypothesis.settings.register_profile("same every time", derandomize=True, deadline=None, database=None)
hypothesis.settings.load_profile("same every time")

# What takes most of the tests' time is building the graphs of small models: without rewriting them, which XLA ignores, and
# without shortening tracebacks it is a third less.
tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})
tf.debugging.disable_traceback_filtering()
keras.config.disable_traceback_filtering()


@pytest.fixture
def small(monkeypatch, tmp_path):
    """Tiny models on 300 + 50 scenes of 50 x 50; 1 step an epoch (AIR: 4).  Yields options for the scripts.

    Functions run eagerly: for so few steps that is sooner done than building their graphs.
    """

    def model_config(self):
        if self.model == "air":
            return dataclasses.replace(AirConfig(), lstm_units=8, hidden_units=6, head_units=3, what_size=2)
        return dataclasses.replace(
            tiny.MODEL, scene_size=50, patch_size=28, num_steps=3, background=paper_model(self.dataset).background
        )

    monkeypatch.setattr(data.store, "SIZES", dict.fromkeys(data.SIZES, (300, 50)))
    monkeypatch.setattr(experiments, "SIZES", dict.fromkeys(data.SIZES, (300, 50)))
    monkeypatch.setattr(experiments.Experiment, "model_config", model_config)
    for module in (runs, table2):
        monkeypatch.setattr(module, "RECORDED", tmp_path / "results")
    monkeypatch.setattr(table2, "matmul_gflops", lambda: 100.0)
    monkeypatch.setattr(runs, "matmul_gflops", lambda: 100.0)
    tf.config.run_functions_eagerly(True)
    yield ["--runs", str(tmp_path / "runs"), "--data", str(tmp_path / "data"), "--no-xla"]
    tf.config.run_functions_eagerly(False)
