"""Facts about the CUDA kernels that need no GPU: their binaries, occupancy and a roofline.

    python -m benchmarks.operators --static

Registers, instructions and occupancy are read from the compiled module; the roofline is public peak
figures and arithmetic. Nothing here ran on a GPU, and no line is a measured time.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sysconfig
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from zsd_core.errors import ConfigError

__all__ = [
    "GPUS",
    "Budget",
    "Gpu",
    "KernelBinary",
    "Work",
    "budgets",
    "occupancy",
    "read_binaries",
    "table",
    "tool",
    "works",
]

ROOT = Path(__file__).resolve().parents[1]
BUILT = ROOT / "zsd_core"  # where a CUDA module lies, if there is one


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """One GPU of an architecture: public dense peaks, and what a multiprocessor holds.

    Attributes:
        name: of the product the peaks belong to.
        tflops: half precision with float accumulation, dense, tensor cores, 10^12 per second.
        gigabytes: memory bandwidth, 10^9 bytes per second.
        threads: resident on a multiprocessor, at most.
        blocks: likewise.
        shared: kilobytes of shared memory of a multiprocessor.
        reserved: bytes of it that every block costs beside its own.
    """

    name: str
    tflops: float
    gigabytes: float
    threads: int
    blocks: int
    shared: int
    reserved: int = 1024


# Peaks, from NVIDIA's own documents; what they give with sparsity is halved, and with half
# accumulation on GeForce cards halved again.
#   75   T4 datasheet: 65 TFLOPS, 320 GB/s.
#   80   A100 80GB SXM datasheet: 312 TFLOPS, 2,039 GB/s.
#   86   Ampere GA102 whitepaper, appendix A: 71 TFLOPS with FP32 accumulation, 936 GB/s.
#   87   Jetson AGX Orin series technical brief: GPU of 170 sparse INT8 TOPS, so 85 dense and half
#        of that in FP16; 204.8 GB/s.
#   89   Ada GPU architecture whitepaper: 165.2 TFLOPS with FP32 accumulation, 1,008 GB/s.
#   90   H100 SXM datasheet: 1,979 TFLOPS with sparsity, 3.35 TB/s.
#   100  DGX B200 datasheet: of one of its eight GPUs 4.5 PFLOPS with sparsity, 8 TB/s (HGX: 7.7).
#   110  Jetson Thor series datasheet, T5000: 2,070 FP4 TFLOPS with sparsity, an eighth of it in
#        dense FP16; 273 GB/s.
#   120  RTX Blackwell GPU architecture whitepaper: 209.5 TFLOPS with FP32 accumulation (838 with
#        half accumulation and sparsity), 1,792 GB/s.
# Multiprocessors: CUDA C++ Programming Guide, technical specifications per compute capability, and
# the toolkit's cuda_occupancy.h, with which a test compares them.
GPUS = {
    75: Gpu(name="T4", tflops=65, gigabytes=320, threads=1024, blocks=16, shared=64, reserved=0),
    80: Gpu(name="A100 80GB", tflops=312, gigabytes=2039, threads=2048, blocks=32, shared=164),
    86: Gpu(name="RTX 3090", tflops=71, gigabytes=936, threads=1536, blocks=16, shared=100),
    87: Gpu(name="Orin AGX 64GB", tflops=42, gigabytes=205, threads=1536, blocks=16, shared=164),
    89: Gpu(name="RTX 4090", tflops=165, gigabytes=1008, threads=1536, blocks=24, shared=100),
    90: Gpu(name="H100 SXM", tflops=989, gigabytes=3350, threads=2048, blocks=32, shared=228),
    100: Gpu(name="B200", tflops=2250, gigabytes=8000, threads=2048, blocks=32, shared=228),
    110: Gpu(name="Thor T5000", tflops=258, gigabytes=273, threads=1536, blocks=24, shared=228),
    120: Gpu(name="RTX 5090", tflops=209, gigabytes=1792, threads=1536, blocks=24, shared=100),
}


def occupancy(gpu: Gpu, *, threads: int, registers: int, shared: int) -> int:
    """Blocks of a kernel that fit one multiprocessor at once (65,536 registers on all of these)."""
    warps = -(-threads // 32)
    per_warp = -(-registers * 32 // 256) * 256  # registers are handed out 256 at a time
    by_registers = 65536 // per_warp // 4 * 4 // warps  # and each quarter has its own
    bytes_ = -(-(shared + gpu.reserved) // 128) * 128 if gpu.reserved else -(-shared // 256) * 256
    by_shared = gpu.shared * 1024 // bytes_ if bytes_ else gpu.blocks
    return min(gpu.threads // (32 * warps), gpu.blocks, by_registers, by_shared)


@dataclass(slots=True)
class KernelBinary:
    """One kernel compiled for one architecture."""

    name: str  # mangled
    architecture: int
    registers: int = 0
    stack: int = 0  # bytes; spilled registers live there
    instructions: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True, slots=True)
class Budget:
    """One entry of ``csrc/cuda_budgets.json``."""

    values: dict[str, Any]

    def matches(self, kernel: str) -> bool:
        """Whether the mangled name is this entry's."""
        return re.search(self.values["pattern"], kernel) is not None

    def limit(self, key: str, architecture: int) -> int:
        """A budget that may depend on the architecture."""
        return _by_architecture(self.values[key], architecture)

    def instructions(self, architecture: int) -> dict[str, int]:
        """The least number of each instruction."""
        wanted = self.values["instructions"]
        return {name: _by_architecture(wanted[name], architecture) for name in wanted}


