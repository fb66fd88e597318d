"""ONNX files of a bundle, checked before a library takes memory for them or opens other files.

Reads them only as far as tensors, so that a device needs no ONNX package: every tensor's declared
size is compared with its bytes, weights kept outside (external data) must lie in a file of the
bundle that is whole and long enough, and no number may be NaN, of whatever type. Infinity may be
meant, in a mask. What protobuf would skip or merge, so that a library could see another tensor
than this check, is refused: a field of a wire type that is not its own, a field twice that may
be there once.

References:
    onnx/onnx.proto.
"""

from __future__ import annotations

import math
import mmap
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from runtime.onnx_elements import BITS, DOUBLE, FLOAT, FLOATS, HALVES, STRING, has_nan, low_halves
from runtime.protobuf_wire import BYTES, LONG, SHORT, VARINT, Malformed, fields, packed_varints
from zsd_core.errors import BundleError
from zsd_core.files import shown

__all__ = ["SUFFIX", "check_network"]

SUFFIX = ".onnx"  # of every network; by another one, libraries would take another parser
DEEPEST = 60  # messages within each other; a graph within a branch of a branch has about 20
MOST_AXES = 32  # of a tensor
MOST_ELEMENTS = 1 << 63
CHUNK = 1 << 20  # bytes of weights that are looked at together; whole elements of every type
# Message: the fields that lead to tensors, and the message of each.
INSIDE: dict[str, dict[int, str]] = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "function": {7: "node", 11: "attribute"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
}
# Fields of those that may be there once: protobuf would make one message of two.
ONCE = {"model": {7}, "training": {1, 2}, "attribute": {5, 6, 22}, "sparse": {1, 2}}
NUMBERS = {2: (SHORT,), 7: (SHORT, BYTES)}  # of an attribute: a float32 and a list of them
# OpenVINO chooses a reader by what a file holds, not by its name: one whose beginning it does not
# take for ONNX is its own XML if that begins anywhere, with weights that nobody checked.
OTHER_NETWORK = re.compile(rb"<net[ \t\n\r>/]")
DIMS, TYPE, SINGLES, INTEGERS, RAW, DOUBLES, EXTERNAL, LOCATION = 1, 2, 4, 5, 9, 10, 13, 14
TENSOR = {  # fields of a tensor, and the wire types of each
    DIMS: (VARINT, BYTES),
    TYPE: (VARINT,),
    SINGLES: (SHORT, BYTES),
    INTEGERS: (VARINT, BYTES),
    6: (BYTES,),  # texts
    7: (VARINT, BYTES),  # int64
    RAW: (BYTES,),
    DOUBLES: (LONG, BYTES),
    11: (VARINT, BYTES),  # uint64
    EXTERNAL: (BYTES,),
    LOCATION: (VARINT,),
}
INPUT, OPERATOR = 1, 4  # of a node
ENTRY = {1: (BYTES,), 2: (BYTES,)}  # key and value


