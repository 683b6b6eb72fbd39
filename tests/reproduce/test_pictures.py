"""Other methods and the script; SuPAIR's training takes minutes and is left out."""

import json
from types import SimpleNamespace

import numpy as np
import pytest

from supair.config import ConfigError

pytest.importorskip("skimage")
pytest.importorskip("sklearn")
import pictures  # noqa: E402

BOXES = np.array([[10.0, 10, 21, 21], [30, 22, 21, 21]])  # of discs that touch
Y, X = np.mgrid[:60, :60]
DISCS = np.max([(X - x) ** 2 + (Y - y) ** 2 < 111 for x, y in BOXES[:, :2] + 10], axis=0)


def test_methods_find_discs_that_touch():
    parts = pictures.watershed(DISCS * 1.0, 0.1, 0, 4, 10)
    assert pictures.score([parts], [BOXES]) == {"count_error": 0.0, "f1": 1.0}
    blobs = pictures.blob_log(DISCS * 1.0, 6, 1.5, 0.1)
    assert pictures.score([blobs, blobs], [BOXES, BOXES[:1]]) == {"count_error": 0.5, "f1": 0.857}
    assert pictures.score([parts], [5]) == {"count_error": 3.0}


def test_the_script_tunes_others_trains_ours_and_writes_a_record(monkeypatch, tmp_path):
    pair = np.uint8(200 * ~DISCS), BOXES  # dark ones
    monkeypatch.setattr(pictures, "make_sets", lambda sizes: {"coins": [[pair], [pair]]})
    monkeypatch.setattr(pictures, "GRIDS", {pictures.watershed: ((0.1,), (0,), (4,), (10,))})
    code = SimpleNamespace(returncode=0)
    monkeypatch.setattr(pictures.common, "commit", lambda: "abc")
    monkeypatch.setattr(pictures.subprocess, "run", lambda *_, **__: code)
    monkeypatch.setattr(pictures, "read_rows", lambda run: [{"train_seconds": 7.0}])
    found = SimpleNamespace(detect=lambda images: SimpleNamespace(boxes=[BOXES[:1]]))
    monkeypatch.setattr(pictures.supair, "load", lambda run: found)
    pictures.common.write_json(tmp_path / "record.json", {"sets": {"blobs": 7}})
    options = f"--quick --sets coins --runs {tmp_path} --json {tmp_path}/record.json".split()
    assert pictures.main(options) == 0
    sets = json.loads((tmp_path / "record.json").read_text())["sets"]
    assert sets["blobs"] == 7 and (rows := sets["coins"])["commit"] == "abc"
    assert rows["watershed"]["settings"][0] is True and rows["watershed"]["f1"] == 1
    assert rows["SuPAIR 0"]["f1"] == 0.667 and rows["SuPAIR 0"]["train_seconds"] == 7
    code.returncode = 1
    with pytest.raises(ConfigError, match="seed0"):
        pictures.main(options)
