"""What images suggest about the sizes and numbers of their objects."""

import numpy as np
import pytest

import data
from supair.detect.images import Images, Preparation
from supair.detect.suggest import draw_suggestion, find_sizes, suggest_layout, suggest_variances


def sizes_of(pictures):
    images = Images([*map(str, range(len(pictures)))], pictures)
    return find_sizes(images, Preparation().adapted(images, trained=False)[0])


GROUND = np.kron(np.random.default_rng(0).random([10, 10]), np.ones([5, 5])) / 2


@pytest.mark.parametrize("dataset", [*data.DATASETS, "on a ground"])
def test_sizes_and_numbers_in_the_papers_scenes(dataset):
    ground = GROUND * (dataset == "on a ground")  # the same in all pictures
    test = data.make("multi_mnist" if ground.any() else dataset, 0, (1, 60))["test"]
    sizes = sizes_of(np.maximum(test.images / np.float32(test.white), ground))
    true = np.concatenate([boxes[:n] for boxes, n in zip(test.boxes, test.counts)])[:, 2:]
    small, middle, large = sizes.quantiles
    assert middle == pytest.approx(np.median(true.max(axis=1)), abs=2)
    assert sizes.number() == 2 and not sizes.doubts
    layout = suggest_layout(sizes)
    assert (layout.fit, layout.side, layout.max_objects, layout.zoom) == (None, 50, 2, 1.0)
    assert layout.object_size[0] < small and large < layout.object_size[1] < 28


def sheet(size, side, noise=0.0):
    """16 dark discs in a picture of which one half is brighter than the other."""
    rng, y, x = np.random.default_rng(0), *np.mgrid[:side, :side]
    picture = 0.6 + 0.3 * x / side
    for row in range(4):
        for column in range(4):
            cy, cx = (np.array([row, column]) + 0.5) * side / 4
            picture[np.hypot(y - cy, x - cx) < size / 2] -= 0.4
    return [np.clip(picture + rng.normal(0, noise, picture.shape), 0, 1)]


def test_many_objects_are_cut_into_tiles_in_which_they_have_the_papers_size():
    pictures = sheet(60, 400, noise=0.05)
    sizes = sizes_of(pictures)
    assert sizes.quantiles[1] == pytest.approx(60, abs=4) and sizes.number() == 16
    assert sizes_of(pictures * 12).quantiles == sizes.quantiles  # what never moves is no ground
    layout = suggest_layout(sizes)
    assert layout.fit == "tile" and layout.zoom == pytest.approx(0.3, abs=0.03)
    assert layout.object_size[0] < 60 < layout.object_size[1] < layout.side / 0.3 / 1.5
    assert suggest_layout(sizes, "tile", 80, (20.0, 52.0), 3) == ("tile", 80, (20, 52), 3, 0.5)
    assert np.ptp(np.asarray(draw_suggestion(sizes, layout)), axis=2).max() == 255  # has colours


def test_few_objects_in_an_image_that_is_not_square_are_resized():
    pictures = [np.pad(np.ones([30, 30]), [(n, 60 - n), (5 * n, 90 - 5 * n)]) for n in range(12)]
    layout = suggest_layout(sizes_of(pictures))
    assert (layout.fit, layout.side, layout.max_objects) == ("resize", 56, 1)


def test_doubts_are_said():
    blocks = np.random.default_rng(0).random([20, 20]) > 0.5  # many of them touch
    assert sizes_of([np.kron(blocks, np.ones([5, 5]))]).doubts
    sky = np.random.default_rng(0).normal(0.1, 0.01, [120, 120])
    sky[5:115:10, 5:115:10] += 0.2  # 121 stars
    sky[50:53, 50:90] = sky[80:83, 20:60] = 1.0
    sizes = sizes_of([sky])
    assert sizes.num_pieces > 2 * len(sizes.boxes)
    assert [f"{sizes.num_pieces} " in doubt for doubt in sizes.doubts] == [1]


def test_variances_are_the_papers_on_the_papers_scenes():
    def suggested(dataset):
        test = data.make(dataset, 0, (1, 50))["test"]
        return suggest_variances(np.round(test.images * (255 / test.white)).astype(np.uint8))

    assert suggested("multi_mnist")[1:] == ((0.12, 0.35), (0.002, 0.12))
    noise, (low, high), (least, most) = suggested("noisy_mnist")
    assert (low, most) == pytest.approx((0.25, 0.06), abs=0.02)
    assert (high, least) == (0.35, 0.002) and 0.02 < noise < 0.03
