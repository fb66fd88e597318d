"""Elements of tensors against every value of their types."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from runtime.onnx_elements import BITS, FLOATS, HALVES, has_nan, low_halves

KINDS = {value: name for name, value in TensorProto.DataType.items()}


@pytest.mark.parametrize("kind", sorted(HALVES))
def test_every_half_is_nan_or_not_as_its_type_says(kind):
    dtype = helper.tensor_dtype_to_np_dtype(kind)
    every = np.arange(1 << BITS[kind])
    if BITS[kind] == 16:  # some of all, and all around infinity
        every = every[(every % 61 == 0) | (abs((every & 0x7FFF) - 0x7C00) < 9) | (every % 128 < 2)]
    for bits in every.astype(np.uint8 if BITS[kind] == 8 else "<u2"):
        value = bits[None].view(dtype).astype(np.float32)
        assert has_nan(kind, bits.tobytes()) == np.isnan(value[0]), (KINDS[kind], hex(bits))


def test_types_with_nan_are_all_that_can_hold_it():
    holding = set()
    for kind in BITS:
        dtype = np.dtype(helper.tensor_dtype_to_np_dtype(kind))
        if dtype.kind != "b" and BITS[kind] >= 8 and (dtype.kind in "cfV"):
            holding.add(kind)
    assert holding == FLOATS


def test_sizes_of_elements_are_those_of_onnx():
    for kind, bits in BITS.items():
        if kind not in (25, 26) and bits >= 8:
            assert np.dtype(helper.tensor_dtype_to_np_dtype(kind)).itemsize * 8 == bits


@pytest.mark.parametrize("count", [0, 1, 1000])
def test_halves_in_a_list_of_numbers_are_its_low_bits(count):
    values = np.random.default_rng(0).integers(0, 1 << 16, count).astype(np.int64)
    values[::7] %= 128
    values[1::7] -= 1 << 16  # negative numbers take ten bytes
    packed = onnx.TensorProto(int32_data=values.tolist()).SerializeToString()
    content = packed[len(packed) - sum(map(_length, values.tolist())) :]
    assert low_halves(content, TensorProto.FLOAT16) == (values & 0xFFFF).astype("<u2").tobytes()


def _length(value: int) -> int:
    return max(1, -(-((value & (1 << 64) - 1).bit_length()) // 7))
