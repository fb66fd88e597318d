"""The paper's figures from the logs of ``benchmarks.paper.experiments``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from runtime.annotate import annotate
from runtime.detections import Detections
from zsd_core.errors import require

__all__ = ["detections", "region_maps", "seen_unseen", "sweeps"]

Logs = Sequence[Mapping[str, Any]]


def sweeps(points: Mapping[str, Mapping[float, Mapping[str, Sequence[float]]]], path: Path) -> None:
    """Figure 3: mAP against lambda and beta.

    Args:
        points: sweep to value to line to one number per seed.
        path: of the picture.
    """
    plt = _pyplot()
    figure, axes = plt.subplots(1, len(points), figsize=(4.5 * len(points), 3.2), squeeze=False)
    for axis, (title, values) in zip(axes[0], points.items(), strict=True):
        for line in next(iter(values.values())):
            xs = sorted(x for x in values if values[x][line])
            means = [float(np.mean(values[x][line])) for x in xs]
            spread = [float(np.std(values[x][line])) for x in xs]
            axis.errorbar(xs, means, spread, marker="o", capsize=3, label=line)
        axis.set_xlabel(title)
        axis.set_ylabel("mAP@0.5, %")
        axis.set_ylim(bottom=0)
        axis.legend()
    _save(figure, path)


def seen_unseen(curves: Mapping[str, Sequence[Mapping[str, float]]], path: Path) -> None:
    """Seen against unseen mAP as the factor of seen scores varies; a dot marks the factor 1."""
    plt = _pyplot()
    figure, axis = plt.subplots(figsize=(4.5, 3.4))
    for name, points in curves.items():
        (line,) = axis.plot([p["unseen"] for p in points], [p["seen"] for p in points], label=name)
        for point in points:
            if point["seen_scale"] == 1:
                axis.plot(point["unseen"], point["seen"], "o", color=line.get_color())
    axis.set_xlabel("unseen mAP@0.5, %")
    axis.set_ylabel("seen mAP@0.5, %")
    axis.set_xlim(left=0)
    axis.set_ylim(bottom=0)
    axis.legend()
    _save(figure, path)


def region_maps(maps: Mapping[str, Mapping[str, Any]], unseen: Sequence[str], path: Path) -> None:
    """Figure 4: regions as points; seen classes above, unseen below; the methods side by side."""
    plt = _pyplot()
    figure, axes = plt.subplots(2, len(maps), figsize=(5 * len(maps) + 1, 8), squeeze=False)
    shown = list(dict.fromkeys(label for content in maps.values() for label in content["labels"]))
    for column, (name, content) in enumerate(maps.items()):
        labels = content["labels"]
        xy = np.asarray(content["points"], np.float64).reshape(-1, 2)
        for row, side in enumerate(("seen", "unseen")):
            axis = axes[row][column]
            names = [label for label in shown if (label in unseen) == (side == "unseen")]
            for number, label in enumerate(names):  # the same colour in every map of a row
                own = np.flatnonzero([other == label for other in labels])
                axis.scatter(
                    xy[own, 0],
                    xy[own, 1],
                    s=9,
                    color=plt.cm.tab20(number % 20),
                    marker="ox^s"[number // 20 % 4],
                    label=label,
                )
            axis.set_title(f"{name}, {side} classes", fontsize=9)
            axis.set_xticks([])
            axis.set_yticks([])
            if column == len(maps) - 1:
                axis.legend(fontsize=6, loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
    _save(figure, path)


def detections(
    found: Mapping[str, Mapping[str, Sequence[Sequence[Any]]]], unseen: Sequence[str], path: Path
) -> None:
    """Figures 5 and 6: photographs of scikit-image, a row per method, seen red, unseen green."""
    from export.checks.images import sample_images

    plt = _pyplot()
    pictures = {image.name: image.pixels for image in sample_images()}
    names = list(next(iter(found.values())))
    figure, axes = plt.subplots(
        len(found), len(names), figsize=(3.4 * len(names), 3 * len(found)), squeeze=False
    )
    for row, (method, boxes) in enumerate(found.items()):
        for axis, name in zip(axes[row], names, strict=True):
            bgr = np.ascontiguousarray(pictures[name][..., ::-1])
            axis.imshow(annotate(bgr, _detections(boxes[name], unseen))[..., ::-1])
            axis.axis("off")
            axis.set_title(f"{method}: {name}", fontsize=8)
    _save(figure, path)


def _detections(boxes: Sequence[Sequence[Any]], unseen: Sequence[str]) -> Detections:
    """Detections from the lists of a log: four edges, score and name, the best first."""
    labels = tuple(str(label) for *_, label in boxes)
    return Detections(
        np.array([box[:4] for box in boxes], np.float32).reshape(-1, 4),
        np.array([box[4] for box in boxes], np.float32),
        np.arange(len(boxes)),
        labels,
        tuple("unseen" if label in unseen else "seen" for label in labels),
    )


def _pyplot() -> Any:
    matplotlib = require("matplotlib", "report")
    matplotlib.use("Agg")
    return require("matplotlib.pyplot", "report")


def _save(figure: Any, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.tight_layout()
    options = {"pil_kwargs": {"quality": 80}} if path.suffix == ".jpg" else {}
    figure.savefig(path, dpi=110, **options)
    _pyplot().close(figure)
