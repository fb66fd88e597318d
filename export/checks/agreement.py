"""Distance of a precision or backend from float32: errors, detections kept, mAP."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from export.checks.differences import IMAGE_STAGES, OFFERED, Comparison, Limits, finite
from export.checks.evaluation import whole_tests
from export.checks.images import NamedImage
from export.checks.labels import Labels, bundle_predictor
from export.checks.parity import compared_classes
from export.checks.traces import (
    Trace,
    head_inputs,
    head_outputs,
    inputs_of,
    pipeline_trace,
)
from runtime.bundle import Bundle, open_bundle
from zsd_core.learning import metrics
from zsd_core.learning.data.dataset import ImageRecord
from zsd_core.learning.matching import Matches, match
from zsd_core.stages import Networks

__all__ = [
    "accuracy",
    "accuracy_lines",
    "agreement",
    "agreement_lines",
    "as_truth",
    "number",
    "points",
    "stage_errors",
    "traces",
]

BEST = 10  # detections of an image that float32 is taken at its word for
# Partners of detections: less strict than a port's parity, since rounding moves boxes.
LIMITS = Limits(relative=0.1, pixels=16, matched=0.5, overlap=0.5)


def stage_errors(
    rounded: Networks, pairs: Sequence[tuple[Trace, Trace]]
) -> dict[str, dict[str, float | None]]:
    """Per output ``largest`` and ``mean`` difference, and ``noise``: its RMS over the signal's.

    The head of both gets the patches of float32, so that errors do not add up. Regions that a
    trunk offers change places with the least difference of their scores, so they are compared as
    detections only. What is not finite, as where float16 overflows, is None.
    """
    sums: dict[str, NDArray[np.float64]] = {}  # largest, error, both squares, count
    for expected, got in pairs:
        found = {name: got[name] for name in IMAGE_STAGES if name in got and name not in OFFERED}
        if patches := head_inputs(expected):
            outputs = rounded.head(*patches.values())
            found |= zip(head_outputs(expected), outputs, strict=True)
        for name, values in found.items():
            truth = expected[name].astype(np.float64)
            with np.errstate(invalid="ignore"):  # of two infinities
                apart = np.abs(truth - values)
            worst = float(apart.max(initial=0))
            own = sums.setdefault(name, np.zeros(5))
            own[0] = np.maximum(own[0], worst)  # NaN stays
            own[1:] += apart.sum(), (apart**2).sum(), (truth**2).sum(), apart.size
    return {
        name: {
            "largest": finite(float(s[0])),
            "mean": finite(float(s[1] / max(s[4], 1))),
            "noise": finite(float(np.sqrt(s[2] / max(s[3], 1e-30)))),
        }
        for name, s in sums.items()
    }


def agreement(
    bundle: Bundle, pairs: Sequence[tuple[Trace, Trace]], images: Sequence[NamedImage]
) -> dict[str, Any]:
    """Agreement of the best detections of an image, and mAP@0.5 with float32's best as the truth.

    Scores of eq. 14 differ much between models, so the best ten are taken and no threshold.
    """
    config, names = bundle.model_config, compared_classes(bundle)[1].names
    comparison = Comparison("", "", LIMITS, config)
    records, predictions = [], []
    for image, (expected, got) in zip(images, pairs, strict=True):
        kept = _best(expected, BEST)
        comparison.add_detections(kept, _best(got, BEST))
        predictions.append((got["boxes"], got["scores"], got["columns"]))
        records.append(as_truth(image, kept, names))
    (row,) = (r for r in comparison.rows() if r["stage"].startswith("detections"))
    result: dict[str, Any] = {
        key: row[key] for key in ("expected", "got", "matched", "class_flips", "box_mean")
    }
    if row["expected"]:
        report = metrics.report(match(records, predictions, names, bundle.seen), samples=0)
        result["map_of_float32"] = report["values"]["mAP@0.5 area"]
    return result


def accuracy(
    path: Path,
    precision: str,
    labels: Labels,
    *,
    backend: str = "onnxruntime",
    threads: int | None = None,
) -> dict[str, Any]:
    """Difference in mAP and recall on human labels, in points, by paired bootstrap.

    Returns:
        Per task ("zsd" and "gzsd", or those of ``whole_tests`` where the labels have no split) what
        :func:`zsd_core.learning.metrics.compare` gives: a negative difference is a loss, seen and
        unseen classes apart.
    """
    bundle = open_bundle(path)
    options: dict[str, Any] = {"backend": backend, "threads": threads}
    rounded, exact = (_matches(bundle, labels, name, options) for name in (precision, "float32"))
    return {
        task: metrics.compare(rounded[task], exact[task], samples=labels.samples) for task in exact
    }


def _matches(
    bundle: Bundle, labels: Labels, precision: str, options: Mapping[str, Any]
) -> Mapping[str, Matches]:
    """A precision's detections, matched; those of float32 serve every other one."""
    key = str(bundle.path), precision, *options.values()
    if key not in labels.measured:
        options = {**options, "precision": precision}
        if labels.split is None:
            labels.measured[key] = whole_tests(bundle, labels.dataset, **options)
        else:
            predict, names, _ = bundle_predictor(bundle, labels.split, **options)
            labels.measured[key] = dict[str, Matches](labels.matches(predict, names).items())
    return labels.measured[key]


