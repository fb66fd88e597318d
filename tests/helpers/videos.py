"""Videos of numbered frames, made by OpenCV, and detectors that need no model."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from runtime import Detections


def write_video(path: Path, frames: int = 6, rate: float = 10, size: tuple[int, int] = (64, 48)):
    """Frames that get brighter by 5 levels each; MJPEG in .avi, MPEG-4 in .mp4."""
    code = "MJPG" if path.suffix == ".avi" else "mp4v"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*code), rate, size)
    for index in range(frames):
        writer.write(np.full((size[1], size[0], 3), 5 * (index % 50), np.uint8))
    writer.release()
    return path


def objects(*boxes: tuple[float, float, float, float], score: float = 0.9) -> Detections:
    """Detections of a seen class "square"."""
    count = len(boxes)
    return Detections(
        np.array(boxes, np.float32).reshape(-1, 4),
        np.full(count, score, np.float32),
        np.zeros(count, np.int64),
        ("square",) * count,
        ("seen",) * count,
        times_ms={"double": 0.1},
    )


def nothing(images, *, color):
    """A detector double that finds nothing, of the protocol a stream asks for."""
    assert color == "bgr"
    return [objects() for _ in images]


def find_bright(images, *, color):
    """A detector double that finds the white square that a test has drawn."""
    found = []
    for image in images:
        ys, xs = np.nonzero(image.min(axis=2) > 200)
        box = (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1) if len(xs) else None
        found.append(objects(box) if box else objects())
    return found
