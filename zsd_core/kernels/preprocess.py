"""From a photograph to network input: one definition for training, runtime and tests."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from zsd_core.errors import ConfigError, ImageError
from zsd_core.kernels._load import check, compiled

__all__ = ["Color", "check_color", "check_pixels", "preprocess"]

Color = Literal["rgb", "bgr"]  # channel order


def check_color(where: str, color: str) -> None:
    """Refuse what is no channel order.

    Raises:
        ConfigError: ``color`` is neither "rgb" nor "bgr".
    """
    if color not in ("rgb", "bgr"):
        raise ConfigError(
            f"{where}: color is {color!r}, must be 'rgb' or 'bgr' (OpenCV reads 'bgr')."
        )


def check_pixels(where: str, pixels: NDArray[Any]) -> None:
    """Refuse what cannot be pre-processed.

    Raises:
        ImageError: it is not ``(H, W, 3)`` uint8 with at least one pixel.
    """
    if pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.dtype != np.uint8 or not pixels.size:
        raise ImageError(
            f"{where}: image has shape {pixels.shape} and dtype {pixels.dtype}, must be "
            "(H, W, 3) uint8 with at least one pixel; convert grey or RGBA images first."
        )


def preprocess(
    image: ArrayLike,
    *,
    size: tuple[int, int],
    padded: tuple[int, int],
    mean: tuple[float, float, float],
    std: tuple[float, float, float],
    color: Color = "rgb",
) -> NDArray[np.float32]:
    """Resize, scale to [0, 1], normalise and zero-pad one image.

    An axis that shrinks to a half or less is first averaged over blocks of ``floor(scale)``
    pixels (the last block may be partial), so that small objects do not alias; then bilinear
    with half-pixel centres and clamped edges.

    Args:
        image: ``(H, W, 3)`` uint8, any strides.
        size: ``(height, width)`` after resizing.
        padded: ``(height, width)`` of the result; right and bottom are 0 after normalisation.
        mean: per channel, RGB, of values in [0, 1].
        std: likewise.
        color: order of the channels of ``image``.

    Returns:
        ``(3, *padded)`` float32, channels in RGB order.

    Raises:
        ImageError: ``image`` is not ``(H, W, 3)`` uint8 with at least one pixel.
        ConfigError: ``color`` is neither "rgb" nor "bgr".
        ShapeError: ``size`` is not positive or does not fit into ``padded``.
    """
    pixels = np.asarray(image)
    check_pixels("preprocess", pixels)
    check_color("preprocess", color)
    check(
        1 <= size[0] <= padded[0] and 1 <= size[1] <= padded[1],
        "preprocess",
        f"size is {tuple(size)}, must be at least (1, 1) and fit into padded, {tuple(padded)}.",
    )
    result: NDArray[np.float32] = compiled().preprocess(
        np.ascontiguousarray(pixels),
        tuple(size),
        tuple(padded),
        tuple(mean),
        tuple(std),
        color == "bgr",
    )
    return result