def _by_architecture(value: Any, architecture: int) -> int:
    if isinstance(value, dict):
        value = value.get(str(architecture), value["default"])
    return int(value)


def budgets() -> list[Budget]:
    """The budgets of every kernel, fixed in a file."""
    content = json.loads((ROOT / "csrc" / "cuda_budgets.json").read_text())
    return [Budget(entry) for entry in content["kernels"]]


def tool(name: str) -> str:
    """A program of the CUDA toolkit, or of NVIDIA's pip packages.

    Raises:
        ConfigError: it is nowhere.
    """
    packages = Path(sysconfig.get_path("purelib")).glob(f"nvidia/*/bin/{name}")
    found = shutil.which(name) or next((str(path) for path in packages), None)
    if not found:
        raise ConfigError(
            f"{name} is not installed: pip install nvidia-cuda-cuobjdump nvidia-cuda-nvdisasm."
        )
    return found


def read_binaries(module: Path) -> list[KernelBinary]:
    """Every kernel of every architecture in a built module."""
    kernels: dict[tuple[str, int], KernelBinary] = {}
    current: KernelBinary | None = None
    architecture = 0
    for line in _dump(module, "-res-usage"):
        if match := re.match(r"arch = sm_(\d+)", line):
            architecture = int(match[1])
        elif match := re.match(r"\s*Function (\w+):", line):
            current = KernelBinary(match[1], architecture)
            kernels[match[1], architecture] = current
        elif current and (match := re.match(r"\s*REG:(\d+) STACK:(\d+)", line)):
            current.registers, current.stack = int(match[1]), int(match[2])
    for line in _dump(module, "-sass"):
        if match := re.match(r"\s*arch = sm_(\d+)", line):
            architecture = int(match[1])
        elif match := re.match(r"\s*Function : (\w+)", line):
            current = kernels[match[1], architecture]
        elif current and (match := re.match(r"\s*/\*[0-9a-f]+\*/\s+(?:@!?U?P\w+ )?(\w+)", line)):
            current.instructions[match[1]] += 1
    return list(kernels.values())


def _dump(module: Path, what: str) -> list[str]:
    folder = str(Path(tool("nvdisasm")).parent)  # cuobjdump looks for it on the path
    environment = os.environ | {"PATH": os.pathsep.join([folder, os.environ["PATH"]])}
    command = [tool("cuobjdump"), what, str(module)]
    return subprocess.run(
        command, env=environment, capture_output=True, text=True, check=True
    ).stdout.splitlines()


@dataclass(frozen=True, slots=True)
class Work:
    """Least work of an operator: its shape in words, operations, bytes to and from memory.

    ``tensor`` operations run on tensor cores; others are bound by bytes on every GPU here.
    """

    operator: str
    shape: str
    operations: float
    bytes: float
    tensor: bool = False

    def bound_ms(self, gpu: Gpu) -> tuple[float, str]:
        """The least time on a GPU, and what sets it."""
        memory = self.bytes / gpu.gigabytes / 1e6
        compute = self.operations / gpu.tflops / 1e9 if self.tensor else 0.0
        return (compute, "compute") if compute > memory else (memory, "memory")


