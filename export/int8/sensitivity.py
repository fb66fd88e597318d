"""Noise of int8 in the outputs of a network, and the layers to spare.

``NoiseProbe`` rounds any of the layers together. ``layer_noise`` asks it about every layer alone;
``cheapest_run`` finds consecutive layers that had better stay float32, because the errors of all
layers together, each of them small, are too large.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from export.graphs.inspect import (
    ACTIVATIONS,
    Feed,
    input_names,
    tensor_values,
    weight_axes,
    weighted_layers,
)
from export.int8.rounding import channel_means, mean_shift, round_weights
from zsd_core.errors import require

if TYPE_CHECKING:
    import onnx

__all__ = ["SENSITIVE", "NoiseProbe", "cheapest_run", "layer_noise", "sensitive_nodes"]

SENSITIVE = 0.05  # the noise of a layer in int8 above which it stays float32, as in int8 itself
Floats = NDArray[np.float32]
EXACT = 2.0**-60  # a step that rounds nothing away: a power of two far below any value
LEVELS = 255  # steps between the least and the largest activation


class NoiseProbe:
    """A network of which any layers can be rounded to int8: weights, inputs and outputs.

    One session serves all questions: weights and rounding steps are inputs that have defaults.
    Biases are corrected as ``export.int8.rounding`` does it.

    Args:
        model: plain, with its weights loaded; left as it is.
        samples: of its inputs. The ranges of activations are taken from all, the noise from the
            first: it takes long enough.
        layers: names of the nodes that can be asked about.
        levels: of the weights, see :func:`export.int8.rounding.round_weights`.
    """

    def __init__(
        self, model: onnx.ModelProto, samples: Sequence[Feed], layers: Sequence[str], levels: int
    ) -> None:
        onnx, ort = require("onnx", "export"), require("onnxruntime", "cpu")
        nodes = {n.name: n for n in model.graph.node if n.name in layers}
        touched = {key: (node.input[0], _result(model, node)) for key, node in nodes.items()}
        tensors = sorted({tensor for pair in touched.values() for tensor in pair})
        means = channel_means(model, samples, [node.input[0] for node in nodes.values()])
        low, high = dict.fromkeys(tensors, 0.0), dict.fromkeys(tensors, 0.0)
        for values in tensor_values(model, samples, tensors):
            for tensor, array in values.items():
                low[tensor] = min(low[tensor], float(array.min(initial=0)))
                high[tensor] = max(high[tensor], float(array.max(initial=0)))
        stored = {w.name: onnx.numpy_helper.to_array(w) for w in model.graph.initializer}
        self._sample = dict(samples[0])
        self._rounded: dict[str, dict[str, Floats]] = {}  # what is fed to round a layer
        for key, node in nodes.items():
            weights = stored[node.input[1]]
            rounded = round_weights(weights, weight_axes(node)[0], levels)
            feed = {node.input[1]: _single(rounded)}
            for bias in node.input[2:]:
                shift = mean_shift(node, weights, means[node.input[0]], levels)
                feed[bias] = _single(stored[bias] - shift)
            steps = {t: (high[t] - low[t]) / LEVELS or EXACT for t in touched[key]}
            self._rounded[key] = feed | {_step(t): _single(steps[t]) for t in steps}
        options = ort.SessionOptions()
        options.log_severity_level = 3
        probe = _probe(model, tensors, [i for n in nodes.values() for i in n.input[1:]])
        self._session = ort.InferenceSession(
            probe.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        self._truth = [a.astype(np.float64) for a in self._session.run(None, self._sample)]

    def __call__(self, layers: Collection[str]) -> float:
        """The noise of the worst output with these layers in int8.

        Returns:
            The root mean square of the error over the root mean square of the signal.
        """
        feed = dict(self._sample)
        for layer in layers:
            feed |= self._rounded[layer]
        return max(
            float(np.sqrt(((a - b) ** 2).sum() / max(float((a**2).sum()), 1e-30)))
            for a, b in zip(self._truth, self._session.run(None, feed), strict=True)
        )


def layer_noise(
    model: onnx.ModelProto, samples: Sequence[Feed], layers: Sequence[str], levels: int
) -> dict[str, float]:
    """The noise that each layer alone, in int8, makes; see :class:`NoiseProbe`."""
    probe = NoiseProbe(model, samples, layers, levels)
    return {layer: probe([layer]) for layer in layers}


def cheapest_run(
    noise: Callable[[Collection[str]], float],
    layers: Sequence[str],
    work: Mapping[str, float],
    limit: float,
) -> list[str]:
    """The cheapest consecutive layers without which the noise of the others is within a limit.

    Layers are spared in a run, since between two float32 layers nothing is rounded at all, and
    beside an int8 one something always is.

    Args:
        noise: of some layers together; the fewer they are, the less.
        layers: in the order of the graph.
        work: of every layer, in multiply-adds.
        limit: of the noise.

    Returns:
        Their names; [] if the noise is within the limit, and all if no shorter run suffices.
    """
    spared = {(0, len(layers))}
    end = 0
    for start in range(len(layers)):  # the later a run starts, the later it ends
        end = max(start, end)
        while noise([*layers[:start], *layers[end:]]) > limit and end < len(layers):
            end += 1
        if end == len(layers) and noise(layers[:start]) > limit:
            break
        spared.add((start, end))
    runs = [layers[start:end] for start, end in sorted(spared)]
    return list(min(runs, key=lambda run: sum(work[layer] for layer in run)))


def _result(model: onnx.ModelProto, node: onnx.NodeProto) -> str:
    """Stored output of a layer: after its activation, which is fused."""
    readers = [n for n in model.graph.node if node.output[0] in n.input]
    fused = len(readers) == 1 and readers[0].op_type in ACTIVATIONS
    return str(readers[0].output[0] if fused else node.output[0])


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
        graph.node.extend(
            [
                helper.make_node("Div", [exact, step], [f"{tensor}_steps"]),
                helper.make_node("Round", [f"{tensor}_steps"], [f"{tensor}_whole"]),
                helper.make_node("Mul", [f"{tensor}_whole", step], [rounded]),
            ]
        )
    feedable = {*weights, *map(_step, tensors)}
    graph.input.extend(
        helper.make_tensor_value_info(w.name, w.data_type, w.dims)
        for w in graph.initializer
        if w.name in feedable
    )
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


def _single(array: Any) -> Floats:
    return np.asarray(array, np.float32)


def sensitive_nodes(
    model: onnx.ModelProto, samples: Sequence[Feed], kept: Sequence[str]
) -> list[str]:
    """Layers, with their activations, that int8 alone would spoil: rounding is amplified there."""
    layers = weighted_layers(model, kept)
    noise = layer_noise(model, samples, layers, 127)
    found = [node for node in model.graph.node if noise.get(node.name, 0) > SENSITIVE]
    made = {node.output[0] for node in found}
    return [
        node.name
        for node in model.graph.node
        if node in found or (node.op_type in ACTIVATIONS and node.input[0] in made)
    ]
