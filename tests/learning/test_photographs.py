from __future__ import annotations

import struct

import cv2
import numpy as np
import pytest

import runtime.images
from zsd_core.errors import DataError, ImageError
from zsd_core.learning.data.dataset import image_record
from zsd_core.learning.data.photographs import read_image, read_photograph


def record(path, width=4, height=2):
    return image_record(
        where="test", path=path, id=1, width=width, height=height, boxes=[], labels=[]
    )


@pytest.fixture
def png(tmp_path):
    pixels = np.zeros((2, 4, 3), np.uint8)
    pixels[..., 0] = 200  # red, in RGB
    cv2.imwrite(str(tmp_path / "a.png"), pixels[..., ::-1])
    return tmp_path / "a.png"


def test_image_is_rgb(png):
    image = read_image(record(png))
    assert image.shape == (2, 4, 3) and image.dtype == np.uint8
    assert image[0, 0].tolist() == [200, 0, 0]


def test_grey_image_has_three_channels(tmp_path):
    cv2.imwrite(str(tmp_path / "grey.png"), np.full((2, 4), 7, np.uint8))
    assert (read_image(record(tmp_path / "grey.png")) == 7).all()


def turned(path, pixels, orientation=6):
    """A JPEG that asks for a turn: by default a quarter, clockwise."""
    stored = cv2.imencode(".jpg", pixels)[1].tobytes()
    tag = struct.pack(">HHIHH", 0x0112, 3, 1, orientation, 0)
    exif = b"Exif\x00\x00MM\x00*\x00\x00\x00\x08\x00\x01" + tag + bytes(4)
    length = (len(exif) + 2).to_bytes(2, "big")
    path.write_bytes(stored[:2] + b"\xff\xe1" + length + exif + stored[2:])
    return path


def test_boxes_count_pixels_of_the_upright_picture(tmp_path):
    """So people label, whose tools turn a photograph before they show it."""
    white_left = np.zeros((16, 32, 3), np.uint8)
    white_left[:, :16] = 255
    path = turned(tmp_path / "turned.jpg", white_left)
    image = read_image(record(path, 16, 32))
    assert image[:12].min() > 200  # above, once it is turned
    assert image[20:].max() < 50
    with pytest.raises(
        DataError,
        match=r"turned\.jpg is 16 x 32 pixels once it is turned upright.* annotated as 32 x 16\. "
        r"Boxes must count pixels of the upright .*exiftool -Orientation= .* export the annotation",
    ):
        read_image(record(path, 32, 16))
    with pytest.raises(DataError, match="has 16 x 32 pixels, but is annotated as 8 x 4"):
        read_image(record(path, 8, 4))


@pytest.mark.parametrize("orientation", [3, 6])
def test_a_square_photograph_is_turned_too(tmp_path, orientation):
    white_left = np.zeros((32, 32, 3), np.uint8)
    white_left[:, :16] = 255
    image = read_image(record(turned(tmp_path / "x.jpg", white_left, orientation), 32, 32))
    expected = np.rot90(white_left, 2 if orientation == 3 else -1)
    assert abs(image.astype(int) - expected).mean() < 5


@pytest.mark.parametrize("suffix", [".png", ".tiff", ".pgm", ".jp2"])
def test_training_sees_what_the_detector_sees(tmp_path, suffix):
    """12 bits in 16 were nearly black."""
    ramp = np.linspace(0, 4095, 40 * 64).reshape(40, 64).round().astype(np.uint16)
    path = tmp_path / f"x{suffix}"
    path.write_bytes(cv2.imencode(suffix, ramp)[1].tobytes())
    image = read_photograph(path)
    np.testing.assert_array_equal(image, runtime.images.read_image(path, "rgb"))
    np.testing.assert_allclose(image[..., 0], ramp * (255 / 4095), atol=1)


def test_size_that_is_not_the_annotated_one_is_an_error(png):
    with pytest.raises(DataError, match="4 x 2 pixels, but is annotated as 8 x 4"):
        read_image(record(png, 8, 4))


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("a.jpg", b"no image", "a.jpg: is damaged or not an image"),
        ("none.jpg", None, "none.jpg: cannot be read: No such file"),
        ("cut.jpg", "a quarter", "cut.jpg: the JPEG ends early"),
        ("cut.png", "a quarter", "cut.png: the PNG ends early or is damaged"),
        (
            "huge.png",
            "huge",
            r"huge.png: has 60000 x 60000 pixels, more than 200,000,000.*with its boxes",
        ),
    ],
)
def test_unreadable_file_is_an_error(tmp_path, photo, name, data, message):
    path = tmp_path / name
    if isinstance(data, str):
        whole = cv2.imencode(path.suffix, photo)[1].tobytes()
        size = struct.pack(">II", 60_000, 60_000)
        data = whole[: len(whole) // 4] if data == "a quarter" else whole[:16] + size + whole[24:]
    if data is not None:
        path.write_bytes(data)
    with pytest.raises(ImageError, match=message):
        read_image(record(path, photo.shape[1], photo.shape[0]))
