"""Effect of each PTX instruction on 32 lanes; each becomes one function, once.

Registers hold raw bits as unsigned integers of their width (bool for predicates).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from cuda_proof.ptx_parser import Instruction

if TYPE_CHECKING:
    from cuda_proof.ptx_machine import Machine, Warp

Array = np.ndarray
Execute = Callable[["Warp", Array], None]
LANES = np.arange(32)
FULL = np.ones(32, bool)  # the mask itself, not a copy, says that all lanes take part
RAW = {1: np.uint8, 2: np.uint16, 4: np.uint32, 8: np.uint64}
KINDS = {"b": "u", "u": "u", "s": "i", "f": "f"}


class PtxError(Exception):
    """The program does something that a GPU leaves undefined, or this interpreter does not know."""


def type_of(name: str) -> np.dtype:
    """``s32`` as numpy's int32; packed pairs and bfloat16 as their bits."""
    if name == "pred":
        return np.dtype(bool)
    if name in ("f16x2", "bf16x2"):
        return np.dtype(np.uint32)
    if name == "bf16":
        return np.dtype(np.uint16)
    return np.dtype(f"{KINDS[name[0]]}{int(name[1:]) // 8}")


def is_type(name: str) -> bool:
    return bool(re.fullmatch(r"[busf](8|16|32|64)|pred|f16x2|bf16x2|bf16", name))


RAW_OF = {
    np.dtype(kind): np.dtype(RAW[np.dtype(kind).itemsize])
    for kind in "u1 u2 u4 u8 i1 i2 i4 i8 f2 f4 f8".split()
} | {np.dtype(bool): np.dtype(bool)}


def reader(argument: str, dtype: np.dtype, machine: Machine) -> Callable[[Warp], Array]:
    """A function that gives an operand's 32 values as ``dtype``."""
    if argument.startswith("!"):
        inner = reader(argument[1:], dtype, machine)
        return lambda warp: ~inner(warp)
    constant: Any = None
    if re.fullmatch(r"0[fF][0-9a-fA-F]{8}", argument):
        constant = np.array([int(argument[2:], 16)], np.uint32).view(np.float32)
    elif re.fullmatch(r"0[dD][0-9a-fA-F]{16}", argument):
        constant = np.array([int(argument[2:], 16)], np.uint64).view(np.float64)
    elif re.fullmatch(r"-?(0[xX][0-9a-fA-F]+|\d+)U?", argument):
        size = dtype.itemsize
        number = int(argument.rstrip("U"), 0)
        if dtype.kind == "b":
            constant = np.array([bool(number)])
        else:
            constant = np.array([number & (1 << 8 * size) - 1], RAW[size]).view(dtype)
    elif "zsd_shared" in argument:  # the one name of shared memory; it starts at address 0
        constant = np.zeros(1, dtype)
    if constant is not None:
        values = np.repeat(constant, 32)
        return lambda warp: values

    def read(warp: Warp) -> Array:
        values = warp.registers.get(argument)
        if values is None:
            values = warp.special.get(argument)
        if values is None:
            raise PtxError(f"reads {argument}, which was never written")
        if values.dtype is raw or values.dtype.kind == "b":
            return values.view(dtype) if values.dtype.kind != "b" else values
        return values.astype(raw).view(dtype)  # cut, or extended with zeros

    raw = RAW_OF[dtype]
    return read


def write(warp: Warp, name: str, values: Array, mask: Array) -> None:
    raw = RAW_OF[values.dtype]
    if not values.flags.c_contiguous:
        values = values.copy()
    values = values.view(raw)
    if mask is not FULL:
        old = warp.registers.get(name)
        if old is None or old.dtype != raw:
            old = np.zeros(32, raw)
        values = np.where(mask, values, old)
    warp.registers[name] = values


