"""Registers and blocks of every kernel as the driver says, beside ``csrc/cuda_budgets.json``."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import static
from benchmarks.gpu.report import Report
from zsd_core.errors import DeviceError, require

__all__ = ["FUNCTIONS", "Loaded", "occupancy_rows"]

FUNCTIONS = (  # of CUDA's driver, that are called here
    "cuModuleLoad",
    "cuModuleGetFunction",
    "cuFuncGetAttribute",
    "cuFuncSetAttribute",
    "cuOccupancyMaxActiveBlocksPerMultiprocessor",
)
ALLOWED = 48 << 10  # bytes of shared memory that a launch may take without being asked


@dataclass(frozen=True, slots=True)
class Loaded:
    """One kernel as the driver loaded it."""

    name: str
    registers: int
    local: int  # bytes of a thread; spilled registers lie there
    blocks: int  # on a multiprocessor


def occupancy_rows(report: Report, module: Path, architecture: int) -> None:
    """A row for every budget: the worst of its kernels, beside what is allowed and predicted."""
    kernels = [k for k in static.read_binaries(module) if k.architecture == architecture]
    with tempfile.TemporaryDirectory() as folder:
        command = [static.tool("cuobjdump"), "-xelf", "all", str(module)]
        subprocess.run(command, cwd=folder, check=True, capture_output=True)
        binaries = sorted(Path(folder).glob(f"*.sm_{architecture}.cubin"))
        for budget in static.budgets():
            names = [kernel.name for kernel in kernels if budget.matches(kernel.name)]
            loaded = list(_load(binaries, names, budget, architecture))
            if len(loaded) < len(names) or not names:
                report.failure(f"{budget.values['name']}: {len(loaded)} of {len(names)} kernels.")
                continue
            _compare(report, budget, loaded, architecture)


def _compare(report: Report, budget: Any, loaded: list[Loaded], architecture: int) -> None:
    worst = max(loaded, key=lambda kernel: kernel.registers)
    limits = {key: budget.limit(key, architecture) for key in ("registers", "blocks", "threads")}
    predicted = static.occupancy(
        static.GPUS[architecture],
        threads=limits["threads"],
        registers=worst.registers,
        shared=budget.limit("shared", architecture),
    )
    blocks = min(kernel.blocks for kernel in loaded)
    report.row(
        kind="binary",
        kernel=budget.values["name"],
        registers=worst.registers,
        registers_allowed=limits["registers"],
        blocks=blocks,
        blocks_needed=limits["blocks"],
        blocks_predicted=predicted,
        local_bytes=max(kernel.local for kernel in loaded),
    )
    if worst.registers > limits["registers"] or blocks < limits["blocks"]:
        report.failure(f"{budget.values['name']}: beyond its budget.")
    if any(kernel.local for kernel in loaded):
        report.failure(f"{budget.values['name']}: a thread has local memory: spills.")


def _load(
    binaries: list[Path], names: list[str], budget: Any, architecture: int
) -> Iterator[Loaded]:
    driver = require("cuda.bindings.driver", "tensorrt")
    kinds = driver.CUfunction_attribute
    for path in binaries:
        module = _call(driver, "cuModuleLoad", str(path).encode())
        for name in names:
            status, function = driver.cuModuleGetFunction(module, name.encode())
            if int(status) != 0:  # it is in another file
                continue
            registers, local, shared = (
                _call(driver, "cuFuncGetAttribute", kind, function)
                for kind in (
                    kinds.CU_FUNC_ATTRIBUTE_NUM_REGS,
                    kinds.CU_FUNC_ATTRIBUTE_LOCAL_SIZE_BYTES,
                    kinds.CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES,
                )
            )
            dynamic = max(0, budget.limit("shared", architecture) - shared)
            if shared + dynamic > ALLOWED:
                wanted = kinds.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
                _call(driver, "cuFuncSetAttribute", function, wanted, dynamic)
            blocks = _call(
                driver,
                "cuOccupancyMaxActiveBlocksPerMultiprocessor",
                function,
                budget.limit("threads", architecture),
                dynamic,
            )
            yield Loaded(name, registers, local, blocks)


def _call(driver: Any, function: str, *arguments: Any) -> Any:
    status, *results = getattr(driver, function)(*arguments)
    if int(status) != 0:
        raise DeviceError(f"{function} failed: {getattr(status, 'name', status)}.")
    return results[0] if results else None
