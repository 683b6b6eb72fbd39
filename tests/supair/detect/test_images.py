"""Images read from files, and made into scenes."""

import io
import json
import zipfile

import h5py
import numpy as np
import pytest
import tiny
from PIL import Image

from supair.config import ConfigError
from supair.detect.images import Images, Levels, Preparation, luminance, read_images

SQUARES = tiny.scenes(60)


def as_folder(path, size=2):
    path.mkdir()
    for number, image in enumerate(SQUARES.images[:size]):
        Image.fromarray(image).save(path / f"{number:03d}.png")
    return path


def arrays(**content):
    return lambda path: (np.savez_compressed if len(content) > 1 else np.savez)(path, **content)


def hdf5(images=None, counts=(), name="images", virtual=False, **form):
    def save(path):
        with h5py.File(path, "w") as file:
            if virtual:
                file.create_virtual_dataset(name, h5py.VirtualLayout((2, 4, 4), "u1"))
            else:
                shape = (2, 4, 4) if images is None else None
                file.create_dataset(name, shape, "u1", images, **form)
                file["num_actual_objects"] = np.reshape(counts, [-1, 1])

    return save


GREY, COUNTS = SQUARES.images, SQUARES.counts
FILES = {  # how the squares are written, and what is told
    "one.npy": (lambda path: np.save(path, GREY), {}),
    "bool.npz": (arrays(arr_0=GREY > 0), {}),
    "16_bits.npz": (arrays(data=GREY.astype(">u2") * 257), {}),
    "rounding.npz": (arrays(x=GREY[..., None] / 254.9999, count=COUNTS[:, None]), {}),
    "whole floats.npz": (arrays(pixels=GREY, c=1.0 * COUNTS), {"counts": "c"}),
    "two.npz": (arrays(a=GREY, b=GREY), {"array": "b"}),
    "colour.hdf5": (
        hdf5(GREY[..., None].repeat(3, 3), COUNTS, "image", chunks=(10, 12, 12, 3), compression=1),
        {},
    ),
}


@pytest.mark.parametrize("name", FILES)
def test_arrays_are_found_and_read_in_any_form(name, tmp_path):
    save, told = FILES[name]
    save(tmp_path / name)
    images = read_images(tmp_path / name, **told)
    for number in (59, 0, 30):  # in any order
        expected = SQUARES.images[number] / 255
        np.testing.assert_allclose(luminance(images.pictures[number]), expected, atol=1e-6)
    if images.counts is not None:
        np.testing.assert_array_equal(images.counts, SQUARES.counts)
    assert (images.counts is None) == (name in ("one.npy", "bool.npz", "16_bits.npz", "two.npz"))


def test_a_folder_with_counts_or_boxes(tmp_path, capsys):
    folder = as_folder(tmp_path / "folder", 60)
    (folder / "notes.txt").touch()
    images = read_images(folder)
    assert images.names[:2] == ["000.png", "001.png"] and images.counts is None
    assert "notes.txt" in capsys.readouterr().err
    np.testing.assert_array_equal(list(images.pictures), SQUARES.images)
    boxes = [(f"{n:03d}.png", *SQUARES.boxes[n, 0]) for n in np.flatnonzero(SQUARES.counts)]
    coco = {
        "images": [{"id": n, "file_name": f"in/{n:03d}.png"} for n in range(60)],
        "annotations": [
            {"image_id": int(name[:3]), "bbox": [*map(float, box)]} for name, *box in boxes
        ],
    }
    (folder / "coco.json").write_text(json.dumps(coco))
    from_coco = read_images(folder)
    (folder / "coco.json").unlink()
    rows = ["image,left,top,width,height", *(",".join(map(str, row)) for row in boxes)]
    (folder / "boxes.csv").write_text("\n".join(rows))
    for images in (from_coco, read_images(folder)):
        np.testing.assert_array_equal(images.counts, SQUARES.counts)
        np.testing.assert_array_equal(np.concatenate(images.boxes), [box for _, *box in boxes])
    # In another order, and with a byte order mark as spreadsheets write it.
    rows = [f"{n:03d}.png,{count + 1}.0\n" for n, count in enumerate(SQUARES.counts)]
    (folder / "counts.csv").write_text("\ufeffimage,count\n" + "".join(rows[::-1]))
    np.testing.assert_array_equal(read_images(folder).counts, SQUARES.counts + 1)


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
    (tmp_path / "folder.png").mkdir()
    pages = [Image.new("L", (6, 4), level) for level in (10, 20)]
    pages[0].save(tmp_path / "two.tif", save_all=True, append_images=pages[1:])
    expected |= {"two.tif#0": (None, 10 / 255), "two.tif#1": (None, 20 / 255)}
    images = read_images(tmp_path)
    assert images.names == sorted(expected)
    for name, picture in zip(images.names, images.pictures):
        assert picture.shape[:2] == (4, 6)
        assert luminance(picture).mean() == pytest.approx(expected[name][1], abs=3e-3), name
    alone = read_images(tmp_path / "colour.png")
    np.testing.assert_array_equal(alone.pictures[0], colour)


def counts(text):
    return lambda path: (as_folder(path) / "counts.csv").write_text("image,count\n" + text)


