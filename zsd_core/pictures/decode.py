"""Decode an image file once its header has said how large it becomes."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zsd_core.errors import ImageError
from zsd_core.pictures.avif import is_avif, is_sequence
from zsd_core.pictures.jpeg import jpeg_is_whole
from zsd_core.pictures.png import png_is_whole
from zsd_core.pictures.size import FORMATS, largest_part, picture_size, tells_size

__all__ = ["MAX_PIXELS", "check_size", "decode_pixels", "file_bytes"]

MAX_PIXELS = 200_000_000  # of a file, by default: 600 MB once decoded
CURE = "Make it smaller, or allow more: Detector(max_pixels=...), --max-pixels."
HEIC = tuple(b"ftyp" + brand for brand in (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx"))
FLOATS = (b"PF", b"Pf", b"#?RADIANCE", b"#?RGBE", b"v/1\x01")  # PFM, Radiance HDR, OpenEXR


def file_bytes(path: str | os.PathLike[str]) -> bytes:
    """Read a whole file.

    Raises:
        ImageError: it cannot be read.
    """
    try:
        return Path(path).read_bytes()
    except (OSError, ValueError) as error:  # ValueError: no name of a file
        reason = getattr(error, "strerror", None) or error
        raise ImageError(f"{path}: cannot be read: {reason}.") from error


def check_size(
    size: tuple[int, int], max_pixels: int, where: str, what: str = "", cure: str = CURE
) -> None:
    """Refuse what is too large.

    Args:
        size: width and height.
        max_pixels: largest width times height.
        where: what to call the file in the message.
        what: which part of it is so large, such as " in a tile"; nothing means the picture.
        cure: what to do, in a sentence.

    Raises:
        ImageError: it has more pixels.
    """
    if size[0] * size[1] > max_pixels:
        raise ImageError(
            f"{where}: has {size[0]} x {size[1]} pixels{what}, more than {max_pixels:,}, the most "
            f"that are read. {cure}"
        )


def decode_pixels(
    data: bytes, flags: int, where: str, max_pixels: int = MAX_PIXELS, cure: str = CURE
) -> NDArray[Any]:
    """Decode the bytes of an image file with OpenCV, after its size is checked.

    Args:
        data: the whole file.
        flags: of ``cv2.imdecode``; the picture keeps its size with them.
        where: what to call the file in a message.
        max_pixels: largest width times height, asked of the header before anything is decoded,
            and of all that is decoded whole on the way, such as a tile.
        cure: what to do with a picture that is too large, in a sentence.

    Raises:
        ImageError: the file is empty, damaged, too large, or of no format whose header is read.
    """
    import cv2

    if not data:
        raise ImageError(f"{where}: the file is empty.")
    if data[:2] == b"\xff\xd8" and not jpeg_is_whole(data):
        raise ImageError(f"{where}: the JPEG ends early; copy or save it again.")
    if data[:4] == b"\x89PNG" and not png_is_whole(data):
        raise ImageError(f"{where}: the PNG ends early or is damaged; copy or save it again.")
    size, part = picture_size(data), largest_part(data)
    if size is None or part is None:
        raise ImageError(f"{where}: {_unread(data)}")
    check_size(size, max_pixels, where, cure=cure)
    check_size(part, max_pixels, where, " in one of its parts", cure)
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error as error:
        raise ImageError(f"{where}: cannot be decoded: {error.err or error}.") from error
    if image is None:
        raise ImageError(f"{where}: is damaged, or of a kind of {FORMATS} that OpenCV cannot read.")
    if sorted(image.shape[:2]) != sorted(size):  # it may have been turned
        raise ImageError(
            f"{where}: is damaged: its header says {size[0]} x {size[1]} pixels, but it decodes to "
            f"{image.shape[1]} x {image.shape[0]}."
        )
    return np.asarray(image)


def _unread(data: bytes) -> str:
    if is_avif(data) and is_sequence(data):
        return "is an AVIF sequence; save one of its pictures, or pass it as a video."
    if data[4:12] in HEIC:
        return "is a HEIC picture, which is not read; save it as JPEG."
    if tells_size(data):
        return (
            "is damaged or ends early: it does not say clearly how large the picture is; copy or "
            "save it again."
        )
    if data.startswith(FLOATS):
        return (
            "holds numbers of type float32, and nothing says what white is; scale them to 0 to 255 "
            "and save the picture with 8 bits a channel."
        )
    return f"is damaged or not an image of a format that is read: {FORMATS}."
