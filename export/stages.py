"""What every stage of a detector computes: by the pipeline, and by ``detector.onnx``.

Both give one dictionary of arrays per call, under the names of ``export.compose.STAGE_VALUES`` and
of the outputs, so that parity is a comparison of dictionaries.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from export.compose import STAGE_VALUES
from zsd_core import kernels, pipeline
from zsd_core.config import ModelConfig
from zsd_core.errors import DataError, require
from zsd_core.scoring import ClassSet, Scorer

__all__ = [
    "DETECTIONS", "DetectorGraph", "NamedImage", "Trace", "folder_images", "head_inputs",
    "inputs_of", "pipeline_trace", "sample_images",
]  # fmt: skip

Trace = dict[str, NDArray[Any]]
Pixels = NDArray[np.uint8]
DETECTIONS = ("boxes", "scores", "columns", "batch_indices")
REGION = "region_"  # before the name of a map: the head's input


@dataclass(frozen=True, slots=True, eq=False)
class NamedImage:
    """An image, ``(H, W, 3)`` uint8 RGB, and what to call it."""

    name: str
    pixels: Pixels


def sample_images() -> list[NamedImage]:
    """The fixed images of parity: photographs that ship inside scikit-image, and made-up ones.

    Landscape, portrait, square, a mirror image (so that there is a pair of one size), a tiny one,
    noise, and one without any structure.
    """
    data = require("skimage.data", "demo")
    astronaut, chelsea, coffee = data.astronaut(), data.chelsea(), data.coffee()
    rng = np.random.default_rng(0)
    blocks = rng.integers(0, 256, (5, 7, 3), np.uint8).repeat(40, axis=0).repeat(40, axis=1)
    photographs = {
        "chelsea": chelsea,
        "chelsea, mirrored": chelsea[:, ::-1],
        "coffee": coffee,
        "coffee, left half": coffee[:, :300],
        "astronaut": astronaut,
        "rocket": data.rocket(),
        "motorcycle": data.stereo_motorcycle()[0],
        "blocks": blocks,
        "noise": rng.integers(0, 256, (211, 97, 3), np.uint8),
        "grey": np.full((120, 160, 3), 128, np.uint8),
        "1 x 1": chelsea[100:101, 200:201],
    }
    return [NamedImage(k, np.ascontiguousarray(v[:, :, :3])) for k, v in photographs.items()]


def folder_images(folder: str | Path) -> list[NamedImage]:
    """Every image file below ``folder``, by name; hidden ones not.

    Raises:
        DataError: it is no folder, or there is none in it.
        ImageError: one cannot be read.
    """
    from runtime.images import read_image
    from runtime.sources import IMAGES

    root = Path(folder)
    if not root.is_dir():
        raise DataError(f"{folder} is no folder; name one that holds images.")
    names = sorted(path.relative_to(root) for path in root.rglob("*"))
    names = [
        name for name in names
        if name.suffix.lower() in IMAGES and not any(part[0] == "." for part in name.parts)
        and (root / name).is_file()
    ]  # fmt: skip
    if not names:
        raise DataError(f"{folder} holds no image ({', '.join(sorted(IMAGES))}).")
    return [NamedImage(str(name), read_image(root / name, "rgb")) for name in names]


def inputs_of(config: ModelConfig, images: Sequence[Pixels]) -> Trace:
    """Inputs ``images`` and ``image_sizes`` of the networks, for images of one padded size."""
    preprocess = config.preprocess
    sizes = [preprocess.resized(*image.shape[:2]) for image in images]
    tensors = [
        kernels.preprocess(
            image, size=size, padded=preprocess.padded(*size), mean=preprocess.mean,
            std=preprocess.std,
        )
        for image, size in zip(images, sizes, strict=True)
    ]  # fmt: skip
    return {"images": np.stack(tensors), "image_sizes": np.asarray(sizes, np.float32)}


def pipeline_trace(
    networks: pipeline.Networks,
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
        trunk=noted(networks.trunk, *maps, "objectness", "anchor_deltas"),
        head=noted(head, "embeddings", "box_deltas"),
    )
    watched_kernels = SimpleNamespace(
        preprocess=kernels.preprocess,
        propose=noted(kernels.propose, "rois", "roi_batch_indices", "roi_scores"),
        roi_align=kernels.roi_align,
        detect=noted(kernels.detect, *DETECTIONS),
    )
    every_score = noted(scorer.score, "class_scores")  # those below the thresholds too
    watched_scorer = SimpleNamespace(
        score=lambda embeddings, objectness, classes, needed: every_score(
            embeddings, objectness, classes
        ),
        least_objectness=lambda threshold: 0.0,
    )
    pipeline.run(
        cast(pipeline.Networks, watched_networks),
        cast(Scorer, watched_scorer),
        classes, config, images, thresholds, max_batch=len(images),
        kernels=cast(ModuleType, watched_kernels),
    )  # fmt: skip
    for name, kind in zip(DETECTIONS, (np.float32, np.float32, np.int64, np.int64), strict=True):
        shape = (0, 4) if name == "boxes" else (0,)
        trace.setdefault(name, np.zeros(shape, kind))
    return trace


def head_inputs(trace: Trace) -> Trace:
    """What the head was given, by the names and in the order of its inputs; {} without regions."""
    return {name: array for name, array in trace.items() if name.startswith(REGION)}


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
