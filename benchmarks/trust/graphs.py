"""Networks of a stranger: each with what must come of it, as far as that is known."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from benchmarks.trust.mutate import mutated_bytes
from benchmarks.trust.wire import BYTES, VARINT, field, message, mutated_message, read, varint

__all__ = ["EDGES", "Network", "network"]

EDGES = (np.nan, np.inf, -np.inf, 0.0, 1e38, -1e38, 3e38, 1e-40)
GRAPH, INITIALIZER = 7, 5  # fields of a model and of a graph
DIMS, TYPE, FLOATS, RAW = 1, 2, 4, 9  # fields of a tensor
FLOAT = 1  # a type of elements
ATTRIBUTE: Any = {5: {}, 6: {}, 7: {}, 8: {}, 10: {}}
TREE: Any = {
    7: {1: {5: ATTRIBUTE}, 5: {13: {}}, 11: {2: {}}, 12: {2: {}}, 13: {2: {}}, 15: {1: {}, 2: {}}},
    8: {},
    14: {},
    20: {1: {}},
    25: {7: {5: ATTRIBUTE}},
}
NOT_FLOAT = (6, 7, 8, 9)  # int32, int64, text and bool: types that say other things than numbers
Wanted = Literal["refused", "equal", "near", "any"]


@dataclass(frozen=True, slots=True)
class Network:
    """A network's file.

    Attributes:
        data: its bytes.
        wanted: what must come of it, unless it is refused: what the good network gives, to the bit
            ("equal") or nearly so ("near"), or anything in range ("any"). "refused": it must be.
        kind: what was done to it, for messages.
    """

    data: bytes
    wanted: Wanted
    kind: str


def network(good: bytes, rng: random.Random) -> Network:
    """A network made from a good one."""
    kind = rng.random()
    if kind < 0.2:
        return Network(mutated_bytes(good, rng), "any", "other bytes")
    if kind < 0.4:
        return Network(_other_graph(good, rng), "any", "another graph")
    if kind < 0.6:
        return Network(mutated_message(good, TREE, rng), "any", "other fields")
    if kind < 0.75:
        return _not_finite(good, rng)
    if kind < 0.85:
        return _other_output(good, rng)
    return _other_form(good, rng) if kind < 0.97 else _many_sizes(good, rng)


def _tensor(values: np.ndarray[Any, Any], form: str) -> list[tuple[int, int, int | bytes]]:
    """Fields of a tensor without its name, float32 in one of the forms that ONNX has."""
    raw = np.ascontiguousarray(values, "<f4").tobytes()
    dims = [(DIMS, VARINT, size) for size in values.shape]
    forms: dict[str, list[tuple[int, int, int | bytes]]] = {
        "raw": [*dims, (TYPE, VARINT, FLOAT), (RAW, BYTES, raw)],
        "floats": [*dims, (TYPE, VARINT, FLOAT), (FLOATS, BYTES, raw)],
        "floats one by one": [
            *dims,
            (TYPE, VARINT, FLOAT),
            *((FLOATS, 5, raw[at : at + 4]) for at in range(0, len(raw), 4)),
        ],
        "raw twice": [
            *dims,
            (TYPE, VARINT, FLOAT),
            (RAW, BYTES, bytes(len(raw))),
            (RAW, BYTES, raw),
        ],
        "a type twice": [*dims, (TYPE, VARINT, FLOAT), (RAW, BYTES, raw), (TYPE, BYTES, b"")],
        "another type first": [*dims, (TYPE, VARINT, 7), (RAW, BYTES, raw), (TYPE, VARINT, FLOAT)],
        "packed sizes": [
            (DIMS, BYTES, b"".join(map(varint, values.shape))),
            (TYPE, VARINT, FLOAT),
            (RAW, BYTES, raw),
        ],
    }
    return forms[form]


FORMS = (
    *("raw", "floats", "floats one by one", "raw twice", "a type twice", "another type first"),
    "packed sizes",
)


def _with_weight(
    good: bytes, index: int, values: np.ndarray[Any, Any], form: str, split: bool
) -> bytes:
    """The network with a weight written anew; ``split``: as a second graph that is merged."""
    model, name = read(good), b""
    graph = read(next(value for n, _, value in model if n == GRAPH))  # type: ignore[arg-type]
    places = [at for at, (number, _, _) in enumerate(graph) if number == INITIALIZER]
    old = graph[places[index]][2]
    assert isinstance(old, bytes)
    name = next(value for n, _, value in read(old) if n == 8)  # type: ignore[assignment]
    new = message([*_tensor(values, form), (8, BYTES, name)])
    graph[places[index]] = (INITIALIZER, BYTES, new)
    halves = [graph]
    if split:
        halves = [[f for f in graph if f[0] != INITIALIZER], [f for f in graph if f[0] == 5]]
    rest = [each for each in model if each[0] != GRAPH]
    return message([*rest, *((GRAPH, BYTES, message(half)) for half in halves)])


def _weights(good: bytes) -> list[np.ndarray[Any, Any]]:
    import onnx

    graph = onnx.load_from_string(good).graph
    return [np.array(onnx.numpy_helper.to_array(each)) for each in graph.initializer]


def _float_weight(good: bytes, rng: random.Random) -> tuple[int, np.ndarray[Any, Any]]:
    weights = _weights(good)
    index = rng.choice([at for at, each in enumerate(weights) if each.dtype == np.float32])
    return index, weights[index]


def _not_finite(good: bytes, rng: random.Random) -> Network:
    """A network with a weight that is no number, however it is written."""
    index, values = _float_weight(good, rng)
    if rng.random() < 0.5:
        values[...] = np.nan
    else:
        values.flat[rng.randrange(values.size)] = np.nan
    form = rng.choice((*FORMS, "a constant", "a constant's numbers", "half", "double"))
    if form in FORMS:
        data = _with_weight(good, index, values, form, rng.random() < 0.3)
    else:
        data = _with_constant(good, index, values, form)
    return Network(data, "refused", f"NaN, {form}")


def _with_constant(good: bytes, index: int, values: np.ndarray[Any, Any], form: str) -> bytes:
    """The network with a weight that a node makes."""
    import onnx
    from onnx import helper, numpy_helper

    model = onnx.load_from_string(good)
    graph, name = model.graph, model.graph.initializer[index].name
    del graph.initializer[index]
    if form == "a constant":
        nodes = [helper.make_node("Constant", [], [name], value=numpy_helper.from_array(values))]
    elif form == "a constant's numbers":
        shape = numpy_helper.from_array(np.array(values.shape, np.int64))
        nodes = [
            helper.make_node("Constant", [], ["flat"], value_floats=values.ravel().tolist()),
            helper.make_node("Constant", [], ["shape"], value=shape),
            helper.make_node("Reshape", ["flat", "shape"], [name]),
        ]
    else:
        kind = np.float16 if form == "half" else np.float64
        graph.initializer.append(numpy_helper.from_array(values.astype(kind), "other"))
        nodes = [helper.make_node("Cast", ["other"], [name], to=FLOAT)]
    for node in reversed(nodes):
        graph.node.insert(0, node)
    return bytes(model.SerializeToString())


def _other_form(good: bytes, rng: random.Random) -> Network:
    """The same network, written otherwise: what is taken must give the same."""
    kind = rng.randrange(5)
    if kind == 0:
        index, values = _float_weight(good, rng)
        form = rng.choice((*FORMS, "a constant", "a constant's numbers"))
        if form in FORMS:
            return Network(
                _with_weight(good, index, values, form, rng.random() < 0.3), "near", form
            )
        return Network(_with_constant(good, index, values, form), "near", form)
    if kind == 1:
        return Network(message(read(good), rng.randint(1, 3)), "equal", "longer numbers")
    fields = read(good)
    if kind == 2:
        rng.shuffle(fields)
        return Network(message(fields), "equal", "another order")
    if kind == 3:
        extra = [(number, BYTES, rng.randbytes(9)) for number in (2, 3, 6)]  # texts about the model
        fields += [(999, VARINT, 3), rng.choice(extra)]
        return Network(message(fields), "equal", "other texts and unknown fields")
    entry = field(1, BYTES, b"key") + field(2, BYTES, b"x" * rng.choice((1, 100_000)))
    return Network(message([*fields, (14, BYTES, entry)]), "equal", "a text about the model")


def _other_output(good: bytes, rng: random.Random) -> Network:
    """A network with a conversion behind an output."""
    import onnx
    from onnx import helper

    model = onnx.load_from_string(good)
    kind = rng.choice((*NOT_FLOAT, 10, 11))  # half and double are numbers too
    output = rng.choice(model.graph.output)
    inner = output.name + " before"
    for node in model.graph.node:
        for names in (node.input, node.output):
            names[:] = [inner if name == output.name else name for name in names]
    model.graph.node.append(helper.make_node("Cast", [inner], [output.name], to=kind))
    if rng.random() < 0.8:
        output.type.tensor_type.elem_type = kind
    said = f"an output of type {kind}"
    wanted: Wanted = "refused" if kind in NOT_FLOAT else "near"
    return Network(bytes(model.SerializeToString()), wanted, said)


def _many_sizes(good: bytes, rng: random.Random) -> Network:
    """A tensor of many, huge sizes, whose product has thousands of digits."""
    size, count = rng.choice((0, 1, 2**62, 2**64 - 1)), rng.choice((3, 300, 3000))
    dims = [(DIMS, VARINT, size)] * count
    if rng.random() < 0.5:
        dims = [(DIMS, BYTES, varint(size) * count)]  # type: ignore[list-item]
    tensor = message([*dims, (TYPE, VARINT, FLOAT), (RAW, BYTES, b"1234"), (8, BYTES, b"more")])
    graph = field(GRAPH, BYTES, field(INITIALIZER, BYTES, tensor))
    return Network(good + graph if rng.random() < 0.5 else graph, "any", "many sizes")


def _other_graph(data: bytes, rng: random.Random) -> bytes:
    import onnx

    model = onnx.load_from_string(data)
    graph = model.graph
    weight, node = rng.choice(graph.initializer), rng.choice(graph.node)
    kind = rng.randrange(9)
    if kind == 0 and weight.data_type == FLOAT:
        values = np.array(onnx.numpy_helper.to_array(weight))
        values.flat[rng.randrange(values.size)] = rng.choice(EDGES)
        weight.raw_data = values.tobytes()
    elif kind == 1 and weight.dims:
        weight.dims[rng.randrange(len(weight.dims))] = rng.choice((-1, 0, 1, 2**31, 2**62, 10**9))
    elif kind == 2:
        place = rng.choice(("/etc/passwd", "../outside", "weights.bin", "scorer.safetensors", ""))
        weight.ClearField("raw_data")
        weight.data_location = 1
        for key, value in (("location", place), ("offset", "0"), ("length", str(2**40))):
            if key == "location" or rng.random() < 0.5:
                weight.external_data.add(key=key, value=value)
    elif kind == 3:
        weight.data_type = rng.randrange(30)
    elif kind == 4:
        node.op_type = rng.choice(("Relu", "Sigmoid", "Log", "Sqrt", "Conv", "Shape", "Nothing"))
    elif kind == 5:
        side = rng.choice((node.input, node.output))
        if side:
            side[rng.randrange(len(side))] = rng.choice([*graph.node[0].input, "nothing", ""])
    elif kind == 6:
        value = rng.choice([*graph.input, *graph.output])
        value.type.tensor_type.elem_type = rng.randrange(20)
    elif kind == 7:
        model.opset_import[0].version = rng.choice((0, 1, 7, 99, 2**31 - 1))
    else:
        del graph.node[rng.randrange(len(graph.node))]
    return bytes(model.SerializeToString())
