"""What the tests of the scripts share."""

import pytest
import tensorflow as tf
import tiny_reproduce

from reproduce import train


@pytest.fixture
def small(monkeypatch, tmp_path):
    """Tiny experiments, trained in this process and without graphs; yields options for scripts."""
    tiny_reproduce.shrink(monkeypatch.setitem)
    monkeypatch.setattr(train, "run_process", tiny_reproduce.train_in_process)
    tf.config.run_functions_eagerly(True)
    yield ["--runs", str(tmp_path / "runs"), "--data", str(tmp_path / "data"), "--no-xla"]
    tf.config.run_functions_eagerly(False)
