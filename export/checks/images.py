"""Images to compare on: packaged, made up, or from a folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from export.checks.traces import Pixels
from zsd_core.errors import DataError, require

__all__ = ["NamedImage", "folder_images", "photographs", "sample_images"]

MADE_UP = ("blocks", "noise", "grey", "1 x 1")  # of the sample images: no photographs


@dataclass(frozen=True, slots=True, eq=False)
class NamedImage:
    """An image, ``(H, W, 3)`` uint8 RGB, and what to call it."""

    name: str
    pixels: Pixels


def sample_images() -> list[NamedImage]:
    """The fixed images of parity: photographs that ship inside scikit-image, and made-up ones.

    Landscape, portrait, square, a mirror image (so that there is a pair of one size), a tiny one,
    noise, and one without any structure.
    """
    data = require("skimage.data", "demo")
    astronaut, chelsea, coffee = data.astronaut(), data.chelsea(), data.coffee()
    rng = np.random.default_rng(0)
    blocks = rng.integers(0, 256, (5, 7, 3), np.uint8).repeat(40, axis=0).repeat(40, axis=1)
    photographs = {
        "chelsea": chelsea,
        "chelsea, mirrored": chelsea[:, ::-1],
        "coffee": coffee,
        "coffee, left half": coffee[:, :300],
        "astronaut": astronaut,
        "rocket": data.rocket(),
        "motorcycle": data.stereo_motorcycle()[0],
        "blocks": blocks,
        "noise": rng.integers(0, 256, (211, 97, 3), np.uint8),
        "grey": np.full((120, 160, 3), 128, np.uint8),
        "1 x 1": chelsea[100:101, 200:201],
    }
    return [NamedImage(k, np.ascontiguousarray(v[:, :, :3])) for k, v in photographs.items()]


def folder_images(folder: str | Path) -> list[NamedImage]:
    """Every image file below ``folder``, by name; hidden ones not.

    Raises:
        DataError: the path is not a folder, or the folder holds no image.
        ImageError: one cannot be read.
    """
    from runtime.images import read_image
    from runtime.sources import IMAGES

    root = Path(folder)
    if not root.is_dir():
        raise DataError(f"{folder} is no folder; name one that holds images.")
    names = sorted(path.relative_to(root) for path in root.rglob("*"))
    names = [
        name
        for name in names
        if name.suffix.lower() in IMAGES
        and not any(part[0] == "." for part in name.parts)
        and (root / name).is_file()
    ]
    if not names:
        raise DataError(f"{folder} holds no image ({', '.join(sorted(IMAGES))}).")
    return [NamedImage(str(name), read_image(root / name, "rgb")) for name in names]


def photographs() -> list[NamedImage]:
    """The packaged photographs: real ones only."""
    return [image for image in sample_images() if image.name not in MADE_UP]
