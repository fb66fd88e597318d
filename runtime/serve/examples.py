"""Classes from examples: what is kept of a picture that shows one."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from runtime.examples import Example
from zsd_core.errors import ImageError

__all__ = ["Box", "Taught", "example_of"]

Image = NDArray[np.uint8]
Box = tuple[float, float, float, float]
LONGEST_EDGE = 1024  # pixels, of a kept picture, so that memory is bounded
SMALLEST_BOX = 4  # pixels of a kept picture


@dataclass(slots=True)
class Taught:
    """A class made from examples: what was shown, and the vector it became."""

    name: str
    examples: list[Example] = field(default_factory=list)
    vector: NDArray[np.float32] | None = None


def example_of(image: Image, box: Box | None) -> Example:
    """An example to keep: the whole image, since the detector looks at it as at any other.

    Args:
        image: ``(H, W, 3)`` uint8 BGR; shrunk where networks would shrink it anyway.
        box: ``x1 y1 x2 y2`` in pixels of the image; None takes the whole image.

    Raises:
        ImageError: the box lies outside the image, or is too small.
    """
    import cv2

    height, width = image.shape[:2]
    x1, y1, x2, y2 = box or (0.0, 0.0, float(width), float(height))
    if not (0 <= x1 < x2 <= width and 0 <= y1 < y2 <= height):
        raise ImageError(
            f"box {x1:g},{y1:g},{x2:g},{y2:g} must be x1,y1,x2,y2 inside the picture of "
            f"{width} x {height} pixels, x1 < x2 and y1 < y2."
        )
    scale = min(1.0, LONGEST_EDGE / max(height, width))
    smallest = math.ceil(SMALLEST_BOX / scale)
    if min(x2 - x1, y2 - y1) < smallest:
        raise ImageError(
            f"the box is {x2 - x1:g} x {y2 - y1:g} pixels, an example needs at least "
            f"{smallest} a side in a picture of this size; draw a larger one."
        )
    if scale < 1:
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        image = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)
    across, down = image.shape[1] / width, image.shape[0] / height
    inner = (x1 * across, y1 * down, x2 * across, y2 * down)
    return Example(np.ascontiguousarray(image[:, :, ::-1]), inner)
