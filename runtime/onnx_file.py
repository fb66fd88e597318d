"""ONNX files of a bundle, checked before a library takes memory for them or opens other files.

Reads protobuf's wire format only as far as tensors, so that a device needs no ONNX package: every
tensor's declared size is compared with its bytes, weights kept outside (external data) must lie in
a file of the bundle that is long enough, and no float32 weight may be NaN. Infinity may be meant,
in a mask.

References:
    onnx/onnx.proto, and protobuf.dev/programming-guides/encoding.
"""

from __future__ import annotations

import math
import mmap
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zsd_core.errors import BundleError
from zsd_core.files import shown

__all__ = ["check_network"]

DEEPEST = 60  # messages within each other; a graph within a branch of a branch has about 20
VARINT, LONG, BYTES, SHORT = 0, 1, 2, 5  # wire types
# Message: the fields that lead to tensors, and the message of each.
INSIDE: dict[str, dict[int, str]] = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "function": {7: "node", 11: "attribute"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {13: "entry"},
}
FLOAT = 1  # a type of elements
DIMS, TYPE, RAW, EXTERNAL, LOCATION = 1, 2, 9, 13, 14  # fields of a tensor
SIZED = {4: (21, 22, 23), 8: (2, 3, 9, 17, 18, 19, 20, 24), 16: (4, 5, 10, 16), 32: (1, 6, 12)}
SIZED |= {64: (7, 11, 13, 14), 128: (15,)}
BITS = {kind: bits for bits, kinds in SIZED.items() for kind in kinds}  # of an element, by its type


class _Malformed(Exception):
    """The file breaks the wire format, or a tensor its declaration."""


def check_network(bundle: Path, name: str, path: Path, files: Mapping[str, Any]) -> set[str]:
    """Check a network's file against its own declarations and the files of the bundle.

    Args:
        bundle: for messages.
        name: of the network in the bundle.
        path: its file.
        files: the manifest's, by name, each with its size, ``bytes``.

    Returns:
        Names of the other files of the bundle that hold weights of the network.

    Raises:
        BundleError: it is no ONNX file, a tensor is not as long as its shape says, or its weights
            are to be read outside of the bundle.
    """
    try:
        if not path.stat().st_size:
            raise _Malformed("it is empty")
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            reader = _Reader(data, path, PurePosixPath(name).parent, files)
            reader.walk("model", 0, len(data))
            return reader.names
    except OSError as error:
        raise BundleError(f"{bundle}: {name} cannot be read: {error.strerror}.") from error
    except _Malformed as error:
        raise BundleError(f"{bundle}: {name} is not an ONNX file to be used: {error}.") from None


