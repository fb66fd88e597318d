"""Detections as JSON has them, and their colors as pages write them."""

from __future__ import annotations

from typing import Any

from runtime.annotate import COLORS
from runtime.detections import Detections
from runtime.results import explain

__all__ = ["css_color", "describe"]


def css_color(role: str) -> str:
    """The color of a role's boxes as pages write it, such as ``#d72828``."""
    blue, green, red = COLORS[role]
    return f"#{red:02x}{green:02x}{blue:02x}"


def describe(found: Detections, width: int, height: int) -> dict[str, Any]:
    """Detections as JSON has them, in pixels of an image of this size."""
    near = found.near_miss
    return {
        "image": {"width": width, "height": height},
        "detections": [{**item, "color": css_color(item["role"])} for item in found.to_list()],
        "class_set_version": found.class_set_version,
        "times_ms": {stage: round(float(ms), 2) for stage, ms in found.times_ms.items()},
        "near_miss": near and {"class": near[0], "score": round(float(near[1]), 6)},
        "message": explain(found),
    }
