"""``product_mlp`` and ``PackedLinear`` on random arrays: time, memory and rounding."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from benchmarks.operators.gemm import Gemm, ceiling, torch_gemm
from benchmarks.operators.table import Row
from benchmarks.operators.timing import Bench, extra_mb
from zsd_core import kernels
from zsd_core.errors import require

__all__ = ["Sizes", "accuracy", "eager", "linear_rows", "random_arrays", "scoring_rows"]

Floats = NDArray[np.float32]
SHORTLIST = 128


@dataclass(frozen=True, slots=True)
class Sizes:
    """R, D and M."""

    regions: int
    joint: int
    hidden: int


@dataclass(frozen=True, slots=True)
class _Variant:
    name: str
    zeros: float = 0.0
    precision: Literal["float32", "int8"] = "float32"
    shortlist: int | None = None


VARIANTS = (
    _Variant("float32 dense"),
    _Variant("float32 half zero", zeros=0.5),
    _Variant("int8 dense", precision="int8"),
    _Variant(f"float32 shortlist {SHORTLIST}", shortlist=SHORTLIST),
)


def _softmax(logits: Floats) -> Floats:
    """Over the last axis."""
    weights = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return np.asarray(weights / weights.sum(axis=-1, keepdims=True))


def random_arrays(sizes: Sizes, classes: int, zeros: float) -> list[Floats]:
    """Regions, prototypes (dense, or with a share of exact zeros) and layers.

    The layers are torch's start and, as in trained ones, most of weight1 along one direction, with
    slopes as weight2: else all logits of a region are nearly equal and its best class is noise.
    """
    rng = np.random.default_rng(0)
    prototypes = rng.random((classes, sizes.joint), np.float32) + np.float32(0.1)
    prototypes[rng.random(prototypes.shape) < zeros] = 0
    bounds = sizes.joint**-0.5, sizes.hidden**-0.5
    shapes = ((sizes.hidden, sizes.joint), (sizes.hidden,), (sizes.hidden,), (1,))
    layers = [
        rng.uniform(-bounds[i // 2], bounds[i // 2], shape).astype(np.float32)
        for i, shape in enumerate(shapes)
    ]
    direction = rng.normal(size=(1, sizes.joint)).astype(np.float32)
    slopes = layers[2][:, None] * np.float32(sizes.hidden**0.5 * bounds[0])
    layers[0] += np.float32(1.7) * slopes * direction  # three quarters of the energy
    return [rng.random((sizes.regions, sizes.joint), np.float32), prototypes, *layers]


def eager(arrays: Sequence[Floats]) -> Callable[[], Floats]:
    """The operator in PyTorch as one writes it."""
    torch = require("torch", "train")
    regions, prototypes, *layers = (torch.tensor(array) for array in arrays)

    def run() -> Floats:
        with torch.inference_mode():
            hidden = torch.relu((regions[:, None] * prototypes) @ layers[0].T + layers[1])
            scores: Floats = (hidden @ layers[2] + layers[3]).numpy()
            return scores

    return run


def accuracy(logits: Floats, exact: Floats) -> dict[str, Any]:
    """Two fields of a row: how far logits (R, K) are from the exact ones."""
    return {
        "max_difference": float(np.abs(_softmax(logits) - _softmax(exact)).max()),
        "top1_agreement": float((logits.argmax(axis=1) == exact.argmax(axis=1)).mean()),
    }


def linear_rows(bench: Bench, widths: Sequence[int], counts: Sequence[int]) -> list[Row]:
    """The second layer of p_s, square, for some numbers of classes, against torch's."""
    torch, rng, rows = require("torch", "train"), np.random.default_rng(0), []
    for width in widths:
        weight = rng.standard_normal((width, width), np.float32) * np.float32(width**-0.5)
        packed, theirs = kernels.PackedLinear(weight), torch.from_numpy(weight)
        for count in counts:
            vectors = rng.standard_normal((count, width), np.float32)
            ours = partial(packed, vectors)
            reference = partial(torch.nn.functional.linear, torch.from_numpy(vectors), theirs)
            ms, other = bench.pair(ours, reference)
            rows.append(
                Row(
                    operator="linear",
                    variant=f"{width} to {width}",
                    classes=count,
                    ms=ms,
                    reference="torch linear",
                    reference_ms=other,
                    gflops=1e3 * Gemm(count, width, width).gflop / ms,
                    max_difference=float(np.abs(ours() - reference().numpy()).max()),
                )
            )
    return rows


def scoring_rows(bench: Bench, sizes: Sizes, counts: Sequence[int]) -> list[Row]:
    """Every variant for some numbers of classes.

    References run on the first count's share of classes and are scaled to the others.
    """
    gemm = Gemm(sizes.regions * counts[0], sizes.joint, sizes.hidden)
    _, limit = ceiling(bench, gemm)
    references = {
        "torch GEMM": torch_gemm(gemm),
        "PyTorch eager float32": eager(random_arrays(sizes, counts[0], 0.0)),
    }
    return [
        _row(bench, sizes, classes, classes / counts[0], variant, references, limit)
        for classes in counts
        for variant in VARIANTS
        if not variant.shortlist or classes > 2 * variant.shortlist
    ]


def _row(
    bench: Bench,
    sizes: Sizes,
    classes: int,
    scale: float,
    variant: _Variant,
    references: dict[str, Callable[[], Any]],
    limit: float,
) -> Row:
    arrays = random_arrays(sizes, classes, variant.zeros)
    regions, prototypes, *layers = arrays
    packed: list[kernels.PackedMlp] = []

    def ours() -> list[Floats]:
        if not packed:
            packed.append(kernels.PackedMlp(*layers, precision=variant.precision))
        return kernels.product_mlps(
            regions, prototypes, [(packed[0], 0)], shortlist=variant.shortlist
        )

    memory = extra_mb(ours)  # of the first call, so with what it packs
    if variant.shortlist:
        name, scale = "ours, 80 classes exact", 1.0
        ms, other = bench.pair(ours, lambda: packed[0](regions, prototypes[:80]))
    else:
        name = "torch GEMM" if variant.precision == "float32" else "PyTorch eager float32"
        ms, other = bench.pair(ours, references[name])
    exact: Floats | None = None
    if classes <= 128:
        exact = eager(arrays)()
    elif variant.precision == "int8":
        exact = kernels.product_mlp(*arrays)
    fields: dict[str, Any] = {} if exact is None else accuracy(ours()[0], exact)
    gflop = Gemm(sizes.regions * classes, sizes.joint, sizes.hidden).gflop
    return Row(
        operator="product_mlp",
        variant=variant.name,
        classes=classes,
        ms=ms,
        reference=name,
        reference_ms=other * scale,
        gflops=1e3 * gflop / ms,
        share_of_ceiling=1e3 * gflop / ms / limit,
        extra_mb=memory,
        zeros=float((prototypes == 0).mean()),
        **fields,
    )
