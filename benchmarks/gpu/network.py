"""A network of a bundle, run by PyTorch at one shape, as a CUDA graph can capture it.

Only the operators of the networks that ship, and of the tests' tiny ones, are here; another is an
error that names it. Everything that does not depend on the input's values (shapes, indices of
corners, weights that are cut up) is computed once, when the network is made, so that a run neither
asks the device for a number nor copies one to it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from zsd_core.errors import ConfigError, require

__all__ = ["FixedNetwork"]

Attributes = dict[str, Any]
# Inputs that are parameters: they must be known beforehand, and are given as Python's numbers.
PARAMETERS = {
    "Clip": (1, 2),
    "Expand": (1,),
    "Pad": (1, 2, 3),
    "ReduceL2": (1,),
    "ReduceMax": (1,),
    "ReduceMean": (1,),
    "ReduceSum": (1,),
    "Reshape": (1,),
    "Resize": (1, 2, 3),
    "Slice": (1, 2, 3, 4),
    "Split": (1,),
    "Squeeze": (1,),
    "Tile": (1,),
    "TopK": (1,),
    "Unsqueeze": (1,),
}


def _padding(pads: Sequence[int]) -> list[int]:
    """ONNX's begins and ends of the last axes as ``F.pad`` wants them: the last axis first."""
    half = len(pads) // 2
    return [pads[side * half + axis] for axis in reversed(range(half)) for side in (0, 1)]


def _padded(x: Tensor, a: Attributes, value: float = 0.0) -> Tensor:
    if a.get("auto_pad", b"NOTSET") != b"NOTSET":
        raise ConfigError(f"auto_pad {a['auto_pad']!r} is not known; export with explicit pads.")
    pads = a.get("pads", ())
    return F.pad(x, _padding(pads), value=value) if any(pads) else x


def _conv(a: Attributes, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    strides, dilations = a.get("strides", (1, 1)), a.get("dilations", (1, 1))
    pads = a.get("pads", (0, 0, 0, 0))
    even = list(pads[:2]) == list(pads[2:]) and a.get("auto_pad", b"NOTSET") == b"NOTSET"
    x = x if even else _padded(x, a)
    sides = tuple(pads[:2]) if even else (0, 0)
    return F.conv2d(x, weight, bias, tuple(strides), sides, tuple(dilations), a.get("group", 1))


def _max_pool(a: Attributes, x: Tensor) -> Tensor:
    x = _padded(x, a, -float("inf"))
    return F.max_pool2d(
        x,
        a["kernel_shape"],
        a.get("strides", (1, 1)),
        0,
        a.get("dilations", (1, 1)),
        bool(a.get("ceil_mode", 0)),
    )


def _average_pool(a: Attributes, x: Tensor) -> Tensor:
    if any(a.get("pads", ())) and not a.get("count_include_pad", 0):
        raise ConfigError("AveragePool that does not count its padding is not known.")
    strides = a.get("strides", (1, 1))
    return F.avg_pool2d(_padded(x, a), a["kernel_shape"], strides, 0, bool(a.get("ceil_mode", 0)))


def _pad(a: Attributes, x: Tensor, pads: Any, value: Any = 0.0, axes: Any = None) -> Tensor:
    if a.get("mode", b"constant") != b"constant" or axes is not None:
        raise ConfigError("Pad is known for constants on all axes only.")
    return F.pad(x, _padding(pads), value=float(value or 0.0))


def _resize(a: Attributes, x: Tensor, _: Any, scales: Any = None, sizes: Any = None) -> Tensor:
    how = a.get("mode"), a.get("coordinate_transformation_mode"), a.get("nearest_mode")
    if how != (b"nearest", b"asymmetric", b"floor"):
        raise ConfigError(f"Resize by {how} is not known, only nearest, asymmetric, floor.")
    size = sizes[2:] if sizes else [int(n * s) for n, s in zip(x.shape, scales, strict=True)][2:]
    return F.interpolate(x, size=tuple(size), mode="nearest")


def _grid_sample(a: Attributes, x: Tensor, grid: Tensor) -> Tensor:
    if a.get("mode", b"linear") not in (b"linear", b"bilinear"):
        raise ConfigError(f"GridSample by {a['mode']!r} is not known, only linear.")
    padding = a.get("padding_mode", b"zeros").decode()
    corners = bool(a.get("align_corners", 0))
    return F.grid_sample(x, grid, "bilinear", padding, align_corners=corners)


def _slice(a: Attributes, x: Tensor, starts: Any, ends: Any, axes: Any = None, steps: Any = None):  # type: ignore[no-untyped-def]
    where = [slice(None)] * x.dim()
    for n, (start, end) in enumerate(zip(starts, ends, strict=True)):
        step = steps[n] if steps else 1
        if step < 1:
            raise ConfigError("Slice with a negative step is not known.")
        where[axes[n] if axes else n] = slice(start, end, step)
    return x[tuple(where)]


def _gather(a: Attributes, x: Tensor, indices: Tensor) -> Tensor:
    axis = a.get("axis", 0) % x.dim()
    flat = (indices % x.shape[axis]).reshape(-1)
    shape = (*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :])
    return x.index_select(axis, flat).reshape(shape)


