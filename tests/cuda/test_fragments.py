"""Places of a tensor core's operands, from an independent source: Triton's layouts.

Triton is the compiler that emits the same ``mma.sync``; its layouts place random tiles in the
registers of the lanes here, and both the shim's and the PTX interpreter's product must then be the
matrix product.
"""

from __future__ import annotations

import ctypes
import re

import numpy as np
import pytest
from cuda_proof import build
from cuda_proof.ptx_instructions import FULL, compile_instruction
from cuda_proof.ptx_parser import Instruction

# Element, its place in the shim's list, numpy type, elements in 32 bytes, the instruction's words
KINDS = {
    "half": (0, np.float16, 16, "m16n8k16 row col f32 f16 f16 f32"),
    "tf32": (2, np.float32, 8, "m16n8k8 row col f32 tf32 tf32 f32"),
    "bytes": (3, np.int8, 32, "m16n8k32 row col s32 u8 s8 s32"),
}


def places(layout, shape: tuple[int, int]) -> dict[tuple[int, int], tuple[int, int]]:
    """(lane, register element) to (row, column), read from Triton's drawing of the layout."""
    found = {}
    rows = [line for line in layout.format_tensor_view(shape).splitlines() if "T" in line]
    for y, line in enumerate(rows):
        for x, (lane, element) in enumerate(re.findall(r"T\s*(\d+)\s*:\s*(\d+)", line)):
            found[int(lane), int(element)] = (y, x)
    return found


def fragments(matrix: np.ndarray, layout) -> np.ndarray:
    """A tile as the 32-bit words of every lane."""
    where = places(layout, matrix.shape)
    values = np.zeros((32, len(where) // 32), matrix.dtype)
    for (lane, element), position in where.items():
        values[lane, element] = matrix[position]
    return np.ascontiguousarray(values).view(np.uint32)


@pytest.mark.parametrize("kind", KINDS)
def test_fragments_lie_where_triton_puts_them(kind: str):
    from triton.experimental.gluon import language as gluon

    number, dtype, depth, modifiers = KINDS[kind]
    sums = gluon.NVMMADistributedLayout(version=[2, 0], warps_per_cta=[1, 1], instr_shape=[16, 8])
    width = 4 // np.dtype(dtype).itemsize
    left, right = (
        gluon.DotOperandLayout(operand_index=i, parent=sums, k_width=width) for i in (0, 1)
    )
    random = np.random.default_rng(0)
    a = random.integers(0, 8, (16, depth)).astype(dtype)
    b = random.integers(-8, 8, (depth, 8)).astype(dtype)
    exact = a.astype(np.int64) @ b.astype(np.int64)
    words_a, words_b = fragments(a, left), fragments(b, right)

    shim = np.zeros((32, 4), np.int32 if kind == "bytes" else np.float32)
    library = ctypes.CDLL(str(build.shim_module()))
    pointers = (ctypes.c_void_p(x.ctypes.data) for x in (words_a, words_b, shim))
    library.shim_product(number, *pointers)

    class Warp:
        registers = {f"%a{i}": words_a[:, i].copy() for i in range(4)}  # noqa: RUF012
        registers |= {f"%b{i}": words_b[:, i].copy() for i in range(2)}
        registers |= {f"%c{i}": np.zeros(32, np.uint32) for i in range(4)}
        special: dict[str, np.ndarray] = {}  # noqa: RUF012

    names = [
        "{" + ",".join(f"%{n}{i}" for i in range(c)) + "}"
        for n, c in (("c", 4), ("a", 4), ("b", 2))
    ]
    instruction = Instruction("mma", "mma", ["sync", *modifiers.split()], [*names, names[0]])
    compile_instruction(instruction, None)(Warp, FULL)
    ptx = np.stack([Warp.registers[f"%c{i}"] for i in range(4)], axis=1).view(shim.dtype)

    for result in (shim, ptx):
        for (lane, element), position in places(sums, (16, 8)).items():
            assert result[lane, element] == exact[position]
