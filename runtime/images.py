"""Turn what a caller passes (a path, an array) into ``(H, W, 3)`` uint8, or say what is wrong."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from zsd_core.errors import ImageError
from zsd_core.kernels.preprocess import Color, check_color

__all__ = ["PillowImage", "as_image", "read_image"]

Image = NDArray[np.uint8]
_MARKER = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")  # not a stuffed zero, a restart or padding


class PillowImage(Protocol):
    """What is read of a ``PIL.Image.Image``, so that PIL need not be there."""

    @property
    def mode(self) -> str:
        """Such as "RGB", "P" or "CMYK"."""

    def convert(self, mode: str) -> Any:
        """The image in another mode."""


def as_image(image: Any, color: Color, where: str = "image") -> Image:
    """``(H, W, 3)`` uint8 in the channel order ``color``; shares memory where it can.

    Args:
        image: a path, or an array ``(H, W)``, ``(H, W, 1)``, ``(H, W, 3)`` or ``(H, W, 4)`` of
            uint8 whose channels are in order ``color``; alpha is ignored. Or a PIL image, whatever
            its mode says its channels are; it is taken as it stands, not turned by its EXIF.
        color: "rgb" or "bgr".
        where: what to call it in a message.

    Raises:
        ConfigError: ``color`` is neither "rgb" nor "bgr".
        ImageError: it is no image; the message says what it is and what to do.
    """
    check_color(where, color)
    if isinstance(image, (str, os.PathLike)):
        return read_image(image, color)
    if isinstance(getattr(image, "mode", None), str) and hasattr(image, "convert"):
        return _from_pillow(image, color, where)
    if not isinstance(image, np.ndarray):
        raise ImageError(
            f"{where} is a {type(image).__name__}, must be a path, a PIL image or a numpy array "
            "(H, W, 3) of uint8; a batch is a list of these."
        )
    if image.ndim == 4:
        raise ImageError(
            f"{where} has shape {image.shape}; pass a batch as a list: detector(list(images))."
        )
    if image.ndim not in (2, 3) or (image.ndim == 3 and image.shape[2] not in (1, 3, 4)):
        first = image.ndim == 3 and image.shape[0] in (1, 3, 4)
        hint = " Move the channels last: image.transpose(1, 2, 0)." if first else ""
        raise ImageError(
            f"{where} has shape {image.shape}, must be (H, W, 3), or (H, W) grey, or (H, W, 4) "
            f"with alpha.{hint}"
        )
    if image.dtype != np.uint8:
        raise ImageError(
            f"{where} has dtype {image.dtype}, must be uint8 with values 0 to 255; "
            f"bring it to that range, for example {_scaled(image)}.astype('uint8')."
        )
    if image.size == 0:
        raise ImageError(f"{where} is empty, its shape is {image.shape}; did reading it fail?")
    if image.ndim == 2:
        image = image[:, :, None]
    if image.shape[2] == 1:
        return np.repeat(image, 3, axis=2)
    return np.ascontiguousarray(image[:, :, :3])


def _from_pillow(image: Any, color: Color, where: str) -> Image:
    """The pixels of a PIL image: a palette, CMYK or grey with alpha is no array of ours."""
    if image.mode.startswith(("I", "F")):
        raise ImageError(
            f"{where} is a PIL image of mode {image.mode!r}, more than 8 bits a channel, whose "
            "range PIL does not know; scale it to 0 to 255 and convert it to mode 'L'."
        )
    try:
        pixels = np.asarray(image.convert("RGB"))
    except (OSError, ValueError) as error:  # a file is decoded only now, and may end early
        raise ImageError(f"{where} is a PIL image that cannot be converted: {error}.") from error
    if not pixels.size:
        raise ImageError(f"{where} is empty, its size is {image.size}.")
    return np.ascontiguousarray(pixels if color == "rgb" else pixels[:, :, ::-1])


def _scaled(image: NDArray[Any]) -> str:
    """What brings an array's values to 0 to 255, in its caller's words."""
    if image.dtype.kind == "f":
        unit = np.fmax.reduce(image, axis=None, initial=0) <= 1
        return "(image * 255).round()" if unit else "image.clip(0, 255).round()"
    scales = {"b": "(image * 255)", "u": "(image // 257)"}
    return scales.get(image.dtype.kind, "image.clip(0, 255)")


def read_image(path: str | os.PathLike[str], color: Color) -> Image:
    """Read an image file, upright as its EXIF says, 8 bits a channel.

    Raises:
        ImageError: it cannot be read, is damaged, or is no image.
    """
    import cv2

    try:
        data = Path(path).read_bytes()
    except (OSError, ValueError) as error:  # ValueError: no name of a file
        reason = getattr(error, "strerror", None) or error
        raise ImageError(f"{path}: cannot be read: {reason}.") from error
    if not data:
        raise ImageError(f"{path}: the file is empty.")
    if data[:2] == b"\xff\xd8" and not _jpeg_is_whole(data):
        raise ImageError(f"{path}: the JPEG ends early; copy or save it again.")
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error as error:
        raise ImageError(f"{path}: cannot be decoded: {error.err or error}.") from error
    if image is None:
        raise ImageError(
            f"{path}: is damaged or not an image that OpenCV reads (JPEG, PNG, WebP, BMP, TIFF)."
        )
    if color == "rgb":
        cv2.cvtColor(image, cv2.COLOR_BGR2RGB, dst=image)
    return np.asarray(image, np.uint8)


def _jpeg_is_whole(data: bytes) -> bool:
    """Whether a JPEG's markers lead to its end; some OpenCV versions pad the rest with grey."""
    position = 2
    while found := _MARKER.search(data, position):
        position = found.end()
        marker = data[position - 1]
        if marker == 0xD9:
            return True
        if marker not in (0x01, 0xD8):  # all others carry a length; a scan's data is skipped over
            position += int.from_bytes(data[position : position + 2], "big")
    return False
