"""Times on a GPU by its own clock, and the machine's ceilings, measured in the same run."""

from __future__ import annotations

from collections.abc import Callable
from statistics import median
from typing import Any

import torch

__all__ = ["DTYPES", "copy_gigabytes", "graph_ms", "matmul_tflops"]

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
WARM = 3  # calls before anything is timed or captured
LONG_MS = 20.0  # so much work in a graph is enough to hide a launch
TOTAL_MS = 300.0  # of measured work


def graph_ms(work: Callable[[], Any]) -> float:
    """Median milliseconds of a call, from CUDA events around launches of a graph of many.

    So neither Python nor a launch is in the time; the data of a call lie in the L2 cache, if they
    fit there, as in a pipeline that runs again and again.

    Args:
        work: puts everything on the current stream, and asks the device for nothing.
    """
    torch.cuda.synchronize()  # what it reads may still be on its way
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        for _ in range(WARM):
            work()
        once = _elapsed(work)
    repeats = max(1, min(50, round(LONG_MS / max(once, 1e-3))))
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=stream):
        for _ in range(repeats):
            work()
    graph.replay()
    launches = max(5, min(50, round(TOTAL_MS / max(once * repeats, 1e-3))))
    return median(_elapsed(graph.replay) for _ in range(launches)) / repeats


def _elapsed(work: Callable[[], Any]) -> float:
    """Milliseconds of a call between two events on the current stream."""
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    work()
    end.record()
    end.synchronize()
    return float(start.elapsed_time(end))


def copy_gigabytes() -> float:
    """10^9 bytes a second of a copy of 1 GiB, read and written: the ceiling of memory."""
    source = torch.randint(0, 1 << 30, (1 << 28,), dtype=torch.int32, device="cuda")
    target = torch.empty_like(source)
    ms = graph_ms(lambda: target.copy_(source))
    return 2 * source.numel() * source.element_size() / ms / 1e6


def matmul_tflops(dtype: torch.dtype, size: int = 8192) -> float:
    """10^12 operations a second of a square product of random numbers: the ceiling of products.

    float32 without TF32, as everywhere here.
    """
    first, second = (torch.randn(size, size, device="cuda", dtype=dtype) for _ in range(2))
    result = torch.empty_like(first)
    ms = graph_ms(lambda: torch.mm(first, second, out=result))
    return 2 * size**3 / ms / 1e9