def _split(a: Attributes, x: Tensor, sizes: Any = None) -> Sequence[Tensor]:
    axis, parts = a.get("axis", 0), a["outputs"]
    return torch.split(x, sizes or -(-x.shape[axis] // parts), axis)


def _squeeze(a: Attributes, x: Tensor, axes: Any = None) -> Tensor:
    return x.squeeze() if axes is None else x.squeeze(tuple(axes))


def _unsqueeze(a: Attributes, x: Tensor, axes: Any) -> Tensor:
    rank = x.dim() + len(axes)
    for axis in sorted(axis % rank for axis in axes):
        x = x.unsqueeze(axis)
    return x


def _reshape(a: Attributes, x: Tensor, shape: Any) -> Tensor:
    return x.reshape([x.shape[n] if size == 0 else size for n, size in enumerate(shape)])


def _gemm(a: Attributes, x: Tensor, y: Tensor, bias: Tensor | None = None) -> Tensor:
    x, y = x.T if a.get("transA") else x, y.T if a.get("transB") else y
    alpha, beta = a.get("alpha", 1.0), a.get("beta", 1.0)
    if bias is None:
        return torch.mul(x @ y, alpha)
    return torch.addmm(bias, x, y, beta=beta, alpha=alpha)


def _reduced(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def reduce(a: Attributes, x: Tensor, axes: Any = None) -> Tensor:
        axes = a.get("axes") if axes is None else axes
        axes = list(range(x.dim())) if not axes else list(axes)
        return function(x, dim=tuple(axes), keepdim=bool(a.get("keepdims", 1)))

    return reduce


def _divide(a: Attributes, x: Tensor, y: Tensor) -> Tensor:
    return x / y if x.is_floating_point() else torch.div(x, y, rounding_mode="trunc")


def _constant(a: Attributes) -> Tensor:
    ((_, value),) = ((k, v) for k, v in a.items() if k != "outputs")
    return value if isinstance(value, Tensor) else torch.tensor(value)


def _of_one(function: Callable[[Tensor], Tensor]) -> Callable[..., Tensor]:
    return lambda a, x: function(x)


def _of_two(function: Callable[[Tensor, Tensor], Tensor]) -> Callable[..., Tensor]:
    return lambda a, x, y: function(x, y)


OPERATORS: dict[str, Callable[..., Any]] = {
    "Add": _of_two(torch.add),
    "AveragePool": _average_pool,
    "Clip": lambda a, x, low=None, high=None: torch.clamp(x, low, high),
    "Concat": lambda a, *parts: torch.cat(parts, a["axis"]),
    "Constant": _constant,
    "Conv": _conv,
    "Div": _divide,
    "Exp": _of_one(torch.exp),
    "Flatten": lambda a, x: x.flatten(a.get("axis", 1)),
    "Gather": _gather,
    "GatherElements": lambda a, x, indices: torch.gather(x, a.get("axis", 0), indices),
    "Gemm": _gemm,
    "GlobalAveragePool": lambda a, x: x.mean(dim=(2, 3), keepdim=True),
    "GridSample": _grid_sample,
    "Identity": _of_one(lambda x: x),
    "Log": _of_one(torch.log),
    "MatMul": _of_two(torch.matmul),
    "MaxPool": _max_pool,
    "Mul": _of_two(torch.mul),
    "Pad": _pad,
    "Pow": _of_two(torch.pow),
    "ReduceL2": _reduced(torch.linalg.vector_norm),
    "ReduceMax": _reduced(torch.amax),
    "ReduceMean": _reduced(torch.mean),
    "ReduceSum": _reduced(torch.sum),
    "Relu": _of_one(torch.relu),
    "Reshape": _reshape,
    "Resize": _resize,
    "Shape": lambda a, x: torch.tensor(x.shape)[a.get("start", 0) : a.get("end")],
    "Sigmoid": _of_one(torch.sigmoid),
    "Slice": _slice,
    "Softmax": lambda a, x: torch.softmax(x, a.get("axis", -1)),
    "Split": _split,
    "Sqrt": _of_one(torch.sqrt),
    "Squeeze": _squeeze,
    "Sub": _of_two(torch.sub),
    "Tanh": _of_one(torch.tanh),
    "Tile": lambda a, x, repeats: x.repeat(repeats),
    "TopK": lambda a, x, k: torch.topk(
        x, k[0], a.get("axis", -1), bool(a.get("largest", 1)), bool(a.get("sorted", 1))
    ),
    "Transpose": lambda a, x: x.permute(a.get("perm", tuple(reversed(range(x.dim()))))),
    "Unsqueeze": _unsqueeze,
}


@dataclass(frozen=True, slots=True)
class _Step:
    """One operator whose result depends on the input: names are values of this run."""

    function: Callable[..., Any]
    attributes: Attributes
    inputs: tuple[Any, ...]  # a name, a tensor of the device, a parameter, or None
    outputs: tuple[str, ...]
    last: tuple[str, ...]  # values that nobody reads afterwards


class FixedNetwork:
    """A network at one shape of its input, on a device.

    Args:
        path: the ONNX file, beside its weights.
        shape: of the one input.
        device: as torch names it.

    Attributes:
        inputs: name of the input, in a list.
        outputs: names of the outputs.
        output_shapes: by name.

    Raises:
        ConfigError: an operator, or a kind of one, is not known here.
    """

    def __init__(self, path: Path, shape: Sequence[int], device: str) -> None:
        onnx = require("onnx", "export")
        graph = onnx.load(str(path)).graph
        known = {
            tensor.name: torch.from_numpy(onnx.numpy_helper.to_array(tensor).copy())
            for tensor in graph.initializer
        }
        self.inputs = [value.name for value in graph.input if value.name not in known]
        self.outputs = [value.name for value in graph.output]
        values = {self.inputs[0]: torch.zeros(*shape)}
        steps: list[_Step] = []
        with torch.no_grad():
            for node in graph.node:
                steps += self._fold(onnx, node, known, values, device, path)
        values |= {name: known[name] for name in self.outputs if name in known}
        self.output_shapes = {name: tuple(values[name].shape) for name in self.outputs}
        self._constants = {n: known[n].to(device) for n in self.outputs if n in known}
        self._steps = _with_last_uses(steps, {*self.outputs, *self.inputs})

    @staticmethod
    def _fold(
        onnx: Any,
        node: Any,
        known: dict[str, Tensor],
        values: dict[str, Tensor],
        device: str,
        path: Path,
    ) -> list[_Step]:
        """Run a node once on the CPU; a step of it if its result depends on the input."""
        if node.op_type not in OPERATORS:
            raise ConfigError(f"{path}: the operator {node.op_type} is not known to {__name__}.")
        function = OPERATORS[node.op_type]
        attributes: Attributes = {"outputs": len(node.output)}
        for item in node.attribute:
            value = onnx.helper.get_attribute_value(item)
            if isinstance(value, onnx.TensorProto):
                value = torch.from_numpy(onnx.numpy_helper.to_array(value).copy())
            attributes[item.name] = value
        fixed = node.op_type == "Shape" or all(not name or name in known for name in node.input)
        here: list[Any] = []
        there: list[Any] = []
        for place, name in enumerate(node.input):
            if not name:
                argument: Any = None
            elif place in PARAMETERS.get(node.op_type, ()):
                if name not in known:
                    raise ConfigError(f"{path}: input {place} of {node.name} is not a constant.")
                argument = known[name].tolist() if known[name].numel() else None
            else:
                here.append(known[name] if name in known else values[name])
                there.append(known[name].to(device) if name in known and not fixed else name)
                continue
            here.append(argument)
            there.append(argument)
        results = function(attributes, *here)
        results = [results] if isinstance(results, Tensor) else list(results)
        named = dict(zip(node.output, results, strict=True))
        if fixed:
            known.update(named)
            return []
        values.update(named)
        return [_Step(function, attributes, tuple(there), tuple(node.output), ())]

    def __call__(self, images: Tensor) -> list[Tensor]:
        """Run on an input of the shape; the outputs in order."""
        values = {self.inputs[0]: images, **self._constants}
        for step in self._steps:
            arguments = (values[i] if isinstance(i, str) else i for i in step.inputs)
            results = step.function(step.attributes, *arguments)
            results = [results] if isinstance(results, Tensor) else results
            values.update(zip(step.outputs, results, strict=True))
            for name in step.last:
                del values[name]
        return [values[name] for name in self.outputs]


def _with_last_uses(steps: list[_Step], kept: set[str]) -> list[_Step]:
    """Note at each step what can be let go of, so that memory is used again."""
    done, seen = list[_Step](), set(kept)
    for step in reversed(steps):
        read = {i for i in step.inputs if isinstance(i, str)} | set(step.outputs)
        last = tuple(sorted(read - seen))
        seen |= read
        done.append(_Step(step.function, step.attributes, step.inputs, step.outputs, last))
    return done[::-1]
