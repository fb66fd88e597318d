"""Inputs that int8 is fitted on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from export.checks.images import NamedImage
from export.checks.parity import compared_classes
from export.checks.traces import head_inputs, inputs_of, pipeline_trace
from export.graphs.inspect import STAGES, Feed
from runtime.backends import open_backend
from runtime.bundle import Bundle
from zsd_core.errors import ConfigError

__all__ = ["Reader", "calibration_inputs"]


def calibration_inputs(
    bundle: Bundle, images: Sequence[NamedImage], regions: int
) -> dict[str, list[Feed]]:
    """Inputs of trunk and head in float32 when the pipeline searches ``images``."""
    scorer, classes = compared_classes(bundle)
    config, thresholds = bundle.model_config, np.zeros(len(classes.names), np.float32)
    networks = open_backend("onnxruntime", bundle)
    found: dict[str, list[Feed]] = {stage: [] for stage in STAGES}
    for image in images:
        found["trunk"].append({"images": inputs_of(config, [image.pixels])["images"]})
        trace = pipeline_trace(networks, scorer, classes, config, [image.pixels], thresholds)
        if patches := head_inputs(trace):  # sorted by score: take them from the whole range
            last = len(next(iter(patches.values()))) - 1
            chosen = np.unique(np.linspace(0, last, regions).round().astype(int))
            found["head"].append({name: array[chosen] for name, array in patches.items()})
    networks.close()
    if not found["head"]:
        raise ConfigError("no region was proposed in any image; calibrate on other images.")
    return found


class Reader:
    """Feeds calibration inputs one by one, as ONNX Runtime asks for them."""

    def __init__(self, inputs: Sequence[Feed]) -> None:
        self._feeds: Iterator[Feed] = iter(inputs)

    def get_next(self) -> Feed | None:
        """Return the next inputs, or None after the last."""
        return next(self._feeds, None)