def compile_instruction(instruction: Instruction, machine: Machine) -> Execute:
    if instruction.operation in ("bra", "ret", "exit"):
        return lambda warp, mask: None
    special = SPECIAL.get(instruction.operation)
    if special:
        return special(instruction, machine)
    compute = _arithmetic(instruction)
    if compute is None:
        raise PtxError(f"unknown instruction {instruction.text}")
    function, types, result = compute
    target = instruction.arguments[0]
    sources = [
        reader(argument, dtype, machine)
        for argument, dtype in zip(instruction.arguments[1:], types, strict=True)
    ]

    if len(sources) == 2:
        first, second = sources

        def execute(warp: Warp, mask: Array) -> None:
            values = function(first(warp), second(warp))
            write(warp, target, values.astype(result, copy=False), mask)

    else:

        def execute(warp: Warp, mask: Array) -> None:
            values = function(*[source(warp) for source in sources])
            write(warp, target, values.astype(result, copy=False), mask)

    return execute


def _truncating(function: Any) -> Any:
    """Integer division as C has it; by zero gives all bits set, as the hardware does."""

    def divide(a: Array, b: Array) -> Array:
        safe = np.where(b == 0, 1, b).astype(b.dtype)
        quotient = a // safe
        if a.dtype.kind == "i":
            quotient = quotient + ((a % safe != 0) & ((a < 0) != (safe < 0)))
        if function == "rem":
            return (a - quotient * safe).astype(a.dtype)
        return np.where(b == 0, np.array(-1).astype(a.dtype), quotient)

    return divide


def _shift(left: bool, signed: bool) -> Any:
    def shift(a: Array, count: Array) -> Array:
        width = 8 * a.dtype.itemsize
        small = np.minimum(count, width - 1).astype(a.dtype)
        moved = a << small if left else a >> small
        return moved if signed and not left else np.where(count >= width, 0, moved)

    return shift


def _fused(mode: str, dtype: np.dtype) -> Any:
    def fuse(a: Array, b: Array, c: Array) -> Array:
        if dtype == np.float64:  # as a sum of two roundings: one more than the hardware
            return a * b + c
        exact = a.astype(np.float64) * b + c
        result = exact.astype(np.float32)
        if mode == "rm":
            result = np.where(result > exact, np.nextafter(result, np.float32(-np.inf)), result)
        return result

    return fuse


def bfloat_bits(values: Array) -> Array:
    bits = values.astype(np.float32).view(np.uint32)
    rounded = (bits + 0x7FFF + (bits >> 16 & 1)) >> 16
    return np.where(np.isnan(values), 0x7FFF, rounded).astype(np.uint16)


def _halves(words: Array, kind: str) -> Array:
    """Packed pairs (32,) as floats (32, 2)."""
    pairs = words.view(np.uint16).reshape(32, 2)
    if kind == "f16x2":
        return pairs.view(np.float16).astype(np.float32)
    return (pairs.astype(np.uint32) << 16).view(np.float32)


def _packed(kind: str, function: Any) -> Any:
    def compute(*words: Array) -> Array:
        values = function(*(_halves(w, kind).astype(np.float64) for w in words))
        if kind == "f16x2":
            return values.astype(np.float16).view(np.uint32).reshape(32)
        return np.ascontiguousarray(bfloat_bits(values)).view(np.uint32).reshape(32)

    return compute


COMPARE = {
    "eq": np.equal,
    "ne": np.not_equal,
    "lt": np.less,
    "le": np.less_equal,
    "gt": np.greater,
    "ge": np.greater_equal,
}


def _comparison(name: str, dtype: np.dtype) -> Any:
    if name in ("nan", "num"):
        return lambda a, b: (np.isnan(a) | np.isnan(b)) ^ (name == "num")
    unordered = dtype.kind == "f" and len(name) == 3  # ltu and so on: true where one is NaN
    compare = COMPARE[name[:2]]
    if dtype.kind != "f":
        return compare
    if unordered:
        return lambda a, b: compare(a, b) | np.isnan(a) | np.isnan(b)
    return lambda a, b: compare(a, b) & ~np.isnan(a) & ~np.isnan(b)


ROUND = {"rzi": np.trunc, "rmi": np.floor, "rpi": np.ceil, "rni": np.rint}


