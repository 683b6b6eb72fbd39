import csv

import numpy as np
import pytest
from PIL import Image

from data import DataError
from data.letters import draw_letters, write_letters


def test_folders_hold_what_the_seed_draws_and_are_not_written_over(tmp_path):
    write_letters(tmp_path / "letters", (12, 3), seed=2)
    for index, (part, size) in enumerate([("train", 12), ("test", 3)]):
        folder, rng = tmp_path / "letters" / part, np.random.default_rng([2, index])
        rows = list(csv.DictReader((folder / "counts.csv").read_text().splitlines()))
        assert len(rows) == size == len(list(folder.glob("*.jpg")))
        for row in rows:
            picture, count = draw_letters(rng)
            assert int(row["count"]) == count
            assert (np.asarray(picture).max(axis=2) < 130).any() == (count > 0)  # dark on light
            read = np.asarray(Image.open(folder / row["image"]), float)
            assert np.abs(read - picture).mean() < 6  # as JPEG has it
    with pytest.raises(DataError, match="letters"):
        write_letters(tmp_path / "letters", (5, 3), seed=2)
    assert [entry.name for entry in tmp_path.iterdir()] == ["letters"]
