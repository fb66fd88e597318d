"""Tensors of a file that a stranger may have written: what C++ refuses is refused."""

from __future__ import annotations

import json

import numpy as np
import pytest
from safetensors.numpy import save

from runtime.tensors import read_tensors
from zsd_core.errors import BundleError

ENTRY = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
FLOATS = ("F32",)


def file_of(header: object, data: bytes = bytes(8)) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def test_tensors_are_those_that_were_written():
    arrays = {
        "a": np.arange(6, dtype=np.float32).reshape(2, 3),
        "b": np.arange(5, dtype=np.int8),
        "c": np.zeros((0, 4), np.float32),
        "d": np.frombuffer(b"text", np.uint8),
    }
    found = read_tensors("x", save(arrays, {"made": "here"}), ("F32", "I8", "U8"))
    assert sorted(found) == sorted(arrays)
    for name, array in arrays.items():
        assert found[name].dtype == array.dtype
        np.testing.assert_array_equal(found[name], array)


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ([], "its header is no object"),
        ({"__metadata__": 3, "a": ENTRY}, "its metadata are no texts"),
        ({"__metadata__": {"a": 3}, "a": ENTRY}, "its metadata are no texts"),
        ({"a": []}, "tensor 'a' is no object"),
        ({"a": ENTRY | {"dtype": "F16"}}, "is of dtype 'F16', must be one of F32"),
        ({"a": ENTRY | {"dtype": ["F32"]}}, "is of dtype"),
        ({"a": ENTRY | {"shape": [2.0]}}, r"has the shape \[2.0\]"),
        ({"a": ENTRY | {"shape": [True, 2]}}, r"has the shape \[True, 2\]"),
        ({"a": ENTRY | {"shape": [2] + [1] * 8}}, "must have up to 8 whole numbers"),
        ({"a": ENTRY | {"shape": [2**40, 2**40]}}, "has no possible shape"),
        ({"a": ENTRY | {"shape": [3]}}, "not as large as its shape says"),
        ({"a": ENTRY | {"data_offsets": [0.0, 8.9]}}, r"has the offsets \[0.0, 8.9\]"),
        ({"a": ENTRY | {"data_offsets": [0, 8, 8]}}, "must have two whole numbers"),
        ({"a": ENTRY | {"data_offsets": [8, 0]}}, "not as large as its shape says"),
        ({"a": ENTRY, "b": ENTRY}, "its tensors share bytes"),
        ({"a": ENTRY | {"data_offsets": [8, 16]}}, "or leave some out"),
        ({}, "do not end where it ends"),
        (b"\xef\xbb\xbf" + json.dumps({"a": ENTRY}).encode(), "is not JSON"),
        (b"\xff", "its header is no text"),
        (b'{"a": 1, "a": 1}', "the key 'a' stands there twice"),
    ],
)
def test_a_header_that_readers_understand_differently_is_refused(header, message):
    with pytest.raises(BundleError, match=message):
        read_tensors("x", file_of(header), FLOATS)


def test_two_tensors_on_the_same_bytes_beside_a_hole_are_refused():
    header = {"a": ENTRY, "b": ENTRY}  # 16 bytes in all, as many as there are
    with pytest.raises(BundleError, match="share bytes, or leave some out"):
        read_tensors("x", file_of(header, bytes(16)), FLOATS)


@pytest.mark.parametrize("data", [b"", b"short", b"\xff" * 8, bytes(7), file_of({"a": ENTRY})[:-1]])
def test_a_file_that_is_cut_off_is_refused(data):
    with pytest.raises(BundleError):
        read_tensors("x", data, FLOATS)


def test_every_number_is_finite():
    with pytest.raises(BundleError, match="a number that is not finite in 'a'"):
        read_tensors("x", save({"a": np.array([np.nan], np.float32)}), FLOATS)
