"""The checks behind every message."""

from __future__ import annotations

import numpy as np
import pytest

from zsd_core.errors import (
    ClassError,
    MissingPackageError,
    ShapeError,
    ZsdError,
    did_you_mean,
    expect_shapes,
    require,
)


def test_expect_shapes_binds_letters():
    sizes = expect_shapes("f", "", a=(np.zeros((2, 3)), "R D"), b=(np.zeros((3, 4)), "D 4"))
    assert sizes == {"R": 2, "D": 3}


@pytest.mark.parametrize(
    ("shape", "formula", "message"),
    [
        ((12, 5), "R 4", r"f: b has shape \(12, 5\), expected \(R, 4\) with R=2. Fix it."),
        ((2,), "R 4", r"expected \(R, 4\)"),
        ((3, 4), "R 4", r"with R=2"),
        ((3, 4), "C C", r"expected \(C, C\)\. Fix it"),
    ],
)
def test_expect_shapes_names_both_sides_and_the_fix(shape, formula, message):
    with pytest.raises(ShapeError, match=message):
        expect_shapes("f", "Fix it.", a=(np.zeros(2), "R"), b=(np.zeros(shape), formula))


def test_a_class_error_prints_its_sentence():
    error = ClassError("no class 'truk'; did you mean 'truck'?")
    assert str(error) == "no class 'truk'; did you mean 'truck'?"
    assert isinstance(error, ZsdError)


def test_did_you_mean_offers_the_nearest_or_nothing():
    assert did_you_mean("truk", ["truck", "cat"]) == "; did you mean 'truck'?"
    assert did_you_mean("zzz", ["truck", "cat"]) == ""


def test_a_missing_package_brings_its_pip_line():
    with pytest.raises(MissingPackageError, match=r"pip install 'contrastzsd\[cpu\]'"):
        require("no_such_package", "cpu")
