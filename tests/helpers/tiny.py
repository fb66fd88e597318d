"""A tiny, real bundle with random weights: two small ONNX networks, no torch, built in a blink.

``tiny_bundle(path)`` writes it through ``write_bundle``, so every test of the runtime runs what a
trained bundle runs. Its weights are chosen so that boxes of all sizes and many classes are found
when the score threshold is 0.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from export.writing.bundle_writer import write_bundle
from zsd_core.config import (
    DetectionConfig,
    ModelConfig,
    PreprocessConfig,
    ProposalConfig,
    RegionConfig,
    ScoringConfig,
)

CHANNELS, VECTOR, JOINT, HIDDEN = 6, 8, 16, 12
SEEN = ("person", "dining table", "truck")
UNSEEN = ("cat", "cup")
WORDS = ("truck", "zebra", "fire truck", "trunk", "forklift", "teapot", "crème brûlée", "cat")
MODEL = ModelConfig(
    preprocess=PreprocessConfig(shorter_edge=64, longer_edge=96),
    proposals=ProposalConfig(
        channels=4, anchor_sizes=(16.0, 32.0, 48.0), pre_nms_top=60, post_nms_top=12
    ),
    regions=RegionConfig(output_size=(3, 3)),
    scoring=ScoringConfig(
        vector_dim=VECTOR,
        joint_dim=JOINT,
        hidden_dim=HIDDEN,
        contrast_dim=4,
        similarity_temperature=0.1,
    ),
    detection=DetectionConfig(score_threshold=0.05, max_detections=20),
)


def random(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


def unit_vectors(count: int, seed: int = 0, width: int = VECTOR) -> NDArray[np.float32]:
    rows = random(seed).normal(size=(count, width))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def scorer_tensors(
    seed: int = 1, vector: int = VECTOR, joint: int = JOINT, hidden: int = HIDDEN
) -> dict[str, NDArray[np.float32]]:
    draw = random(seed).normal
    shapes = {
        "project_semantic.weight1": (joint, vector),
        "project_semantic.bias1": (joint,),
        "project_semantic.weight2": (joint, joint),
        "project_semantic.bias2": (joint,),
    }
    for path in ("score_seen", "score_unseen"):
        shapes |= {
            f"{path}.weight1": (hidden, joint),
            f"{path}.bias1": (hidden,),
            f"{path}.weight2": (hidden,),
            f"{path}.bias2": (1,),
        }
    tensors = {
        name: (draw(size=shape) / np.sqrt(shape[-1])).astype(np.float32)
        for name, shape in shapes.items()
    }
    return {"background": unit_vectors(1, 2, vector)[0], **tensors}


def trunk_model(seed: int = 3) -> onnx.ModelProto:
    """Images to features (stride 16), objectness and anchor deltas."""
    draw, anchors = random(seed).normal, len(MODEL.proposals.anchors())
    weights = {
        "w_features": draw(size=(CHANNELS, 3, 1, 1)),
        "w_objectness": draw(size=(anchors, CHANNELS, 1, 1)),
        "w_deltas": draw(size=(4 * anchors, CHANNELS, 1, 1)) * 0.1,
    }
    nodes = [
        helper.make_node("AveragePool", ["images"], ["p"], kernel_shape=[16, 16], strides=[16, 16]),
        helper.make_node("Conv", ["p", "w_features"], ["f"]),
        helper.make_node("Relu", ["f"], ["features"]),
        helper.make_node("Conv", ["features", "w_objectness"], ["objectness"]),
        helper.make_node("Conv", ["features", "w_deltas"], ["deltas"]),
    ]
    return _model(
        nodes,
        weights,
        {"images": ["N", 3, "H", "W"]},
        {
            "features": ["N", CHANNELS, "h", "w"],
            "objectness": ["N", anchors, "h", "w"],
            "deltas": ["N", 4 * anchors, "h", "w"],
        },
    )


def head_model(seed: int = 4) -> onnx.ModelProto:
    """Region features to embeddings and box deltas."""
    draw, (rows, columns) = random(seed).normal, MODEL.regions.output_size
    cells = CHANNELS * rows * columns
    weights = {
        "w_embed": draw(size=(cells, JOINT)) / 3,
        "w_boxes": draw(size=(cells, 4)) / 3,
    }
    nodes = [
        helper.make_node("Flatten", ["region_features"], ["flat"]),
        helper.make_node("MatMul", ["flat", "w_embed"], ["e"]),
        helper.make_node("Relu", ["e"], ["embeddings"]),
        helper.make_node("MatMul", ["flat", "w_boxes"], ["deltas"]),
    ]
    return _model(
        nodes,
        weights,
        {"region_features": ["R", CHANNELS, rows, columns]},
        {"embeddings": ["R", JOINT], "deltas": ["R", 4]},
    )


def tiny_bundle(path: Path, name: str = "tiny", **changes: object) -> Path:
    """Write the bundle to a directory, or to a ``.zip``; ``changes`` go to ``write_bundle``."""
    arguments: dict[str, object] = {
        "name": name,
        "model": MODEL,
        "classes": [(n, "seen") for n in SEEN] + [(n, "unseen") for n in UNSEEN],
        "class_vectors": unit_vectors(len(SEEN) + len(UNSEEN), 5),
        "scorer": scorer_tensors(),
        "stages": {
            "trunk": _stage("trunk.onnx", trunk_model()),
            "head": _stage("head.onnx", head_model()),
        },
        "files": {
            "trunk.onnx": trunk_model().SerializeToString(),
            "head.onnx": head_model().SerializeToString(),
            "MODEL_CARD.md": b"# Tiny\n\nRandom weights, for tests.\n",
        },
        "vocabulary": (WORDS, unit_vectors(len(WORDS), 6)),
        "vocabulary_info": {"encoder": "random", "licence": "CC0-1.0"},
        "licence": "CC0-1.0",
    }
    return write_bundle(path, **(arguments | changes))  # type: ignore[arg-type]


def split_bundle(path: Path) -> Path:
    """A bundle whose head reads two maps, every other bin of the second; ``graphs.split``."""
    trunk, bins = trunk_model(), [9 * CHANNELS, 4 * 5]
    for node in trunk.graph.node:
        node.input[:] = ["reduced" if name == "features" else name for name in node.input]
        node.output[:] = ["reduced" if name == "features" else name for name in node.output]
    trunk.graph.node.append(helper.make_node("Conv", ["reduced", "w"], ["shortcut"]))
    draw = random(7).normal
    weight = draw(size=(5, CHANNELS, 1, 1)).astype(np.float32)
    trunk.graph.initializer.append(numpy_helper.from_array(weight, "w"))
    del trunk.graph.output[0]
    for name, channels in (("shortcut", 5), ("reduced", CHANNELS)):
        shape = ["N", channels, "h", "w"]
        trunk.graph.output.insert(0, helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))
    head = _model(
        [
            helper.make_node("Flatten", ["region_reduced"], ["a"]),
            helper.make_node("Flatten", ["region_shortcut"], ["b"]),
            helper.make_node("Concat", ["a", "b"], ["flat"], axis=1),
            helper.make_node("MatMul", ["flat", "w_embed"], ["e"]),
            helper.make_node("Relu", ["e"], ["embeddings"]),
            helper.make_node("MatMul", ["flat", "w_boxes"], ["deltas"]),
        ],
        {"w_embed": draw(size=(sum(bins), JOINT)) / 3, "w_boxes": draw(size=(sum(bins), 4)) / 3},
        {"region_reduced": ["R", CHANNELS, 3, 3], "region_shortcut": ["R", 5, 2, 2]},
        {"embeddings": ["R", JOINT], "deltas": ["R", 4]},
    )
    regions = dataclasses.replace(MODEL.regions, maps=(("reduced", 1), ("shortcut", 2)))
    networks = {"trunk": trunk, "head": head}
    return tiny_bundle(
        path,
        model=dataclasses.replace(MODEL, regions=regions),
        stages={name: _stage(f"{name}.onnx", graph) for name, graph in networks.items()},
        files={f"{name}.onnx": graph.SerializeToString() for name, graph in networks.items()},
    )


def _stage(file: str, model: onnx.ModelProto) -> dict[str, object]:
    def described(values):
        return [
            {
                "name": v.name,
                "dtype": "float32",
                "shape": [d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim],
            }
            for v in values
        ]

    return {
        "file": file,
        "inputs": described(model.graph.input),
        "outputs": described(model.graph.output),
    }


def _model(nodes, weights, inputs, outputs) -> onnx.ModelProto:
    def values(shapes):
        return [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in shapes.items()]

    graph = helper.make_graph(
        nodes,
        "tiny",
        values(inputs),
        values(outputs),
        [numpy_helper.from_array(w.astype(np.float32), n) for n, w in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    onnx.checker.check_model(model)
    return model
