"""A GPU of one block, for PTX: warps are numpy vectors, memories check every access.

A warp runs until a barrier stops it; where its lanes disagree, the lowest program counter goes
first. Global memory is the host memory of the arrays that were passed, and nothing else. Shared
memory knows who touched each byte since the last barrier.
"""

from __future__ import annotations

import ctypes
import itertools
import random
from collections import Counter
from collections.abc import Sequence

import numpy as np
from cuda_proof.ptx_instructions import FULL, PtxError, compile_instruction
from cuda_proof.ptx_parser import Kernel

LANES = np.arange(32)
BANKS = 32
ATOMIC = -2  # as the last writer: several warps, each by an atomic


class GlobalMemory:
    """The byte ranges a kernel may touch, at their addresses on the host."""

    def __init__(self, ranges: Sequence[tuple[int, int]]) -> None:
        kept = sorted(r for r in set(ranges) if r[1])
        self.bases = np.array([base for base, _ in kept], np.int64)
        self.sizes = np.array([size for _, size in kept], np.int64)
        self.bytes = [
            np.frombuffer((ctypes.c_uint8 * size).from_address(base), np.uint8)
            for base, size in kept
        ]

    def locate(self, addresses: np.ndarray, size: int) -> tuple[int, np.ndarray]:
        """The range that holds all the accesses, and byte positions (n, size) in it."""
        which = np.searchsorted(self.bases, addresses, side="right") - 1
        inside = which >= 0
        if inside.all():
            inside = addresses + size <= self.bases[which] + self.sizes[which]
        if not inside.all():
            raise PtxError(f"global address out of bounds: {int(addresses[~inside][0]):#x}")
        if (which != which[0]).any():
            raise PtxError("lanes of one access touch different arrays")
        start = addresses - self.bases[which[0]]
        return int(which[0]), start[:, None] + np.arange(size)

    def read(self, addresses: np.ndarray, size: int) -> np.ndarray:
        which, places = self.locate(addresses, size)
        return self.bytes[which][places]

    def write(self, addresses: np.ndarray, data: np.ndarray) -> None:
        which, places = self.locate(addresses, data.shape[1])
        self.bytes[which][places] = data


