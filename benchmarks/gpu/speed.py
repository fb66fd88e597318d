"""Part "speed": RoIAlign and ``product_mlp`` beside PyTorch, and every kernel's registers.

Medians by CUDA events, of graphs of many calls; shares are of a copy's bandwidth and of a large
product's rate in the same type, measured in the same run.
"""

from __future__ import annotations

import time
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from benchmarks.gpu import binaries
from benchmarks.gpu.build import ROOT
from benchmarks.gpu.large import MLP_SHAPES, ROI_SHAPES, exact_scores, pooled
from benchmarks.gpu.report import Report
from benchmarks.gpu.timing import DTYPES, copy_gigabytes, graph_ms, matmul_tflops
from zsd_core.errors import require

__all__ = ["check_functions", "dry", "eager_scores", "on_gpu", "run", "time_pooling", "time_scores"]

ENOUGH = 45.0  # seconds, after which nothing more is compiled
COMPILED = ("paper-80", "paper-1203", "coco48-65", "coco48-1203")
POOLED = ("paper", "coco48", "open")


def eager_scores(
    regions: Tensor,
    prototypes: Tensor,
    weight1: Tensor,
    bias1: Tensor,
    weight2: Tensor,
    bias2: Tensor,
) -> Tensor:
    """Equation 6 as one would write it: every product of a region and a class, then the MLP."""
    hidden = torch.relu((regions[:, None] * prototypes) @ weight1.T + bias1)
    return hidden @ weight2 + bias2


def run(report: Report) -> None:
    """Time everything; what takes long to prepare comes last."""
    from benchmarks.gpu.engine import exact_arithmetic
    from zsd_core.kernels.cuda import compiled_cuda

    exact_arithmetic()
    begun, kernels = time.perf_counter(), compiled_cuda()
    copy = copy_gigabytes()
    rates = {name: matmul_tflops(dtype) for name, dtype in DTYPES.items()}
    report.fact(copy_gb_per_s=round(copy), **{f"matmul_tflops_{n}": r for n, r in rates.items()})
    for name in POOLED:
        for dtype in DTYPES:
            report.row(**time_pooling(kernels, name, dtype, copy))
    for name, shape in MLP_SHAPES.items():
        for dtype in DTYPES:
            report.row(**time_scores(kernels, name, shape, dtype, rates[dtype]))
    major, minor = torch.cuda.get_device_capability(0)
    module = max((ROOT / "zsd_core").glob("_compiled_cuda*.so"))
    binaries.occupancy_rows(report, module, 10 * major + minor)
    for name, dtype in ((n, d) for n in COMPILED for d in ("float16", "bfloat16", "float32")):
        if time.perf_counter() - begun > ENOUGH:
            report.fact(**{f"compiled_{name}_{dtype}": f"not reached in {ENOUGH:.0f} s"})
            continue
        arguments = on_gpu(MLP_SHAPES[name], dtype)
        compiled = torch.compile(eager_scores, dynamic=False)
        ms = graph_ms(lambda run=compiled, given=arguments: run(*given))  # type: ignore[misc]
        report.row(kind="compile", operator="product_mlp", size=name, dtype=dtype, compiled_ms=ms)


def on_gpu(shape: Any, dtype: str) -> list[Tensor]:
    """Arguments of ``product_mlp``; biases and the last layer are float32, as the kernel wants."""
    from cuda_proof.cases import mlp_arguments

    return [array.cuda() for array in mlp_arguments(shape, DTYPES[dtype])]


def time_scores(
    kernels: ModuleType, name: str, shape: Any, dtype: str, tflops: float
) -> dict[str, Any]:
    """``product_mlp`` beside eager PyTorch, all of whose arguments are of one type."""
    arguments = on_gpu(shape, dtype)
    output = torch.empty(shape[:2], device="cuda")
    same = [array.to(DTYPES[dtype]) for array in arguments]

    def ours() -> None:
        kernels.product_mlp(*arguments, output, stream=torch.cuda.current_stream().cuda_stream)

    ms, eager_ms = graph_ms(ours), graph_ms(lambda: eager_scores(*same))
    regions, classes, depth, hidden = shape
    rate = 2 * regions * classes * hidden * (depth + 1) / ms / 1e9
    return {
        "kind": "operator",
        "operator": "product_mlp",
        "size": name,
        "dtype": dtype,
        "ms": ms,
        "eager_ms": eager_ms,
        "tflops": rate,
        "share_of_matmul": rate / tflops,
    }


