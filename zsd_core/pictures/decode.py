"""Decode an image file once its header has said how large it becomes.

One rule for every entry, of the detector and of training: a picture is upright, as its EXIF says
(of an AVIF, its ``irot`` and ``imir``), and has 8 bits a channel. White is what the file says (the
``sBIT`` of a PNG, the maximum of a PNM, the depth of an AVIF or a TIFF). Where a channel has 16
bits and the file says nothing, white is the largest number of 10, 12, 14 or 16 bits, the least
that holds the brightest value. Numbers of any other type, such as float32, are an error, because
nothing says what white is. Alpha is ignored.
"""

from __future__ import annotations

import os
import stat
import struct
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from zsd_core.errors import ImageError
from zsd_core.pictures.avif import full_range, is_avif, upright
from zsd_core.pictures.jpeg import jpeg_is_whole
from zsd_core.pictures.png import png_is_whole
from zsd_core.pictures.size import FORMATS, largest_part, picture_size
from zsd_core.pictures.tiff import TIFF_HEADS, tiff_without_alpha
from zsd_core.pictures.white import declared_white, eight_bits

__all__ = ["MAX_PIXELS", "check_size", "decode_image", "decode_pixels", "file_bytes"]

MAX_PIXELS = 200_000_000  # of a file, by default: 600 MB once decoded
HANDED_OVER = ("/dev/stdin", "/dev/fd/", "/proc/self/fd/")  # pipes of a shell, as of <(...)
CURE = "Make it smaller, or allow more: Detector(max_pixels=...), --max-pixels."


def file_bytes(path: str | os.PathLike[str]) -> bytes:
    """Read a whole file.

    A pipe that nobody writes into, or a device, would keep its reader for ever: neither is read,
    but for what a shell hands over, ``/dev/stdin`` or ``<(...)``.

    Raises:
        ImageError: it cannot be read, or is no regular file.
    """
    try:
        kind = os.stat(path).st_mode
        handed_over = stat.S_ISFIFO(kind) and os.fspath(path).startswith(HANDED_OVER)
        if handed_over or stat.S_ISREG(kind):
            return Path(path).read_bytes()
    except (OSError, ValueError) as error:  # ValueError: no name of a file
        reason = getattr(error, "strerror", None) or error
        pattern = "*" in str(path)
        cure = f" For a pattern, pass glob.glob({str(path)!r})." if pattern else ""
        raise ImageError(f"{path}: cannot be read: {reason}.{cure}") from error
    raise ImageError(
        f"{path}: cannot be read: it is a pipe, a device, a socket or a folder; name a file."
    )


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


def decode_image(
    data: bytes,
    color: Literal["rgb", "bgr"],
    where: str,
    max_pixels: int = MAX_PIXELS,
    cure: str = CURE,
) -> NDArray[np.uint8]:
    """Decode the bytes of an image file to ``(H, W, 3)``, upright, 8 bits a channel.

    Args:
        data: the whole file.
        color: channel order of the result.
        where: what to call the file in a message.
        max_pixels: largest width times height, asked of the header before anything is decoded. A
            format whose header is not read here is refused.
        cure: what to do with a picture that is too large, in a sentence.

    Raises:
        ImageError: the file is empty, damaged, too large, or no image.
    """
    import cv2

    stored = is_avif(data)  # it knows its own white, and its EXIF says nothing of how it is turned
    flag = cv2.IMREAD_IGNORE_ORIENTATION if stored else cv2.IMREAD_ANYDEPTH
    image = decode_pixels(data, cv2.IMREAD_COLOR | flag, where, max_pixels, cure)
    if image.dtype not in (np.uint8, np.uint16):
        raise ImageError(
            f"{where}: holds numbers of type {image.dtype}, and nothing says what white is; scale "
            "them to 0 to 255 and save the picture with 8 bits a channel."
        )
    pixels = eight_bits(image, declared_white(data))
    if stored:
        try:
            pixels = upright(full_range(pixels, data), data)
        except (IndexError, struct.error) as error:
            raise ImageError(f"{where}: is a damaged AVIF file; copy or save it again.") from error
    if color == "rgb":
        cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB, dst=pixels)
    return pixels


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

    from zsd_core.pictures.refused import refusal

    if not data:
        raise ImageError(f"{where}: the file is empty.")
    if data[:2] == b"\xff\xd8" and not jpeg_is_whole(data):
        raise ImageError(f"{where}: the JPEG ends early; copy or save it again.")
    if data[:4] == b"\x89PNG" and not png_is_whole(data):
        raise ImageError(f"{where}: the PNG ends early or is damaged; copy or save it again.")
    if reason := refusal(data):
        raise ImageError(f"{where}: {reason}")
    size, part = picture_size(data), largest_part(data)
    if size is None or part is None:
        raise ImageError(
            f"{where}: is damaged or ends early: it does not say clearly how large the picture is; "
            "copy or save it again."
        )
    check_size(size, max_pixels, where, cure=cure)
    check_size(part, max_pixels, where, " in one of its parts", cure)
    if data.startswith(TIFF_HEADS):
        data = tiff_without_alpha(data)
    elif data[:2] in (b"P2", b"P3"):
        data += b"\n"  # OpenCV looks for the end of the last number
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
