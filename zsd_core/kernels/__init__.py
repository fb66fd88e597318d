"""The operators between the two networks: numpy in, numpy out, computed by ``csrc/kernels``.

Importing is free; the compiled module is loaded by the first call. ``reference`` holds a readable
numpy twin of every function.
"""

from __future__ import annotations

from zsd_core.kernels.calibrate_scores import calibrate_scores
from zsd_core.kernels.detect import detect
from zsd_core.kernels.fuse import fuse
from zsd_core.kernels.info import (
    build_info,
    get_threads,
    set_simd,
    set_threads,
    sums_int8_exactly,
    thread_limit,
    usable_threads,
)
from zsd_core.kernels.linear import PackedLinear
from zsd_core.kernels.nms import nms
from zsd_core.kernels.offered import second_look, spoken_for, top_regions
from zsd_core.kernels.preprocess import preprocess
from zsd_core.kernels.product_mlp import PackedMlp, product_mlp, product_mlps
from zsd_core.kernels.propose import propose
from zsd_core.kernels.roi_align import roi_align, roi_align_backward

__all__ = [
    "PackedLinear",
    "PackedMlp",
    "build_info",
    "calibrate_scores",
    "detect",
    "fuse",
    "get_threads",
    "nms",
    "preprocess",
    "product_mlp",
    "product_mlps",
    "propose",
    "roi_align",
    "roi_align_backward",
    "second_look",
    "set_simd",
    "set_threads",
    "spoken_for",
    "sums_int8_exactly",
    "thread_limit",
    "top_regions",
    "usable_threads",
]
