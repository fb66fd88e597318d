"""Read photographs for training; an annotated one so that its boxes fit."""

from __future__ import annotations

import os

import cv2
import numpy as np
from numpy.typing import NDArray

from zsd_core.errors import DataError
from zsd_core.learning.data.dataset import ImageRecord
from zsd_core.pictures.decode import decode_pixels, file_bytes

__all__ = ["read_image", "read_photograph"]


def read_image(record: ImageRecord) -> NDArray[np.uint8]:
    """Read a record's image as ``(H, W, 3)`` uint8 RGB, of the size its annotation says.

    A rotation in the file's EXIF data is not applied: annotations count stored pixels.

    Raises:
        ImageError: the file is missing, damaged, too large, or not an image.
        DataError: it has another size than its annotation.
    """
    image = read_photograph(record.path)
    height, width = image.shape[:2]
    if (width, height) != (record.width, record.height):
        raise DataError(
            f"{record.path} has {width} x {height} pixels, but is annotated as {record.width} x "
            f"{record.height}; its boxes would not fit. Annotate these files, or use the originals."
        )
    return image


def read_photograph(path: str | os.PathLike[str]) -> NDArray[np.uint8]:
    """Read a file as ``(H, W, 3)`` uint8 RGB, without the rotation in its EXIF data.

    The file is checked as the detector checks its own: half a photograph is an error.

    Raises:
        ImageError: the file is missing, damaged, too large, or not an image.
    """
    flags = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
    cure = "Leave it out, or make it smaller together with its boxes."
    image = decode_pixels(file_bytes(path), flags, os.fspath(path), cure=cure)
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), dtype=np.uint8)