def check_network(
    bundle: Path,
    name: str,
    path: Path,
    files: Mapping[str, Any],
    verified: Callable[[str], Path],
) -> None:
    """Check a network's file against its own declarations and the files of the bundle.

    Args:
        bundle: for messages.
        name: of the network in the bundle.
        path: its file.
        files: the manifest's, by name, each with its size, ``bytes``.
        verified: path of one of them, its hash checked; raises ``BundleError`` otherwise.

    Raises:
        BundleError: it is no ONNX file, a tensor is not as long as its shape says or holds what is
            no number, or its weights are to be read outside of the bundle or from a damaged file.
    """
    try:
        if not path.stat().st_size:
            raise Malformed("it is empty")
        with ExitStack() as stack:
            file = stack.enter_context(path.open("rb"))
            data = stack.enter_context(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
            if OTHER_NETWORK.search(data):
                raise Malformed("it holds a network in OpenVINO's form, too")
            opened = cache(lambda other: stack.enter_context(verified(other).open("rb")))
            _Reader(data, PurePosixPath(name).parent, files, opened).walk("model", 0, len(data))
    except OSError as error:
        raise BundleError(f"{bundle}: {name} cannot be read: {error.strerror}.") from error
    except Malformed as error:
        raise BundleError(f"{bundle}: {name} is not an ONNX file to be used: {error}.") from None


class _Reader:
    def __init__(
        self,
        data: mmap.mmap,
        folder: PurePosixPath,
        files: Mapping[str, Any],
        opened: Callable[[str], BinaryIO],
    ) -> None:
        self._data, self._folder, self._files, self._opened = data, folder, files, opened

    def walk(self, message: str, start: int, end: int, deepest: int = DEEPEST) -> None:
        """Check all numbers of a message between two positions."""
        if not deepest:
            raise Malformed("its messages are nested too deeply")
        if message == "node":
            self._node(start, end)
        inside, once = INSIDE[message], set(ONCE.get(message, ()))
        known = dict.fromkeys(inside, (BYTES,)) | (NUMBERS if message == "attribute" else {})
        met = set[int]()
        for field, first, second in self._known(message, known, start, end):
            if field in met & once:
                raise Malformed(f"field {field} of {_a(message)} is there twice")
            met.add(field)
            if field not in inside:
                self._floats(FLOAT, first, second)
            elif inside[field] == "tensor":
                self._tensor(first, second)
            else:
                self.walk(inside[field], first, second, deepest - 1)

    def _node(self, start: int, end: int) -> None:
        """Refuse a layer normalisation whose bias is named "".

        It is valid, but ONNX Runtime (1.32 at least) ends the process where it joins such a node
        with the sum before it.
        """
        kind, last = b"", 0
        for field, wire, first, second in fields(self._data, start, end):
            if (field, wire) == (INPUT, BYTES):
                last = second - first
            elif (field, wire) == (OPERATOR, BYTES):
                kind = self._data[first:second]
        if kind == b"LayerNormalization" and not last:
            raise Malformed("a LayerNormalization names an empty bias, which is to be left out")

    def _known(
        self, message: str, known: Mapping[int, tuple[int, ...]], start: int, end: int
    ) -> Iterator[tuple[int, int, int]]:
        """Those fields of a message that are known, each of a wire type of its own.

        A single number has -1 as its second value.
        """
        for field, wire, first, second in fields(self._data, start, end):
            if field in known:
                if wire not in known[field]:
                    raise Malformed(f"field {field} of {_a(message)} has the wire type {wire}")
                yield field, first, -1 if wire == VARINT else second

    def _tensor(self, start: int, end: int) -> None:
        dims, external, integers = list[int](), dict[str, str](), bytearray()
        kind, raw, begin, outside, typed = 0, -1, 0, False, False
        for field, first, second in self._known("tensor", TENSOR, start, end):
            if field == DIMS:
                for size in (first,) if second < 0 else packed_varints(self._data, first, second):
                    dims.append(size)
                    if len(dims) > MOST_AXES:
                        raise Malformed(f"a tensor has more than {MOST_AXES} axes")
            elif field == TYPE:
                kind = first
            elif field == RAW:
                raw, begin = second - first, first
            elif field == LOCATION:
                outside = first == 1
                if first > 1:
                    raise Malformed("the weights of a tensor lie neither inside nor outside")
            elif field == EXTERNAL:
                key, value = self._entry(first, second)
                if key in external:
                    raise Malformed(f"a tensor names the {shown(key)} of its weights twice")
                external[key] = value
            else:
                typed = True
                if field in (SINGLES, DOUBLES):
                    self._floats(FLOAT if field == SINGLES else DOUBLE, first, second)
                elif field == INTEGERS:
                    integers += self._varints(first, second)
        if kind not in BITS and kind != STRING:
            raise Malformed(f"a tensor has elements of type {kind}, which this version cannot read")
        wanted = _size(dims, kind)
        if outside or external:
            if not outside or raw >= 0 or typed or kind == STRING:
                raise Malformed("the weights of a tensor lie both inside and outside of the file")
            self._outside(external, kind, wanted)
        elif raw >= 0 and raw != wanted:
            raise Malformed(f"a tensor of shape {shown(dims)} has {raw} bytes and needs {wanted}")
        elif raw < 0 and math.prod(dims) > 8 * (end - start):
            raise Malformed(f"a tensor of shape {shown(dims)} has {end - start} bytes")
        elif raw > 0 and kind in FLOATS:
            self._floats(kind, begin, begin + raw)
        if kind in HALVES and has_nan(kind, low_halves(bytes(integers), kind)):
            raise Malformed("a weight is no number (NaN)")

    def _floats(self, kind: int, start: int, end: int) -> None:
        """Look at the elements between two positions."""
        if (end - start) % (BITS[kind] // 8):
            raise Malformed("a list of numbers ends within a number")
        for first in range(start, end, CHUNK):
            if has_nan(kind, self._data[first : min(first + CHUNK, end)]):
                raise Malformed("a weight is no number (NaN)")

    def _varints(self, first: int, second: int) -> bytes:
        """Numbers of a list, or the low 16 bits of a single one, in protobuf's encoding."""
        if second < 0:
            return bytes([first & 127 | 128, first >> 7 & 127 | 128, first >> 14 & 3])
        if first < second and self._data[second - 1] > 127:
            raise Malformed("a list of numbers ends within a number")
        return self._data[first:second]

    def _outside(self, external: Mapping[str, str], kind: int, wanted: int) -> None:
        """Check weights that are kept outside."""
        place = external.get("location", "")
        name = (self._folder / place).as_posix()
        if name not in self._files or PurePosixPath(place).is_absolute():
            raise Malformed(f"its weights lie in {shown(place)}, which is no file of this bundle")
        offset, length = (
            _whole(external.get(key, str(least)), place)
            for key, least in (("offset", 0), ("length", wanted))
        )
        size = self._files[name]["bytes"]
        if length < wanted or offset + length > size:
            raise Malformed(
                f"{length} bytes of weights at {offset} of {place}, which has {size}, where the "
                f"shape needs {wanted}"
            )
        file = self._opened(name)
        if kind not in FLOATS:
            return
        file.seek(offset)
        for start in range(0, wanted, CHUNK):
            part = file.read(min(CHUNK, wanted - start))
            if len(part) != min(CHUNK, wanted - start):
                raise Malformed(f"{place} became shorter while it was read")
            if has_nan(kind, part):
                raise Malformed("a weight is no number (NaN)")

    def _entry(self, start: int, end: int) -> tuple[str, str]:
        parts = {1: "", 2: ""}
        for field, first, second in self._known("entry", ENTRY, start, end):
            parts[field] = self._data[first:second].decode("utf-8", "replace")
        return parts[1], parts[2]


def _size(dims: list[int], kind: int) -> int:
    """Bytes of a tensor's elements."""
    if any(size >> 63 for size in dims):
        raise Malformed("a tensor has a size below 0")
    count = math.prod(dims)
    if count >= MOST_ELEMENTS:
        raise Malformed(f"a tensor of shape {shown(dims)} has more elements than can be counted")
    return -(-count * BITS.get(kind, 0) // 8)


def _whole(text: str, place: str) -> int:
    """An offset or a length, written as every library reads it."""
    if not re.fullmatch(r"[0-9]{1,19}", text):
        raise Malformed(f"weights in {place} have no whole offset and length")
    return int(text)


def _a(message: str) -> str:
    """A message with its article."""
    return f"{'an' if message[0] in 'ae' else 'a'} {message}"
