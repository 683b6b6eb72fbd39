"""Boxes in scenes, brought back to the images that the scenes were cut from."""

import dataclasses

import numpy as np
import pytest
import tiny

from supair.config import ConfigError
from supair.detect.tiles import cut_tiles, drop_doubles, resize, tile_overlap


def levels_with_square(left: int, top: int) -> np.ndarray:
    levels = np.zeros([90, 120], np.float32)
    levels[top : top + 24, left : left + 24] = 1
    return levels


def bright_box(scene: np.ndarray) -> np.ndarray:
    rows, columns = (np.flatnonzero((scene > 0.5).any(axis=axis)) for axis in (1, 0))
    return np.array([[columns[0], rows[0], len(columns), len(rows)]], float)


def test_boxes_find_their_way_back_from_resized_images():
    scene, window = resize(levels_with_square(72, 12), 30)
    np.testing.assert_allclose(window.to_image(bright_box(scene)), [[72, 12, 24, 24]], atol=0.6)
    # All of the image; 90 rows become 22 and not 22.5, so both axes have their own zoom.
    np.testing.assert_allclose(window.to_image([[0, 4, 30, 22]]), [[0, 0, 120, 90]])


@pytest.mark.parametrize("left, top", [(0, 0), (5, 60), (41, 33), (50, 20), (96, 66)])
@pytest.mark.parametrize("times", [1, 4])
def test_an_object_counts_in_one_tile_and_is_whole_there(left, top, times):
    levels = levels_with_square(left, top).repeat(times, 0).repeat(times, 1)
    tiles = list(cut_tiles(levels, side=60, overlap=30, zoom=1 / times))
    assert len(tiles) == 3 * 4  # strides of 30
    box = times * np.array([[left, top, 24.0, 24.0]])
    ((scene, window),) = [tile for tile in tiles if tile[1].owns(box)[0]]
    np.testing.assert_array_equal(window.to_image(bright_box(scene)), box)
    assert window.size == (120 * times, 90 * times)


def test_tiles_overlap_by_the_highest_box_and_must_be_larger():
    config = dataclasses.replace(tiny.MODEL, scale_max=0.5)
    assert tile_overlap(config) == 5  # 0.5 * 1.25 * 6 * 6 / 5 = 4.5
    with pytest.raises(ConfigError, match="--side"):
        tile_overlap(dataclasses.replace(config, scale_max=1.1))  # 9.9 of 12 pixels


def test_of_several_boxes_of_an_object_the_best_stays():
    """A coin and a smaller box in it; two that touch; the same object in two tiles; a chain."""
    boxes = [[0, 0, 40, 40], [10, 10, 20, 20], [100, 0, 20, 20], [118, 0, 20, 20]]
    boxes += [[200, 0, 20, 20], [204, 2, 20, 20], [300, 0, 20, 20], [308, 0, 20, 20]]
    boxes = np.array([*boxes, [316, 0, 20, 20]], float)
    log_ratio = np.array([9, 8, 7, 6, 4, 5, 3, 2, 1])
    found_in = np.array([0, 0, 0, 0, 1, 2, 1, 2, 3])
    kept = drop_doubles(boxes, found_in, log_ratio)
    assert np.flatnonzero(~kept).tolist() == [1, 4, 7]  # what 7 would have dropped stays
    kept = drop_doubles(boxes, np.zeros(9), log_ratio)  # objects of a scene may overlap
    assert np.flatnonzero(~kept).tolist() == [1]
    assert drop_doubles(np.zeros([0, 4]), np.zeros(0), np.zeros(0)).shape == (0,)
