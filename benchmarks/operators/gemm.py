"""The machine's own limit: the fastest of torch, oneDNN and ONNX Runtime at one multiplication."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from benchmarks.operators.timing import Bench
from zsd_core import kernels
from zsd_core.errors import require

__all__ = ["Gemm", "ceiling", "gemms", "torch_gemm"]


@dataclass(frozen=True, slots=True)
class Gemm:
    """A float32 multiplication of (rows, D) by (D, M)."""

    rows: int
    joint: int
    hidden: int

    @property
    def gflop(self) -> float:
        """Number of operations, in 10^9."""
        return 2e-9 * self.rows * self.joint * self.hidden


def torch_gemm(gemm: Gemm) -> Callable[[], Any]:
    """The multiplication in torch."""
    torch = require("torch", "train")
    left, right = torch.rand(gemm.rows, gemm.joint), torch.rand(gemm.hidden, gemm.joint)

    def run() -> Any:
        with torch.inference_mode():
            return left @ right.T

    return run


def _onednn(gemm: Gemm) -> Callable[[], Any]:
    torch = require("torch", "train")
    from torch.utils import mkldnn

    left = torch.rand(gemm.rows, gemm.joint).to_mkldnn()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the old torch.jit inside
        layer = mkldnn.to_mkldnn(torch.nn.Linear(gemm.joint, gemm.hidden, bias=False).eval())

    def run() -> Any:
        with torch.inference_mode():
            return layer(left)

    return run


def _onnxruntime(gemm: Gemm) -> Callable[[], Any]:
    torch, onnx = require("torch", "train"), require("onnx", "export")
    onnxruntime = require("onnxruntime", "cpu")
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    left = torch.rand(gemm.rows, gemm.joint).numpy()
    weight = onnx.numpy_helper.from_array(torch.rand(gemm.joint, gemm.hidden).numpy(), "w")
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "gemm",
        [helper.make_tensor_value_info("x", kind, [gemm.rows, gemm.joint])],
        [helper.make_tensor_value_info("y", kind, [gemm.rows, gemm.hidden])],
        [weight],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = kernels.get_threads()
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return lambda: session.run(None, {"x": left})


def gemms(gemm: Gemm) -> dict[str, Callable[[], Any]]:
    """The multiplication in every library that is tried, by name."""
    return {"torch": torch_gemm(gemm), "oneDNN": _onednn(gemm), "ONNX Runtime": _onnxruntime(gemm)}


def ceiling(bench: Bench, gemm: Gemm) -> tuple[str, float]:
    """Who is the fastest, and its 10^9 operations per second; prints all three."""
    times = bench.together(gemms(gemm))
    rates = {name: 1e3 * gemm.gflop / ms for name, ms in times.items()}
    best = max(rates, key=lambda name: rates[name])
    print(
        f"GEMM {gemm.rows} x {gemm.joint} x {gemm.hidden}: "
        + ", ".join(f"{name} {rate:.0f} GFLOP/s" for name, rate in rates.items())
        + f"; the ceiling is {best}'s"
    )
    return best, rates[best]
