"""Images read from files, and made into scenes."""

import json

import h5py
import numpy as np
import pytest
import tiny
from PIL import Image

from supair.config import ConfigError
from supair.detect.images import Images, Levels, Preparation, luminance, read_images

SQUARES = tiny.scenes(60)
GREY, COUNTS = SQUARES.images, SQUARES.counts


def arrays(**content):
    return lambda path: np.savez(path, **content)


def as_folder(path, counts="", size=2, boxes=""):
    path.mkdir()
    if boxes:
        (path / "boxes.csv").write_text(f"image,left,top,width,height\n{boxes}")
    for number, image in enumerate(GREY[:size]):
        Image.fromarray(image).save(path / f"{number:03d}.png")
    if counts:
        (path / "counts.csv").write_text(f"image,count\n{counts}")


def hdf5(path, **form):
    with h5py.File(path, "w") as file:
        file.create_dataset("image", data=GREY[..., None].repeat(3, 3), compression=1, **form)
        file["num_actual_objects"] = COUNTS[:, None]


FILES = {  # how the squares are written, and what is told
    "one.npy": (lambda path: np.save(path, GREY), {}),
    "bool.npz": (arrays(arr_0=GREY > 0), {}),
    "16_bits.npz": (arrays(data=GREY.astype(">u2") * 257), {}),
    "rounding.npz": (arrays(x=GREY[..., None] / 254.9999, count=COUNTS[:, None]), {}),
    "whole floats.npz": (arrays(pixels=GREY, c=1.0 * COUNTS), {"counts": "c"}),
    "two.npz": (arrays(a=GREY, b=GREY), {"array": "b"}),
    "colour.hdf5": (lambda path: hdf5(path, chunks=(10, 12, 12, 3)), {}),
}


@pytest.mark.parametrize("name", FILES)
def test_arrays_are_found_and_read_in_any_form(name, tmp_path):
    save, told = FILES[name]
    save(tmp_path / name)
    images = read_images(tmp_path / name, **told)
    for number in (59, 0, 30):  # in any order
        levels = luminance(images.pictures[number])
        np.testing.assert_allclose(levels, GREY[number] / 255, atol=1e-6)
    counted = name in ("rounding.npz", "whole floats.npz", "colour.hdf5")
    np.testing.assert_equal(images.counts, COUNTS if counted else None)


def test_a_folder_with_counts_or_boxes(tmp_path, capsys):
    folder = tmp_path / "folder"
    as_folder(folder, size=60)
    (folder / "notes.txt").touch()
    (folder / "lines.json").write_text("{}\n{}")
    images = read_images(folder)
    assert images.names[:2] == ["000.png", "001.png"] and images.counts is None
    assert "lines.json, notes.txt" in capsys.readouterr().err
    np.testing.assert_array_equal(list(images.pictures), GREY)
    boxes = [(n, *map(float, SQUARES.boxes[n, 0])) for n in np.flatnonzero(COUNTS)]
    coco = {
        "images": [{"id": n, "file_name": f"in/{n:03d}.png"} for n in range(60)],
        "annotations": [{"image_id": int(n), "bbox": box} for n, *box in boxes],
    }
    rows = [f"{n:03d}.png,{','.join(map(str, box))}\n" for n, *box in boxes]
    table = "image,left,top,width,height\n" + "".join(rows)
    for name, text in (("coco.json", json.dumps(coco)), ("boxes.csv", table)):
        (folder / name).write_text(text)
        images = read_images(folder)
        (folder / name).unlink()
        np.testing.assert_array_equal(images.counts, COUNTS)
        np.testing.assert_array_equal(np.concatenate(images.boxes), [box for _, *box in boxes])
    # In another order, and with a byte order mark as spreadsheets write it.
    rows = [f"{n:03d}.png,{count + 1}.0\n" for n, count in enumerate(COUNTS)]
    (folder / "counts.csv").write_text("\ufeffimage,count\n" + "".join(rows[::-1]))
    np.testing.assert_array_equal(read_images(folder).counts, COUNTS + 1)


def test_kinds_of_pixels(tmp_path):
    """Also black and white on transparent, several pages, and a photograph on its side."""
    colour = np.zeros([4, 6, 3], np.uint8)
    colour[..., 1] = 255
    grey = np.full([4, 6], 32768, np.uint16)
    sideways = Image.fromarray(colour.swapaxes(0, 1))
    sideways.getexif()[274] = 6
    expected = {
        "colour.png": (Image.fromarray(colour), 0.587),
        "16 bits.png": (Image.fromarray(grey), 0.5),
        "16 bits.tif": (Image.fromarray(grey), 0.5),
        "float.tiff": (Image.fromarray(grey / np.float32(4)), 8192),
        "palette.png": (Image.fromarray(colour).convert("P"), 0.587),
        "one bit.png": (Image.fromarray(colour[..., 1]).convert("1"), 1.0),
        "ink.jpg": (Image.new("CMYK", (6, 4)), 1.0),
        "bitmap.bmp": (Image.fromarray(colour), 0.587),
        "web.webp": (Image.new("L", (6, 4), 255), 1.0),
        "clear.png": (Image.new("RGBA", (6, 4), (0, 0, 0, 102)), 0.6),
        "clear white.png": (Image.new("LA", (6, 4), (255, 102)), 0.4),
        "sideways.JPG": (sideways, 0.587),
    }
    for name, (image, _) in expected.items():
        image.save(tmp_path / name, exif=image.getexif())
    (tmp_path / "._colour.png").write_bytes(b"of the system")
    pages = [Image.new("L", (6, 4), level) for level in (10, 20)]
    for name in ("two.tif", "two.png", "two.webp"):
        pages[0].save(tmp_path / name, save_all=True, append_images=pages[1:], lossless=True)
        expected |= {f"{name}#0": (None, 10 / 255), f"{name}#1": (None, 20 / 255)}
    images = read_images(tmp_path)
    assert images.names == sorted(expected)
    for name, picture in zip(images.names, images.pictures):
        assert picture.shape[:2] == (4, 6)
        assert luminance(picture).mean() == pytest.approx(expected[name][1], abs=3e-3), name
    np.testing.assert_array_equal(read_images(tmp_path / "colour.png").pictures[0], colour)


