"""Draw detections as in the paper's figures: seen classes red, unseen classes green."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass, replace

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
    never leaves the picture and goes below those of better detections that it would cover.

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
    labels: list[_Label] = []
    for detection in detections:  # the best first
        left, top = (round(x * factor) for x in detection.box[:2])
        labels.append(_place(_label(canvas, detection, (left, top), line), labels, canvas.shape[0]))
    for detection in reversed(list(detections)):
        left, top, right, bottom = (round(x * factor) for x in detection.box)
        cv2.rectangle(canvas, (left, top), (right - 1, bottom - 1), COLORS[detection.role], line)
    for label in reversed(labels):
        label.draw(canvas)
    return canvas


@dataclass(frozen=True, slots=True)
class _Label:
    """Text on a filled rectangle, in pixels."""

    text: str
    left: int
    top: int
    right: int
    bottom: int
    baseline: tuple[int, int]  # of the text, from the corner
    scale: float
    stroke: int
    color: tuple[int, int, int]

    def covers(self, other: _Label) -> bool:
        apart = self.right < other.left or other.right < self.left
        return not (apart or self.bottom < other.top or other.bottom < self.top)

    def moved(self, top: int) -> _Label:
        return replace(self, top=top, bottom=top + self.bottom - self.top)

    def draw(self, canvas: Image) -> None:
        import cv2

        cv2.rectangle(canvas, (self.left, self.top), (self.right, self.bottom), self.color, -1)
        origin = (self.left + self.baseline[0], self.top + self.baseline[1])
        cv2.putText(
            canvas,
            self.text,
            origin,
            cv2.FONT_HERSHEY_SIMPLEX,
            self.scale,
            (255, 255, 255),
            self.stroke,
            cv2.LINE_AA,
        )


def _place(label: _Label, placed: list[_Label], height: int) -> _Label:
    """Below the labels it would cover; where it was if there is no room below them."""
    found = label
    for other in sorted(placed, key=lambda other: other.top):
        if found.covers(other):
            found = found.moved(other.bottom + 1)
    return found if found.bottom < height else label


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


def _label(canvas: Image, detection: Detection, corner: tuple[int, int], line: int) -> _Label:
    """Above a box's corner, or inside where there is no room."""
    import cv2

    track = (
        f" #{detection.track_id}"
        if detection.track_id is not None and detection.track_id >= 0
        else ""
    )
    text = f"{_drawable(detection.class_name)}{track} {detection.score:.2g}"
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
    top = corner[1] - high if corner[1] >= high else max(corner[1], 0)
    top = max(min(top, canvas.shape[0] - high), 0)
    return _Label(
        text,
        left,
        top,
        left + width + 2 * pad,
        top + high,
        (pad, height + pad // 2 + 1),
        scale,
        stroke,
        COLORS[detection.role],
    )
