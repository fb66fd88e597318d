"""Part "build": the kernels, for this GPU's architecture alone, by ``scripts/build``."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.gpu.machine import nvcc
from benchmarks.gpu.report import Report
from zsd_core.errors import ConfigError

__all__ = ["ROOT", "command", "dry", "run"]

ROOT = Path(__file__).resolve().parents[2]


def command(capability: tuple[int, int]) -> list[str]:
    """The command that builds both modules in place."""
    architecture = "".join(map(str, capability))
    return ["scripts/build", "-DZSD_CUDA=ON", f"-DZSD_CUDA_ARCHITECTURES={architecture}"]


def run(report: Report) -> None:
    """Build, and load what was built.

    Raises:
        ConfigError: there is no compiler, or it fails; the end of its output is in the message.
    """
    import torch

    compiler = nvcc()
    if compiler is None:
        raise ConfigError("no nvcc on the PATH or in /usr/local/cuda/bin; name it with CUDACXX.")
    words = command(torch.cuda.get_device_capability(0))
    tools = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = os.environ | {"PYTHON": sys.executable, "CUDACXX": compiler, "PATH": tools}
    start = time.perf_counter()
    done = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True)
    report.fact(
        command=" ".join(words),
        build_seconds=round(time.perf_counter() - start, 1),
        output=(done.stdout + done.stderr)[-3000:],
    )
    if done.returncode != 0:
        raise ConfigError(f"{' '.join(words)} failed: {(done.stdout + done.stderr)[-3000:]}")
    from zsd_core.kernels.cuda import compiled_cuda

    report.fact(build_info=str(compiled_cuda().build_info()))


def dry(report: Report) -> None:
    """Compare the command with what it calls: nothing is built."""
    words = command((9, 0))
    cmake = (ROOT / "cmake" / "cuda.cmake").read_text(encoding="utf-8")
    for option in words[1:]:
        name = option.removeprefix("-D").partition("=")[0]
        if f"({name} " not in cmake:
            report.failure(f"cmake/cuda.cmake has no option {name}.")
    if not os.access(ROOT / words[0], os.X_OK):
        report.failure(f"{words[0]} is not executable.")
    report.fact(command=" ".join(words))
