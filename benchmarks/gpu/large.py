"""Cases of the CUDA kernels at the sizes of the paper's model and of the two that ship.

Most are the checks of the tests at another shape. Where the numpy twin would take minutes, float64
on the GPU judges instead: torchvision's RoIAlign, and the twin's formula of ``product_mlp`` in
torch, a few classes at a time; ``tests/benchmarks/test_gpu_proof.py`` compares both with the twins.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

__all__ = [
    "MLP_SHAPES",
    "ROI_SHAPES",
    "check_gradients",
    "check_patches",
    "check_scores",
    "exact_scores",
    "large_cases",
    "largest",
    "pooled",
]

# R, K, D, M: the paper's model, `coco48`, and one between
MLP_SHAPES = {
    "paper-80": (300, 80, 2048, 1024),
    "paper-1203": (300, 1203, 2048, 1024),
    "coco48-65": (100, 65, 512, 128),
    "coco48-1203": (100, 1203, 512, 128),
    "between-81": (299, 81, 1024, 520),
}
# B, C, H, W, regions, bins, sampling_ratio
ROI_SHAPES = {
    "paper": (1, 1024, 38, 63, 300, (14, 14), 0),
    "paper-training": (2, 1024, 38, 63, 256, (14, 14), 2),
    "coco48": (1, 3, 384, 512, 100, (128, 128), 2),
    "open": (1, 3, 416, 416, 4, (160, 160), 0),
}
AT_ONCE = 32  # classes
SHARE = 0.98  # of the boxes: see check_matched


def exact_scores(arguments: list[Tensor], device: str, dtype: torch.dtype) -> Tensor:
    """Scores ``(R, K)`` by the twin's formula in ``dtype``, ``AT_ONCE`` classes at a time."""
    regions, prototypes, weight1, bias1, weight2, bias2 = (a.to(device, dtype) for a in arguments)
    parts = [
        ((regions[:, None] * rows) @ weight1.T + bias1).relu() @ weight2 + bias2
        for rows in prototypes.split(AT_ONCE)
    ]
    return torch.cat(parts, dim=1)


def largest(difference: Tensor) -> float:
    """Largest magnitude; 0 of nothing."""
    return float(difference.abs().max()) if difference.numel() else 0.0


def check_scores(engine: Any, shape: Any, dtype: str, seed: int, device: str = "cuda") -> None:
    """``product_mlp`` no further from float64 than twice PyTorch in that type, and a rounding."""
    from cuda_proof.cases import DTYPES, mlp_arguments

    arguments = mlp_arguments(shape, DTYPES[dtype], seed)
    output = torch.full(shape[:2], float("nan"))
    engine.call("product_mlp", *arguments, output)
    exact = exact_scores(arguments, device, torch.float64)
    eager = exact_scores(arguments, device, DTYPES[dtype]).double()
    bar = 2 * largest(eager - exact) + torch.finfo(DTYPES[dtype]).eps
    error = largest(output.to(device).double() - exact)
    assert error <= bar, f"error {error:.2e}, twice PyTorch's is {bar:.2e}"


def pooled(features: Tensor, rois: Tensor, images: Tensor, shape: Any) -> Tensor:
    """Patches by torchvision, in the type of the arguments."""
    from torchvision.ops import roi_align

    rows = torch.cat([images[:, None].to(rois.dtype), rois], dim=1)
    return roi_align(features, rows, shape[5], 1 / 16, shape[6], aligned=True)  # type: ignore[no-any-return]


def check_patches(engine: Any, shape: Any, dtype: str, seed: int, device: str = "cuda") -> None:
    """``roi_align`` likewise, against torchvision."""
    from cuda_proof.cases import DTYPES, roi_arguments

    features, rois, images = roi_arguments(shape, dtype, seed)
    output = torch.full((len(rois), shape[1], *shape[5]), float("nan"), dtype=DTYPES[dtype])
    options = {"spatial_scale": 1 / 16, "sampling_ratio": shape[6]}
    engine.call("roi_align", features, rois, images, output, **options)
    arrays = features.to(device), rois.to(device), images.to(device)
    exact = pooled(arrays[0].double(), arrays[1].double(), arrays[2], shape)
    rounded = pooled(arrays[0].float(), *arrays[1:], shape).to(DTYPES[dtype])
    bar = 2 * largest(rounded.double() - exact) + torch.finfo(DTYPES[dtype]).eps
    error = largest(output.to(device).double() - exact)
    assert error <= bar, f"error {error:.2e}, twice torchvision's is {bar:.2e}"


