"""The tiny bundle with a ``detector.onnx``, composed without torch."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import onnx_ir as ir
import tiny

from export.graphs.compose import compose_detector

BOXES = dataclasses.replace(tiny.MODEL.detection, nms_threshold=0.3)


def detector_bundle(path: Path, *, wrong: bool = False) -> Path:
    """Write it; ``wrong`` composes the graph with another NMS threshold than the manifest says."""
    trunk, head = (ir.from_proto(make()) for make in (tiny.trunk_model, tiny.head_model))
    config = dataclasses.replace(tiny.MODEL, detection=BOXES) if wrong else tiny.MODEL
    detector = ir.to_proto(compose_detector(trunk, head, tiny.scorer_tensors(), config))
    plain = {
        "trunk.onnx": tiny.trunk_model().SerializeToString(),
        "head.onnx": tiny.head_model().SerializeToString(),
        "detector.onnx": detector.SerializeToString(),
        "MODEL_CARD.md": b"# Tiny\n",
    }
    return tiny.tiny_bundle(path, files=plain)