def claim(path):
    """10 GB in a file without content."""
    header = {"descr": "|u1", "fortran_order": False, "shape": (10**5, 100, 1000)}
    with open(path, "wb") as file:
        np.lib.format.write_array_header_1_0(file, header)


def outside(path):
    with h5py.File(path, "w") as file:
        file.create_dataset("images", (2, 4, 4), "u1", external=[("/etc/passwd", 0, 32)])


FOUR = np.zeros([2, 4, 4])
BAD = {  # how it is made, and what is named beside the path
    "empty": (lambda path: path.mkdir(), ""),
    "no box": (lambda path: as_folder(path, boxes="000.png,1,2,nan,4\n"), "boxes.csv.*nan"),
    "two": (lambda p: as_folder(p, "000.png,1\n001.png,0\n", boxes="001.png,1,2,3,4\n"), "000"),
    "photograph.npy": (lambda path: np.save(path, np.zeros([60, 90, 3])), "or one"),
    "no number": (lambda path: as_folder(path, "000.png,1\n001.png,x\n"), "counts.csv"),
    "negative": (lambda path: as_folder(path, "000.png,1\n001.png,-1\n"), "counts.csv"),
    "twice": (lambda path: as_folder(path, "000.png,1\n000.png,1\n001.png,0\n"), "counts.csv"),
    "unknown": (lambda path: as_folder(path, "000.png,1\n001.png,1\nb.png,0\n"), "b.png"),
    "missing.npz": (lambda path: None, ""),
    "cut_off.png": (lambda path: path.write_bytes(b"\x89PNG"), ""),
    "signed.tif": (lambda path: Image.fromarray(GREY[0]).save(path, tiffinfo={339: 2}), "TIFF"),
    "cut_off.npz": (lambda path: path.write_bytes(b"PK\x03\x04"), ""),
    "cut_off.h5": (lambda path: path.write_bytes(b"\x89HDF\r\n\x1a\n"), ""),
    "name.npz": (arrays(a=FOUR, b=FOUR), "--array.*a .*b "),
    "channels.npz": (arrays(images=np.zeros([2, 4, 4, 4])), r"\[2, 4, 4, 4\]"),
    "nan.npz": (arrays(images=np.nan * FOUR), "nan"),
    "counts.npz": (arrays(images=FOUR, counts=np.zeros(1, int)), "counts"),
    "columns.npz": (arrays(images=np.asfortranarray(GREY)), "order"),
    "pickles.npz": (arrays(images=np.array([None, "x"])), ""),
    "claim.npy": (claim, "images"),
    "outside.h5": (outside, "external"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_read_is_refused_by_name(name, tmp_path):
    make, named = BAD[name]
    make(tmp_path / name)
    with pytest.raises(ConfigError, match=f"{name}.*{named}"):
        list(read_images(tmp_path / name).pictures)


def images_of(pictures):
    return Images([*map(str, range(len(pictures)))], pictures)


def test_levels_are_measured_before_training():
    images = images_of(0.6 - 0.2 * SQUARES.read(0, 60))
    preparation, _ = Preparation(12).adapted(images, trained=False)
    assert preparation == Preparation(12, **Levels(0.4, 0.6, True)._asdict())


BRIGHT, ODD = SQUARES.read(0, 60), np.arange(60)[:, None, None] % 10 == 3
SETS = {
    "as they were": BRIGHT,
    "dim 16 bits": np.uint16(100 + 800 * BRIGHT),
    "inverted": 1 - BRIGHT,
    "grey ground": np.uint8(100 + 100 * BRIGHT),
    "some inverted": np.where(ODD, 1 - BRIGHT, BRIGHT),
    "some dim": np.where(ODD, 0.1 * BRIGHT, BRIGHT),
}


@pytest.mark.parametrize("name", SETS)
def test_other_levels_than_the_trainings_are_said_and_replaced(name):
    images = images_of(SETS[name])
    preparation, said = Preparation(12).adapted(images)
    scenes = [scene for scene, _ in preparation.scenes(images)]
    np.testing.assert_allclose(scenes, GREY, atol=1)
    assert bool(said) == (name != "as they were")
    assert Preparation(12).adapted(images, "trained") == (Preparation(12), [])


def test_nothing_is_not_stretched_into_noise():
    noise = np.random.default_rng(0).normal(0.3, 0.01, [5, 12, 12])
    for pictures in (noise, np.full([5, 12, 12], 0.5), np.uint16(300 + (noise > 0.31))):
        with pytest.raises(ConfigError, match="contrast"):
            Preparation(12).adapted(images_of(pictures), trained=False)
        for levels in ("auto", "picture"):
            preparation, _ = Preparation(12).adapted(images_of(pictures), levels)
            assert not any(scene.any() for scene, _ in preparation.scenes(images_of(pictures)))