def works() -> list[Work]:
    """The paper's sizes: 300 regions, D 2048, M 1024; float16 where a network's output is meant."""
    regions, depth, hidden = 300, 2048, 1024
    rows = []
    for classes in (96, 1203):
        rows.append(
            Work(
                "product_mlp",
                f"float16, {classes} classes",
                2.0 * regions * classes * hidden * (depth + 1),
                2.0 * (regions * depth + classes * depth + hidden * depth) + 4 * regions * classes,
                tensor=True,
            )
        )
    patch = regions * 1024 * 14 * 14
    rows.append(
        Work(
            "roi_align",
            "float16, 300 x 1024 x 14 x 14",
            32.0 * patch,
            2.0 * (patch + 1024 * 38 * 63),
        )
    )
    rows.append(
        Work("fuse", "80 + 15 classes", 20.0 * regions * 96, 4.0 * regions * (96 + 15 + 95))
    )
    rows.append(
        Work("calibrate_scores", "300 regions, 95 classes", 30.0 * regions * 95, 8.0 * regions * 95)
    )
    rows.append(
        Work("all_finite", "8,400 regions, 53 numbers each", 2.0 * 8400 * 53, 4.0 * 8400 * 53)
    )
    for classes in (80, 16000):  # six regions that are looked at, as `open` does
        rows.append(
            Work(
                "score_prototypes",
                f"6 x 897 x {classes:,} classes",
                2.0 * 6 * 897 * classes,
                4.0 * 897 * (classes + 6) + 4 * 150.0 * (80 + classes),
            )
        )
    rows.append(
        Work(
            "top_regions",
            "150 queries of 80 classes",
            2.0 * 150 * 80 + 150 * 150,
            2 * 4.0 * 150 * 85,
        )
    )
    anchors = 9 * 38 * 63
    mask = 6000 * 6000 / 8
    rows.append(
        Work(
            "propose",
            "21,546 anchors, 6,000 before NMS",
            10.0 * 6000 * 6000 / 2,
            5 * 4.0 * anchors + mask,
        )
    )
    rows.append(
        Work(
            "detect",
            "300 regions, 95 classes",
            10.0 * regions * regions,
            4.0 * regions * 95 + regions * regions / 8,
        )
    )
    pixels = 600 * 800
    rows.append(
        Work(
            "preprocess",
            "1080 x 1440 to 600 x 800",
            40.0 * pixels,
            3.0 * 1080 * 1440 + 4 * 3.0 * pixels,
        )
    )
    return rows


def _roofline() -> list[str]:
    lines = [
        "Least time per call in ms by the roofline (c: compute, m: memory), from public peaks:",
        "",
        "| operator | shape | GFLOP | MB | FLOP/byte | "
        + " | ".join(f"{gpu.name}" for gpu in GPUS.values())
        + " |",
        "| --- | --- | ---: | ---: | ---: |" + " ---: |" * len(GPUS),
    ]
    for work in works():
        cells = []
        for gpu in GPUS.values():
            time, bound = work.bound_ms(gpu)
            cells.append(f"{time:.4f} {bound[0]}")
        lines.append(
            f"| {work.operator} | {work.shape} | {work.operations / 1e9:.2f} | "
            f"{work.bytes / 1e6:.2f} | {work.operations / work.bytes:.1f} | "
            + " | ".join(cells)
            + " |"
        )
    return lines


def _binaries(module: Path) -> list[str]:
    lines = [
        "Registers, blocks on a multiprocessor and tensor-core instructions, from the binaries:",
        "",
        "| kernel | " + " | ".join(f"sm_{a}" for a in GPUS) + " |",
        "| --- |" + " ---: |" * len(GPUS),
    ]
    binaries = read_binaries(module)
    for budget in budgets():
        cells = []
        for architecture, gpu in GPUS.items():
            own = [b for b in binaries if b.architecture == architecture and budget.matches(b.name)]
            if not own:
                cells.append("-")
                continue
            worst = max(own, key=lambda b: b.registers)
            blocks = occupancy(
                gpu,
                threads=budget.limit("threads", architecture),
                registers=worst.registers,
                shared=budget.limit("shared", architecture),
            )
            tensor = worst.instructions["HMMA"] + worst.instructions["IMMA"]
            cells.append(f"{worst.registers} / {blocks} / {tensor}")
        lines.append(f"| {budget.values['name']} | " + " | ".join(cells) + " |")
    return lines


def table() -> str:
    """The whole report; where no module is built only the roofline."""
    lines, module = _roofline(), max(BUILT.glob("_compiled_cuda*.so"), default=None)
    if module:
        lines += ["", *_binaries(module), ""]
        lines.append("Spilled registers: 0 in every kernel and architecture (gated by the tests).")
        lines.append("float32 and bfloat16 on sm_75 have no tensor-core instruction (shuffles).")
    else:
        lines += ["", "No CUDA module is built, so its binaries are not shown: ZSD_CUDA=ON."]
    lines += ["", "Static: nothing above ran on a GPU, and mma.sync does not reach the peak of"]
    lines.append("sm_90 and sm_100, whose fastest instructions (wgmma, tcgen05) are not used.")
    return "\n".join(lines)
