"""Images read from files, and made into scenes."""

import h5py
import numpy as np
import pytest
import tiny
from PIL import Image

import data
from supair.config import ConfigError
from supair.detect.images import Images, Preparation, luminance, read_images, suggest_variances

SQUARES = tiny.scenes(60)


def as_folder(path, size=2):
    path.mkdir()
    for number, image in enumerate(SQUARES.images[:size]):
        Image.fromarray(image).save(path / f"{number:03d}.png")
    return path


def test_every_kind_of_file_gives_the_same_images(tmp_path):
    folder = as_folder(tmp_path / "folder", 60)
    np.savez(tmp_path / "a.npz", images=SQUARES.read(0, 60), counts=SQUARES.counts)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["part/images"], file["part/counts"] = SQUARES.images // 255, SQUARES.counts
        file["part"].attrs["white"] = 1  # as data/ writes Sprites
    in_folder, in_npz = read_images(folder), read_images(tmp_path / "a.npz")
    in_hdf5 = read_images(tmp_path / "a.h5", "part/images")
    for images in (in_folder, in_npz, in_hdf5):
        levels = [luminance(picture) for picture in images.pictures]
        np.testing.assert_allclose(levels, SQUARES.images / 255, atol=1e-6)
    assert in_folder.names[:2] == ["000.png", "001.png"] and in_npz.names[:2] == ["0", "1"]
    assert in_folder.counts is None
    rows = [f"{n:03d}.png,{count}\n" for n, count in enumerate(SQUARES.counts)]
    # In another order, and with a byte order mark as spreadsheets write it.
    (folder / "counts.csv").write_text("\ufeffimage,count\n" + "".join(rows[::-1]))
    for images in (read_images(folder), in_npz, in_hdf5):
        np.testing.assert_array_equal(images.counts, SQUARES.counts)


def test_kinds_of_pixels(tmp_path):
    """Also transparent black on white, and a photograph on its side."""
    colour = np.zeros([4, 6, 3], np.uint8)
    colour[..., 1] = 255
    sideways = Image.fromarray(colour.swapaxes(0, 1))
    sideways.getexif()[274] = 6
    expected = {
        "colour.png": (Image.fromarray(colour), 0.587),
        "16 bits.png": (Image.fromarray(np.full([4, 6], 32768, np.uint16)), 0.5),
        "palette.png": (Image.fromarray(colour).convert("P"), 0.587),
        "one bit.png": (Image.fromarray(colour[..., 1]).convert("1"), 1.0),
        "clear.png": (Image.new("RGBA", (6, 4), (0, 0, 0, 102)), 0.6),
        "sideways.JPG": (sideways, 0.587),
    }
    for name, (image, _) in expected.items():
        image.save(tmp_path / name, exif=image.getexif())
    (tmp_path / "._colour.png").write_bytes(b"of the system")
    (tmp_path / "folder.png").mkdir()
    images = read_images(tmp_path)
    assert images.names == sorted(expected)
    for name, picture in zip(images.names, images.pictures):
        assert picture.shape[:2] == (4, 6)
        assert luminance(picture).mean() == pytest.approx(expected[name][1], abs=3e-3), name


def arrays(**content):
    return lambda path: np.savez(path, **content)


def counts(text):
    return lambda path: (as_folder(path) / "counts.csv").write_text("image,count\n" + text)


BAD = {  # how it is made, and what is named beside the path
    "empty": (lambda path: path.mkdir(), ""),
    "no image": (lambda path: (as_folder(path) / "003.png").write_bytes(b"\x89PNG"), "003.png"),
    "no number": (counts("000.png,1\n001.png,x\n"), "counts.csv"),
    "negative": (counts("000.png,1\n001.png,-1\n"), "counts.csv"),
    "not all": (counts("000.png,1\n"), "counts.csv"),
    "twice": (counts("000.png,1\n000.png,1\n001.png,0\n"), "counts.csv"),
    "missing.npz": (lambda path: None, ""),
    "cut_off.npz": (lambda path: path.write_bytes(b"PK\x03\x04"), ""),
    "cut_off.h5": (lambda path: path.write_bytes(b"\x89HDF\r\n\x1a\n"), ""),
    "name.npz": (arrays(pictures=np.zeros([2, 4, 4])), "pictures"),
    "channels.npz": (arrays(images=np.zeros([2, 4, 4, 4])), r"\(2, 4, 4, 4\)"),
    "integers.npz": (arrays(images=np.zeros([2, 4, 4], int)), "int64"),
    "bright.npz": (arrays(images=np.full([2, 4, 4], 2.0)), "2.0"),
    "nan.npz": (arrays(images=np.full([2, 4, 4], np.nan)), "nan"),
    "counts.npz": (arrays(images=np.zeros([2, 4, 4]), counts=np.zeros(1, int)), "counts"),
    "pickles.npz": (arrays(images=np.array([None, "x"])), ""),
}


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_read_is_refused_by_name(name, tmp_path):
    make, named = BAD[name]
    make(tmp_path / name)
    with pytest.raises(ConfigError, match=f"{name}.*{named}"):
        read_images(tmp_path / name)


@pytest.mark.parametrize(
    "ground, contrast, preparation",
    [(0.0, 1.0, Preparation(12)), (0.6, -0.2, Preparation(12, None, 0, 0.4, 0.6, inverted=True))],
)
def test_levels_are_stretched_and_objects_made_bright(ground, contrast, preparation):
    images = Images(["a"] * 60, ground + contrast * SQUARES.read(0, 60), None)
    assert Preparation.suggest(images, 12, None, 0) == preparation
    np.testing.assert_array_equal(preparation.scenes(images)[0], SQUARES.images)


def test_images_without_contrast_are_refused():
    images = Images(list("abc"), np.full([3, 12, 12], 0.5), None)
    with pytest.raises(ConfigError, match="0.500"):
        Preparation.suggest(images, 12, None, 0)


def test_variances_are_the_papers_on_the_papers_scenes():
    def suggested(dataset):
        test = data.make(dataset, 0, (1, 50))["test"]
        return suggest_variances(np.round(test.images * (255 / test.white)).astype(np.uint8))

    assert suggested("multi_mnist")[:2] == ((0.12, 0.35), (0.002, 0.12))
    (low, high), (least, most), noise = suggested("noisy_mnist")
    assert (low, most) == pytest.approx((0.25, 0.06), abs=0.02)
    assert (high, least) == (0.35, 0.002) and 0.02 < noise < 0.03
