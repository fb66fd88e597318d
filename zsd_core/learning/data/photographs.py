"""Read photographs for training; an annotated one so that its boxes fit.

The pixels are the detector's, by the same rule (``zsd_core.pictures.decode``): upright, 8 bits a
channel. Boxes count pixels of the upright picture too. So do the tools that people label with and
the libraries that turn a photograph by its EXIF when they read it; a file whose EXIF asks for no
turn is the same either way.
"""

from __future__ import annotations

import os

import numpy as np
from numpy.typing import NDArray

from zsd_core.errors import DataError
from zsd_core.learning.data.dataset import ImageRecord
from zsd_core.pictures.decode import decode_image, file_bytes
from zsd_core.pictures.size import picture_size

__all__ = ["PIXELS", "read_image", "read_photograph"]

PIXELS = "upright, 8 bits a channel"  # what is kept of pixels read by another rule is made again


def read_image(record: ImageRecord) -> NDArray[np.uint8]:
    """Read a record's image as ``(H, W, 3)`` uint8 RGB, upright, of the size its annotation says.

    Raises:
        ImageError: the file is missing, damaged, too large, or not an image.
        DataError: it has another size than its annotation.
    """
    image = read_photograph(record.path)
    height, width = image.shape[:2]
    annotated = record.width, record.height
    if (width, height) == annotated:
        return image
    if picture_size(file_bytes(record.path)) == annotated:  # as it is stored, before the turn
        raise DataError(
            f"{record.path} is {width} x {height} pixels once it is turned upright, as its file "
            f"asks (EXIF, or irot of an AVIF), but is annotated as {record.width} x "
            f"{record.height}. Boxes must count pixels of the upright picture. If these count the "
            "stored ones, remove the orientation from the files (exiftool -Orientation= FILES); if "
            "not, turn the files (mogrify -auto-orient FILES) and export the annotations again."
        )
    raise DataError(
        f"{record.path} has {width} x {height} pixels, but is annotated as {record.width} x "
        f"{record.height}; its boxes would not fit. Annotate these files, or use the originals."
    )


def read_photograph(path: str | os.PathLike[str]) -> NDArray[np.uint8]:
    """Read a file as ``(H, W, 3)`` uint8 RGB, upright, as the detector reads its own.

    Raises:
        ImageError: the file is missing, damaged, too large, or not an image.
    """
    cure = "Leave it out, or make it smaller together with its boxes."
    return decode_image(file_bytes(path), "rgb", os.fspath(path), cure=cure)