class _Reader:
    def __init__(
        self, data: mmap.mmap, path: Path, folder: PurePosixPath, files: Mapping[str, Any]
    ) -> None:
        self._data, self._path, self._folder, self._files = data, path, folder, files
        self._mapped: dict[Path, NDArray[np.uint8]] = {}
        self.names: set[str] = set()  # of files that hold weights

    def walk(self, message: str, start: int, end: int, deepest: int = DEEPEST) -> None:
        """Check all tensors of a message between two positions."""
        if not deepest:
            raise _Malformed("its messages are nested too deeply")
        inside = INSIDE[message]
        for field, wire, first, second in self._fields(start, end):
            if field in inside and wire == BYTES:
                if inside[field] == "tensor":
                    self._tensor(first, second)
                else:
                    self.walk(inside[field], first, second, deepest - 1)

    def _tensor(self, start: int, end: int) -> None:
        dims, external = list[int](), dict[str, str]()
        kind, raw, begin, outside = 0, -1, 0, False
        for field, wire, first, second in self._fields(start, end):
            if field == DIMS:
                dims += [first] if wire == VARINT else self._packed(first, second)
            elif field == TYPE:
                kind = first
            elif field == RAW and wire == BYTES:
                raw, begin = second - first, first
            elif field == LOCATION:
                outside = first == 1
            elif field == EXTERNAL and wire == BYTES:
                key, value = self._entry(first, second)
                external[key] = value
        if any(size >> 63 for size in dims):
            raise _Malformed("a tensor has a size below 0")
        wanted = -(-math.prod(dims) * BITS.get(kind, 0) // 8)
        if outside or external:
            file, offset = self._outside(external, wanted)
            if (
                kind == FLOAT and wanted and file.is_file()
            ):  # a missing one is named when it is read
                if file not in self._mapped:
                    self._mapped[file] = np.memmap(file, np.uint8, "r")
                self._numbers(self._mapped[file][offset : offset + wanted])
        elif raw >= 0 and kind in BITS and raw != wanted:
            raise _Malformed(f"a tensor of shape {shown(dims)} has {raw} bytes and needs {wanted}")
        elif raw < 0 and math.prod(dims) > 8 * (end - start):
            raise _Malformed(f"a tensor of shape {shown(dims)} has {end - start} bytes")
        elif raw > 0 and kind == FLOAT:
            self._numbers(np.frombuffer(self._data[begin : begin + raw], np.uint8))

    def _numbers(self, values: NDArray[np.uint8]) -> None:
        if len(values) and np.isnan(values.view("<f4").min()):  # a NaN is the least of all
            raise _Malformed("a weight is no number (NaN)")

    def _outside(self, external: Mapping[str, str], wanted: int) -> tuple[Path, int]:
        """File of weights that are kept outside, and where they begin."""
        place = external.get("location", "")
        name = (self._folder / place).as_posix()
        if name not in self._files or PurePosixPath(place).is_absolute():
            raise _Malformed(f"its weights lie in {shown(place)}, which is no file of this bundle")
        try:
            offset = int(external.get("offset") or 0)
            length = int(external["length"]) if external.get("length") else wanted
        except ValueError:
            raise _Malformed(f"weights in {place} have no whole offset and length") from None
        size = self._files[name]["bytes"]
        if offset < 0 or length < wanted or offset + length > size:
            raise _Malformed(
                f"{length} bytes of weights at {offset} of {place}, which has {size}, where the "
                f"shape needs {wanted}"
            )
        self.names.add(name)
        return self._path.parent / place, offset

    def _entry(self, start: int, end: int) -> tuple[str, str]:
        parts = {1: "", 2: ""}
        for field, wire, first, second in self._fields(start, end):
            if field in parts and wire == BYTES:
                parts[field] = self._data[first:second].decode("utf-8", "replace")
        return parts[1], parts[2]

    def _packed(self, start: int, end: int) -> Iterator[int]:
        while start < end:
            value, start = self._varint(start, end)
            yield value

    def _fields(self, start: int, end: int) -> Iterator[tuple[int, int, int, int]]:
        """Field, wire type, and the number, or where the field's bytes begin and end."""
        data = self._data
        while start < end:
            tag = data[start]
            if tag < 128:
                start += 1
            else:
                tag, start = self._varint(start, end)
            field, wire = tag >> 3, tag & 7
            if wire == VARINT:
                value, start = self._varint(start, end)
                yield field, wire, value, 0
                continue
            if wire == BYTES:
                length, start = self._varint(start, end)
            elif wire in (LONG, SHORT):
                length = 8 if wire == LONG else 4
            else:
                raise _Malformed(f"its wire type {wire} is none of ONNX's")
            if length > end - start:
                raise _Malformed("a field is longer than the file")
            yield field, wire, start, start + length
            start += length

    def _varint(self, start: int, end: int) -> tuple[int, int]:
        value = shift = 0
        while start < end and shift < 70:
            byte = self._data[start]
            value |= (byte & 127) << shift
            start, shift = start + 1, shift + 7
            if byte < 128:
                return value & (1 << 64) - 1, start
        raise _Malformed("it ends within a number")
