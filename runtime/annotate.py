"""Draw detections as in the paper's figures: seen classes red, unseen classes green."""

from __future__ import annotations

import unicodedata

import numpy as np
from numpy.typing import NDArray

from runtime.detections import Detection, Detections

__all__ = ["COLORS", "annotate"]

Image = NDArray[np.uint8]

COLORS = {"seen": (40, 40, 215), "unseen": (40, 135, 20)}  # BGR, dark enough for white letters
SMALLEST_EDGE, LARGEST_EDGE = 240, 1920  # a picture below is enlarged, so that labels can be read


def annotate(image: Image, detections: Detections) -> Image:
    """Draw boxes and labels on a copy.

    A small image is enlarged by a whole factor first, so that a label can be read on it; a label
    never leaves the picture, and the best detections are drawn last, on top.

    Args:
        image: ``(H, W, 3)`` uint8 BGR.
        detections: in pixels of ``image``.

    Returns:
        ``(k H, k W, 3)`` uint8 BGR, k of at least 1.
    """
    import cv2

    factor = _enlargement(*image.shape[:2])
    size = (image.shape[1] * factor, image.shape[0] * factor)
    canvas = np.asarray(cv2.resize(image, size) if factor > 1 else image.copy(), np.uint8)
    line = max(1, round(min(canvas.shape[:2]) / 240))
    for detection in reversed(list(detections)):
        left, top, right, bottom = (round(x * factor) for x in detection.box)
        color = COLORS[detection.role]
        cv2.rectangle(canvas, (left, top), (right - 1, bottom - 1), color, line)
        _draw_label(canvas, detection, (left, top), line)
    return canvas


def _enlargement(height: int, width: int) -> int:
    wanted = -(-SMALLEST_EDGE // min(height, width))
    return max(1, min(wanted, LARGEST_EDGE // max(height, width)))


def _drawable(name: str) -> str:
    """The name in letters that OpenCV's font has: before version 5 that is ASCII."""
    import cv2

    if int(cv2.__version__.partition(".")[0]) >= 5:
        return name
    plain = unicodedata.normalize("NFKD", name)
    return (
        "".join(c for c in plain if not unicodedata.combining(c))
        .encode("ascii", "replace")
        .decode()
    )


def _draw_label(canvas: Image, detection: Detection, corner: tuple[int, int], line: int) -> None:
    import cv2

    text = f"{_drawable(detection.class_name)} {detection.score:.2g}"
    font, scale = cv2.FONT_HERSHEY_SIMPLEX, max(0.5, min(canvas.shape[:2]) / 900)
    stroke = max(1, round(scale * 1.5))
    (width, height), base = cv2.getTextSize(text, font, scale, stroke)
    room = canvas.shape[1] - 2 * line
    if width > room:  # a long phrase on a narrow picture
        scale *= room / width
        (width, height), base = cv2.getTextSize(text, font, scale, stroke)
    pad = max(2, height // 4)
    high = height + base + pad
    left = min(max(corner[0], 0), max(canvas.shape[1] - width - 2 * pad, 0))
    top = corner[1] - high if corner[1] >= high else max(corner[1], 0)  # inside where no room above
    top = max(min(top, canvas.shape[0] - high), 0)
    end = (left + width + 2 * pad, top + high)
    cv2.rectangle(canvas, (left, top), end, COLORS[detection.role], -1)
    origin = (left + pad, top + height + pad // 2 + 1)
    cv2.putText(canvas, text, origin, font, scale, (255, 255, 255), stroke, cv2.LINE_AA)