def check_gradients(engine: Any, shape: Any, seed: int, device: str = "cuda") -> None:
    """``roi_align_backward`` in float32 likewise; sums of many regions come in any order."""
    from cuda_proof.cases import roi_arguments, values

    features, rois, images = roi_arguments(shape, "float32", seed)
    make = torch.Generator().manual_seed(seed)
    gradient = values(make, len(rois), shape[1], *shape[5]) - 0.5
    output = torch.full(features.shape, float("nan"))
    options = {"spatial_scale": 1 / 16, "sampling_ratio": shape[6]}
    engine.call("roi_align_backward", gradient, rois, images, output, **options)

    def by_torchvision(dtype: torch.dtype) -> Tensor:
        leaf: Tensor = features.to(device, dtype).clone().requires_grad_()
        pooled(leaf, rois.to(device, dtype), images.to(device), shape).backward(
            gradient.to(device, dtype)
        )
        assert leaf.grad is not None
        return leaf.grad.to(torch.float64)

    exact = by_torchvision(torch.float64)
    eps = 4 * torch.finfo(torch.float32).eps * max(1.0, largest(exact))
    bar = 2 * largest(by_torchvision(torch.float32) - exact) + eps
    error = largest(output.to(device).double() - exact)
    assert error <= bar, f"error {error:.2e}, twice torchvision's is {bar:.2e}"


def large_cases(seed: int) -> dict[str, Callable[[Any], None]]:
    """Every operator at real sizes, by name ``large-operator-details``."""
    from cuda_proof import cases as small
    from cuda_proof import given_cases as given

    made: dict[str, Callable[..., None]] = {}
    for dtype in small.DTYPES:
        for name, shape in MLP_SHAPES.items():
            made[f"product_mlp-{dtype}-{name}"] = partial(check_scores, shape=shape, dtype=dtype)
        for name, pooling in ROI_SHAPES.items():
            made[f"roi_align-{dtype}-{name}"] = partial(check_patches, shape=pooling, dtype=dtype)
        made[f"preprocess-{dtype}"] = partial(
            small.check_preprocess,
            shape=((1080, 1440), (600, 800), (608, 800)),
            dtype=dtype,
            color="bgr",
        )
    for name in ("paper", "paper-training"):
        made[f"roi_align_backward-{name}"] = partial(check_gradients, shape=ROI_SHAPES[name])
    for classes in (80, 1203):
        fused = partial(small.check_fuse, shape=(300, 65, classes - 65), fusion="softmax")
        made[f"fuse-{classes}"] = partial(fused, power=0.5)
        made[f"calibrate_scores-{classes}"] = partial(
            small.check_calibrate_scores, shape=(300, classes)
        )
        made[f"detect-{classes}"] = partial(
            small.check_detect, shape=(1, 24000 // classes, classes, 100), share=SHARE
        )
        made[f"score_prototypes-{classes}"] = partial(
            given.check_score_prototypes,
            shape=(150, 4, 80, classes, 897),
            contest=3.0,
            rivalry=0.5,
        )
    made["all_finite-8400"] = partial(small.check_all_finite, shape=(8400, 1000))
    made["propose-paper"] = partial(
        small.check_propose, shape=(1, 3, 38, 63, 6000, 300), share=SHARE
    )
    made["top_regions-open"] = partial(given.check_top_regions, shape=(1, 150, 80, 150))
    made["top_regions-many"] = partial(given.check_top_regions, shape=(3, 900, 80, 300))
    made["second_look-open"] = partial(given.check_second_look, shape=(1, (150,), 150, 4, 0.7))
    made["spoken_for-open"] = partial(given.check_spoken_for, shape=((150,), 150, 4, 0.7))
    return {f"large-{name}": partial(case, seed=seed) for name, case in made.items()}
