"""Files of arrays of a stranger: npz and safetensors whose headers say whatever they like."""

from __future__ import annotations

import io
import json
import random
import struct
import zipfile
from collections.abc import Mapping
from typing import Any

import numpy as np

__all__ = ["bomb", "npy", "npz", "other_arrays", "other_headers", "other_safetensors"]

Array = np.ndarray[Any, Any]
BOMB = 256 << 20  # bytes of a header, most of them blanks
# Types whose values are no real numbers: to be refused as vectors.
UNREAL: tuple[Any, ...] = ("c8", "c16", "M8[s]", "m8[s]", [("a", "f4")], [("a", "f4"), ("b", "f4")])
REAL = ("f2", "f4", "f8", ">f4", ">f8", "i1", "i8", "u1", ">i2", "?")


def npy(array: Array, version: int) -> bytes:
    """An array as numpy writes it, with a header of version 1, 2 or 3."""
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, array, version=(version, 0), allow_pickle=False)
    return buffer.getvalue()


def npz(files: Mapping[str, bytes], packed: bool = True) -> bytes:
    """A zip of arrays."""
    buffer = io.BytesIO()
    method = zipfile.ZIP_DEFLATED if packed else zipfile.ZIP_STORED
    with zipfile.ZipFile(buffer, "w", method, compresslevel=1) as archive:
        for name, data in files.items():
            archive.writestr(f"{name}.npy", data)
    return buffer.getvalue()


def bomb(version: int = 2) -> bytes:
    """An npz of a megabyte whose header has hundreds of them."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        with archive.open("names.npy", "w", force_zip64=True) as file:
            file.write(b"\x93NUMPY" + bytes((version, 0)) + struct.pack("<I", BOMB))
            for _ in range(BOMB >> 20):
                file.write(b" " * (1 << 20))
    return buffer.getvalue()


def other_headers(rng: random.Random) -> bytes:
    """An npz whose arrays declare other shapes and types than their bytes have."""
    files = {}
    for name in rng.choice((("names", "vectors"), ("names", "vectors", "scales"))):
        shape = rng.choice(
            (
                "(3, 4)",
                "(3,)",
                "()",
                "(4000000000, 4)",
                "(0,)",
                "(2, -1)",
                "(3" * 300,
                "(20000000,)",
            )
        )
        kind = rng.choice(
            ("<f4", "|O", "<U1000000", "<U0", "|S0", "|V0", "<c16", "|u1", "M8[ns]", "x")
        )
        header = f"{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}, }}\n".encode()
        version = rng.choice((1, 2, 3, 9))
        length = struct.pack("<H" if version == 1 else "<I", len(header))
        start = b"\x93NUMPY" + bytes((version, 0)) + length
        files[name] = start + header + rng.randbytes(48)
    return npz(files)


def other_arrays(
    words: tuple[str, ...], rows: Array, rng: random.Random
) -> tuple[bytes, Array | None]:
    """A whole npz whose arrays have other types and shapes.

    Returns:
        The file, and the rows that it holds for ``words``; None where it must be refused.
    """
    names: Array = np.array(words)
    vectors, wanted = rows.copy(), rows.astype(np.float64)
    kind, arrays = rng.randrange(7), dict[str, Array]()
    right: Array | None = wanted
    if kind == 0:
        vectors = (rows * 50).astype(rng.choice(REAL))
        right = vectors.astype(np.float64)
    elif kind == 1:
        vectors, right = np.ones(rows.shape, rng.choice(UNREAL)), None
    elif kind == 2:
        scales = np.array([0.5, 2, 4])
        arrays["scales"] = scales.astype(rng.choice(REAL[:5]))
        right = wanted * scales[:, None]
    elif kind == 3:
        shapes: tuple[Any, ...] = ((), (1,), (3, 1), (1, 3), (4,), (0,), (3, 4), (3, 1, 1))
        shape = rng.choice(shapes)
        arrays["scales"] = np.ones(shape, rng.choice(("f4", "m8[s]", "c8", "U1")))
    elif kind == 4:
        vectors = rng.choice((rows[:2], rows.T, rows[0], rows[..., None], rows[:, :0]))
        right = None
    elif kind == 5:
        names = np.array([*words[:2], words[0]])  # a word twice is its first row
    else:
        vectors = np.asfortranarray(rows)
    arrays |= {"names": names, "vectors": vectors}
    files = {name: npy(array, rng.randint(1, 3)) for name, array in arrays.items()}
    return npz(files, rng.random() < 0.5), right


def other_safetensors(
    words: tuple[str, ...], rows: Array, rng: random.Random
) -> tuple[bytes, Array | None]:
    """The same as safetensors, with types that numpy has not."""
    text = "\n".join(words).encode()
    kind = rng.choice(("BF16", "F16", "F64", "F8_E4M3", "F8_E5M2", "I8", "BOOL", "C64"))
    right: Array | None = rows.astype(np.float64)
    if kind == "BF16":
        high = rows.astype("<f4").view("<u4") >> 16
        body, right = high.astype("<u2").tobytes(), (high << 16).view("<f4").astype(np.float64)
    elif kind in ("F16", "F64", "I8"):
        stored = (rows * 50).astype({"F16": "<f2", "F64": "<f8", "I8": "i1"}[kind])
        body, right = stored.tobytes(), stored.astype(np.float64)
    elif kind == "BOOL":
        right = np.ones(rows.shape)
        body = right.astype("?").tobytes()
    else:
        body, right = rng.randbytes(rows.size * (8 if kind == "C64" else 1)), None
    parts = {"names": ("U8", [len(text)], text), "vectors": (kind, list(rows.shape), body)}
    if rng.random() < 0.3:
        shape = rng.choice(([], [1], [3], [3, 1]))
        scale = np.full(shape, 2, "<f4").tobytes()
        parts["scales"] = ("F32", shape, scale)  # the same for all: no direction changes
    header, data = dict[str, Any](), b""
    for name, (dtype, shape, body) in parts.items():
        ends = [len(data), len(data) + len(body)]
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": ends}
        data += body
    said = json.dumps(header).encode()
    return len(said).to_bytes(8, "little") + said + data, right
