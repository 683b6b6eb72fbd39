"""Arrays of one's own: refused, or read as they are."""

import numpy as np
import pytest

from supair.config import ConfigError
from supair.scenes import InMemoryScenes

GREY = np.linspace(0, 1, 18).reshape(2, 3, 3)
READABLE = [GREY.astype(kind) for kind in ("float16", "float32", "float64")]
READABLE += [np.round(255 * GREY).astype(kind) for kind in ("uint8", "float32", "int64")]
READABLE += [GREY > 0.5, np.ones([1, 1, 1])]
NO_BOXES = np.zeros([2, 1, 4])
WRONG = {
    "side": [np.zeros([2, 3, 4])],
    "empty": [np.zeros([0, 3, 3])],
    "ragged": [[GREY[0], GREY[1, :2]]],
    "16 bits": [np.full([2, 3, 3], 65535, np.uint16)],
    "text": [np.full([2, 3, 3], "0")],
    "dark": [GREY - 0.1],
    "bright": [GREY + 0.1],
    "nan": [np.where(GREY > 0.5, np.nan, GREY)],
    "too few counts": [GREY, [1]],
    "half an object": [GREY, [1, 0.5]],
    "ragged counts": [GREY, [[1], [1, 2]]],
    "too few boxes": [GREY, [2, 0], NO_BOXES],
    "half a box": [GREY, [1, 0], NO_BOXES[..., :2]],
    "ragged boxes": [GREY, [1, 0], [[[0, 0, 1, 1]], []]],
    "nan in a box": [GREY, [1, 0], NO_BOXES + [1, np.nan, 1, 1]],
    "box of no width": [GREY, [1, 0], NO_BOXES + [1, 1, 0, 1]],
}


@pytest.mark.parametrize("images", READABLE, ids=lambda images: images.dtype.name)
def test_scenes_are_read_as_they_are(images):
    scenes = InMemoryScenes(images)
    read = scenes.read(0, len(scenes))
    assert read.dtype == np.float32 and read.max() == 1
    np.testing.assert_allclose(read * scenes.white, images, rtol=1e-6)


@pytest.mark.parametrize("arrays", WRONG.values(), ids=WRONG)
def test_wrong_arrays_are_refused(arrays):
    with pytest.raises(ConfigError):
        InMemoryScenes(*arrays)
