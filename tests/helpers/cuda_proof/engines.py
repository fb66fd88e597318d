"""Ways to run the CUDA operators: fibers under a schedule, interpreted PTX, or a GPU.

An engine calls a function of the module with host arrays; what it launches is then run by the
engine. A test is written once and takes the engine as a parameter.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
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

    def __init__(self, array: torch.Tensor, device: str = "cpu", guard: int = GUARD) -> None:
        self.original, size = array, array.numel() * array.element_size()
        self.guard, self.end = guard, guard + size
        buffer = torch.full((self.end + guard,), 0xFF, dtype=torch.uint8, device=device)
        self.buffer = buffer
        self.copy = buffer[guard : self.end].view(array.dtype).view(array.shape)
        self.copy.copy_(array)

    def take_back(self) -> None:
        """Bring what was written home; nothing beside the array may have been."""
        self.original.copy_(self.copy)
        before, behind = self.buffer[: self.guard], self.buffer[self.end :]
        for name, guard in (("before", before), ("behind", behind)):
            assert bool((guard == 0xFF).all()), f"wrote {name} an array of {self.copy.shape}"


def guarded_call(
    function: Callable[..., Any],
    arguments: Sequence[Any],
    options: Mapping[str, Any],
    device: str = "cpu",
    guard: int = GUARD,
    finish: Callable[[], object] = lambda: None,
) -> Any:
    """Call with copies of all arrays on a device, and bring back what was written.

    An array that is given twice, to be worked on in place, is one copy. ``finish`` waits for the
    device.
    """
    held: dict[int, Guarded] = {}

    def hand_over(argument: Any) -> Any:
        if not isinstance(argument, torch.Tensor):
            return argument
        if id(argument) not in held:
            held[id(argument)] = Guarded(argument, device, guard)
        return held[id(argument)].copy

    result = function(
        *map(hand_over, arguments),
        **{name: hand_over(option) for name, option in options.items()},
    )
    finish()
    for array in held.values():
        array.take_back()
    return result


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
        function = getattr(self.module, operator)
        try:
            if not self.guards:
                return function(*arguments, **options)
            return guarded_call(function, arguments, options)
        except Exception as error:
            if "unknown error" in str(error):
                raise AssertionError(self.library.shim_error().decode()) from error
            raise


class GpuEngine:
    """Runs an operator on the current GPU, on its default stream.

    Args:
        module: ``zsd_core.kernels.cuda.compiled_cuda()``.
        guards: hand arrays over between guards; without, where a memory checker watches the bounds
            of allocations, each array is one of its own.
    """

    def __init__(self, module: ModuleType, *, guards: bool = True) -> None:
        self.module, self.guard = module, GUARD if guards else 0

    def call(self, operator: str, *arguments: Any, **options: Any) -> Any:
        """Run an operator and wait for it; what fails on the GPU is raised here."""
        return guarded_call(
            getattr(self.module, operator),
            arguments,
            options,
            "cuda",
            self.guard,
            torch.cuda.synchronize,
        )


HOOK = ctypes.CFUNCTYPE(
    ctypes.c_int,
    ctypes.c_char_p,
    ctypes.POINTER(ctypes.c_uint),
    ctypes.POINTER(ctypes.c_uint),
    ctypes.c_size_t,
    ctypes.c_int,
    ctypes.POINTER(ctypes.c_void_p),
    ctypes.POINTER(ctypes.c_size_t),
)


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
