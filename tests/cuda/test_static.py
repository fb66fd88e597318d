"""Gates on the compiled CUDA binaries, per architecture, against budgets that a file fixes."""

from __future__ import annotations

import math
import re
import subprocess
from types import SimpleNamespace
from typing import Any

import pytest
from cuda_proof import build
from cuda_proof.cases import all_cases
from cuda_proof.engines import PtxEngine

from benchmarks import static

needs_nvcc = pytest.mark.skipif(not build.nvcc(), reason="nvcc is missing: no binaries to read")
BUDGETS = {budget.values["name"]: budget for budget in static.budgets()}


@pytest.fixture(scope="module")
def binaries() -> list[static.KernelBinary]:
    return static.read_binaries(build.cuda_module())


@needs_nvcc
@pytest.mark.slow
def test_no_kernel_spills(binaries):
    assert {b.architecture for b in binaries} == set(static.GPUS)
    for binary in binaries:
        local = {name for name in binary.instructions if name in ("STL", "LDL")}
        assert binary.stack == 0 and not local, f"{binary.name} on sm_{binary.architecture}"


@needs_nvcc
@pytest.mark.slow
@pytest.mark.parametrize("architecture", static.GPUS)
@pytest.mark.parametrize("name", BUDGETS)
def test_kernel_keeps_its_budget(binaries, name: str, architecture: int):
    budget, gpu = BUDGETS[name], static.GPUS[architecture]
    own = [b for b in binaries if b.architecture == architecture and budget.matches(b.name)]
    assert own, f"no kernel is called {budget.values['pattern']}"
    for binary in own:
        assert binary.registers <= budget.limit("registers", architecture), binary.name
        for instruction, least in budget.instructions(architecture).items():
            assert binary.instructions[instruction] >= least, (binary.name, instruction)
        blocks = static.occupancy(
            gpu,
            threads=budget.limit("threads", architecture),
            registers=binary.registers,
            shared=budget.limit("shared", architecture),
        )
        assert blocks >= budget.limit("blocks", architecture), binary.name


@needs_nvcc
@pytest.mark.slow
def test_every_kernel_has_a_budget(binaries):
    for name in {b.name for b in binaries}:
        assert any(budget.matches(name) for budget in BUDGETS.values()), name


class LaunchRecorder(dict):
    """Stands for every kernel and its machine, and notes what would run."""

    def __init__(self) -> None:
        self.launched: list[tuple[str, int, int]] = []

    def __missing__(self, kernel: str) -> Any:
        def launch(grid, block, values, shared, memory, schedule) -> None:
            self.launched.append((kernel, block[0] * block[1] * block[2], shared))

        return SimpleNamespace(launch=launch)

    def __contains__(self, kernel: object) -> bool:
        return True


def test_launches_are_those_the_budgets_assume():
    engine = PtxEngine(build.shim_module(), {})
    engine.machines = recorder = LaunchRecorder()
    for name, run in all_cases().items():
        if name.endswith(("-2", "-3")):
            with pytest.raises(AssertionError):  # nothing was computed
                run(engine)
    assert len({kernel for kernel, _, _ in recorder.launched}) > 20
    for kernel, threads, shared in recorder.launched:
        budget = next(b for b in BUDGETS.values() if b.matches(kernel))
        assert threads == budget.limit("threads", 80), kernel
        assert shared <= budget.limit("shared", 80), kernel


OCCUPANCY = r"""
#include <cuda_occupancy.h>
#include <cstdio>
int main() {
  int major, minor, threads_sm, blocks_sm, shared_sm, reserved, threads, registers, shared;
  while (scanf("%d %d %d %d %d %d %d %d %d", &major, &minor, &threads_sm, &blocks_sm, &shared_sm,
               &reserved, &threads, &registers, &shared) == 9) {
    cudaOccDeviceProp gpu;
    gpu.computeMajor = major, gpu.computeMinor = minor, gpu.maxThreadsPerBlock = 1024;
    gpu.maxThreadsPerMultiprocessor = threads_sm, gpu.regsPerBlock = 65536;
    gpu.regsPerMultiprocessor = 65536, gpu.warpSize = 32, gpu.sharedMemPerBlock = 49152;
    gpu.sharedMemPerMultiprocessor = shared_sm, gpu.numSms = 1;
    gpu.sharedMemPerBlockOptin = shared_sm - reserved, gpu.reservedSharedMemPerBlock = reserved;
    cudaOccFuncAttributes kernel;
    kernel.maxThreadsPerBlock = 1024, kernel.numRegs = registers, kernel.sharedSizeBytes = shared;
    kernel.partitionedGCConfig = PARTITIONED_GC_OFF, kernel.numBlockBarriers = 1;
    kernel.shmemLimitConfig = FUNC_SHMEM_LIMIT_OPTIN;
    kernel.maxDynamicSharedSizeBytes = shared_sm - reserved;
    cudaOccDeviceState state;
    cudaOccResult result;
    int status =
        cudaOccMaxActiveBlocksPerMultiprocessor(&result, &gpu, &kernel, &state, threads, 0);
    printf("%d\n", status ? -1 : result.activeBlocksPerMultiprocessor);
  }
}
"""


@needs_nvcc
@pytest.mark.parametrize("architecture", static.GPUS)
def test_occupancy_is_that_of_the_toolkit(tmp_path, architecture: int):
    gpu = static.GPUS[architecture]
    source, program = tmp_path / "occupancy.cpp", tmp_path / "occupancy"
    source.write_text(OCCUPANCY)
    compiler = build.nvcc()
    dry = subprocess.run(
        [compiler, "--dryrun", "-E", "-x", "cu", "/dev/null"], capture_output=True, text=True
    ).stderr
    include = re.search(r'INCLUDES="?-I(\S+?)"', dry)[1]
    subprocess.run(["g++", f"-I{include}", str(source), "-o", str(program)], check=True)
    uses = [(t, r, s) for t in (64, 128, 256) for r in (16, 40, 128, 200) for s in (0, 960, 49152)]
    lines = "\n".join(
        f"{architecture // 10} {architecture % 10} {gpu.threads} {gpu.blocks} {gpu.shared * 1024} "
        f"{gpu.reserved} {t} {r} {s}"
        for t, r, s in uses
    )
    output = subprocess.check_output([str(program)], input=lines, text=True)
    expected = [static.occupancy(gpu, threads=t, registers=r, shared=s) for t, r, s in uses]
    assert [int(line) for line in output.split()] == expected


def test_roofline_bounds_are_what_the_peaks_say():
    gpu = static.GPUS[80]
    big = next(w for w in static.works() if w.operator == "product_mlp")
    time, bound = big.bound_ms(gpu)
    assert bound == "compute"
    assert math.isclose(time, 2 * 300 * 96 * 1024 * 2049 / 312e12 * 1e3)
    assert next(w for w in static.works() if w.operator == "roi_align").bound_ms(gpu)[1] == "memory"


def test_report_without_a_module_says_that_nothing_ran(tmp_path, monkeypatch):
    monkeypatch.setattr(static, "BUILT", tmp_path)
    output = static.table()
    assert "nothing above ran on a GPU" in output
    assert "No CUDA module is built" in output
