import numpy as np
import pytest

import data


def levels(name):
    scenes = data.make(name, 5, (300, 60))["train"]
    return scenes.images.astype(np.float64) / scenes.white


def test_noise_is_that_of_the_paper_on_the_same_scenes():
    clean, noisy = levels("multi_mnist"), levels("noisy_mnist")
    middle = (clean > 0.4) & (clean < 0.6)  # little clipping here
    difference = noisy[middle] - (0.8 * clean[middle] + 0.1)
    assert [difference.mean(), difference.std()] == pytest.approx([0, 0.2], abs=0.01)
    black = np.mean(noisy[clean == 0] == 0)
    assert black == pytest.approx(0.3085, abs=0.005)  # P(N(0.1, 0.2) < 0)


def test_grid_is_that_of_the_paper_on_the_same_scenes():
    offsets = set()
    for before, after in zip(levels("multi_mnist"), levels("grid_mnist")):
        rows, columns = (np.flatnonzero((after >= 0.4).all(axis=axis)) for axis in (1, 0))
        assert np.diff(rows).tolist() == np.diff(columns).tolist() == [5] * 9
        offsets.add((rows[0], columns[0]))
        lines = np.zeros([50, 50], bool)
        lines[rows], lines[:, columns] = True, True
        np.testing.assert_array_equal(after, np.where(lines, np.maximum(before, 0.4), before))
    assert len(offsets) == 25