def claim(shape, zeros):
    """An .npz file whose array has another shape than its content, of some zeros."""

    def save(path):
        header, content = io.BytesIO(), {"descr": "|u1", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(header, content)
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("images.npy", header.getvalue() + bytes(zeros))

    return save


BAD = {  # how it is made, and what is named beside the path
    "empty": (lambda path: path.mkdir(), ""),
    "no image": (lambda path: (as_folder(path) / "003.png").write_bytes(b"\x89PNG"), "003.png"),
    "no number": (counts("000.png,1\n001.png,x\n"), "counts.csv"),
    "negative": (counts("000.png,1\n001.png,-1\n"), "counts.csv"),
    "not all": (counts("000.png,1\n"), "counts.csv"),
    "twice": (counts("000.png,1\n000.png,1\n001.png,0\n"), "counts.csv"),
    "missing.npz": (lambda path: None, ""),
    "nan.tif": (
        lambda path: Image.fromarray(np.full([4, 4], np.float32(np.nan))).save(path),
        "nan",
    ),
    "cut_off.npz": (lambda path: path.write_bytes(b"PK\x03\x04"), ""),
    "cut_off.h5": (lambda path: path.write_bytes(b"\x89HDF\r\n\x1a\n"), ""),
    "name.npz": (arrays(a=np.zeros([2, 4, 4]), b=np.zeros([2, 4, 4])), "--array.*a .*b "),
    "channels.npz": (arrays(images=np.zeros([2, 4, 4, 4])), r"\[2, 4, 4, 4\]"),
    "nan.npz": (arrays(images=np.full([2, 4, 4], np.nan)), "nan"),
    "counts.npz": (arrays(images=np.zeros([2, 4, 4]), counts=np.zeros(1, int)), "counts"),
    "columns.npz": (arrays(images=np.asfortranarray(GREY)), "order"),
    "pickles.npz": (arrays(images=np.array([None, "x"])), ""),
    "claim.npz": (claim((10**5, 100, 1000), 100), "images"),
    "zeros.npz": (claim((2, 10**4, 10**5), 10**7), "images"),
    "short.npz": (claim((2, 100, 100), 10**4), ""),
    "outside.h5": (hdf5(external=[("/etc/passwd", 0, 32)]), "external"),
    "virtual.h5": (hdf5(virtual=True), "virtual"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_read_is_refused_by_name(name, tmp_path):
    make, named = BAD[name]
    make(tmp_path / name)
    with pytest.raises(ConfigError, match=f"{name}.*{named}"):
        list(read_images(tmp_path / name).pictures)


def images_of(pictures):
    return Images([*map(str, range(len(pictures)))], pictures)


@pytest.mark.parametrize(
    "ground, contrast, levels",
    [(0.0, 1.0, Levels()), (0.6, -0.2, Levels(0.4, 0.6, True)), (0, 0.01, Levels(0, 0.01))],
)
def test_levels_are_stretched_and_objects_made_bright(ground, contrast, levels):
    images = images_of(ground + contrast * SQUARES.read(0, 60))
    preparation, _ = Preparation(12).adapted(images, trained=False)
    assert preparation == Preparation(12, **levels._asdict())
    scenes = [scene for scene, _ in preparation.scenes(images)]
    np.testing.assert_array_equal(scenes, SQUARES.images)


def test_other_levels_than_the_trainings_are_said_and_replaced():
    bright = SQUARES.read(0, 60)
    odd = np.arange(60)[:, None, None] % 10 == 3
    sets = {
        "as they were": bright,
        "dim 16 bits": np.uint16(100 + 800 * bright),
        "inverted": 1 - bright,
        "grey ground": np.uint8(100 + 100 * bright),
        "some inverted": np.where(odd, 1 - bright, bright),
        "some dim": np.where(odd, 0.1 * bright, bright),
    }
    for name, pictures in sets.items():
        preparation, said = Preparation(12).adapted(images_of(pictures))
        scenes = [scene for scene, _ in preparation.scenes(images_of(pictures))]
        np.testing.assert_allclose(scenes, SQUARES.images, atol=1, err_msg=name)
        assert bool(said) == (name != "as they were"), name
        unchanged, said = Preparation(12).adapted(images_of(pictures), "trained")
        assert unchanged == Preparation(12) and not said


def test_nothing_is_not_stretched_into_noise():
    noise = np.random.default_rng(0).normal(0.3, 0.01, [5, 12, 12])
    for pictures in (noise, np.full([5, 12, 12], 0.5), np.uint16(300 + (noise > 0.31))):
        with pytest.raises(ConfigError, match="contrast"):
            Preparation(12).adapted(images_of(pictures), trained=False)
        for levels in ("auto", "picture"):
            preparation, _ = Preparation(12).adapted(images_of(pictures), levels)
            assert not any(scene.any() for scene, _ in preparation.scenes(images_of(pictures)))


def test_tiles_of_images_that_are_resized_lie_where_they_were_taken():
    picture = np.zeros([120, 180], np.float32)
    picture[40:80, 100:160] = 1
    preparation = Preparation(20, "tile", overlap=12, zoom=0.25)
    images = images_of([picture])
    assert preparation.adapted(images) == (preparation, [])
    found = preparation.scenes(images)
    for scene, (_, window) in found:
        if (scene[0] == 0).all() and (scene[-1] == 0).all() and scene.max() == 255:
            rows, columns = (np.flatnonzero(scene.max(axis) > 127) for axis in (1, 0))
            box = [columns[0], rows[0], len(columns), len(rows)]
            left, top, width, height = window.to_image([box])[0]
            assert (top, height) == (40, 40) and 100 <= left and left + width <= 160
            assert window.size == (180, 120)
            return
    raise AssertionError("no tile with the square's whole height")
