"""Write the graphs of a bundle so that no weight is stored twice.

Trunk, head and detector share the tensors of ``weights.bin``; the detector reads g_s and g_u
straight out of ``scorer.safetensors``, which is raw little-endian data behind a header. Networks of
another precision that are added later read from there what they have left as it was.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from zsd_core.errors import require

if TYPE_CHECKING:
    import onnx
    import onnx_ir as ir

__all__ = ["WEIGHTS", "save_graphs", "share_weights"]

WEIGHTS, SCORER = "weights.bin", "scorer.safetensors"
ALIGNMENT = 64  # bytes, a cache line: mapped weights can be used in place
INLINE = 1024  # bytes up to which a tensor stays in its graph


def save_graphs(
    graphs: Mapping[str, ir.Model], scorer: Mapping[str, NDArray[Any]], directory: Path
) -> None:
    """Write ``<name>.onnx`` for every graph, ``weights.bin`` and ``scorer.safetensors``.

    Args:
        graphs: models by name; equal tensors are stored once, whatever they are called.
        scorer: the arrays of ``scorer.safetensors``.
        directory: where to; it exists.
    """
    import onnx_ir as ir

    require("safetensors", "export")
    from safetensors.numpy import save_file

    save_file({k: np.ascontiguousarray(v) for k, v in scorer.items()}, directory / SCORER)
    stored = _safetensors_places(directory / SCORER)
    position = 0
    with (directory / WEIGHTS).open("wb") as file:
        for graph in graphs.values():
            for value in graph.graph.initializers.values():
                tensor = value.const_value
                assert tensor is not None
                if tensor.nbytes <= INLINE:
                    continue
                data = tensor.tobytes()
                if data not in stored:
                    file.write(b"\0" * (-position % ALIGNMENT))
                    position += -position % ALIGNMENT
                    stored[data] = (WEIGHTS, position)
                    position += file.write(data)
    for name, graph in graphs.items():
        external = {}
        for key, value in graph.graph.initializers.items():
            tensor = value.const_value
            assert tensor is not None
            if tensor.nbytes > INLINE:
                location, offset = stored[tensor.tobytes()]
                external[key] = value, tensor
                shape = ir.Shape(list(tensor.shape.numpy()))
                value.const_value = ir.ExternalTensor(
                    location,
                    offset,
                    tensor.nbytes,
                    tensor.dtype,
                    shape=shape,
                    name=key,
                    base_dir=directory,
                )
        ir.save(graph, directory / f"{name}.onnx")
        for value, tensor in external.values():  # the caller's model stays in memory
            value.const_value = tensor


def share_weights(model: onnx.ModelProto, networks: Iterable[Path]) -> None:
    """Take the weights of a model from the files in which networks already keep them.

    Args:
        model: with its weights loaded; changed in place.
        networks: ONNX files of one folder, in which the model will lie too. Tensors of 1 KiB and
            less stay in the model, and so do all that no network has in such a file.
    """
    import onnx

    stored: dict[bytes, tuple[str, int]] = {}
    for path in networks:
        for tensor in onnx.load(path, load_external_data=False).graph.initializer:
            if tensor.data_location == onnx.TensorProto.EXTERNAL:
                place = {entry.key: entry.value for entry in tensor.external_data}
                onnx.external_data_helper.load_external_data_for_tensor(tensor, str(path.parent))
                stored[tensor.raw_data] = place["location"], int(place.get("offset", 0))
    for tensor in model.graph.initializer:
        data = onnx.numpy_helper.to_array(tensor).tobytes()
        if len(data) > INLINE and data in stored:
            tensor.CopyFrom(
                onnx.TensorProto(name=tensor.name, dims=tensor.dims, data_type=tensor.data_type)
            )
            tensor.raw_data = data  # which set_external_data wants to see
            onnx.external_data_helper.set_external_data(tensor, *stored[data], len(data))
            tensor.ClearField("raw_data")


def _safetensors_places(path: Path) -> dict[bytes, tuple[str, int]]:
    """Offsets of every tensor's bytes in a safetensors file."""
    content = path.read_bytes()
    start = 8 + int.from_bytes(content[:8], "little")
    entries = json.loads(content[8:start])
    entries.pop("__metadata__", None)
    spans = [[start + edge for edge in entry["data_offsets"]] for entry in entries.values()]
    return {content[begin:end]: (path.name, begin) for begin, end in spans}
