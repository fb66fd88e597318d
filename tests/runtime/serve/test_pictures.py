"""Bodies of requests as pictures, and pictures as bodies of answers."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from colour_detector import jpeg, picture, png

from runtime.serve.errors import RequestError
from runtime.serve.pictures import decode, encode

IMAGE = picture(37, 23)


def file_of(suffix, *options):
    return cv2.imencode(suffix, IMAGE, list(options))[1].tobytes()


@pytest.mark.parametrize("data", [b"", b"GIF89a", b"<svg>", b"II*\0", file_of(".tiff")])
def test_other_formats_are_refused(data):
    with pytest.raises(RequestError, match=r"JPEG, PNG, WebP or BMP"):
        decode(data, 1000)


def test_decoding_turns_as_exif_says():
    exif = (
        b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"  # orientation 6
    )
    data = jpeg(IMAGE)
    turned = data[:2] + b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif + data[2:]
    assert decode(data, 10_000).shape == (23, 37, 3)
    assert decode(turned, 10_000).shape == (37, 23, 3)


def test_a_picture_too_wide_for_its_format_is_refused():
    assert cv2.imdecode(np.frombuffer(encode(IMAGE, ".png"), np.uint8), 1).shape == IMAGE.shape
    with pytest.raises(RequestError, match=r"70000 x 1 .* JPG"):
        encode(np.zeros((1, 70_000, 3), np.uint8), ".jpg")
    assert png(IMAGE)
