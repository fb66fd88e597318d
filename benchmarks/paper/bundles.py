"""Every system of the bench as a bundle, and the proof that it computes what PyTorch computes.

``python -m benchmarks.paper.bench --bundles DIR`` writes them.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.paper.systems import System
from export.checks.differences import Comparison, Limits
from export.checks.images import NamedImage
from export.checks.parity import class_table, compare_with_detector
from export.checks.traces import Trace, pipeline_trace
from export.graphs.errors import ExportError
from export.onnx import export_bundle
from runtime import Detections, Detector
from runtime.bundle import Bundle, open_bundle
from zsd_core.learning.checkpoint import Checkpoint, load_checkpoint
from zsd_core.learning.models import TorchNetworks
from zsd_core.stages import to_original

__all__ = ["AGREEMENT", "check_bundle", "write_bundles"]

AGREEMENT = "agreement.json"
# Regions of two runtimes differ by a thousandth of a pixel. Where the head is sharp and scores are
# small, that has changed one by 1.1e-4 of the largest, more than the limit of a bundle that ships.
LIMITS = Limits(relative=5e-4)
NEW = "a name that the bundle does not know"
NOTES = """{title}, as the comparison of the paper's systems trains it: {steps} steps of its scoring
over the frozen rest of another detector. For comparison only; {note}."""


def write_bundles(
    made: Sequence[tuple[System, Path]], output: Path, images: Sequence[NamedImage]
) -> list[dict[str, Any]]:
    """Write the bundle of every system, and compare it; the rows also go to ``AGREEMENT``.

    Args:
        made: every system and its checkpoint.
        output: folder of the bundles; one of the same name is replaced.
        images: to compare on.

    Returns:
        What ``check_bundle`` found, by system.

    Raises:
        ExportError: a bundle disagrees with PyTorch, or with itself once a class was added.
    """
    rows = []
    for system, path in made:
        print(f"bundle of {system.title}", file=sys.stderr)
        checkpoint = load_checkpoint(path)
        notes = NOTES.format(
            title=system.title,
            steps=checkpoint.training["steps"],
            note=system.note or "as the paper describes it",
        )
        export_bundle(
            checkpoint,
            output / system.name,
            images=images,
            limits=LIMITS,
            overwrite=True,
            name=f"bench-{system.name}",
            notes=notes,
        )
        found = check_bundle(checkpoint, open_bundle(output / system.name), images)
        if not found["passed"]:
            raise ExportError(f"{output / system.name} is not what PyTorch computes: {found}")
        rows.append({"name": system.name, "title": system.title, **found})
    text = json.dumps(rows, indent=1) + "\n"
    (output / AGREEMENT).write_text(text, encoding="utf-8")
    return rows


def check_bundle(
    checkpoint: Checkpoint, bundle: Bundle, images: Sequence[NamedImage]
) -> dict[str, Any]:
    """Detections of ``Detector`` against PyTorch and ``detector.onnx``, and a class more.

    With score threshold 0, over all images. The last unseen class is taken out and added again, by
    its vector and under a name that the bundle does not know: the detections must be the same, bit
    for bit.

    Returns:
        ``detections`` of ``Detector``; of ``PyTorch`` and ``detector.onnx`` how many of them each
        ``matched``, and the ``largest`` difference of a score; ``added`` detections of the class
        that was added; ``passed``.
    """
    options: dict[str, Any] = {"backend": "onnxruntime", "threads": 1, "score_threshold": 0.0}
    names, vectors = (*bundle.seen, *bundle.unseen), bundle.class_vectors
    with Detector(bundle, classes=names, **options) as detector:
        whole = compare_with_detector(detector, images, LIMITS)
        found = [detector(image.pixels) for image in images]
    eager = Comparison("PyTorch", "Detector", LIMITS, bundle.model_config)
    for image, detections in zip(images, found, strict=True):
        eager.add_detections(_trace(detections), _by_torch(checkpoint, bundle, image.pixels))
    unseen = options | {"mode": "zsd"}  # so that no seen class takes the place of the new one
    with Detector(bundle, classes=names, **unseen) as whole_set:
        before = [whole_set(image.pixels) for image in images]
    with Detector(bundle, classes=names[:-1], **unseen) as grown:
        grown.add_classes({NEW: vectors[-1]})
        again = [grown(image.pixels) for image in images]
    same = all(
        np.array_equal(a.boxes, b.boxes)
        and np.array_equal(a.scores, b.scores)
        and np.array_equal(a.class_ids, b.class_ids)
        for a, b in zip(before, again, strict=True)
    )
    added = sum(one.class_names.count(NEW) for one in again)
    compared = {
        "PyTorch": eager.report(),
        "detector.onnx": whole.report(),
    }
    return {
        "detections": sum(map(len, found)),
        **{name: _brief(report) for name, report in compared.items()},
        "added": added,
        "passed": same and all(report["passed"] for report in compared.values()),
    }


def _by_torch(checkpoint: Checkpoint, bundle: Bundle, pixels: NDArray[np.uint8]) -> Trace:
    """Detections of PyTorch's networks, in pixels of the photograph."""
    scorer, classes = class_table(bundle)
    config = checkpoint.config.model
    networks = TorchNetworks(checkpoint.model)
    floors = np.zeros(len(classes.names), np.float32)
    trace = pipeline_trace(networks, scorer, classes, config, [pixels], floors)
    size = config.preprocess.resized(*pixels.shape[:2])
    trace["boxes"] = to_original(trace["boxes"], size, pixels.shape[:2])
    return trace


def _trace(detections: Detections) -> Trace:
    return {
        "boxes": detections.boxes,
        "scores": detections.scores,
        "columns": detections.class_ids,
        "batch_indices": np.zeros(len(detections), np.int64),
    }


def _brief(report: Mapping[str, Any]) -> dict[str, Any]:
    (row,) = (one for one in report["stages"] if one["stage"] == "detections")
    return {"matched": row["matched"], "largest": row["score_largest"]}
