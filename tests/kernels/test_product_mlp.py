from __future__ import annotations

import numpy as np
import pytest
import torch

from zsd_core import kernels
from zsd_core.errors import ConfigError, ShapeError
from zsd_core.kernels import reference

SHAPES = [
    (0, 3, 8, 8),  # no proposals: an ordinary image
    (3, 0, 8, 8),
    (1, 1, 1, 1),
    (7, 5, 24, 16),  # divides no tile
    (13, 3, 517, 37),  # more than one block of d
    (401, 2, 33, 50),  # more than one block of regions
    (60, 16, 512, 128),
]


def mlp_arguments(regions, classes, joint, hidden, zeros=0.0, seed=0):
    rng = np.random.default_rng(seed)
    scale = 1 / np.sqrt(max(joint, 1))
    prototypes = rng.random((classes, joint)) + 0.1
    prototypes[rng.random(prototypes.shape) < zeros] = 0
    arrays = (
        rng.random((regions, joint)),
        prototypes,
        rng.standard_normal((hidden, joint)) * scale,
        rng.standard_normal(hidden) * 0.1,
        rng.standard_normal(hidden) / np.sqrt(max(hidden, 1)),
        rng.standard_normal(1),
    )
    return tuple(a.astype(np.float32) for a in arrays)


def exact(arguments):
    return reference.product_mlp(*(a.astype(np.float64) for a in arguments))


def max_abs(array):
    return float(np.abs(array).max(initial=0))


def pytorch_error(arguments):
    tensors = [torch.from_numpy(a) for a in arguments]
    regions, prototypes, weight1, bias1, weight2, bias2 = tensors
    hidden = torch.relu((regions[:, None] * prototypes) @ weight1.T + bias1)
    return max_abs((hidden @ weight2 + bias2).numpy() - exact(arguments))


@pytest.fixture(params=kernels.build_info()["simd_paths"])
def simd(request):
    best = kernels.build_info()["simd"]
    kernels.set_simd(request.param)
    yield request.param
    kernels.set_simd(best)


