"""Ways of writing int8: what each family of backends wants.

* onnxruntime and openvino: unsigned activations with a zero point, int32 biases, and weights of 7
  bits: on x86 without VNNI the sum of two 8-bit products does not fit into the 16 bits it is given
  (with 8 bits for other CPUs, as the device then checks);
* tensorrt: signed symmetric activations, float biases and 8-bit weights, as its parser asks for.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["FLAVOURS", "Flavour"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Flavour:
    """A way of writing int8.

    Attributes:
        families: of backends that want it.
        symmetric: signed activations with zero point 0, and float biases.
        cpu: weights have 7 bits unless the CPU is known to sum 8-bit products exactly.
        operators: that are quantised.
        exact: operators whose outputs are not rounded before the activation behind them.
    """

    families: tuple[str, ...]
    symmetric: bool
    cpu: bool
    operators: tuple[str, ...]
    exact: tuple[str, ...]

    def levels(self, full_range: bool) -> int:
        """The integer of the largest weight."""
        return 64 if self.cpu and not full_range else 127


FLAVOURS = {
    "asymmetric": Flavour(
        families=("onnxruntime", "openvino"),
        symmetric=False,
        cpu=True,
        operators=("Conv", "Gemm", "MatMul", "Add", "Clip", "Relu", "MaxPool"),
        exact=(),
    ),
    "symmetric": Flavour(
        families=("tensorrt",),
        symmetric=True,
        cpu=False,
        operators=("Conv", "Gemm", "MatMul", "Add"),
        exact=("Conv", "Gemm", "MatMul"),
    ),
}
