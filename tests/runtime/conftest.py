"""Fixtures that several tests of the runtime share."""

from __future__ import annotations

import cv2
import numpy as np
import pytest


@pytest.fixture
def photos(tmp_path, photo):
    """Nine images in folders, one of them damaged, a hidden one, and a file that is no image."""
    folder = tmp_path / "photos"
    (folder / "sub" / ".cache").mkdir(parents=True)
    for number in range(8):
        place = folder / "sub" if number % 2 else folder
        height = 60 + 10 * (number % 3)
        cv2.imwrite(str(place / f"{number}.png"), np.roll(photo, 7 * number, axis=1)[:height])
    (folder / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 no more")
    (folder / ".hidden.png").touch()
    (folder / "sub" / ".cache" / "0.png").touch()
    (folder / "notes.txt").write_text("about the photographs")
    return folder
