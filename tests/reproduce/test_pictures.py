"""Other methods; SuPAIR's training takes minutes and is left out."""

import numpy as np
import pytest

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
