"""The kernels for torch: custom operators with fake kernels and gradients, used by training.

float32 tensors on the CPU run the compiled kernels of ``csrc/kernels``. Other devices and dtypes
run torch's and torchvision's own operators, with the same meaning and memory bound.
"""

from __future__ import annotations

from zsd_core.learning.ops.product_mlp import product_mlp
from zsd_core.learning.ops.roi_align import roi_align

__all__ = ["product_mlp", "roi_align"]
