"""Run every graph of a bundle beside what it must agree with, on a list of images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from export.parity import Comparison, Limits, conditions
from export.stages import (
    DETECTIONS,
    DetectorGraph,
    NamedImage,
    Trace,
    inputs_of,
    pipeline_trace,
)
from runtime.bundle import Bundle
from zsd_core.pipeline import Networks
from zsd_core.scoring import ClassSet, Scorer

__all__ = ["compare_stages"]


def compare_stages(
    bundle: Bundle,
    scorer: Scorer,
    classes: ClassSet,
    images: Sequence[NamedImage],
    limits: Limits,
    *,
    truth: tuple[str, Networks],
    networks: tuple[str, Networks] | None = None,
    packages: Sequence[str],
) -> dict[str, Any]:
    """Compare ``detector.onnx``, and ``networks`` if given, with ``truth`` in the pipeline.

    The score threshold is 0, so that there is something to compare. Images of one padded size are
    also given to ``detector.onnx`` as a batch, which must find what it finds in each alone.

    Args:
        bundle: whose graphs.
        scorer: of the pipeline.
        classes: to look for.
        images: to look in.
        limits: where agreement ends.
        truth: name and networks of what the rest must agree with.
        networks: name and networks of another candidate.
        packages: distributions whose versions are recorded.

    Returns:
        The comparisons, their verdict and the conditions, as JSON values.
    """
    config = bundle.model_config
    thresholds = np.zeros(len(classes.names), np.float32)
    graph = DetectorGraph(bundle.file("detector.onnx"), stages=True)
    whole = Comparison("detector.onnx", truth[0], limits)
    batched = Comparison("detector.onnx on batches", "detector.onnx on single images", limits)
    comparisons = [whole]
    if networks is not None:
        comparisons.insert(0, Comparison(networks[0], truth[0], limits))
    groups: dict[tuple[int, ...], list[tuple[NamedImage, Trace]]] = {}
    found = {}
    for image in images:
        arguments = (scorer, classes, config, [image.pixels], thresholds)
        expected = pipeline_trace(truth[1], *arguments)
        if networks is not None:
            comparisons[0].add(expected, pipeline_trace(networks[1], *arguments))
            if "patches" in expected:
                outputs = networks[1].head(expected["patches"])
                for name, output in zip(("embeddings", "box_deltas"), outputs, strict=True):
                    row = f"head: {name}, equal input"
                    comparisons[0].add_tensor(row, expected[name], output)
        inputs = inputs_of(config, [image.pixels])
        got = graph(inputs, classes, thresholds)
        whole.add(expected, got)
        found[image.name] = len(expected["boxes"])
        groups.setdefault(inputs["images"].shape, []).append((image, got))
    batches = [members for members in groups.values() if len(members) > 1]
    for members in batches:
        inputs = inputs_of(config, [image.pixels for image, _ in members])
        together = graph(inputs, classes, thresholds)
        for index, (_, alone) in enumerate(members):
            batched.add_detections(alone, _of_image(together, index))
    comparisons += [batched] if batches else []
    return {
        "format": 1,
        "passed": all(comparison.passed for comparison in comparisons),
        "comparisons": [comparison.report() for comparison in comparisons],
        "conditions": conditions(
            [(image.name, image.pixels.shape) for image in images], limits, packages,
            score_threshold=0.0,
            classes={"seen": classes.seen_count, "unseen": classes.unseen_count},
            detections=found,
        ),
    }  # fmt: skip


def _of_image(trace: Trace, index: int) -> Trace:
    """Detections of one image of a batch, as if it had been alone."""
    own = trace["batch_indices"] == index
    part = {name: trace[name][own] for name in DETECTIONS}
    part["batch_indices"] = np.zeros(int(own.sum()), np.int64)
    return part