def agreement_lines(part: Mapping[str, Any]) -> list[str]:
    """The error of every stage and the detections found again, of one backend."""
    whole = part["end_to_end"]
    return [
        f"  {'stage':<16} {'largest':>9} {'mean':>9} {'noise':>10}",
        *(
            f"  {name:<16} {number(row['largest']):>9.2e} {number(row['mean']):>9.2e} "
            f"{100 * number(row['noise']):>8.2g} %"
            for name, row in part["stages"].items()
        ),
        f"  best detections: {whole['matched']} of {whole['expected']} matched, "
        f"{whole['class_flips']} class flips",
    ]


def number(value: float | None) -> float:
    """Turn the None of ``finite`` back into infinity, which is beyond every limit."""
    return math.inf if value is None else value


def accuracy_lines(task: str, groups: Mapping[str, Any]) -> list[str]:
    """The difference in mAP of every group of classes."""
    return [f"  {task} {group}: {points(entry)} mAP@0.5" for group, entry in groups.items()]


def points(entry: Mapping[str, Any]) -> str:
    """A difference with its interval."""
    low, high = entry["interval"]
    return f"{entry['difference']:+.2f} [{low:+.2f}, {high:+.2f}]"


def traces(bundle: Bundle, networks: Networks, images: Sequence[NamedImage]) -> list[Trace]:
    """Outputs of every stage for each image, at score threshold 0; ``images`` is the input."""
    scorer, classes = compared_classes(bundle)
    config, thresholds = bundle.model_config, np.zeros(len(classes.names), np.float32)
    found = []
    for image in images:
        trace = pipeline_trace(networks, scorer, classes, config, [image.pixels], thresholds)
        found.append(trace | {"images": inputs_of(config, [image.pixels])["images"]})
    return found


def _best(trace: Trace, count: int) -> Trace:
    """The first detections of one image; they are sorted."""
    return {n: trace[n][:count] for n in ("boxes", "scores", "columns", "batch_indices")}


def as_truth(image: NamedImage, trace: Trace, names: Sequence[str]) -> ImageRecord:
    """Detections as if they were labels."""
    count = len(trace["boxes"])
    never = np.zeros(count, bool)
    return ImageRecord(
        path=Path(image.name),
        id=image.name,
        width=image.pixels.shape[1],
        height=image.pixels.shape[0],
        boxes=trace["boxes"],
        labels=tuple(names[c] for c in trace["columns"]),
        scores=np.ones(count, np.float32),
        crowd=never,
        difficult=never,
        ignore=never,
    )
