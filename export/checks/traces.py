"""Outputs of every stage of a detector: by the pipeline, and by ``detector.onnx``.

Both give one dictionary of arrays per call, under the names of
``export.graphs.compose.STAGE_VALUES`` and of the outputs, so that parity is a comparison of
dictionaries.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from export.graphs.compose import STAGE_VALUES
from zsd_core import kernels, pipeline, stages
from zsd_core.config import IMAGE, ModelConfig
from zsd_core.errors import require
from zsd_core.scoring import ClassSet, Scorer

__all__ = [
    "DETECTIONS",
    "DetectorGraph",
    "Trace",
    "head_inputs",
    "head_outputs",
    "inputs_of",
    "pipeline_trace",
]

Trace = dict[str, NDArray[Any]]
Pixels = NDArray[np.uint8]
LOOKS = ("look_embeddings", "look_deltas")  # of regions that are looked at a second time
DETECTIONS = ("boxes", "scores", "columns", "batch_indices")
REGION = "region_"  # before the name of a map: the head's input


def inputs_of(config: ModelConfig, images: Sequence[Pixels]) -> Trace:
    """Inputs ``images`` and ``image_sizes`` of the networks, for images of one padded size."""
    preprocess = config.preprocess
    sizes = [preprocess.resized(*image.shape[:2]) for image in images]
    tensors = [
        kernels.preprocess(
            image,
            size=size,
            padded=preprocess.padded(*size),
            mean=preprocess.mean,
            std=preprocess.std,
        )
        for image, size in zip(images, sizes, strict=True)
    ]
    return {"images": np.stack(tensors), "image_sizes": np.asarray(sizes, np.float32)}


def pipeline_trace(
    networks: stages.Networks,
    scorer: Scorer,
    classes: ClassSet,
    config: ModelConfig,
    images: Sequence[Pixels],
    thresholds: NDArray[np.float32],
) -> Trace:
    """Run ``zsd_core.pipeline`` itself on images of one padded size and note what every stage gave.

    The inputs of the head are in it too, for ``head_inputs``. With no region the later stages are
    missing.
    """
    trace: Trace = {}
    maps = [name for name, _ in config.regions.maps]
    outputs = [name for name in maps if name != IMAGE] + ["objectness", "anchor_deltas"]
    if config.proposals.source == "queries":
        outputs = ["offered_boxes", "offered_logits"]
    told = LOOKS if config.regions.look else ("embeddings", "box_deltas")

    def note(names: Sequence[str], parts: Sequence[NDArray[Any]]) -> None:
        for name, part in zip(names, parts, strict=True):  # a head may see portions
            earlier = [trace[name]] if name in trace else []
            trace[name] = np.concatenate([*earlier, part])

    def noted(function: Callable[..., Any], *names: str) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            result = function(*arguments, **options)
            note(names, result if isinstance(result, tuple) else (result,))
            return result

        return call

    def head(*patches: NDArray[np.float32]) -> Any:
        note([f"{REGION}{name}" for name in maps], patches)
        return networks.head(*patches)

    watched_networks = SimpleNamespace(
        trunk=noted(networks.trunk, *outputs),
        head=noted(head, *told),
    )
    watched_kernels = SimpleNamespace(
        preprocess=kernels.preprocess,
        propose=noted(kernels.propose, "rois", "roi_batch_indices", "roi_scores"),
        top_regions=noted(
            kernels.top_regions, "rois", "roi_batch_indices", "roi_scores", "roi_logits"
        ),
        second_look=kernels.second_look,
        spoken_for=kernels.spoken_for,
        roi_align=kernels.roi_align,
        calibrate_scores=kernels.calibrate_scores,
        detect=noted(kernels.detect, *DETECTIONS),
    )
    every_score = noted(scorer.score, "class_scores")  # those below the thresholds too

    def score(embeddings: Any, objectness: Any, classes: ClassSet, needed: Any) -> Any:
        if config.regions.look:
            note(["embeddings"], [embeddings])
        return every_score(embeddings, objectness, classes)

    watched_scorer = SimpleNamespace(
        score=score,
        least_objectness=lambda threshold: 0.0,
    )
    watched = pipeline.HostPipeline(
        cast(stages.Networks, watched_networks),
        config,
        cast(Scorer, watched_scorer),
        kernels=cast(ModuleType, watched_kernels),
    )
    watched.run(classes, images, thresholds, max_batch=len(images))
    for name, kind in zip(DETECTIONS, (np.float32, np.float32, np.int64, np.int64), strict=True):
        shape = (0, 4) if name == "boxes" else (0,)
        trace.setdefault(name, np.zeros(shape, kind))
    return trace


def head_inputs(trace: Trace) -> Trace:
    """Inputs that the head was given, by name and in its order; {} without regions."""
    return {name: array for name, array in trace.items() if name.startswith(REGION)}


def head_outputs(trace: Trace) -> tuple[str, str]:
    """Names of what the head gave for its inputs: embeddings and deltas."""
    return LOOKS if LOOKS[0] in trace else ("embeddings", "box_deltas")


class DetectorGraph:
    """``detector.onnx`` in plain ONNX Runtime.

    Args:
        path: of the file, beside the files its weights lie in.
        stages: show the value behind every stage too, in a copy of the graph; the copy computes
            what the file computes, but is not the file.
        threads: of ONNX Runtime.
    """

    def __init__(self, path: Path, *, stages: bool = False, threads: int | None = None) -> None:
        ort = require("onnxruntime", "cpu")
        options = ort.SessionOptions()
        options.log_severity_level = 3
        if threads is not None:
            options.intra_op_num_threads = threads
        source: str | bytes = str(path)
        if stages:
            onnx = require("onnx", "export")
            model = onnx.load(path)  # with its weights: a model in memory has no directory
            made = {output for node in model.graph.node for output in node.output}
            model.graph.output.extend(
                onnx.ValueInfoProto(name=name) for name in STAGE_VALUES if name in made
            )  # scores of regions are absent where nothing depends on them
            source = model.SerializeToString()
        self._session = ort.InferenceSession(source, options, providers=["CPUExecutionProvider"])
        self._names = [output.name for output in self._session.get_outputs()]

    def __call__(self, inputs: Trace, classes: ClassSet, thresholds: NDArray[np.float32]) -> Trace:
        """Run it on ``inputs_of`` some images."""
        unseen = classes.unseen_count
        similarity = np.concatenate(
            [np.zeros((1, unseen)), classes.seen_similarity, np.eye(unseen)]
        ).astype(np.float32)
        values = self._session.run(
            self._names,
            {
                **inputs,
                "prototypes": np.ascontiguousarray(classes.prototypes),
                "similarity": similarity,
                "score_threshold": thresholds,
            },
        )
        return dict(zip(self._names, values, strict=True))
