"""Turn what a caller passes (a path, an array) into ``(H, W, 3)`` uint8, or say what is wrong.

Files follow the rule of ``zsd_core.pictures.decode``, and PIL images too: upright, 8 bits.
"""

from __future__ import annotations

import os
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from zsd_core.errors import ConfigError, ImageError
from zsd_core.kernels.preprocess import Color, check_color
from zsd_core.pictures.decode import MAX_PIXELS, check_size, decode_image, file_bytes
from zsd_core.pictures.white import eight_bits, likely_white

__all__ = [
    "MAX_PIXELS",
    "PillowImage",
    "as_image",
    "check_max_pixels",
    "decode_image",
    "read_image",
]

Image = NDArray[np.uint8]
EXIF_ORIENTATION = 0x0112


class PillowImage(Protocol):
    """The part of ``PIL.Image.Image`` that is read, so that PIL need not be there."""

    @property
    def mode(self) -> str:
        """Such as "RGB", "P" or "CMYK"."""

    @property
    def size(self) -> tuple[int, int]:
        """Width and height."""

    def convert(self, mode: str) -> Any:
        """The image in another mode."""


def as_image(image: Any, color: Color, where: str = "image", max_pixels: int = MAX_PIXELS) -> Image:
    """``(H, W, 3)`` uint8 in the channel order ``color``; shares memory where it can.

    Args:
        image: a path, or an array ``(H, W)``, ``(H, W, 1)``, ``(H, W, 3)`` or ``(H, W, 4)`` of
            uint8 whose channels are in order ``color``; alpha is ignored. Or a PIL image, whatever
            its mode says its channels are, turned as its EXIF says. Of 16-bit colour PIL itself
            keeps the upper 8 bits; pass the path of such a file.
        color: "rgb" or "bgr".
        where: what to call it in a message.
        max_pixels: largest width times height of a file or a PIL image.

    Raises:
        ConfigError: ``color`` is neither "rgb" nor "bgr".
        ImageError: it is no image; the message says what it is and what to do.
    """
    check_color(where, color)
    if isinstance(image, (str, os.PathLike)):
        return read_image(image, color, max_pixels)
    if isinstance(getattr(image, "mode", None), str) and hasattr(image, "convert"):
        check_size(tuple(image.size), max_pixels, where)
        return _from_pillow(image, color, where, max_pixels)
    if not isinstance(image, np.ndarray):
        raise ImageError(
            f"{where} is a {type(image).__name__}, must be a path, a PIL image or a numpy array "
            f"(H, W, 3) of uint8; a batch is a list of these.{_tensor_cure(image)}"
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


def _from_pillow(image: Any, color: Color, where: str, max_pixels: int) -> Image:
    """The pixels of a PIL image: a palette, CMYK or grey with alpha is no array of ours."""
    if image.mode in ("I", "F"):
        raise ImageError(
            f"{where} is a PIL image of mode {image.mode!r}, more than 8 bits a channel, whose "
            "range PIL does not know; scale it to 0 to 255 and convert it to mode 'L'."
        )
    try:
        from PIL import ImageOps

        image.load()  # a file is decoded only now, and a TIFF is turned by it
        check_size(tuple(image.size), max_pixels, where)  # some files tell another size only now
        if image.getexif().get(EXIF_ORIENTATION, 1) != 1:
            image = ImageOps.exif_transpose(image)
        if image.mode.startswith("I;16"):
            pixels = eight_bits(np.asarray(image), None)[:, :, None].repeat(3, axis=2)
        else:
            pixels = np.asarray(image.convert("RGB"))
    except ImageError:
        raise
    except Exception as error:  # its decoders raise SyntaxError, AssertionError, struct.error, ...
        said = str(error).rstrip(".") or "it gives no reason"
        raise ImageError(
            f"{where} is a PIL image that cannot be converted: {type(error).__name__}: {said}."
        ) from error
    if not pixels.size:
        raise ImageError(f"{where} is empty, its size is {image.size}.")
    return np.ascontiguousarray(pixels if color == "rgb" else pixels[:, :, ::-1])


def _tensor_cure(image: Any) -> str:
    """Advice on a tensor of torch or another library, whose channels may come first."""
    if not callable(getattr(image, "numpy", None)):
        return ""
    shape = tuple(getattr(image, "shape", ()))
    turn = ".permute(1, 2, 0)" if len(shape) == 3 and shape[2] not in (1, 3, 4) else ""
    host = ".cpu()" if hasattr(image, "cpu") else ""
    return f" Of a tensor of uint8, pass tensor{turn}{host}.numpy()."


def _scaled(image: NDArray[Any]) -> str:
    """Advice that brings an array's values to 0 to 255, in its caller's words."""
    if image.dtype.kind == "f":
        unit = np.fmax.reduce(image, axis=None, initial=0) <= 1
        return "(image * 255).round()" if unit else "image.clip(0, 255).round()"
    white = likely_white(image) if image.dtype == np.uint16 else 65535
    step = 257 if white == 65535 else (white + 1) // 256
    scales = {"b": "(image * 255)", "u": f"(image // {step})"}
    return scales.get(image.dtype.kind, "image.clip(0, 255)")


def read_image(path: str | os.PathLike[str], color: Color, max_pixels: int = MAX_PIXELS) -> Image:
    """Read an image file, upright as its EXIF says, 8 bits a channel.

    Raises:
        ImageError: it cannot be read, is damaged, too large, or no image.
    """
    return decode_image(file_bytes(path), color, str(path), max_pixels)


def check_max_pixels(number: int) -> int:
    """Return a largest number of pixels.

    Raises:
        ConfigError: it is no whole number above 0.
    """
    if not isinstance(number, int) or number < 1:
        raise ConfigError(f"max_pixels is {number!r}, must be a whole number > 0.")
    return number
