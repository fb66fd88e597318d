"""The types of a tensor's elements in ONNX files: their sizes, and which of their bytes are NaN."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["BITS", "DOUBLE", "FLOAT", "FLOATS", "HALVES", "STRING", "has_nan", "low_halves"]

FLOAT, STRING, FLOAT16, DOUBLE, COMPLEX64, COMPLEX128, BFLOAT16 = 1, 8, 10, 11, 14, 15, 16
SIZED = {2: (25, 26), 4: (21, 22, 23), 8: (2, 3, 9, 17, 18, 19, 20, 24), 16: (4, 5, 10, 16)}
SIZED |= {32: (1, 6, 12), 64: (7, 11, 13, 14), 128: (15,)}
BITS = {kind: bits for bits, kinds in SIZED.items() for kind in kinds}  # of an element, by its type
VIEWS = {FLOAT16: "<f2", FLOAT: "<f4", COMPLEX64: "<f4", DOUBLE: "<f8", COMPLEX128: "<f8"}
NAN8 = {  # bytes of the floats of 8 bits
    17: (0x7F, 0xFF),  # e4m3fn
    18: (0x80,),  # e4m3fnuz
    19: (0x7D, 0x7E, 0x7F, 0xFD, 0xFE, 0xFF),  # e5m2
    20: (0x80,),  # e5m2fnuz
    24: (0xFF,),  # e8m0
}
HALVES = {FLOAT16, BFLOAT16, *NAN8}  # floats that may also lie in a list of numbers, one in each
FLOATS = {*VIEWS, *HALVES}  # types that have NaN


def has_nan(kind: int, data: bytes | NDArray[np.generic]) -> bool:
    """Whether one of some elements, little endian, is no number.

    Args:
        kind: type of the elements, one of ``FLOATS``.
        data: of whole elements.
    """
    if kind in NAN8:
        return bool(np.isin(np.frombuffer(data, np.uint8), NAN8[kind]).any())
    if kind == BFLOAT16:
        values = (np.frombuffer(data, "<u2").astype(np.uint32) << 16).view(np.float32)
    else:
        values = np.frombuffer(data, VIEWS[kind])
    return bool(len(values)) and bool(np.isnan(values.min()))  # a NaN is the least of all


def low_halves(varints: bytes, kind: int) -> bytes:
    """The low bits of numbers in protobuf's encoding, as elements of a type of ``HALVES``.

    Args:
        varints: whole numbers, one after the other.
        kind: type of the elements.
    """
    data = np.frombuffer(varints, np.uint8).astype(np.uint16)
    last = np.flatnonzero(data < 128)
    first = np.concatenate([[0], last[:-1] + 1]) if len(last) else last
    values = np.zeros(len(last), np.uint16)
    for place in range(3):  # 16 bits lie in the first three bytes of 7 bits each
        there = first + place <= last
        values[there] |= (data[first[there] + place] & 127) << (7 * place)
    return values.astype(np.uint8 if BITS[kind] == 8 else "<u2").tobytes()