def time_pooling(kernels: ModuleType, name: str, dtype: str, copy: float) -> dict[str, Any]:
    """``roi_align`` beside torchvision's, on the least bytes: the map once, the patches once."""
    from cuda_proof.cases import roi_arguments

    shape = ROI_SHAPES[name]
    features, rois, images = (array.cuda() for array in roi_arguments(shape, dtype))
    output = torch.empty(len(rois), shape[1], *shape[5], device="cuda", dtype=DTYPES[dtype])
    options = {"spatial_scale": 1 / 16, "sampling_ratio": shape[6]}

    def ours() -> None:
        stream = torch.cuda.current_stream().cuda_stream
        kernels.roi_align(features, rois, images, output, stream=stream, **options)

    ms = graph_ms(ours)
    theirs: float | str
    try:
        same = rois.to(DTYPES[dtype])
        theirs = graph_ms(lambda: pooled(features, same, images, shape))
    except RuntimeError as error:  # torchvision has no kernel for the type
        theirs = str(error).splitlines()[0][:100]
    moved = (features.numel() + output.numel()) * output.element_size()
    return {
        "kind": "operator",
        "operator": "roi_align",
        "size": name,
        "dtype": dtype,
        "ms": ms,
        "torchvision_ms": theirs,
        "gb_per_s": moved / ms / 1e6,
        "share_of_copy": moved / ms / 1e6 / copy,
    }


def dry(report: Report) -> None:
    """Compare on a CPU what is timed on a GPU, and look for the functions that are called there."""
    from cuda_proof.cases import mlp_arguments, roi_arguments

    from benchmarks import static
    from zsd_core.kernels import reference

    arguments = mlp_arguments((5, 3, 16, 8), torch.float64)
    exact = reference.product_mlp(*(a.double().numpy() for a in arguments))
    arguments = [a.double() for a in arguments]
    for name, found in (
        ("eager_scores", eager_scores(*arguments)),
        ("exact_scores", exact_scores(arguments, "cpu", torch.float64)),
    ):
        error = float((found - torch.from_numpy(exact)).abs().max())
        report.row(formula=name, error=error)
        if error > 1e-12:
            report.failure(f"{name} is {error:.1e} from the twin.")
    shape = (2, 5, 13, 9, 7, (3, 2), 2)
    features, rois, images = roi_arguments(shape, "float32")
    patches = torch.from_numpy(
        reference.roi_align(
            *(a.numpy() for a in (features, rois, images)),
            output_size=shape[5],
            spatial_scale=1 / 16,
            sampling_ratio=shape[6],
        )
    )
    error = float((pooled(features, rois, images, shape) - patches).abs().max())
    report.row(formula="torchvision's roi_align", error=error)
    if error > 1e-5:
        report.failure(f"torchvision's roi_align is {error:.1e} from the twin.")
    report.fact(budgets=len(static.budgets()))
    check_functions(report)


def check_functions(report: Report) -> None:
    """Look whether this machine's packages have what is called on a GPU."""
    for owner, names in (
        (torch.cuda, ("ExternalStream", "stream", "CUDAGraph", "graph", "Event", "Stream")),
        (torch.cuda, ("max_memory_allocated", "reset_peak_memory_stats", "empty_cache")),
    ):
        for name in names:
            if not hasattr(owner, name):
                report.failure(f"{owner.__name__} {torch.__version__} has no {name}.")
    try:
        driver = require("cuda.bindings.driver", "tensorrt")
    except Exception as error:
        report.fact(driver=f"not looked at: {error}")
        return
    for name in binaries.FUNCTIONS:
        if not hasattr(driver, name):
            report.failure(f"cuda.bindings.driver has no {name}.")
