"""What rounding the weights of a layer does, and two remedies: a corrected bias, or float32.

Rounded weights shift a layer's output where its input has a mean, as after a ReLU it always has.
The shift is known from the weights and the mean, and the bias takes it back (Nagel et al., arXiv
1906.04721, section 4.2). ``layer_noise`` says how much a layer alone disturbs the outputs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from export.equalize import Feed, input_names, is_depthwise, tensor_values, weight_axes
from zsd_core.errors import require

if TYPE_CHECKING:
    import onnx

__all__ = ["ACTIVATIONS", "correct_biases", "layer_noise", "round_weights"]

Floats = NDArray[np.float32]
EXACT = 2.0**-60  # a step that rounds nothing away: a power of two far below any value
ACTIVATIONS = ("Clip", "Relu")


def round_weights(weights: NDArray[Any], axis: int, levels: int) -> NDArray[np.float64]:
    """Weights as int8 holds them: symmetric, one scale per index of ``axis``.

    Args:
        weights: of a layer.
        axis: of its output channels.
        levels: the integer of the largest magnitude, 127 or (7-bit) 64.
    """
    exact = weights.astype(np.float64)
    others = tuple(i for i in range(exact.ndim) if i != axis)
    step = np.abs(exact).max(axis=others, keepdims=True) / levels
    step[step == 0] = 1
    rounded: NDArray[np.float64] = np.round(exact / step) * step
    return rounded


def correct_biases(
    model: onnx.ModelProto, samples: Sequence[Feed], layers: Sequence[str], levels: int
) -> None:
    """Take back, in place, the mean shift that rounded weights will cause in some layers.

    Args:
        model: plain, with its weights loaded.
        samples: of its inputs; means are taken over them.
        layers: names of the nodes that will be rounded; those without a bias are left alone.
        levels: see :func:`round_weights`.
    """
    onnx = require("onnx", "export")
    stored = {w.name: w for w in model.graph.initializer}
    nodes = [n for n in model.graph.node if n.name in layers and len(n.input) > 2]
    means = _means(model, samples, sorted({n.input[0] for n in nodes}))
    for node in nodes:
        weights = onnx.numpy_helper.to_array(stored[node.input[1]])
        bias = onnx.numpy_helper.to_array(stored[node.input[2]])
        corrected = bias - _shift(node, weights, means[node.input[0]], levels)
        stored[node.input[2]].CopyFrom(
            onnx.numpy_helper.from_array(corrected.astype(np.float32), node.input[2])
        )


def layer_noise(
    model: onnx.ModelProto, sample: Feed, layers: Sequence[str], levels: int
) -> dict[str, float]:
    """The noise that each layer alone, in int8, makes in the worst output of its network.

    The layer's weights, input and output are rounded, its bias corrected, and the outputs compared.
    One session serves all layers: weights and rounding steps are inputs that have defaults.

    Args:
        model: plain, with its weights loaded.
        sample: of its inputs.
        layers: names of the nodes to ask.
        levels: of the weights, see :func:`round_weights`.

    Returns:
        Per layer the root mean square of the error over that of the signal.
    """
    onnx, ort = require("onnx", "export"), require("onnxruntime", "cpu")
    nodes = {n.name: n for n in model.graph.node if n.name in layers}
    readers: dict[str, list[Any]] = {}
    for node in model.graph.node:
        for tensor in node.input:
            readers.setdefault(tensor, []).append(node)

    def result(node: Any) -> str:
        """What is stored of a layer's output: after its activation, which is fused."""
        after = readers.get(node.output[0], [])
        fused = len(after) == 1 and after[0].op_type in ACTIVATIONS
        return str(after[0].output[0] if fused else node.output[0])

    touched = {key: (node.input[0], result(node)) for key, node in nodes.items()}
    tensors = sorted({tensor for pair in touched.values() for tensor in pair})
    step, mean = {}, {}
    for tensor, array in next(tensor_values(model, [sample], tensors)).items():
        step[tensor] = float(np.abs(array).max()) / 127 or EXACT
        mean[tensor] = array.mean(axis=(0, *range(2, array.ndim)), dtype=np.float64)
    probe = _probe(model, tensors, [i for n in nodes.values() for i in n.input[1:]])
    options = ort.SessionOptions()
    options.log_severity_level = 3
    session = ort.InferenceSession(
        probe.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    stored = {w.name: onnx.numpy_helper.to_array(w) for w in model.graph.initializer}
    truth = [a.astype(np.float64) for a in session.run(None, sample)]
    found = {}
    for key, node in nodes.items():
        weights = stored[node.input[1]]
        feed = {**sample, node.input[1]: _single(round_weights(weights, weight_axes(node)[0],
                                                                   levels))}  # fmt: skip
        for bias in node.input[2:]:
            feed[bias] = _single(stored[bias] - _shift(node, weights, mean[node.input[0]], levels))
        feed |= {_step(tensor): np.asarray(step[tensor], np.float32) for tensor in touched[key]}
        found[key] = max(
            float(np.sqrt(((a - b) ** 2).sum() / max(float((a**2).sum()), 1e-30)))
            for a, b in zip(truth, session.run(None, feed), strict=True)
        )
    return found


def _probe(
    model: onnx.ModelProto, tensors: Sequence[str], weights: Sequence[str]
) -> onnx.ModelProto:
    """A copy whose ``tensors`` are rounded to multiples of steps, its ``weights`` inputs."""
    onnx = require("onnx", "export")
    probe = onnx.ModelProto()
    probe.CopyFrom(model)
    graph, helper, inputs = probe.graph, onnx.helper, input_names(model)
    for tensor in tensors:
        step = _step(tensor)
        graph.initializer.append(onnx.numpy_helper.from_array(np.float32(EXACT), step))
        exact, rounded = (
            (tensor, f"{tensor}_used") if tensor in inputs else (f"{tensor}_exact", tensor)
        )
        for node in graph.node:
            if tensor in inputs:
                node.input[:] = [rounded if i == tensor else i for i in node.input]
            node.output[:] = [exact if o == tensor else o for o in node.output]
        graph.node.extend([
            helper.make_node("Div", [exact, step], [f"{tensor}_steps"]),
            helper.make_node("Round", [f"{tensor}_steps"], [f"{tensor}_whole"]),
            helper.make_node("Mul", [f"{tensor}_whole", step], [rounded]),
        ])  # fmt: skip
    feedable = {*weights, *map(_step, tensors)}
    graph.input.extend(
        helper.make_tensor_value_info(w.name, w.data_type, w.dims)
        for w in graph.initializer if w.name in feedable
    )  # fmt: skip
    del graph.value_info[:]
    return _sorted(probe)


def _sorted(model: onnx.ModelProto) -> onnx.ModelProto:
    """Bring the nodes into an order in which everything is made before it is read."""
    ready = {v.name for v in (*model.graph.input, *model.graph.initializer)} | {""}
    waiting, done = list(model.graph.node), []
    while waiting:
        now = [node for node in waiting if ready.issuperset(node.input)]
        assert now, "a cycle"
        done += now
        ready |= {name for node in now for name in node.output}
        waiting = [node for node in waiting if not ready.issuperset(node.output)]
    copies = [type(node).FromString(node.SerializeToString()) for node in done]
    del model.graph.node[:]
    model.graph.node.extend(copies)
    return model


def _step(tensor: str) -> str:
    return f"{tensor}_step"


def _single(array: NDArray[Any]) -> Floats:
    return np.asarray(array, np.float32)


def _means(
    model: onnx.ModelProto, samples: Sequence[Feed], tensors: Sequence[str]
) -> Mapping[str, NDArray[np.float64]]:
    """Mean of every channel (axis 1) of some tensors."""
    means: dict[str, NDArray[np.float64]] = {}
    for values in tensor_values(model, samples, tensors):
        for key, array in values.items():
            mean = array.mean(axis=(0, *range(2, array.ndim)), dtype=np.float64)
            means[key] = means.get(key, np.zeros_like(mean)) + mean / len(samples)
    return means


def _shift(
    node: onnx.NodeProto, weights: NDArray[Any], mean: NDArray[np.float64], levels: int
) -> NDArray[np.float64]:
    """How far rounded weights move the mean of every output channel; padding is not looked at."""
    out, into = weight_axes(node)
    error = round_weights(weights, out, levels) - weights
    if error.ndim > 2:
        error = error.sum(axis=tuple(range(2, error.ndim)))  # over the positions of the kernel
    if is_depthwise(node):
        shift: NDArray[np.float64] = error[:, 0] * mean
    else:
        shift = np.tensordot(error, mean, axes=(into, 0))
    return shift
