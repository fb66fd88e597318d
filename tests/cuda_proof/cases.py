"""What the CUDA operators must compute, on the shapes an engine can run: one function per operator.

Every ``check_*`` calls one operator through an engine and compares with the float64 twin; the bar
is the error PyTorch itself makes at that dtype, twice, plus one unit of rounding.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from zsd_core.kernels import reference

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}

# R, K, D, M of product_mlp
MLP_SHAPES = [
    (0, 3, 8, 8),  # no proposals: an ordinary image
    (4, 0, 8, 8),  # no classes
    (1, 1, 1, 1),
    (7, 5, 24, 16),  # divides no tile
    (3, 5, 13, 9),  # rows that are not aligned
    (9, 16, 104, 136),  # two blocks, several stages, two passes: the paper's, cut down
]


def values(generator: torch.Generator, *shape: int) -> Tensor:
    return torch.rand(*shape, generator=generator)


def largest(difference: Any) -> float:
    return float(np.abs(np.asarray(difference)).max(initial=0.0))


def mlp_arguments(shape: tuple[int, int, int, int], dtype: torch.dtype) -> list[Tensor]:
    regions, classes, depth, hidden = shape
    make = torch.Generator().manual_seed(sum(shape))
    return [
        (values(make, regions, depth) - 0.3).relu().to(dtype),
        (values(make, classes, depth) - 0.3).relu().to(dtype),
        ((values(make, hidden, depth) - 0.5) / depth**0.5).to(dtype),
        values(make, hidden) - 0.5,
        (values(make, hidden) - 0.5) / hidden**0.5,
        values(make, 1),
    ]


def check_product_mlp(engine: Any, shape: tuple[int, int, int, int], dtype: str) -> None:
    arguments = mlp_arguments(shape, DTYPES[dtype])
    output = torch.full(shape[:2], float("nan"))
    engine.call("product_mlp", *arguments, output)

    exact = reference.product_mlp(*(a.double().numpy() for a in arguments))
    regions, prototypes, *layers = (a.to(DTYPES[dtype]) for a in arguments)
    weight1, bias1, weight2, bias2 = layers
    eager = ((regions[:, None] * prototypes) @ weight1.T + bias1).relu() @ weight2 + bias2
    bar = 2 * largest(eager.double().numpy() - exact) + torch.finfo(DTYPES[dtype]).eps
    error = largest(output.numpy() - exact)
    assert error <= bar, f"error {error:.2e}, twice PyTorch's is {bar:.2e}"


def check_product_mlp_int8(engine: Any, shape: tuple[int, int, int, int]) -> None:
    regions, prototypes, weight, bias1, weight2, bias2 = mlp_arguments(shape, torch.float16)
    scale = weight.float().abs().amax(dim=1) / 127
    integers = (weight.float() / scale[:, None]).round().to(torch.int8)
    output = torch.full(shape[:2], float("nan"))
    engine.call(
        "product_mlp", regions, prototypes, integers, bias1, weight2, bias2, output,
        weight_scale=scale,
    )  # fmt: skip

    # The same quantisation in numpy: 8 bits of every pair's largest product.
    products = regions.float().numpy()[:, None] * prototypes.float().numpy()
    peak = products.max(axis=2, keepdims=True)
    inverse = np.divide(np.float32(255), peak, out=np.zeros_like(peak), where=peak > 0)
    levels = np.floor(products * inverse + np.float32(0.5)).astype(np.int64)
    sums = (levels @ integers.numpy().T.astype(np.int64)) * (peak / 255 * scale.numpy())
    hidden = np.maximum(sums + bias1.numpy(), 0)
    expected = hidden @ weight2.numpy().astype(np.float64) + bias2.numpy()
    assert largest(output.numpy() - expected) <= 1e-5

    # And what that costs against no quantisation at all.
    exact = reference.product_mlp(
        *(a.double().numpy() for a in (regions, prototypes, weight, bias1, weight2, bias2))
    )
    assert largest(output.numpy() - exact) <= 0.01


Case = Callable[[Any], None]


def all_cases() -> dict[str, Case]:
    """Every operator on every shape, by name ``operator-details``."""
    cases: dict[str, Case] = {}
    for shape in MLP_SHAPES:
        name = "R{}-K{}-D{}-M{}".format(*shape)
        for dtype in DTYPES:
            cases[f"product_mlp-{dtype}-{name}"] = lambda engine, shape=shape, dtype=dtype: (
                check_product_mlp(engine, shape, dtype)
            )
        cases[f"product_mlp-int8-{name}"] = lambda engine, shape=shape: check_product_mlp_int8(
            engine, shape
        )
    return cases
