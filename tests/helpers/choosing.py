"""A tiny network that chooses, as detectors with queries do: a score, TopK, and layers behind."""

from __future__ import annotations

import numpy as np
import onnx
import tiny
from onnx import TensorProto, helper, numpy_helper

__all__ = ["choosing", "samples"]

WIDTH = 6


def choosing() -> onnx.ModelProto:
    """``images (N, 16, 6)`` to ``boxes (N, 3, 4)``, ``logits (N, 3, 5)`` of the 3 best of 16."""
    draw = tiny.random(11).normal
    shapes = {"w_a": (WIDTH, WIDTH), "w_score": (WIDTH, 1), "w_boxes": (WIDTH, 4)}
    weights = {
        name: draw(size=shape) for name, shape in (shapes | {"w_logits": (WIDTH, 5)}).items()
    }
    nodes = [
        helper.make_node("MatMul", ["images", "w_a"], ["a"], name="first"),
        helper.make_node("Relu", ["a"], ["memory"], name="relu"),
        helper.make_node("MatMul", ["memory", "w_score"], ["score"], name="score"),
        helper.make_node("TopK", ["score", "count"], ["best", "which"], name="choose", axis=1),
        helper.make_node("Tile", ["which", "wide"], ["places"], name="tile"),
        helper.make_node("GatherElements", ["memory", "places"], ["q"], name="gather", axis=1),
        helper.make_node("Transpose", ["q"], ["qt"], name="turn", perm=[0, 2, 1]),
        helper.make_node("MatMul", ["q", "qt"], ["alike"], name="attend"),
        helper.make_node("MatMul", ["alike", "q"], ["mixed"], name="mix"),
        helper.make_node("MatMul", ["mixed", "w_boxes"], ["boxes"], name="box_layer"),
        helper.make_node("MatMul", ["mixed", "w_logits"], ["logits"], name="logit_layer"),
    ]
    integers = {"count": [3], "wide": [1, 1, WIDTH]}

    def value(name: str, *shape: object) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)

    graph = helper.make_graph(
        nodes,
        "choosing",
        [value("images", "N", 16, WIDTH)],
        [value("boxes", "N", 3, 4), value("logits", "N", 3, 5)],
        [numpy_helper.from_array(w.astype(np.float32), name) for name, w in weights.items()]
        + [numpy_helper.from_array(np.asarray(v, np.int64), name) for name, v in integers.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    onnx.checker.check_model(model, full_check=True)
    return model


def samples(count: int = 2) -> list[dict[str, np.ndarray]]:
    """Inputs of it."""
    draw = tiny.random(12).normal
    return [{"images": draw(size=(1, 16, WIDTH)).astype(np.float32)} for _ in range(count)]
