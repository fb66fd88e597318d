from __future__ import annotations

import struct

import cv2
import numpy as np
import pytest

from zsd_core.errors import DataError, ImageError
from zsd_core.learning.data.dataset import image_record
from zsd_core.learning.data.photographs import read_image


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


def test_exif_rotation_is_not_applied(tmp_path):
    """Boxes are in stored pixels; turned by the EXIF flag the image would not fit them."""
    path = tmp_path / "turned.jpg"
    stored = cv2.imencode(".jpg", np.zeros((2, 4, 3), np.uint8))[1].tobytes()
    orientation = b"\x01\x12\x00\x03\x00\x00\x00\x01\x00\x06\x00\x00"  # a quarter turn
    exif = b"Exif\x00\x00MM\x00*\x00\x00\x00\x08\x00\x01" + orientation + bytes(4)
    length = (len(exif) + 2).to_bytes(2, "big")
    path.write_bytes(stored[:2] + b"\xff\xe1" + length + exif + stored[2:])
    assert cv2.imread(str(path)).shape[:2] == (4, 2)  # the flag is understood
    assert read_image(record(path)).shape[:2] == (2, 4)


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
