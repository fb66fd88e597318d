"""Change the calibration inside ``detector.onnx``, and nothing else of it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from export.graphs import detector as middle
from export.graphs.compose import PROBABILITIES, insert_network, new_builder, sealed
from zsd_core.calibration import CalibrationConfig
from zsd_core.errors import BundleError, require

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["recalibrated"]

SCORES = "class_scores"


def recalibrated(path: Path, config: CalibrationConfig) -> bytes:
    """The content of a ``detector.onnx`` with another calibration, or none.

    Weights in external files stay there: the content belongs beside them, as ``path`` does.

    Args:
        path: of the file, as ``compose_detector`` made it.
        config: the calibration to be.

    Raises:
        BundleError: the graph does not show its scores, so it was made by another version.
    """
    onnx = require("onnx", "export")
    require("onnxscript", "export")
    import onnx_ir as ir
    import onnx_ir.passes.common as passes
    from onnxscript import GraphBuilder

    model = ir.from_proto(onnx.load(path, load_external_data=False))
    graph = model.graph
    values = {value.name: value for node in graph for value in node.outputs}
    inputs = {value.name: value for value in graph.inputs}
    if SCORES not in values or "similarity" not in inputs:
        raise BundleError(
            f"{path}: the graph names no value {SCORES!r}; export the checkpoint again."
        )
    scores, old = values[SCORES], values.get(PROBABILITIES)
    if old is not None:
        for node, index in [*old.uses()]:
            node.replace_input_with(index, scores)
        passes.RemoveUnusedNodesPass()(model)  # its initializers too
    if config:
        readers = [*scores.uses()]
        given = [scores, inputs["similarity"]]
        (final,) = insert_network(GraphBuilder(graph), _network(config), "calibration", given)
        for node, index in readers:
            node.replace_input_with(index, final)
        final.name = PROBABILITIES
        graph.sort()  # new nodes stand at the end
    passes.NameFixPass()(model)
    content: bytes = ir.to_proto(model).SerializeToString()
    return content


def _network(config: CalibrationConfig) -> ir.Model:
    """Scores ``(R, C)`` and S ``(K, U)`` to probabilities ``(R, C)``, as a graph of its own."""
    import onnx_ir as ir

    builder, dtype = new_builder("calibration"), ir.DataType.FLOAT
    scores = builder.input(SCORES, dtype, ["R", "C"])
    similarity = builder.input("similarity", dtype, ["K", "U"])
    final = middle.calibrate_scores(builder.op, scores, similarity, config)
    builder.add_output(final, PROBABILITIES)
    return sealed(builder)
