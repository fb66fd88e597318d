"""The torch operators: gradients, flat memory, torch.library's own checks."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
import torchvision

from zsd_core.errors import ShapeError
from zsd_core.learning import ops
from zsd_core.learning.ops import product_mlp as product_mlp_module

# opcheck looks at the gradients of its own intermediate tensors.
IGNORE_OWN_WARNING = pytest.mark.filterwarnings(
    "ignore:The .grad attribute of a Tensor that is not"
)

MLP_SHAPES = [(0, 3, 8, 8), (3, 0, 8, 8), (1, 1, 1, 1), (7, 5, 24, 16), (50, 21, 40, 24)]


def mlp_arguments(regions, classes, joint, hidden, dtype=torch.float32):
    torch.manual_seed(0)
    prototypes = torch.rand(classes, joint, dtype=dtype)
    prototypes[:, ::3] = 0
    tensors = (
        torch.rand(regions, joint, dtype=dtype),
        prototypes,
        torch.randn(hidden, joint, dtype=dtype) / joint**0.5,
        torch.randn(hidden, dtype=dtype) * 0.1,
        torch.randn(hidden, dtype=dtype),
        torch.randn(1, dtype=dtype),
    )
    return [t.requires_grad_() for t in tensors]


def eager(regions, prototypes, weight1, bias1, weight2, bias2):
    hidden = torch.relu((regions[:, None] * prototypes) @ weight1.T + bias1)
    return hidden @ weight2 + bias2


def value_and_gradients(function, arguments):
    result = function(*arguments)
    weights = torch.linspace(-1, 1, result.numel(), dtype=result.dtype).reshape(result.shape)
    return [result.detach(), *torch.autograd.grad((result * weights).sum(), arguments)]


def worst(ours, exact):
    return max(
        (
            float((a.double() - b).abs().max())
            for a, b in zip(ours, exact, strict=True)
            if b.numel()
        ),
        default=0.0,
    )


@pytest.mark.parametrize("budget", [1 << 22, 1000], ids=["one block", "many blocks"])
@pytest.mark.parametrize("shape", MLP_SHAPES, ids=str)
def test_product_mlp_and_its_gradients_are_as_close_to_float64_as_pytorch(
    shape, budget, monkeypatch
):
    monkeypatch.setattr(sys.modules["zsd_core.learning.ops.product_mlp"], "_BUDGET", budget)
    arguments = mlp_arguments(*shape)
    exact = value_and_gradients(eager, [a.detach().double().requires_grad_() for a in arguments])
    ours = worst(value_and_gradients(ops.product_mlp, arguments), exact)
    assert ours <= 2 * worst(value_and_gradients(eager, arguments), exact) + 1e-6


@pytest.mark.parametrize("shape", MLP_SHAPES, ids=str)
def test_product_mlp_in_float64_is_the_formula(shape):
    arguments = mlp_arguments(*shape, dtype=torch.float64)
    exact = value_and_gradients(eager, arguments)
    assert worst(value_and_gradients(ops.product_mlp, arguments), exact) < 1e-11


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@IGNORE_OWN_WARNING
def test_product_mlp_is_a_well_formed_operator(dtype):
    torch.library.opcheck(torch.ops.zsd.product_mlp.default, mlp_arguments(7, 5, 24, 16, dtype))
    detached = [a.detach() for a in mlp_arguments(7, 5, 24, 16, dtype)]
    torch.library.opcheck(
        torch.ops.zsd.product_mlp_backward.default, (torch.rand(7, 5, dtype=dtype), *detached[:5])
    )


def test_product_mlp_memory_is_flat():
    script = """
import resource, torch
from zsd_core.learning.ops import product_mlp
def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
def step(classes):
    tensors = [torch.rand(*s, requires_grad=True) for s in
               ((2000, 32), (classes, 32), (64, 32), (64,), (64,), (1,))]
    product_mlp(*tensors).sum().backward()
step(20); before = peak(); step(500)
assert peak() - before < 60, peak() - before  # (R, K, M) alone is 244 MB, (R, K, D) 122 MB
"""
    subprocess.run([sys.executable, "-c", script], check=True)


def roi_arguments(dtype=torch.float32):
    torch.manual_seed(0)
    features = torch.randn(2, 5, 9, 13, dtype=dtype, requires_grad=True)
    corners = torch.rand(7, 2, dtype=dtype) * 100
    rois = torch.cat([corners, corners + torch.rand(7, 2, dtype=dtype) * 90 + 1], dim=1)
    return features, rois, torch.tensor([0, 1, 0, 1, 1, 0, 0], dtype=torch.int32)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_roi_align_and_its_gradient_are_torchvisions(dtype):
    features, rois, indices = roi_arguments(dtype)
    weights = torch.randn(7, 5, 3, 2, dtype=dtype)
    pooled = ops.roi_align(features, rois, indices, output_size=(3, 2), spatial_scale=1 / 16)
    (gradient,) = torch.autograd.grad((pooled * weights).sum(), features)
    boxes = torch.cat([indices[:, None].to(rois), rois], dim=1)
    expected = torchvision.ops.roi_align(features, boxes, (3, 2), 1 / 16, 2, aligned=True)
    (exact,) = torch.autograd.grad((expected * weights).sum(), features)
    torch.testing.assert_close(pooled, expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(gradient, exact, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@IGNORE_OWN_WARNING
def test_roi_align_is_a_well_formed_operator(dtype):
    arguments = (*roi_arguments(dtype), 3, 2, 1 / 16, 2)
    torch.library.opcheck(torch.ops.zsd.roi_align.default, arguments)
    backward = (torch.rand(7, 5, 3, 2, dtype=dtype), *arguments[1:3], 2, 5, 9, 13, 1 / 16, 2)
    torch.library.opcheck(torch.ops.zsd.roi_align_backward.default, backward)


def test_no_regions_give_a_gradient_of_zeros():
    features = torch.randn(1, 3, 4, 4, requires_grad=True)
    empty = torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64)
    pooled = ops.roi_align(features, *empty, output_size=(2, 2), spatial_scale=1.0)
    pooled.sum().backward()
    assert pooled.shape == (0, 3, 2, 2)
    assert not features.grad.any()


def test_wrong_shapes_are_sentences():
    features, _, indices = roi_arguments()
    with pytest.raises(ShapeError, match="not as column 0 of rois"):
        ops.roi_align(features, torch.zeros(7, 5), indices, output_size=(2, 2), spatial_scale=1.0)
    arguments = mlp_arguments(2, 3, 8, 4)
    with pytest.raises(ShapeError, match="prototypes has shape"):
        ops.product_mlp(arguments[0], arguments[1][:, :7], *arguments[2:])


def test_the_twin_and_the_operator_agree():
    from zsd_core.kernels import reference

    arguments = mlp_arguments(7, 5, 24, 16)
    twin = reference.product_mlp(*(a.detach().numpy() for a in arguments))
    np.testing.assert_allclose(ops.product_mlp(*arguments).detach().numpy(), twin, atol=1e-5)
    assert product_mlp_module is ops.product_mlp