def _convert(modifiers: list[str]) -> tuple[Any, list[np.dtype], np.dtype]:
    target, source = [m for m in modifiers if is_type(m)][-2:]
    to, of = type_of(target), type_of(source)
    rounding = next((ROUND[m] for m in modifiers if m in ROUND), None)

    def convert(values: Array) -> Array:
        if source == "bf16":
            values = (values.astype(np.uint32) << 16).view(np.float32)
        if rounding:
            values = rounding(values)
        if target == "bf16":
            return bfloat_bits(values)
        if "sat" in modifiers:
            values = np.nan_to_num(np.clip(values, 0, 1))
        if of.kind == "f" and to.kind in "iu":  # the hardware saturates, NaN is 0
            limits = np.iinfo(to)
            clipped = np.clip(np.nan_to_num(values.astype(np.float64)), limits.min, limits.max)
            safe = np.where(clipped >= limits.max, 0, clipped).astype(to)
            return np.where(clipped >= limits.max, limits.max, safe).astype(to)
        return values.astype(to)

    return convert, [of], to


def _arithmetic(instruction: Instruction) -> tuple[Any, list[np.dtype], np.dtype] | None:
    """The function of an instruction from registers to one register, its types and its result's."""
    operation, modifiers = instruction.operation, instruction.modifiers
    if operation == "cvt":
        return _convert(modifiers)
    kind = modifiers[-1] if modifiers and is_type(modifiers[-1]) else ""
    if not kind:
        return None
    dtype, u32 = type_of(kind), np.dtype(np.uint32)
    count = len(instruction.arguments) - 1
    if kind in ("f16x2", "bf16x2"):
        function = {
            "mul": lambda a, b: a * b,
            "add": lambda a, b: a + b,
            "fma": lambda a, b, c: a * b + c,
        }[operation]
        return _packed(kind, function), [dtype] * count, dtype
    if operation in ("mul", "mad") and "wide" in modifiers:
        wide = np.dtype(f"{dtype.kind}{2 * dtype.itemsize}")
        product = lambda a, b, c=0: a.astype(wide) * b.astype(wide) + c  # noqa: E731
        return product, [dtype, dtype, wide][:count], wide
    if operation == "mul" and "hi" in modifiers:
        wide = np.dtype(f"{dtype.kind}{2 * dtype.itemsize}")
        shift = 8 * dtype.itemsize
        return (lambda a, b: a.astype(wide) * b.astype(wide) >> shift), [dtype] * 2, dtype
    if operation == "setp":
        return _comparison(modifiers[0], dtype), [dtype] * 2, np.dtype(bool)
    if operation == "selp":
        return (lambda a, b, p: np.where(p, a, b)), [dtype, dtype, np.dtype(bool)], dtype
    if operation in ("shl", "shr"):
        return _shift(operation == "shl", dtype.kind == "i"), [dtype, u32], dtype
    if operation == "bfi":

        def insert(a: Array, b: Array, place: Array, length: Array) -> Array:
            field = ((1 << length.astype(np.uint64)) - 1) << place.astype(np.uint64)
            return (b & ~field.astype(dtype)) | (a << place.astype(dtype) & field.astype(dtype))

        return insert, [dtype, dtype, u32, u32], dtype
    if operation == "bfe" and dtype == u32:
        extract = lambda a, place, length: a >> place & (1 << length) - 1  # noqa: E731
        return extract, [u32] * 3, u32
    if operation == "popc":
        return (lambda a: np.bitwise_count(a).astype(np.uint32)), [dtype], u32
    if operation in ("div", "rem") and dtype.kind != "f":
        return _truncating(operation), [dtype] * 2, dtype
    if operation == "fma":
        return _fused(next(m for m in modifiers if m in ("rn", "rm")), dtype), [dtype] * 3, dtype
    functions: dict[str, Any] = {
        "mov": lambda a: a,
        "cvta": lambda a: a,
        "add": np.add,
        "sub": np.subtract,
        "mul": np.multiply,
        "div": np.divide,
        "mad": lambda a, b, c: a * b + c,
        "and": np.bitwise_and,
        "or": np.bitwise_or,
        "xor": np.bitwise_xor,
        "not": np.invert,
        "neg": np.negative,
        "abs": np.abs,
        "ex2": np.exp2,
        "lg2": np.log2,
        "sqrt": np.sqrt,
        "rcp": lambda a: 1 / a,
        "min": np.fmin if dtype.kind == "f" else np.minimum,
        "max": np.fmax if dtype.kind == "f" else np.maximum,
    }
    if operation not in functions:
        return None
    return functions[operation], [dtype] * count, dtype


def _vector(argument: str) -> list[str]:
    return [a.strip() for a in argument.strip("{}").split(",")]