@pytest.mark.parametrize("zeros", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("shape", SHAPES, ids=lambda s: "R{}-K{}-D{}-M{}".format(*s))
def test_is_as_close_to_float64_as_pytorch(simd, shape, zeros):
    arguments = mlp_arguments(*shape, zeros=zeros)
    result = kernels.product_mlp(*arguments)
    assert result.dtype == np.float32
    assert result.shape == shape[:2]
    assert max_abs(result - exact(arguments)) <= 2 * pytorch_error(arguments) + np.finfo("f4").eps


@pytest.mark.parametrize("zeros", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("shape", [*SHAPES, (5, 3, 1100, 20)], ids=str)
def test_int8_is_the_twins_rounding_summed_exactly(simd, shape, zeros):
    arguments = mlp_arguments(*shape, zeros=zeros)
    result = kernels.PackedMlp(*arguments[2:], precision="int8")(*arguments[:2])
    twin = reference.product_mlp_int8(*(a.astype(np.float64) for a in arguments))
    # A product next to a half may round the other way in float32: one step of one product.
    steps = 2e-5 * np.abs(arguments[2]).max(initial=0) * np.abs(arguments[4]).sum()
    assert max_abs(result - twin) <= 2e-5 + 20 * steps
    assert max_abs(result - exact(arguments)) <= 0.05


def test_int8_sums_do_not_saturate(simd):
    # Two units whose gradients cancel leave no direction, so that all weights are integers.
    ones = np.ones((3, 4000), np.float32)
    arguments = (ones, ones[:2], ones[:2], np.array([0, -1e6]), np.array([1, -1]), np.zeros(1))
    result = kernels.PackedMlp(*arguments[2:], precision="int8")(*arguments[:2])
    np.testing.assert_allclose(result, 4000, rtol=0.01)  # the rounding of one weight


def test_int8_is_exact_along_the_direction(simd):
    # Weights of rank one, and a product so large that all others round to 0.
    rng = np.random.default_rng(0)
    regions, prototypes = rng.random((9, 200), np.float32), np.ones((3, 200), np.float32)
    regions[:, 5] = 500
    weight1 = np.outer(rng.random(24) + 0.5, rng.random(200)).astype(np.float32)
    weight1[:, 5] = 0
    arguments = (regions, prototypes, weight1, np.zeros(24), np.ones(24), np.zeros(1))
    result = kernels.PackedMlp(*arguments[2:], precision="int8")(*arguments[:2])
    np.testing.assert_allclose(result, kernels.product_mlp(*arguments), rtol=1e-4)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_int8_keeps_what_is_not_finite_in_its_row(simd, value):
    arguments = mlp_arguments(9, 4, 40, 24)
    packed = kernels.PackedMlp(*arguments[2:], precision="int8")
    clean = packed(*arguments[:2])
    arguments[0][3, 7] = value
    result = packed(*arguments[:2])
    assert np.isnan(result[3]).all()
    others = np.arange(9) != 3
    assert np.array_equal(result[others], clean[others])


def test_int8_wants_outputs_of_relus():
    arguments = mlp_arguments(9, 4, 40, 24)
    arguments[0][0, 0] = -1
    with pytest.raises(ShapeError, match="regions has a negative entry"):
        kernels.PackedMlp(*arguments[2:], precision="int8")(*arguments[:2])


@pytest.mark.parametrize("precision", ["float32", "int8"])
def test_two_scorers_in_one_pass_are_the_two_alone(simd, precision):
    first = mlp_arguments(21, 7, 300, 40, zeros=0.4)
    second = mlp_arguments(21, 7, 300, 70, seed=1)
    seen = kernels.PackedMlp(*first[2:], precision=precision)
    unseen = kernels.PackedMlp(*second[2:], precision=precision)
    regions, prototypes = first[:2]
    both = kernels.product_mlps(regions, prototypes, [(seen, 0), (unseen, 4)])
    assert np.array_equal(both[0], seen(regions, prototypes))
    assert np.array_equal(both[1], unseen(regions, prototypes[4:]))
    assert kernels.product_mlps(regions, prototypes, [(seen, 7)])[0].shape == (21, 0)
    assert kernels.product_mlps(regions, prototypes, []) == []


@pytest.mark.parametrize("precision", ["float32", "int8"])
def test_a_shortlist_is_exact_for_its_pairs_and_estimated_elsewhere(simd, precision):
    first = mlp_arguments(211, 60, 64, 40, zeros=0.4)
    second = mlp_arguments(211, 60, 64, 24, seed=1)
    regions, prototypes = first[:2]
    seen = kernels.PackedMlp(*first[2:], precision=precision)
    unseen = kernels.PackedMlp(*second[2:], precision=precision)
    scorers = [(seen, 0), (unseen, 20)]
    full = kernels.product_mlps(regions, prototypes, scorers)
    short = kernels.product_mlps(regions, prototypes, scorers, shortlist=15)
    estimates = [seen.estimate(regions, prototypes), unseen.estimate(regions, prototypes[20:])]
    is_exact = short[0] == full[0]
    assert (is_exact.sum(axis=1) >= 15).all()
    assert np.array_equal(short[0][~is_exact], estimates[0][~is_exact])
    assert (is_exact.sum(axis=1) <= 17).all()  # an estimate may be exact by chance
    rank = estimates[0].copy()
    rank[:, 20:] -= np.logaddexp(0, -estimates[1])
    best = rank >= np.sort(rank, axis=1)[:, -15:-14]
    assert is_exact[best].all()
    assert np.array_equal(short[1][best[:, 20:]], full[1][best[:, 20:]])
    everything = kernels.product_mlps(regions, prototypes, scorers, shortlist=60)
    assert np.array_equal(everything[1], full[1])
    nothing = kernels.product_mlps(regions, prototypes, scorers, shortlist=0)
    assert np.array_equal(nothing[0], estimates[0])


@pytest.mark.parametrize("firsts", [(20, 0), (7, 20), (0, 0), (60, 0)])
def test_a_shortlist_takes_scorers_in_any_order(firsts):
    arguments = mlp_arguments(31, 60, 64, 24, zeros=0.4)
    packed = [kernels.PackedMlp(*mlp_arguments(31, 60, 64, 24, seed=s)[2:]) for s in (0, 1)]
    scorers = list(zip(packed, firsts, strict=True))
    full = kernels.product_mlps(*arguments[:2], scorers)
    short = kernels.product_mlps(*arguments[:2], scorers, shortlist=15)
    for found, exact_one, first in zip(short, full, firsts, strict=True):
        assert found.shape == exact_one.shape == (31, 60 - first)
    both = max(firsts)  # classes that the first scorer and every other one score
    if firsts[0] < 60:
        is_exact = short[0] == full[0]
        assert (is_exact.sum(axis=1) >= min(15, 60 - both)).all()
        assert not is_exact.all()


def test_the_estimate_is_exact_for_one_class():
    arguments = mlp_arguments(9, 1, 40, 24)
    packed = kernels.PackedMlp(*arguments[2:])
    np.testing.assert_allclose(packed.estimate(*arguments[:2]), exact(arguments), atol=1e-5)
    assert packed.estimate(arguments[0], arguments[1][:0]).shape == (9, 0)


def test_scorers_are_checked():
    arguments = mlp_arguments(2, 3, 8, 4)
    packed = kernels.PackedMlp(*arguments[2:])
    with pytest.raises(ConfigError, match="must be 'float32' or 'int8'"):
        kernels.PackedMlp(*arguments[2:], precision="int4")
    with pytest.raises(ShapeError, match=r"first class is 4, must lie in \[0, 3\]"):
        kernels.product_mlps(*arguments[:2], [(packed, 4)])
    other = kernels.PackedMlp(*arguments[2:], precision="int8")
    with pytest.raises(ConfigError, match="differ in precision"):
        kernels.product_mlps(*arguments[:2], [(packed, 0), (other, 0)])


def test_does_not_depend_on_threads_nor_on_the_other_regions_and_classes():
    arguments = mlp_arguments(57, 11, 300, 40, zeros=0.3)
    threads = kernels.get_threads()
    together = kernels.product_mlp(*arguments)
    kernels.set_threads(1)
    alone = kernels.product_mlp(*arguments)
    kernels.set_threads(3)
    three = kernels.product_mlp(*arguments)
    kernels.set_threads(threads)
    assert np.array_equal(together, alone)
    assert np.array_equal(together, three)
    part = kernels.product_mlp(arguments[0][5:8], arguments[1][2:4], *arguments[2:])
    assert np.array_equal(part, together[5:8, 2:4])


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_stays_in_its_row(value):
    arguments = mlp_arguments(9, 4, 40, 24)
    clean = kernels.product_mlp(*arguments)
    arguments[0][3, 7] = value
    result = kernels.product_mlp(*arguments)
    others = np.arange(9) != 3
    assert not np.isfinite(result[3]).any()
    assert np.array_equal(result[others], clean[others])


def test_a_zero_prototype_entry_takes_its_dimension_out():
    arguments = mlp_arguments(9, 4, 40, 24)
    arguments[1][:, 7] = 0
    clean = kernels.product_mlp(*arguments)
    arguments[0][3, 7] = np.nan
    assert np.array_equal(kernels.product_mlp(*arguments), clean)


def test_widths_must_agree():
    arguments = list(mlp_arguments(2, 3, 8, 4))
    arguments[1] = arguments[1][:, :7]
    with pytest.raises(ShapeError, match=r"prototypes has shape \(3, 7\), expected \(K, D\)"):
        kernels.product_mlp(*arguments)


def test_gradient_of_the_twin_is_autograds():
    arguments = [torch.from_numpy(a).double() for a in mlp_arguments(5, 4, 12, 7, zeros=0.3)]
    for tensor in arguments:
        tensor.requires_grad_()
    regions, prototypes, weight1, bias1, weight2, bias2 = arguments
    hidden = torch.relu((regions[:, None] * prototypes) @ weight1.T + bias1)
    scores = hidden @ weight2 + bias2
    gradient = torch.randn(scores.shape, dtype=torch.float64)
    scores.backward(gradient)
    values = [a.detach().numpy() for a in arguments]
    twins = reference.product_mlp_backward(gradient.numpy(), *values[:5])
    for twin, argument in zip(twins, arguments, strict=True):
        np.testing.assert_allclose(twin, argument.grad.numpy(), rtol=1e-12, atol=1e-13)
