"""The size that a file's header tells."""

import cv2
import pytest
from colour_detector import jpeg, picture

from runtime.picture_size import picture_size

IMAGE = picture(37, 23)


def file_of(suffix, *options):
    return cv2.imencode(suffix, IMAGE, list(options))[1].tobytes()


@pytest.mark.parametrize(
    "data",
    [
        file_of(".png"),
        file_of(".jpg"),
        file_of(".jpg", cv2.IMWRITE_JPEG_PROGRESSIVE, 1),
        file_of(".bmp"),
        file_of(".webp", cv2.IMWRITE_WEBP_QUALITY, 80),
        file_of(".webp", cv2.IMWRITE_WEBP_QUALITY, 101),
        file_of(".gif"),
        file_of(".tiff"),
        file_of(".avif"),
    ],
    ids=["png", "jpeg", "progressive", "bmp", "webp", "lossless", "gif", "tiff", "avif"],
)
def test_the_header_tells_the_size_and_a_short_file_does_not_harm(data):
    assert picture_size(data) == (37, 23)
    for length in range(min(len(data), 700)):
        assert picture_size(data[:length]) in (None, (37, 23))


def test_a_thumbnail_in_exif_is_not_the_picture():
    inner = jpeg(picture(8, 8))
    segment = b"\xff\xe1" + (len(inner) + 8).to_bytes(2, "big") + b"Exif\0\0" + inner
    data = jpeg(IMAGE)
    assert picture_size(data[:2] + segment + data[2:]) == (37, 23)


def test_an_extended_webp_tells_its_canvas():
    head = b"RIFF\0\0\0\0WEBPVP8X\x0a\0\0\0\0\0\0\0" + (299).to_bytes(3, "little")
    assert picture_size(head + (199).to_bytes(3, "little")) == (300, 200)


@pytest.mark.parametrize(
    "data", [b"", b"<svg>", b"II*\0", b"GIF8", b"P5 3 4 255 ", b"\0\0\0\x0cftyp"]
)
def test_others_are_none(data):
    assert picture_size(data) is None