def _move(instruction: Instruction, machine: Machine) -> Execute:
    target, source = instruction.arguments
    dtype = type_of(instruction.modifiers[-1])
    if target.startswith("{"):
        names = _vector(target)
        read = reader(source, dtype, machine)
        part = RAW[dtype.itemsize // len(names)]

        def unpack(warp: Warp, mask: Array) -> None:
            parts = read(warp).copy().view(part).reshape(32, len(names))
            for i, name in enumerate(names):
                write(warp, name, parts[:, i], mask)

        return unpack
    if source.startswith("{"):
        names = _vector(source)
        part = np.dtype(RAW[dtype.itemsize // len(names)])
        reads = [reader(name, part, machine) for name in names]

        def pack(warp: Warp, mask: Array) -> None:
            parts = np.stack([r(warp) for r in reads], axis=1)
            write(warp, target, np.ascontiguousarray(parts).view(dtype).reshape(32), mask)

        return pack
    read = reader(source, dtype, machine)
    return lambda warp, mask: write(warp, target, read(warp), mask)


def _address(argument: str, machine: Machine) -> Callable[[Warp], Array]:
    base, offset = re.fullmatch(r"\[\s*([%\w$]+)\s*(?:\+\s*(-?\d+))?\s*\]", argument).groups()  # type: ignore[union-attr]
    read, distance = reader(base, np.dtype(np.uint64), machine), int(offset or 0)

    def address(warp: Warp) -> Array:
        sums = read(warp).astype(np.int64) + distance
        narrow = warp.registers.get(base)
        wraps = narrow is not None and narrow.dtype.itemsize == 4
        return sums & 0xFFFFFFFF if wraps else sums

    return address


def _is_shared(modifiers: list[str], addresses: Array) -> bool:
    """By the instruction, or for a generic address by its value: shared memory is at the bottom."""
    return "shared" in modifiers or (
        "global" not in modifiers and bool((addresses < 1 << 20).all())
    )


def _check_aligned(addresses: Array, size: int) -> None:
    if (addresses % size).any():
        raise PtxError("misaligned access")


def _load(instruction: Instruction, machine: Machine) -> Execute:
    target, source = instruction.arguments
    names = _vector(target)
    dtype = type_of(instruction.modifiers[-1])
    size = dtype.itemsize * len(names)
    modifiers = instruction.modifiers

    def spread(warp: Warp, mask: Array, data: Array) -> None:
        parts = np.ascontiguousarray(data).view(dtype).reshape(len(data), len(names))
        for i, name in enumerate(names):
            values = np.zeros(32, dtype)
            values[mask] = parts[:, i]
            # Narrow loads widen to the register, with the sign for signed types.
            if dtype.itemsize < 2 or (dtype.kind == "i" and name.startswith("%r")):
                width = 2 if name.startswith("%rs") else 8 if name.startswith("%rd") else 4
                values = values.astype(f"{dtype.kind}{width}")
            write(warp, name, values, mask)

    if "param" in modifiers:
        name, offset = re.fullmatch(r"\[([\w$]+)(?:\+(\d+))?\]", source).groups()  # type: ignore[union-attr]
        start = int(offset or 0)

        def load_parameter(warp: Warp, mask: Array) -> None:
            data = machine.parameters[name][start : start + size]
            spread(warp, mask, np.repeat(data[None], int(mask.sum()), axis=0))

        return load_parameter
    address = _address(source, machine)

    def load(warp: Warp, mask: Array) -> None:
        addresses = address(warp)[mask]
        _check_aligned(addresses, size)
        if _is_shared(modifiers, addresses):
            data = machine.shared.read(addresses, size, warp.number)
        else:
            data = machine.memory.read(addresses, size)
        spread(warp, mask, data)

    return load


def _store(instruction: Instruction, machine: Machine) -> Execute:
    target, source = instruction.arguments
    dtype = np.dtype(RAW[type_of(instruction.modifiers[-1]).itemsize])
    reads = [reader(name, dtype, machine) for name in _vector(source)]
    address = _address(target, machine)
    modifiers = instruction.modifiers

    def store(warp: Warp, mask: Array) -> None:
        data = np.stack([r(warp) for r in reads], axis=1)
        data = np.ascontiguousarray(data[mask]).view(np.uint8).reshape(int(mask.sum()), -1)
        addresses = address(warp)[mask]
        _check_aligned(addresses, data.shape[1])
        if _is_shared(modifiers, addresses):
            machine.shared.write(addresses, data, warp.number)
            machine.note_conflicts("st.shared", addresses, data.shape[1])
        else:
            machine.memory.write(addresses, data)

    return store


def _atomic(instruction: Instruction, machine: Machine) -> Execute:
    *target, place, value = instruction.arguments
    if "add" not in instruction.modifiers:
        raise PtxError(f"unknown instruction {instruction.text}")
    dtype = type_of(instruction.modifiers[-1])
    address, read = _address(place, machine), reader(value, dtype, machine)
    modifiers = instruction.modifiers

    def atomic(warp: Warp, mask: Array) -> None:
        addresses, amounts = address(warp), read(warp)
        before = np.zeros(32, dtype)
        for lane in np.flatnonzero(mask):
            where = addresses[lane : lane + 1]
            _check_aligned(where, dtype.itemsize)
            if _is_shared(modifiers, where):
                places = machine.shared.claim(where, dtype.itemsize, warp.number, atomic=True)
                if not machine.shared.written[places].all():
                    raise PtxError("adds to shared memory that was never written")
                memory = machine.shared.bytes
            else:
                which, places = machine.memory.locate(where, dtype.itemsize)
                memory = machine.memory.bytes[which]
            old = memory[places[0]].copy().view(dtype)
            before[lane] = old[0]
            memory[places[0]] = (old + amounts[lane]).astype(dtype).view(np.uint8)
        if target:
            write(warp, target[0], before, mask)

    return atomic


def _check_members(warp: Warp, mask: Array, members: Array) -> None:
    if mask is FULL and members[0] == 0xFFFFFFFF:
        return
    if int(members[mask][0]) != sum(1 << int(lane) for lane in np.flatnonzero(mask)):
        raise PtxError("the lanes here are not those the instruction names")


def _shuffle(instruction: Instruction, machine: Machine) -> Execute:
    target, *sources = instruction.arguments
    value, lane, _, members = (reader(s, np.dtype(np.uint32), machine) for s in sources)
    bfly = "bfly" in instruction.modifiers
    if not bfly and "idx" not in instruction.modifiers:
        raise PtxError(f"unknown instruction {instruction.text}")

    def shuffle(warp: Warp, mask: Array) -> None:
        _check_members(warp, mask, members(warp))
        chosen = (LANES ^ lane(warp) if bfly else lane(warp)) & 31
        name, _, predicate = target.partition("|")
        write(warp, name, value(warp)[chosen], mask)
        if predicate:
            write(warp, predicate, np.ones(32, bool), mask)

    return shuffle


def _vote(instruction: Instruction, machine: Machine) -> Execute:
    target, vote, members = instruction.arguments
    read = reader(vote, np.dtype(bool), machine)
    who = reader(members, np.dtype(np.uint32), machine)

    def ballot(warp: Warp, mask: Array) -> None:
        _check_members(warp, mask, who(warp))
        votes = int(sum(1 << int(lane) for lane in np.flatnonzero(read(warp) & mask)))
        write(warp, target, np.full(32, votes, np.uint32), mask)

    return ballot


def _warp_barrier(instruction: Instruction, machine: Machine) -> Execute:
    members = reader(instruction.arguments[0], np.dtype(np.uint32), machine)
    return lambda warp, mask: _check_members(warp, mask, members(warp))


def _copy(instruction: Instruction, machine: Machine) -> Execute:
    modifiers = instruction.modifiers
    if "commit_group" in modifiers:

        def commit(warp: Warp, mask: Array) -> None:
            for lane in np.flatnonzero(mask):
                warp.groups[lane].append(warp.open[lane])
                warp.open[lane] = []

        return commit
    if "wait_group" in modifiers:
        pending = int(instruction.arguments[0])

        def wait(warp: Warp, mask: Array) -> None:
            shared = machine.shared
            for lane in np.flatnonzero(mask):
                while len(warp.groups[lane]) > pending:
                    for place, data in warp.groups[lane].pop(0):
                        shared.bytes[place : place + 16] = np.frombuffer(data, np.uint8)
                        shared.written[place : place + 16] = True
                        shared.in_flight[place : place + 16] = False

        return wait
    target, source = (_address(a, machine) for a in instruction.arguments[:2])
    count = reader(instruction.arguments[3], np.dtype(np.uint32), machine)

    def copy(warp: Warp, mask: Array) -> None:
        to, of, sizes = target(warp)[mask], source(warp)[mask], count(warp)[mask]
        _check_aligned(np.concatenate([to, of]), 16)
        places = machine.shared.claim(to, 16, warp.number)
        machine.note_conflicts("cp.async", to, 16)
        machine.shared.in_flight[places] = True
        for lane, place, start, size in zip(np.flatnonzero(mask), to, of, sizes, strict=True):
            data = bytes(16)
            if size:
                read = machine.memory.read(np.array([start]), int(size)).tobytes()
                data = read + bytes(16 - len(read))
            warp.open[lane].append((int(place), data))

    return copy


def _load_matrices(instruction: Instruction, machine: Machine) -> Execute:
    names = _vector(instruction.arguments[0])
    address = _address(instruction.arguments[1], machine)

    def load(warp: Warp, mask: Array) -> None:
        if mask is not FULL:
            raise PtxError("ldmatrix with lanes missing")
        addresses = address(warp)[: 8 * len(names)]
        _check_aligned(addresses, 16)
        rows = machine.shared.read(addresses, 16, warp.number)
        machine.note_conflicts("ldmatrix", addresses, 16)
        words = np.ascontiguousarray(rows).view(np.uint32).reshape(len(names), 32)
        for name, values in zip(names, words, strict=True):
            write(warp, name, values, mask)

    return load


def _decode(words: Array, kind: str) -> Array:
    """Rows of 32-bit words as rows of numbers."""
    words = np.ascontiguousarray(words)
    if kind == "f16":
        return words.view(np.float16).astype(np.float32)
    if kind == "bf16":
        return (words.view(np.uint16).astype(np.uint32) << 16).view(np.float32)
    if kind == "tf32":
        return (words & np.uint32(0xFFFFE000)).view(np.float32)
    return words.view(np.uint8 if kind == "u8" else np.int8).astype(np.int32)


def _multiply(instruction: Instruction, machine: Machine) -> Execute:
    shape = next(m for m in instruction.modifiers if re.fullmatch(r"m\d+n8k\d+", m))
    result, of_a, of_b, _ = instruction.modifiers[-4:]
    rows = int(re.match(r"m(\d+)", shape)[1])  # type: ignore[index]
    targets, a, b, c = (_vector(argument) for argument in instruction.arguments)
    u32, dtype = np.dtype(np.uint32), type_of(result)
    read_a, read_b = ([reader(n, u32, machine) for n in names] for names in (a, b))
    read_c = [reader(n, dtype, machine) for n in c]
    g, t = LANES // 4, LANES % 4
    above = rows // 8  # tiles of eight rows in A

    def multiply(warp: Warp, mask: Array) -> None:
        if mask is not FULL:
            raise PtxError("mma with lanes missing")
        left = np.zeros((rows, 4 * len(a) // above), np.uint32)
        right = np.zeros((8, 4 * len(b)), np.uint32)
        sums = np.zeros((rows, 8), dtype)
        for i, read in enumerate(read_a):
            left[g + 8 * (i % above), t + 4 * (i // above)] = read(warp)
        for i, read in enumerate(read_b):
            right[g, t + 4 * i] = read(warp)
        for i, read in enumerate(read_c):
            sums[g + 8 * (i // 2), 2 * t + i % 2] = read(warp)
        sums = sums + _decode(left, of_a) @ _decode(right, of_b).T
        for i, name in enumerate(targets):
            write(warp, name, sums[g + 8 * (i // 2), 2 * t + i % 2].astype(dtype), mask)

    return multiply


SPECIAL: dict[str, Callable[[Instruction, Any], Execute]] = {
    "mov": _move,
    "ld": _load,
    "st": _store,
    "atom": _atomic,
    "red": _atomic,
    "shfl": _shuffle,
    "vote": _vote,
    "bar": _warp_barrier,
    "cp": _copy,
    "ldmatrix": _load_matrices,
    "mma": _multiply,
}
