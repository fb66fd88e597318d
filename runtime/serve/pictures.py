"""Pictures that come over the wire: how large, before they are decoded, and then decoded."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from runtime.images import decode_image
from runtime.serve.errors import RequestError
from zsd_core.pictures.size import picture_size

__all__ = ["decode", "encode"]

Image = NDArray[np.uint8]
FORMATS = "JPEG, PNG, WebP or BMP"
HEADS = (b"\xff\xd8", b"\x89PNG", b"RIFF", b"BM")


def decode(data: bytes, most_pixels: int) -> Image:
    """Decode the body of a request, upright as its EXIF says.

    Args:
        data: a JPEG, PNG, WebP or BMP file.
        most_pixels: largest width times height.

    Returns:
        ``(H, W, 3)`` uint8 BGR.

    Raises:
        RequestError: the body is no such file (415) or has too many pixels (413).
        ImageError: the picture is damaged, or has more pixels than its header says.
    """
    size = picture_size(data) if data.startswith(HEADS) else None
    if size is None:
        what = "is empty" if not data else f"is no {FORMATS} file"
        raise RequestError(415, f"the body {what}; send the bytes of one picture, {FORMATS}.")
    width, height = size
    if width * height > most_pixels:
        raise RequestError(
            413,
            f"the picture has {width} x {height} pixels, at most {most_pixels:,} are searched; "
            "send a smaller one.",
        )
    return decode_image(data, "bgr", "the picture", most_pixels)


def encode(image: Image, suffix: str = ".jpg", quality: int = 88) -> bytes:
    """A BGR image as the bytes of a JPEG or PNG file.

    Raises:
        RequestError: the image is too wide or too high for its format (406).
    """
    import cv2

    options = [cv2.IMWRITE_JPEG_QUALITY, quality] if suffix == ".jpg" else []
    try:
        done, data = cv2.imencode(suffix, image, options)
    except cv2.error:
        done = False
    if not done:
        raise RequestError(
            406,
            f"a picture of {image.shape[1]} x {image.shape[0]} pixels cannot be written as "
            f"{suffix[1:].upper()}; ask for application/json.",
        )
    return bytes(data)
