"""Trace ``model.trunk`` and ``model.head`` into plain ONNX networks.

Plain means: no control flow, no custom operator, no shape that depends on data, batch norm folded
into the convolutions. Any backend then runs them, quantises them and captures them in a CUDA graph.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor, nn

from export.graphs.detector import OPSET
from export.graphs.errors import ExportError
from export.graphs.fold import fold_batch_norm
from zsd_core.config import ModelConfig
from zsd_core.errors import require
from zsd_core.learning.models.look import Look

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["Parts", "check_exportable", "check_plain", "trace_head", "trace_look", "trace_trunk"]

LARGEST = 1 << 30  # numbers in a weight that is made of others
# Operators that depend on values and not on shapes alone, or hide a graph.
NOT_PLAIN = frozenset(
    "If Loop Scan SequenceMap NonZero NonMaxSuppression Unique Compress RoiAlign TopK Range "
    "RandomNormal RandomUniform Dropout BatchNormalization Einsum".split()
)


class Parts(Protocol):
    """A detector whose two networks can be traced: the model that was trained, or a split one."""

    @property
    def config(self) -> ModelConfig:
        """The configuration, with the maps that the head reads."""

    @property
    def trunk(self) -> nn.Module:
        """The network from images to maps, objectness and anchor deltas."""

    @property
    def head(self) -> nn.Module:
        """The network from pooled regions to embeddings and box deltas."""


def trace_trunk(model: Parts) -> ir.Model:
    """``images (N, 3, H, W)`` to the maps, ``objectness`` and ``deltas``; N, H, W dynamic.

    H and W are multiples of ``preprocess.pad_multiple``. The maps are ``RegionConfig.maps``.
    """
    config, unit = model.config, model.config.preprocess.pad_multiple
    sample = torch.zeros(2, 3, 3 * unit, 4 * unit)  # no two sizes alike, none of them 1
    height, width = (torch.export.Dim(name, min=1, max=4096) for name in ("h", "w"))
    batch = torch.export.Dim("N", min=1, max=4096)
    maps = [name for name, _ in config.regions.maps]
    traced = _trace(
        model.trunk,
        [sample],
        ["images"],
        [*maps, "objectness", "deltas"],
        {0: batch, 2: unit * height, 3: unit * width},
    )
    strides = [config.regions.stride] * len(maps) + [config.proposals.stride] * 2
    _name_axes(traced.graph.inputs[0], {0: "N", 2: "H", 3: "W"})
    for output, stride in zip(traced.graph.outputs, strides, strict=True):
        _name_axes(output, {0: "N", 2: f"H/{stride}", 3: f"W/{stride}"})
    return traced


def trace_head(model: Parts) -> ir.Model:
    """Regions of every map to ``embeddings`` and ``deltas``; R dynamic, from 0.

    The input that belongs to the map ``features`` is ``region_features (R, C, PH, PW)``.
    """
    maps, unit = model.config.regions.maps, model.config.preprocess.pad_multiple
    with torch.no_grad():
        made = model.trunk(torch.zeros(1, 3, unit, unit))
    samples = [
        torch.zeros(3, features.shape[1], *model.config.regions.bins(step))
        for features, (_, step) in zip(made[: len(maps)], maps, strict=True)
    ]
    regions = torch.export.Dim("R", min=0, max=1 << 20)
    names = [f"region_{name}" for name, _ in maps]
    return _trace(model.head, samples, names, ["embeddings", "deltas"], {0: regions})


def trace_look(look: Look, size: int) -> ir.Model:
    """Regions of the image to ``embeddings`` and ``deltas``; R dynamic, from 0.

    Args:
        look: the network.
        size: pixels of a region's side.
    """
    regions = torch.export.Dim("R", min=0, max=1 << 20)
    sample = torch.zeros(3, 3, size, size)
    return _trace(look, [sample], ["region_image"], ["embeddings", "deltas"], {0: regions})


def check_exportable(config: ModelConfig) -> None:
    """Refuse what the kernels and ONNX do not know.

    Raises:
        ExportError: the regions are pooled and not aligned.
    """
    if config.regions.pooling != "align":
        raise ExportError(
            f"RegionConfig.pooling is {config.regions.pooling!r}; a bundle knows 'align' only. "
            "Train with model.regions.pooling=align."
        )


def check_plain(name: str, model: ir.Model, allowed: frozenset[str] = frozenset()) -> None:
    """Refuse a network that some backend could not run.

    Args:
        name: of the stage.
        model: the network.
        allowed: operators that are fine in it all the same.

    Raises:
        ExportError: names the offending operators.
    """
    nodes = list(model.graph.all_nodes())
    bad = {node.op_type for node in nodes if node.op_type in NOT_PLAIN - allowed}
    bad |= {
        f"{node.domain}::{node.op_type}" for node in nodes if node.domain not in ("", "ai.onnx")
    }
    bad |= {f"function {function.name}" for function in model.functions.values()}
    if bad:
        raise ExportError(
            f"{name}.onnx holds {', '.join(sorted(bad))}; a network of a bundle has no control "
            "flow, no custom operator and no data-dependent shape. Rewrite that part of the model."
        )


def _trace(
    network: nn.Module,
    samples: Sequence[Tensor],
    input_names: Sequence[str],
    output_names: Sequence[str],
    dynamic: Mapping[int, Any],  # of every input
) -> ir.Model:
    require("onnxscript", "export")
    import onnx_ir.passes.common as passes
    from onnxscript import optimizer

    folded = fold_batch_norm(network, *samples)
    with _quiet():
        program = torch.onnx.export(
            folded,
            tuple(samples),
            dynamo=True,
            opset_version=OPSET,
            optimize=True,
            verbose=False,
            input_names=list(input_names),
            output_names=list(output_names),
            dynamic_shapes=tuple(dict(dynamic) for _ in samples),
        )
    assert program is not None
    model = program.model
    # What is made of weights alone becomes a weight, whatever its size: a_0's anchors are.
    optimizer.fold_constants(model, input_size_limit=LARGEST, output_size_limit=LARGEST)
    # What the exporter notes about this machine (paths, stack traces) is nobody else's business.
    passes.ClearMetadataAndDocStringPass()(model)
    passes.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    for value in (*model.graph.inputs, *model.graph.outputs):
        value.metadata_props.clear()
    model.metadata_props.clear()
    model.producer_name, model.producer_version = "contrastzsd", None
    return model


def _name_axes(value: ir.Value, names: Mapping[int, str]) -> None:
    import onnx_ir as ir

    assert value.shape is not None
    value.shape = ir.Shape([names.get(i, size) for i, size in enumerate(value.shape)])


@contextmanager
def _quiet() -> Iterator[None]:
    """The exporter warns about its own internals; nothing of it is for a user to act on."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
