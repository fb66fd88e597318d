"""A tiny detector of somebody else's, as D-FINE and its like are, and bundles made of it.

``detector_model`` writes the detector: random weights, boxes and logits of every region, a sigmoid,
the best pairs of region and class, boxes scaled to the photograph. ``given_bundle`` is the bundle
of the detector and a second look that ``export.given`` would write, built without torch; ``taught``
is the same look in torch.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import tiny
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from zsd_core.config import (
    DetectionConfig,
    ModelConfig,
    PreprocessConfig,
    ProposalConfig,
    RegionConfig,
    ScoringConfig,
)

SIDE, REGIONS, CLASSES, BEST = 64, 16, len(tiny.SEEN), 20
PIXELS, VISUAL, TAUGHT = 8, 5, 4  # of a region's side, V and T
NAMES = ("horse", "boat", "kettle", "spade")  # that the look was taught
SCORING = ScoringConfig(
    method="prototypes",
    vector_dim=tiny.VECTOR,
    joint_dim=VISUAL,
    objectness_power=0.5,
    kernel_weight=3.0,
    kernel_width=0.4,
    evidence=0.2,
    contest=1.0,
    rivalry=0.5,
)
MODEL = ModelConfig(
    preprocess=PreprocessConfig(square=SIDE, pad_multiple=1, mean=(0, 0, 0), std=(1, 1, 1)),
    proposals=ProposalConfig(source="queries", pre_nms_top=REGIONS, post_nms_top=REGIONS),
    regions=RegionConfig(
        maps=(("image", 1),), stride=1, output_size=(PIXELS, PIXELS), sampling_ratio=0, look=3
    ),
    scoring=SCORING,
    detection=DetectionConfig(nms_threshold=0.7, score_threshold=0.3),
)


def detector_model(
    box_format: str = "cxcywh", *, sigmoid: bool = True, pixels: bool = False
) -> onnx.ModelProto:
    """A whole detector: ``images`` and ``orig_target_sizes`` (width, height) to its three outputs.

    Args:
        box_format: of the last boxes that depend on the image alone.
        sigmoid: False: scores are a softmax instead.
        pixels: those boxes count pixels of the input.
    """
    draw = tiny.random(21).normal
    cells = np.stack(np.meshgrid(np.arange(4), np.arange(4)), axis=-1).reshape(16, 2)
    centres = np.log((cells + 0.5) / (4 - cells - 0.5))  # sigmoid: a grid
    weights = {
        "w": draw(size=(6, 3, 1, 1)),
        "w_boxes": draw(size=(6, 4)) * 0.3,
        "b_boxes": np.concatenate([centres, draw(size=(16, 2)) * 0.7 - 0.5], axis=1),
        "w_logits": draw(size=(6, CLASSES)),
        "b_logits": draw(size=(16, CLASSES)),
        "half": np.array(0.5),
        "scale": np.array(SIDE if pixels else 1),
    }
    node = helper.make_node
    nodes = [
        node("AveragePool", ["images"], ["p"], kernel_shape=[16, 16], strides=[16, 16]),
        node("Conv", ["p", "w"], ["f"]),
        node("Reshape", ["f", "flat"], ["g"]),
        node("Transpose", ["g"], ["queries"], perm=[0, 2, 1]),  # (N, 16, 6)
        node("MatMul", ["queries", "w_logits"], ["l"]),
        node("Add", ["l", "b_logits"], ["logits"]),
        node("MatMul", ["queries", "w_boxes"], ["d"]),
        node("Add", ["d", "b_boxes"], ["before"]),
        node("Sigmoid", ["before"], ["shares"]),
        node("Mul", ["shares", "scale"], ["centred"]),
        node("Sigmoid", ["logits"], ["likely"])
        if sigmoid
        else node("Softmax", ["logits"], ["likely"], axis=-1),
        node("Reshape", ["likely", "rest"], ["pairs"]),
        node("TopK", ["pairs", "best"], ["scores", "places"], axis=1),
        node("Mod", ["places", "classes"], ["labels"]),
        node("Div", ["places", "classes"], ["rows"]),
        node("Unsqueeze", ["rows", "last"], ["picked"]),
        node("Concat", ["sizes", "sizes"], ["twice"], axis=1),
        node("Unsqueeze", ["twice", "middle"], ["whole"]),
        node("Cast", ["orig_target_sizes"], ["sizes"], to=TensorProto.FLOAT),
    ]
    corners = [
        node("Split", ["?"], ["centre", "size"], axis=-1, num_outputs=2),
        node("Mul", ["size", "half"], ["around"]),
        node("Sub", ["centre", "around"], ["low"]),
        node("Add", ["centre", "around"], ["high"]),
        node("Concat", ["low", "high"], ["corners"], axis=-1),
    ]
    order = (
        [*corners, node("Mul", ["corners", "whole"], ["placed"])]
        if box_format == "xyxy"
        else [node("Mul", ["centred", "whole"], ["large"]), *corners]
    )
    corners[0].input[0] = "centred" if box_format == "xyxy" else "large"
    last = "placed" if box_format == "xyxy" else "corners"
    nodes += [*order, node("GatherND", [last, "picked"], ["boxes"], batch_dims=1)]
    numbers = {
        "flat": [0, 6, 16],
        "rest": [0, -1],
        "best": [BEST],
        "classes": [CLASSES],
        "last": [-1],
        "middle": [1],
    }
    return _model(
        nodes,
        weights,
        numbers,
        {
            "images": ["N", 3, SIDE, SIDE],
            "orig_target_sizes": ["N", 2],
        },
        {"labels": ["N", BEST], "boxes": ["N", BEST, 4], "scores": ["N", BEST]},
    )


def _model(nodes: Any, weights: Any, numbers: Any, inputs: Any, outputs: Any) -> onnx.ModelProto:
    """Make a model like ``tiny._model``, with integers among constants and inputs, in any order."""

    def values(shapes: dict[str, list[int | str]]) -> list[onnx.ValueInfoProto]:
        whole = ("labels", "orig_target_sizes")
        kinds = {n: TensorProto.INT64 if n in whole else TensorProto.FLOAT for n in shapes}
        return [helper.make_tensor_value_info(n, kinds[n], shape) for n, shape in shapes.items()]

    constants = [numpy_helper.from_array(np.asarray(a, np.float32), n) for n, a in weights.items()]
    constants += [numpy_helper.from_array(np.asarray(a, np.int64), n) for n, a in numbers.items()]
    known = {tensor.name for tensor in constants} | set(inputs)
    graph = helper.make_graph(
        _sorted(nodes, known), "given", values(inputs), values(outputs), constants
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    onnx.checker.check_model(model)
    return model


def _sorted(nodes: list[onnx.NodeProto], known: set[str]) -> list[onnx.NodeProto]:
    """Nodes behind what they read."""
    order = []
    while nodes:
        ready = next(n for n in nodes if set(n.input) <= known)
        order.append(ready)
        known |= set(ready.output)
        nodes = [n for n in nodes if n is not ready]
    return order


def save_detector(path: Path, *arguments: Any, **options: Any) -> Path:
    """Write ``detector_model`` to a file."""
    path.write_bytes(detector_model(*arguments, **options).SerializeToString())
    return path


def look_weights() -> dict[str, NDArray[np.float32]]:
    """Weights of the second look: to features, to probabilities of its names, and their vectors."""
    draw, cells = tiny.random(22).normal, 3 * PIXELS**2
    return {
        "features": np.float32(draw(size=(cells, VISUAL)) / 4),
        "classifier": np.float32(draw(size=(cells, TAUGHT)) / 4),
        "vectors": tiny.unit_vectors(TAUGHT, 23),
    }


def look_model() -> onnx.ModelProto:
    """The second look as ``head.onnx``: ``[z, e, 1]`` and deltas of zero."""
    node, width = helper.make_node, VISUAL + tiny.VECTOR + 1
    nodes = [
        node("Flatten", ["region_image"], ["flat"]),
        node("MatMul", ["flat", "features"], ["v"]),
        node("ReduceL2", ["v", "axis"], ["length"], keepdims=1),
        node("Div", ["v", "length"], ["z"]),
        node("MatMul", ["flat", "classifier"], ["c"]),
        node("Softmax", ["c"], ["named"], axis=1),
        node("MatMul", ["named", "vectors"], ["e"]),
        node("Slice", ["z", "zero", "one", "axis"], ["first"]),
        node("Mul", ["first", "nothing"], ["zeros"]),
        node("Add", ["zeros", "unit"], ["ones"]),
        node("Concat", ["z", "e", "ones"], ["embeddings"], axis=1),
        node("Concat", ["zeros"] * 4, ["deltas"], axis=1),
    ]
    return _model(
        nodes,
        look_weights() | {"nothing": np.zeros(1), "unit": np.ones(1)},
        {"zero": [0], "one": [1], "axis": [1]},
        {"region_image": ["R", 3, PIXELS, PIXELS]},
        {"embeddings": ["R", width], "deltas": ["R", 4]},
    )


def scorer_tensors() -> dict[str, NDArray[np.float32]]:
    return {
        "background": np.zeros(tiny.VECTOR, np.float32),
        "taught.vectors": tiny.unit_vectors(TAUGHT, 23),
        "taught.weights": tiny.random(24).normal(size=(TAUGHT, VISUAL)).astype(np.float32),
        "name_scale": np.float32([6, -0.5]),
        "example_scale": np.float32([9, -4]),
    }


def trunk_model() -> onnx.ModelProto:
    """The part of the detector in front of the cut, with corners: what ``given_trunk`` makes."""
    onnx_model = detector_model("xyxy")
    part = onnx.utils.Extractor(onnx.shape_inference.infer_shapes(onnx_model)).extract_model(
        ["images"], ["corners", "logits"]
    )
    for made in part.graph.node:
        made.output[:] = ["boxes" if name == "corners" else name for name in made.output]
    del part.graph.output[:]
    for name, width in (("boxes", 4), ("logits", CLASSES)):
        value = helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", REGIONS, width])
        part.graph.output.append(value)
    return part


def given_bundle(path: Path, model: ModelConfig = MODEL, **changes: Any) -> Path:
    """The bundle of the detector and the look, with a vocabulary and without ``detector.onnx``."""
    networks = {"trunk": trunk_model(), "head": look_model()}
    parts: dict[str, Any] = {
        "model": model,
        "classes": [(name, "seen") for name in tiny.SEEN],
        "class_vectors": tiny.unit_vectors(len(tiny.SEEN), 5),
        "scorer": scorer_tensors(),
        "stages": {name: tiny._stage(f"{name}.onnx", net) for name, net in networks.items()},
        "files": {
            **{f"{name}.onnx": net.SerializeToString() for name, net in networks.items()},
            "MODEL_CARD.md": b"# Tiny, given\n",
        },
    }
    return tiny.tiny_bundle(path, **(parts | changes))


def with_look(count: int) -> ModelConfig:
    """The model with another number of regions that are looked at."""
    return dataclasses.replace(MODEL, regions=dataclasses.replace(MODEL.regions, look=count))


def taught() -> Any:
    """The second look in torch, as ``zsd_core.learning.teaching`` keeps one."""
    import torch

    from zsd_core.learning.teaching import Taught

    class TinyLook(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            for name, array in look_weights().items():
                self.register_buffer(name, torch.from_numpy(array))

        def forward(self, regions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            flat = regions.flatten(1)
            visual = flat @ self.features
            visual = visual / visual.pow(2).sum(1, keepdim=True).sqrt()
            named = (flat @ self.classifier).softmax(1) @ self.vectors
            ones = visual[:, :1] * 0 + 1
            return torch.cat([visual, named, ones], 1), visual[:, :4] * 0

    info = {
        "size": PIXELS,
        "encoder": "random",
        "template": "{}",
        "scoring": dataclasses.asdict(SCORING),
    }
    return Taught(TinyLook().eval(), scorer_tensors(), NAMES, info)
