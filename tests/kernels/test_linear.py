"""Rows times a matrix: near float64, and a row's bits are its own."""

from __future__ import annotations

import numpy as np
import pytest

import zsd_core.kernels as kernels
from zsd_core.errors import ShapeError
from zsd_core.kernels import PackedLinear, reference

SHAPES = [  # N, M, D
    (0, 5, 7),
    (3, 0, 7),
    (1, 1, 1),
    (1, 33, 40),
    (7, 17, 13),
    (61, 48, 384),
]


@pytest.fixture(params=kernels.build_info()["simd_paths"])
def _path(request):
    best = kernels.build_info()["simd"]
    kernels.set_simd(request.param)
    yield
    kernels.set_simd(best)


def arguments(rows, outputs, inputs):
    rng = np.random.default_rng(rows)
    weight = rng.normal(size=(outputs, inputs)).astype(np.float32)
    return weight, rng.normal(size=(rows, inputs)).astype(np.float32)


@pytest.mark.usefixtures("_path")
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_it_is_within_the_bound_of_a_float32_sum(shape):
    weight, rows = (array.astype(np.float64) for array in arguments(*shape))
    exact = reference.PackedLinear(weight)(rows)
    bound = shape[2] * np.finfo(np.float32).eps * reference.PackedLinear(abs(weight))(abs(rows))

    found = PackedLinear(weight)(rows)

    assert found.shape == exact.shape and found.dtype == np.float32
    assert (abs(found - exact) <= bound).all()


@pytest.mark.usefixtures("_path")
@pytest.mark.parametrize("threads", [1, 3])
def test_a_row_has_the_same_bits_alone_and_among_others(threads):
    weight, rows = arguments(101, 37, 53)
    linear, before = PackedLinear(weight), kernels.get_threads()
    kernels.set_threads(threads)
    try:
        whole = linear(rows)
        for count in (1, 2, 5, 6, 7, 25):
            parts = [linear(rows[i : i + count]) for i in range(0, len(rows), count)]
            np.testing.assert_array_equal(np.concatenate(parts), whole)
    finally:
        kernels.set_threads(before)


def test_what_is_not_finite_stays_in_its_row():
    weight, rows = arguments(9, 5, 11)
    clean = PackedLinear(weight)(rows)
    rows[4, 3] = np.nan
    found = PackedLinear(weight)(rows)
    assert np.isnan(found[4]).all()
    np.testing.assert_array_equal(np.delete(found, 4, 0), np.delete(clean, 4, 0))


def test_rows_of_another_width_are_refused():
    with pytest.raises(ShapeError, match="PackedLinear: rows has shape"):
        PackedLinear(np.zeros((3, 4)))(np.zeros((2, 5)))
    with pytest.raises(ShapeError, match="PackedLinear: weight has shape"):
        PackedLinear(np.zeros(4))