def extra_wavefronts(addresses: np.ndarray, size: int) -> int:
    """Further requests to the banks: 128 bytes go at once if they lie in different banks."""
    lanes = 128 // max(size, 4)
    extra = 0
    for start in range(0, len(addresses), lanes):
        first = addresses[start : start + lanes] // 4
        words = np.unique(first[:, None] + np.arange(max(size // 4, 1)))
        extra += int(np.bincount(words % BANKS).max()) - 1
    return extra


class SharedMemory:
    """One block's shared memory, garbage at first, with a record of who touched what."""

    def __init__(self, size: int) -> None:
        self.bytes = np.full(size, 0xFF, np.uint8)
        self.written = np.zeros(size, bool)
        self.in_flight = np.zeros(size, bool)
        self.writer = np.full(size, -1)
        self.reader = np.full(size, -1)

    def barrier(self) -> None:
        self.writer[:] = -1
        self.reader[:] = -1

    def _places(self, addresses: np.ndarray, size: int) -> np.ndarray:
        if (addresses < 0).any() or (addresses + size > len(self.bytes)).any():
            raise PtxError(f"shared address out of bounds: {addresses.tolist()}")
        return addresses[:, None] + np.arange(size)

    def read(self, addresses: np.ndarray, size: int, warp: int) -> np.ndarray:
        places = self._places(addresses, size)
        if self.in_flight[places].any():
            raise PtxError("reads shared memory before its asynchronous copy was waited for")
        if not self.written[places].all():
            raise PtxError("reads shared memory that was never written")
        if ((self.writer[places] != warp) & (self.writer[places] != -1)).any():
            raise PtxError("race: reads what another warp wrote since the last barrier")
        other = (self.reader[places] != -1) & (self.reader[places] != warp)
        self.reader[places] = np.where(other, ATOMIC, warp)
        return self.bytes[places]

    def claim(
        self, addresses: np.ndarray, size: int, warp: int, atomic: bool = False
    ) -> np.ndarray:
        """Positions that ``warp`` may write now, recorded as written by it."""
        places = self._places(addresses, size)
        allowed = (-1, ATOMIC) if atomic else (-1, warp)
        if not np.isin(self.writer[places], allowed).all():
            raise PtxError("race: writes what another warp wrote since the last barrier")
        if not np.isin(self.reader[places], (-1, warp)).all():
            raise PtxError("race: overwrites what another warp read since the last barrier")
        self.writer[places] = ATOMIC if atomic else warp
        return places

    def write(self, addresses: np.ndarray, data: np.ndarray, warp: int) -> None:
        places = self.claim(addresses, data.shape[1], warp)
        self.bytes[places] = data
        self.written[places] = True


class Warp:
    """32 lanes: registers by name, program counters, and copies in flight."""

    def __init__(self, number: int, threads: int, machine: Machine) -> None:
        self.number, self.machine = number, machine
        self.alive = LANES + 32 * number < threads
        self.counters = np.zeros(32, np.int64)
        self.at_barrier = np.zeros(32, bool)
        self.registers: dict[str, np.ndarray] = {}
        # Per lane: copies since the last commit, and committed groups not yet waited for.
        self.open: list[list[tuple[int, bytes]]] = [[] for _ in range(32)]
        self.groups: list[list[list[tuple[int, bytes]]]] = [[] for _ in range(32)]
        x, y, _ = machine.block
        linear = LANES + 32 * number
        thread = (linear % x, linear // x % y, linear // (x * y))
        self.special = {"%laneid": LANES.astype(np.uint32)}
        for axis, name in enumerate("xyz"):
            self.special |= {
                f"%tid.{name}": thread[axis].astype(np.uint32),
                f"%ntid.{name}": np.full(32, machine.block[axis], np.uint32),
                f"%ctaid.{name}": np.full(32, machine.cta[axis], np.uint32),
                f"%nctaid.{name}": np.full(32, machine.grid[axis], np.uint32),
            }

    def run(self) -> None:
        """Run to the next barrier of the block, or to the end."""
        while True:
            active = self.alive & ~self.at_barrier
            if not active.any():
                return
            counter = int(self.counters[active].min())
            mask = active & (self.counters == counter)
            others = active & ~mask
            # Until the lanes disagree, or meet those that are ahead, only one counter moves.
            until = int(self.counters[others].min()) if others.any() else -1
            self._run_together(counter, FULL if mask.all() else mask, until)

    def _run_together(self, counter: int, mask: np.ndarray, until: int) -> None:
        machine = self.machine
        code, kernel = machine.code, machine.kernel
        while True:
            instruction = kernel.instructions[counter]
            machine.steps += 1
            chosen = mask
            if instruction.predicate:
                vote = self.registers[instruction.predicate]
                chosen = mask & (~vote if instruction.negated else vote)
                if (chosen == mask).all():
                    chosen = mask
            operation = instruction.operation
            if operation == "bra":
                target = kernel.labels[instruction.arguments[0]]
                if chosen is mask:
                    counter = target
                elif not chosen.any():
                    counter += 1
                else:
                    self.counters[mask] = counter + 1
                    self.counters[chosen] = target
                    return
                if until >= 0:  # a jump may pass them
                    self.counters[mask] = counter
                    return
                continue
            counter += 1
            if operation in ("ret", "exit"):
                for lane in np.flatnonzero(chosen):
                    if self.open[lane] or any(self.groups[lane]):
                        raise PtxError("a thread ends with asynchronous copies not waited for")
                self.alive = self.alive & ~chosen
            elif operation in ("bar", "barrier") and "warp" not in instruction.modifiers:
                self.at_barrier |= chosen
            elif chosen is mask or chosen.any():
                try:
                    code[counter - 1](self, chosen)
                except PtxError as error:
                    raise PtxError(f"{error} [{instruction.text}]") from None
                if counter != until:
                    continue
            elif counter != until:
                continue
            self.counters[mask] = counter
            return


class Machine:
    """Runs one kernel over a grid, in a schedule: forward, reverse or random."""

    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel
        self.steps = 0
        self.conflicts: Counter[str] = Counter()  # extra wavefronts, when asked for
        self.count_conflicts = False
        self.code = [compile_instruction(i, self) for i in kernel.instructions]

    def note_conflicts(self, what: str, addresses: np.ndarray, size: int) -> None:
        if self.count_conflicts:
            self.conflicts[f"{what} of {size} bytes"] += extra_wavefronts(addresses, size)

    def launch(
        self,
        grid: Sequence[int],
        block: Sequence[int],
        parameters: Sequence[bytes],
        shared: int,
        memory: GlobalMemory,
        schedule: str,
    ) -> None:
        self.grid, self.block, self.memory = tuple(grid), tuple(block), memory
        sizes = [size for _, size in self.kernel.parameters]
        if [len(p) for p in parameters] != sizes:
            raise PtxError(f"parameters have {[len(p) for p in parameters]} bytes, PTX {sizes}")
        self.parameters = {
            name: np.frombuffer(value, np.uint8)
            for (name, _), value in zip(self.kernel.parameters, parameters, strict=True)
        }
        generator = random.Random(0)
        threads = self.block[0] * self.block[1] * self.block[2]
        with np.errstate(all="ignore"):
            for z, y, x in itertools.product(*(range(n) for n in reversed(self.grid))):
                self.cta = (x, y, z)
                self.shared = SharedMemory(shared)
                warps = [Warp(i, threads, self) for i in range((threads + 31) // 32)]
                self._run_block(warps, schedule, generator)

    def _run_block(self, warps: list[Warp], schedule: str, generator: random.Random) -> None:
        while True:
            order = warps[::-1] if schedule == "reverse" else list(warps)
            if schedule.startswith("random"):
                generator.shuffle(order)
            for warp in order:
                warp.run()
            if not any(warp.alive.any() for warp in warps):
                return
            if any((warp.alive & ~warp.at_barrier).any() for warp in warps):
                raise PtxError("deadlock: some threads never reach the barrier")
            self.shared.barrier()
            for warp in warps:
                warp.at_barrier[:] = False
