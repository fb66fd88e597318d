"""Cut a trained ONNX detector where it offers regions, so that it becomes the trunk of a bundle.

DETR-like detectors (D-FINE, RT-DETR, RF-DETR, DEIM ...) end in a few nodes that pick the best pairs
of box and class and scale the boxes to the photograph. In front of these nodes lie two tensors that
a bundle wants: the boxes of all regions, and a logit of every region and class.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from export.graphs.detector import OPSET
from export.graphs.errors import ExportError
from zsd_core.errors import did_you_mean, require

if TYPE_CHECKING:
    import onnx_ir as ir
    from onnx import ModelProto, NodeProto

__all__ = ["BOX_FORMATS", "Cut", "cut_detector", "find_cut", "given_trunk"]

BoxFormat = Literal["cxcywh", "xyxy"]
BOX_FORMATS: tuple[BoxFormat, ...] = ("cxcywh", "xyxy")
WIDTH_OF_BOX = 4
LEAST = 0.5  # boxes may reach beyond the image by so much of its size


@dataclass(frozen=True, slots=True)
class Cut:
    """Place of the cut through a detector.

    Attributes:
        image: name of the input that takes the image, ``(N, 3, H, W)``.
        boxes: name of the tensor ``(N, Q, 4)``, as shares of the width and height of the input.
        logits: name of the tensor ``(N, Q, Ks)``, before the sigmoid.
        box_format: centre and size, or two corners.
    """

    image: str
    boxes: str
    logits: str
    box_format: BoxFormat


def find_cut(
    path: str | os.PathLike[str],
    *,
    boxes: str | None = None,
    logits: str | None = None,
    box_format: BoxFormat | None = None,
) -> Cut:
    """Find where a detector can be cut.

    The logits are what the last sigmoid in front of the outputs reads. The boxes are the last
    tensor in front of the outputs that has four numbers for each region of the logits and depends
    on the image alone. Tensors that are named are taken as they are.

    Args:
        path: the ONNX file.
        boxes: name of the boxes; None looks for them.
        logits: name of the logits; None looks for them.
        box_format: of the boxes; None runs the detector on noise and takes the one whose boxes are
            in order (``x1 <= x2`` and ``y1 <= y2``) in every region.

    Raises:
        ExportError: there is no such tensor; the message names what was found instead.
    """
    model = _read(path)
    image = _image_input(path, model)
    shapes = _shapes(model)
    producers = {output: node for node in model.graph.node for output in node.output}
    others = {value.name for value in model.graph.input} - {image}
    if logits is None:
        logits = _find_logits(path, model, producers, shapes)
    asked = [boxes] if boxes else _candidates(model, producers, shapes, logits, others)
    for what, name in (("boxes", boxes or asked[0] if asked else ""), ("logits", logits)):
        if name and name not in producers:
            raise ExportError(
                f"{path}: no tensor is called {name!r}, which was named as the {what}"
                f"{did_you_mean(name, producers)}"
            )
    for name in asked:
        if found := _box_format(model, image, name):
            return Cut(image, name, logits, box_format or found)
    raise ExportError(
        f"{path}: no boxes (N, {shapes.get(logits, ('', 'regions'))[1]}, 4) as shares of the "
        f"input's width and height were found{' at ' + boxes if boxes else ''}. Name them with "
        "--boxes; netron.app shows a model's tensors."
    )


def cut_detector(path: str | os.PathLike[str], cut: Cut) -> ModelProto:
    """The part of a detector in front of a cut: image in, boxes and logits out.

    Raises:
        ExportError: the part still needs another input than the image, or cannot be cut.
    """
    onnx = require("onnx", "export")
    from onnx.utils import Extractor

    model = onnx.shape_inference.infer_shapes(_read(path))
    try:
        part = Extractor(model).extract_model([cut.image], [cut.boxes, cut.logits])
        part = onnx.version_converter.convert_version(part, OPSET)
    except Exception as error:  # onnx raises what it likes
        raise ExportError(
            f"{path}: it cannot be cut at {cut.boxes!r} and {cut.logits!r}: {error}"
        ) from error
    known = {cut.image} | {value.name for value in part.graph.initializer}
    made = {output for node in part.graph.node for output in node.output}
    missing = sorted(
        {name for node in part.graph.node for name in node.input if name} - known - made
    )
    if missing:
        raise ExportError(
            f"{path}: the part in front of {cut.boxes!r} and {cut.logits!r} also reads "
            f"{', '.join(missing)}; name tensors that depend on the image alone."
        )
    checked: ModelProto = part
    return checked


def given_trunk(path: str | os.PathLike[str], cut: Cut) -> ir.Model:
    """The trunk of a bundle: ``images`` to ``boxes`` (N, Q, 4) and ``logits`` (N, Q, Ks).

    Boxes are ``x1 y1 x2 y2`` as shares of the input's width and height, whatever the detector
    writes.
    """
    import onnx_ir as ir

    from export.graphs.compose import insert_network, new_builder, sealed

    part = cut_detector(path, cut)
    network = ir.serde.deserialize_model(part)
    builder = new_builder("trunk")
    op, dtype = builder.op, ir.DataType.FLOAT
    (image,) = network.graph.inputs
    sides = [n if isinstance(n, int) else str(n) for n in list(image.shape or ())[2:]]
    images = builder.input("images", dtype, ["N", 3, *sides])
    regions, classes = _run_shapes(part, cut)
    boxes, logits = insert_network(builder, network, "given", [images])
    if cut.box_format == "cxcywh":
        centre, size = op.Split(boxes, axis=-1, num_outputs=2, _outputs=2)
        half = op.Mul(size, 0.5)
        boxes = op.Concat(op.Sub(centre, half), op.Add(centre, half), axis=-1)
    for value, name, last in ((boxes, "boxes", 4), (logits, "logits", classes)):
        value.type = ir.TensorType(dtype)
        value.shape = ir.Shape(["N", regions, last])
        builder.add_output(value, name)
    return sealed(builder)


def _read(path: str | os.PathLike[str]) -> ModelProto:
    onnx = require("onnx", "export")
    try:
        model: ModelProto = onnx.load(os.fspath(path))
    except Exception as error:  # protobuf and onnx raise what they like
        raise ExportError(f"{path}: cannot be read as an ONNX model: {error}") from error
    return model


def _image_input(path: str | os.PathLike[str], model: ModelProto) -> str:
    weights = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in weights]
    images = [value.name for value in inputs if len(value.type.tensor_type.shape.dim) == 4]
    if len(images) != 1:
        raise ExportError(
            f"{path}: {len(images)} inputs have four axes "
            f"({', '.join(value.name for value in inputs)}); a detector takes one image (N, 3, H, "
            "W)."
        )
    return str(images[0])


def _shapes(model: ModelProto) -> dict[str, tuple[int | str, ...]]:
    """The axes of every tensor as far as they can be told; unknown ones are ""."""
    onnx = require("onnx", "export")
    told = onnx.shape_inference.infer_shapes(model).graph
    return {
        value.name: tuple(d.dim_value or d.dim_param for d in value.type.tensor_type.shape.dim)
        for value in (*told.value_info, *told.output, *told.input)
    }


def _run_shapes(part: ModelProto, cut: Cut) -> tuple[int, int]:
    """Q and Ks, from a run on nothing: what shape inference does not tell."""
    logits = _run(part, cut.image, cut.logits)
    return int(logits.shape[1]), int(logits.shape[2])


def _run(part: ModelProto, image: str, output: str) -> NDArray[Any]:
    """An output of a graph on one image of noise."""
    ort = require("onnxruntime", "cpu")
    session = ort.InferenceSession(part.SerializeToString(), providers=["CPUExecutionProvider"])
    axes = [size if isinstance(size, int) else 1 for size in session.get_inputs()[0].shape]
    noise = np.random.default_rng(0).random(axes, np.float32)
    return np.asarray(session.run([output], {image: noise})[0])


def _ancestors(names: Iterable[str], producers: dict[str, NodeProto]) -> Iterator[NodeProto]:
    """Nodes in front of some tensors, the nearest first."""
    queue, seen = deque(names), set[str]()
    while queue:
        node = producers.get(queue.popleft())
        if node is None or node.output[0] in seen:
            continue
        seen.add(node.output[0])
        yield node
        queue.extend(node.input)


def _find_logits(
    path: str | os.PathLike[str],
    model: ModelProto,
    producers: dict[str, NodeProto],
    shapes: dict[str, tuple[int | str, ...]],
) -> str:
    for node in _ancestors((value.name for value in model.graph.output), producers):
        if node.op_type == "Sigmoid" and len(shapes.get(node.input[0], ())) == 3:
            return str(node.input[0])
    raise ExportError(
        f"{path}: no sigmoid of a tensor (N, regions, classes) stands in front of the outputs "
        f"{', '.join(value.name for value in model.graph.output)}. Name the logits with --logits; "
        "netron.app shows a model's tensors."
    )


def _candidates(
    model: ModelProto,
    producers: dict[str, NodeProto],
    shapes: dict[str, tuple[int | str, ...]],
    logits: str,
    others: set[str],
) -> list[str]:
    """Tensors with four numbers for each region of the logits, the nearest to the outputs first.

    What depends on another input than the image is passed over, such as boxes in pixels of a
    photograph whose size is an input.
    """
    regions, found = shapes.get(logits, ("", "", ""))[1], []
    for node in _ancestors((value.name for value in model.graph.output), producers):
        for name in node.output:
            shape = shapes.get(name, ())
            fits = len(shape) == 3 and shape[2] == WIDTH_OF_BOX
            if fits and (shape[1] == regions or isinstance(shape[1], str)):
                before = _ancestors([name], producers)
                if not any(source in others for other in before for source in other.input):
                    found.append(str(name))
    return found


def _box_format(model: ModelProto, image: str, boxes: str) -> BoxFormat | None:
    """Run the part in front of the boxes on noise and see what they can be; None: no boxes."""
    onnx = require("onnx", "export")
    from onnx.utils import Extractor

    part = Extractor(onnx.shape_inference.infer_shapes(model)).extract_model([image], [boxes])
    found = _run(part, image, boxes)
    if found.dtype.kind != "f" or found.min() < -LEAST or found.max() > 1 + LEAST:
        return None
    return "xyxy" if (found[..., 2:] >= found[..., :2]).all() else "cxcywh"
