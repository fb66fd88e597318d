"""The tensors of a safetensors file that a stranger may have written: what C++ takes is taken here.

The header is checked before the library reads it: its readers take files that others refuse.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, TypeGuard

import numpy as np
from numpy.typing import NDArray

from zsd_core.errors import BundleError
from zsd_core.files import parse_json, shown

__all__ = ["read_tensors"]

MOST = 2**63 - 1
MOST_AXES = 8
BYTES = {"F32": 4, "I8": 1, "U8": 1}
METADATA = "__metadata__"


def read_tensors(where: str, data: bytes, dtypes: Collection[str]) -> dict[str, NDArray[Any]]:
    """Tensors of a safetensors file.

    Args:
        where: the file, for messages.
        data: its bytes.
        dtypes: that are expected, of "F32", "I8" and "U8".

    Raises:
        BundleError: it is no such file, its header and data do not agree, a tensor is of another
            dtype, or a number is not finite.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load

    _check_header(where, data, dtypes)
    try:
        tensors: dict[str, NDArray[Any]] = dict(load(data))
    except (SafetensorError, MemoryError, ValueError) as error:
        raise _no_file(where, str(error)) from error
    for key, tensor in tensors.items():
        if tensor.dtype.kind == "f" and not np.isfinite(tensor).all():
            raise BundleError(
                f"{where} has a number that is not finite in {shown(key)}; do not use this bundle."
            )
    return tensors


def _check_header(where: str, data: bytes, dtypes: Collection[str]) -> None:
    """Length of the header in 8 bytes, the header, then the tensors, each byte in one of them."""
    size = int.from_bytes(data[:8], "little")
    if size > len(data) - 8:
        raise _no_file(where, "its header ends behind the file")
    try:
        text = data[8 : 8 + size].decode("utf-8")
    except UnicodeDecodeError as error:
        raise _no_file(where, f"its header is no text: {error}") from error
    header = parse_json(text, where, BundleError, strict=True)
    if not isinstance(header, dict):
        raise _no_file(where, "its header is no object")
    about = header.pop(METADATA, {})
    if not (isinstance(about, dict) and all(isinstance(text, str) for text in about.values())):
        raise _no_file(where, "its metadata are no texts")
    for key, entry in header.items():
        if why := _why_no_entry(entry, dtypes):
            raise _no_file(where, f"tensor {shown(key)} {why}")
    used = 0
    for begin, end in sorted(tuple(entry["data_offsets"]) for entry in header.values()):
        if begin != used:
            raise _no_file(where, "its tensors share bytes, or leave some out")
        used = end
    if used != len(data) - 8 - size:
        raise _no_file(where, "its tensors do not end where it ends")


def _why_no_entry(entry: Any, dtypes: Collection[str]) -> str:
    """Why an entry of the header is none; "" if it is one."""
    if not isinstance(entry, dict):
        return "is no object"
    dtype, shape, offsets = entry.get("dtype"), entry.get("shape"), entry.get("data_offsets")
    if not (isinstance(dtype, str) and dtype in dtypes):
        return f"is of dtype {shown(dtype)}, must be one of {', '.join(dtypes)}"
    if not _is_whole(shape, range(MOST_AXES + 1)):
        return f"has the shape {shown(shape)}, must have up to {MOST_AXES} whole numbers"
    if not _is_whole(offsets, (2,)):
        return f"has the offsets {shown(offsets)}, must have two whole numbers"
    size = BYTES[dtype]
    for side in shape:
        size *= side
        if size > MOST:
            return "has no possible shape"
    return "" if offsets[1] - offsets[0] == size else "is not as large as its shape says"


def _is_whole(values: Any, counts: Collection[int]) -> TypeGuard[list[int]]:
    """Whether a value is a list, of one of these lengths, of whole numbers that 64 bits hold."""
    return (
        isinstance(values, list)
        and len(values) in counts
        and all(isinstance(n, int) and not isinstance(n, bool) and 0 <= n <= MOST for n in values)
    )


def _no_file(where: str, what: str) -> BundleError:
    return BundleError(
        f"{where} is not a safetensors file that can be read: {what}. Export the bundle again."
    )
