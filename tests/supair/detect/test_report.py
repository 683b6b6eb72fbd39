"""What was found in images, as files."""

import csv
import json
import os
from pathlib import Path

import numpy as np
import pytest
import tiny
from PIL import Image

from supair.config import ConfigError
from supair.detect.images import Images
from supair.detect.report import check_output, draw_boxes, write_results
from supair.detect.results import Detection, Doubt

SQUARES = tiny.scenes(60)
IMAGES = Images([f"{n}.jpg" for n in range(60)], SQUARES.images, None)
FOUND = [
    Detection(box[:n], np.full(n, 0.9), np.full(n, -1.25), np.zeros(n), 0.5, 0, 0, False, (12, 9))
    for n, box in zip(SQUARES.counts, SQUARES.boxes)
]


def rows_of(path):
    return list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))


def test_results_are_what_was_found(tmp_path):
    out, true = tmp_path / "ö [1]", SQUARES.boxes[SQUARES.counts > 0, 0]
    write_results(out, IMAGES, FOUND, [Doubt("odd", [3])], overlays=40)
    rows = rows_of(out / "counts.csv")
    counts = [(row["image"], int(row["count"]), row["warning"]) for row in rows]
    assert counts == list(zip(IMAGES.names, SQUARES.counts, 3 * [""] + ["odd"] + 56 * [""]))
    keys = ("left", "top", "width", "height", "score", "log_ratio")
    boxes = [[float(row[key]) for key in keys] for row in rows_of(out / "boxes.csv")]
    np.testing.assert_array_equal(boxes, np.hstack([true, np.tile([0.9, -1.25], [len(true), 1])]))
    content = json.loads((out / "boxes.json").read_text(encoding="utf-8"))
    assert content["info"]["warnings"] == ["3.jpg: odd"] and content["images"][9]["height"] == 9
    coco = [(entry["image_id"], entry["bbox"]) for entry in content["annotations"]]
    assert coco == list(zip(np.flatnonzero(SQUARES.counts), true.tolist()))
    page = (out / "index.html").read_text(encoding="utf-8")
    assert page.count("<img") == len(os.listdir(out / "overlays")) == 40 and "3.jpg: odd" in page
    write_results(out, IMAGES, FOUND[:2])
    assert Image.open(out / "contact_sheet.png").size == (328, 164)  # cropped to two


def test_names_run_no_formula_and_no_script(tmp_path):
    names = ["=1+1", "-a", "@b", "+é", "<script>x</script>", "a/../b", "d" * 300, "-"]
    write_results(tmp_path, Images(names, SQUARES.images[:8], None), FOUND[:8])
    written = [row["image"] for row in rows_of(tmp_path / "counts.csv")]
    assert written == ["'=1+1", "'-a", "'@b", "'+é", *names[4:7], "'-"]
    assert "<script" not in (tmp_path / "index.html").read_text(encoding="utf-8")
    assert len(os.listdir(tmp_path / "overlays")) == 8


def test_only_a_results_own_files_are_replaced(tmp_path):
    out = tmp_path / "out"
    write_results(out, IMAGES, FOUND[:20])
    os.makedirs(out / ".supair-partial.left")  # as by a process that was killed
    write_results(out, IMAGES, FOUND[:8])
    assert len(os.listdir(out / "overlays")) == 8 and not list(out.glob(".*"))
    for images in (out, out / "overlays", out / "contact_sheet.png"):
        with pytest.raises(ConfigError, match="--output"):
            check_output(out, images)
    for path in (out / "mine.txt", out / "overlays" / "00099_mine.png", out / "overlays" / "link"):
        path.symlink_to(tmp_path) if path.name == "link" else path.write_text("mine")
        with pytest.raises(ConfigError, match=path.name):
            write_results(out, IMAGES, FOUND[:8])
        path.unlink()
    with pytest.raises(ConfigError, match="--output"):
        check_output(Path("/dev/null"))


@pytest.mark.parametrize("white", [1.0, 0.06])
def test_boxes_are_outlined_in_a_stretched_picture(white):
    picture = np.zeros([10, 12], np.float32)
    picture[9, 11] = white
    drawn = np.asarray(draw_boxes(picture, np.array([[2.0, 3.0, 4.0, 5.0]]), ["red"]))
    assert drawn.shape == (250, 300, 3) and drawn[-1, -1].tolist() == [255] * 3
    rows, columns = np.nonzero((drawn == [255, 0, 0]).all(axis=2))
    assert (min(rows), max(rows), min(columns), max(columns)) == (75, 199, 50, 149)
