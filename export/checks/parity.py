"""Run every graph of a bundle beside what it must agree with, on a list of images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from export.checks.differences import Comparison, Limits, conditions
from export.checks.images import NamedImage
from export.checks.traces import (
    DETECTIONS,
    LOOKS,
    DetectorGraph,
    Trace,
    head_inputs,
    inputs_of,
    pipeline_trace,
)
from runtime import Detector
from runtime.bundle import Bundle
from zsd_core.config import ModelConfig
from zsd_core.scoring import ClassSet, Scorer, VectorScorer, scorer_for
from zsd_core.semantics import fold_name
from zsd_core.stages import Networks, to_original

__all__ = ["class_table", "compare_stages", "compare_with_detector", "compared_classes"]

WORDS = 20  # of the vocabulary, so that a second look has something to look for


def compare_stages(
    bundle: Bundle,
    scorer: Scorer,
    classes: ClassSet,
    images: Sequence[NamedImage],
    limits: Limits,
    *,
    truth: tuple[str, Networks],
    networks: tuple[str, Networks] | None = None,
    truth_config: ModelConfig | None = None,
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
        truth_config: of the truth, if it cuts regions from other maps than the bundle does; maps
            and what is read of them are compared where both are of one kind.
        packages: distributions whose versions are recorded.

    Returns:
        The comparisons, their verdict and the conditions, as JSON values.
    """
    config = bundle.model_config
    truth_config = truth_config or config
    same_maps = truth_config.regions.maps == config.regions.maps
    thresholds = np.zeros(len(classes.names), np.float32)
    graph = DetectorGraph(bundle.file("detector.onnx"), stages=True)
    whole = Comparison("detector.onnx", truth[0], limits, config)
    batched = Comparison(
        "detector.onnx on batches", "detector.onnx on single images", limits, config
    )
    comparisons = [whole]
    if networks is not None:
        comparisons.insert(0, Comparison(networks[0], truth[0], limits, config))
    groups: dict[tuple[int, ...], list[tuple[NamedImage, Trace]]] = {}
    found = {}
    for image in images:
        rest = [image.pixels], thresholds
        expected = pipeline_trace(truth[1], scorer, classes, truth_config, *rest)
        if networks is not None:
            found_there = pipeline_trace(networks[1], scorer, classes, config, *rest)
            comparisons[0].add(expected, found_there)
            if patches := head_inputs(expected) if same_maps else {}:
                outputs = networks[1].head(*patches.values())
                told = LOOKS if config.regions.look else ("embeddings", "box_deltas")
                for name, output in zip(told, outputs, strict=True):
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
            [(image.name, image.pixels.shape) for image in images],
            limits,
            packages,
            score_threshold=0.0,
            classes={"seen": classes.seen_count, "unseen": classes.unseen_count},
            detections=found,
        ),
    }


def compare_with_detector(
    detector: Detector, images: Sequence[NamedImage], limits: Limits
) -> Comparison:
    """Compare the file ``detector.onnx`` with a ``Detector`` of the same bundle, end to end.

    Args:
        detector: at ``compared_classes`` and the bundle's limits, with score threshold 0.
        images: to look in; each is compared in its own pixels.
        limits: where agreement ends.
    """
    bundle = detector.bundle
    config, classes = bundle.model_config, compared_classes(bundle)[1]
    thresholds = np.zeros(len(classes.names), np.float32)
    graph = DetectorGraph(bundle.file("detector.onnx"))
    result = Comparison(
        "detector.onnx, the file", f"Detector on {detector.backend}", limits, config
    )
    for image in images:
        detections = detector(image.pixels)
        expected: Trace = {
            "boxes": detections.boxes,
            "scores": detections.scores,
            "columns": detections.class_ids,
            "batch_indices": np.zeros(len(detections), np.int64),
        }
        got = graph(inputs_of(config, [image.pixels]), classes, thresholds)
        size = config.preprocess.resized(*image.pixels.shape[:2])
        got["boxes"] = to_original(got["boxes"], size, image.pixels.shape[:2])
        result.add_detections(expected, got)
    return result


def class_table(bundle: Bundle) -> tuple[VectorScorer, ClassSet]:
    """The scorer of a bundle, and the bundle's own classes as it wants them."""
    scorer = scorer_for(bundle.model_config.scoring, bundle.scorer_tensors())
    count, vectors = len(bundle.seen), bundle.class_vectors
    return scorer, scorer.class_set(bundle.seen, vectors[:count], bundle.unseen, vectors[count:])


def compared_classes(bundle: Bundle) -> tuple[VectorScorer, ClassSet]:
    """The class table; with a second look and no unseen class, some words of the vocabulary too.

    Without an unseen class the head would never run. Where there is no vocabulary, any direction
    does.
    """
    scorer, classes = class_table(bundle)
    if not bundle.model_config.regions.look or classes.unseen_count:
        return scorer, classes
    known, rows = {fold_name(name) for name in classes.names}, bundle.vocabulary.rows
    spread = list(rows)[:: max(1, len(rows) // WORDS)][:WORDS]
    names = [name for name in spread if name not in known]
    if names:
        places = np.array([rows[name] for name in names], np.intp)
        vectors = bundle.vocabulary.unit_vectors(places)
    else:
        width = bundle.model_config.scoring.vector_dim
        vectors = np.eye(min(WORDS, width), width, dtype=np.float32)
        names = [f"direction {index}" for index in range(len(vectors))]
    return scorer, scorer.extend(classes, names, vectors, 1)


def _of_image(trace: Trace, index: int) -> Trace:
    """Detections of one image of a batch, as if it had been alone."""
    own = trace["batch_indices"] == index
    part = {name: trace[name][own] for name in DETECTIONS}
    part["batch_indices"] = np.zeros(int(own.sum()), np.int64)
    return part
