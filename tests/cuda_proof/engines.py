"""Ways to run the CUDA operators with no GPU: fibers under a schedule, or interpreted PTX.

An engine calls a function of the module with host arrays; what it launches is then run by the
engine. A test is written once and takes the engine as a parameter.
"""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

import torch
from cuda_proof import build
from cuda_proof.ptx_machine import GlobalMemory, Machine
from cuda_proof.ptx_parser import Kernel

SCHEDULES = {"forward": (0, 0), "reverse": (1, 0), "random-1": (2, 1), "random-2": (2, 2)}


GUARD = 4096  # bytes on either side of an array: more than a tile's row of any operator


class Guarded:
    """A copy of an array between bytes of all ones: NaN as any float, -1 as a signed integer.

    So an access out of bounds gives the same wrong answer everywhere, whatever else lies in the
    process's memory: what is read disturbs the result, and what is written is noticed.
    """

    def __init__(self, array: torch.Tensor) -> None:
        self.original, size = array, array.numel() * array.element_size()
        self.end = GUARD + size
        self.buffer = torch.full((self.end + GUARD,), 0xFF, dtype=torch.uint8)
        self.copy = self.buffer[GUARD : self.end].view(array.dtype).view(array.shape)
        self.copy.copy_(array)

    def take_back(self) -> None:
        """Bring what was written home; nothing beside the array may have been."""
        self.original.copy_(self.copy)
        for name, guard in (("before", self.buffer[:GUARD]), ("behind", self.buffer[self.end :])):
            assert bool((guard == 0xFF).all()), f"wrote {name} an array of {self.copy.shape}"


class ShimEngine:
    """Runs every block's threads as fibers, in the order that ``schedule`` names.

    Arrays are handed over between guards, but where ``guards`` is false: AddressSanitizer has its
    own, which also see what is read out of bounds and then not used.
    """

    def __init__(self, path: Path, schedule: str = "forward", *, guards: bool = True) -> None:
        self.module = build.load(path)
        self.library = ctypes.CDLL(str(path))
        self.library.shim_error.restype = ctypes.c_char_p
        self.schedule = schedule
        self.guards = guards

    def call(self, operator: str, *arguments: Any, **options: Any) -> Any:
        """Run an operator; the shim's own complaint replaces the binding's."""
        self.library.shim_hook(None)
        self.library.shim_schedule(*SCHEDULES[self.schedule])
        guarded: list[Guarded] = []

        def hand_over(argument: Any) -> Any:
            if not (self.guards and isinstance(argument, torch.Tensor)):
                return argument
            guarded.append(Guarded(argument))
            return guarded[-1].copy

        try:
            result = getattr(self.module, operator)(
                *map(hand_over, arguments),
                **{name: hand_over(option) for name, option in options.items()},
            )
        except Exception as error:
            if "unknown error" in str(error):
                raise AssertionError(self.library.shim_error().decode()) from error
            raise
        for array in guarded:
            array.take_back()
        return result


HOOK = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.c_char_p, ctypes.POINTER(ctypes.c_uint), ctypes.POINTER(ctypes.c_uint),
    ctypes.c_size_t, ctypes.c_int, ctypes.POINTER(ctypes.c_void_p),
    ctypes.POINTER(ctypes.c_size_t),
)  # fmt: skip


class PtxEngine(ShimEngine):
    """Runs what a call launches from PTX; the shim's build only says what would be launched."""

    def __init__(
        self,
        path: Path,
        kernels: dict[str, Kernel],
        schedule: str = "forward",
        count_conflicts: bool = False,
    ) -> None:
        super().__init__(path, schedule)
        self.count_conflicts = count_conflicts
        self.kernels = kernels
        self.machines: dict[str, Machine] = {}
        self.launched: list[tuple[str, tuple[int, ...], int]] = []  # kernel, block, shared bytes
        self._error: BaseException | None = None

    def call(self, operator: str, *arguments: Any, **options: Any) -> Any:
        arrays = [a for a in (*arguments, *options.values()) if hasattr(a, "data_ptr")]
        memory = GlobalMemory([(a.data_ptr(), a.numel() * a.element_size()) for a in arrays])

        def launch(name, grid, block, shared, count, parameters, sizes) -> int:
            try:
                values = [ctypes.string_at(parameters[i], sizes[i]) for i in range(count)]
                kernel = name.decode()
                self.launched.append((kernel, tuple(block[:3]), shared))
                if kernel not in self.machines:
                    self.machines[kernel] = Machine(self.kernels[kernel])
                machine = self.machines[kernel]
                machine.count_conflicts = self.count_conflicts
                machine.launch(grid[:3], block[:3], values, shared, memory, self.schedule)
            except BaseException as error:  # it must not cross the C++ frames
                self._error = error
                return 1
            return 0

        self._error = None
        hook = HOOK(launch)
        self.library.shim_hook(hook)
        try:
            return getattr(self.module, operator)(*arguments, **options)
        except Exception:
            if self._error:
                raise self._error from None
            raise
        finally:
            self.library.shim_hook(None)
