"""Part "machine": the GPU, its driver and the versions of what runs on it."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import subprocess
from pathlib import Path
from typing import Any

from benchmarks.gpu.report import Report

__all__ = ["dry", "nvcc", "run", "said", "software"]

PACKAGES = (
    *("torch", "torchvision", "triton", "cuda-bindings", "numpy", "onnx", "onnxruntime"),
    *("pybind11", "cmake", "ninja"),
)
QUERY = "name,driver_version,memory.total,clocks.sm,clocks.max.sm,clocks.mem,power.limit"
TOOLKIT = Path("/usr/local/cuda/bin")


def run(report: Report) -> None:
    """Note the machine."""
    import torch

    properties = torch.cuda.get_device_properties(0)
    major, minor = torch.cuda.get_device_capability(0)
    report.fact(
        gpu=torch.cuda.get_device_name(0),
        capability=f"{major}.{minor}",
        multiprocessors=properties.multi_processor_count,
        memory_gb=round(properties.total_memory / 1e9, 1),
        cuda_of_torch=torch.version.cuda,
        cudnn=torch.backends.cudnn.version(),
        nvidia_smi=said(["nvidia-smi", f"--query-gpu={QUERY}", "--format=csv,noheader"]),
        **software(),
    )


def dry(report: Report) -> None:
    """Note what of it a machine without a GPU knows."""
    report.fact(gpu="none", **software())


def software() -> dict[str, Any]:
    """Versions, and the processor."""
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = "not installed"
    compiler = nvcc()
    return {
        "packages": versions,
        "python": platform.python_version(),
        "system": platform.platform(),
        "cores": len(os.sched_getaffinity(0)),
        "nvcc": said([compiler, "--version"]).splitlines()[-1] if compiler else "none",
    }


def nvcc() -> str | None:
    """The CUDA compiler: of CUDACXX, on the PATH, or where toolkits put it."""
    named = os.environ.get("CUDACXX", "nvcc")
    return shutil.which(named) or shutil.which(named, path=str(TOOLKIT))


def said(command: list[str]) -> str:
    """What a program prints, or why it does not."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"{command[0]} cannot be run: {error}"
    return (done.stdout if done.returncode == 0 else done.stdout + done.stderr).strip() or "nothing"
