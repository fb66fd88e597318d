"""S of section 3.1, by hand and by its laws."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zsd_core.errors import ConfigError, DataError, ShapeError
from zsd_core.scoring.base import check_lengths
from zsd_core.semantics import (
    float32,
    fold_name,
    name_fault,
    plain_name,
    row_lengths,
    seen_similarity,
    similarity,
    unit_rows,
)


def random(rows, seed=0, width=5):
    return np.random.default_rng(seed).standard_normal((rows, width))


@pytest.mark.parametrize("temperature", [1.0, 0.1])
def test_similarity_by_hand(temperature):
    seen, unseen = random(3), 3 * random(2, seed=1)
    table = similarity(seen, unseen, temperature)
    assert table.shape == (6, 2)
    assert (table[0] == 0).all()
    np.testing.assert_array_equal(table[4:], np.eye(2))
    for i in range(3):
        cosines = [
            float(seen[i] @ u) / math.sqrt(float(seen[i] @ seen[i]) * float(u @ u)) for u in unseen
        ]
        weights = [math.exp(c / temperature) for c in cosines]
        np.testing.assert_allclose(table[1 + i], np.array(weights) / sum(weights))


@settings(max_examples=40)
@given(seen=st.integers(0, 6), unseen=st.integers(1, 6), seed=st.integers(0, 9))
def test_seen_rows_are_distributions_whatever_the_lengths(seen, unseen, seed):
    a, b = random(seen, seed), random(unseen, seed + 100)
    rows = seen_similarity(a, b, 0.03)
    np.testing.assert_allclose(rows.sum(axis=1), 1)
    np.testing.assert_allclose(seen_similarity(2 * a, 5 * b, 0.03), rows, atol=1e-12)


def test_no_unseen_class_is_ordinary_and_one_takes_everything():
    assert similarity(random(3), random(0), 1.0).shape == (4, 0)
    np.testing.assert_array_equal(seen_similarity(random(3), random(1), 1.0), np.ones((3, 1)))


def test_bad_input_is_named():
    with pytest.raises(ConfigError, match="temperature is 0"):
        seen_similarity(random(2), random(2), 0)
    with pytest.raises(ShapeError, match="E=5"):
        seen_similarity(random(2), random(2, width=4), 1.0)
    with pytest.raises(DataError, match="class vector 1 has length 0"):
        unit_rows(np.array([[1.0, 0], [0, 0]]))
    with pytest.raises(DataError, match="class vector 0"):
        unit_rows(np.array([[np.nan, 0]]))
    with pytest.raises(DataError, match="class vector 0 has length inf"):
        unit_rows(np.array([[3e38, 3e38]], np.float32))


@pytest.mark.parametrize("size", [1e-37, 1e-22, 1e19, 1e37])
def test_a_vector_has_a_direction_whatever_its_size_in_float32(size):
    """Their squares are 0 or infinite in float32; C++ sums them in double."""
    given = np.array([[3, 4], [5, -12]], np.float32) * np.float32(size)
    rows = unit_rows(given)
    assert rows.dtype == np.float32
    np.testing.assert_allclose(rows, [[3 / 5, 4 / 5], [5 / 13, -12 / 13]], rtol=1e-6)
    np.testing.assert_allclose(row_lengths(given), np.array([[5], [13]]) * size, rtol=1e-6)
    check_lengths(["a", "b"], given)


# Of every script something that is easily taken for a control: marks, joiners, signs of direction.
ORDINARY = (
    "café",
    "cafe\u0301",
    "\u0646\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645",  # Persian needs the non-joiner
    "क्\u200dष",  # and Devanagari the joiner
    "👩\u200d🚒",
    "שלום\u200f!",
    "ภาษา\u200bไทย",
    "火車",
    "fire\ttruck\n",
    "x\u00a0y",
    "\U000f0000",
)


@pytest.mark.parametrize("name", ORDINARY)
def test_ordinary_names_of_any_script_have_no_fault(name):
    assert name_fault(name) == "" and fold_name(name).encode()


@pytest.mark.parametrize(
    ("name", "plain"),
    [
        ("Café", "cafe"),
        ("cafe\u0301", "cafe"),
        ("CRÈME_brûlée", "creme brulee"),
        ("Straße", "strasse"),
        ("hors d\u2019œuvre", "hors d'oeuvre"),
        ("t\u2011shirt", "t-shirt"),
        ("smørrebrød", "smorrebrod"),
        ("İstanbul", "istanbul"),
        ("火車", "火車"),
        ("하늘", "하늘"),  # Hangul is put together again
        ("हिन्दी", "हिन्दी"),  # its signs are no accents
        ("fire truck", "fire truck"),
    ],
)
def test_a_plain_name_is_as_an_english_keyboard_types_it(name, plain):
    assert plain_name(name) == plain == plain_name(plain)


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("\ud800", "U+D800"),
        ("cat\udfff", "U+DFFF"),
        ("a\0b", "U+0000"),
        ("a\x1bb", "U+001B"),
        ("a\x7fb", "U+007F"),
        ("a\x9bb", "U+009B"),
        ("a\u202eb", "U+202E"),
        ("a\u2066b", "U+2066"),
    ],
)
def test_what_cannot_be_written_or_read_is_a_fault_that_is_named(name, code):
    assert name_fault(name).startswith(f"holds {code}, ")


@settings(max_examples=200)
@given(st.text(st.characters(exclude_categories=())))
def test_a_name_without_a_fault_can_be_written(name):
    if not name_fault(name):
        fold_name(name).encode("utf-8")
        written = " ".join(name.split())
        assert written.encode("utf-8").decode() == written and "\0" not in written


@pytest.mark.parametrize("numbers", [[1e200, 1.0], ["1e200", "1"], np.array([1e200, 1.0])])
def test_numbers_beyond_float32_are_infinite_and_then_refused(numbers):
    row = float32(numbers)
    assert (row.dtype, row.tolist()) == (np.float32, [np.inf, 1.0])
    with pytest.raises(DataError, match="class vector 0 has length inf"):
        unit_rows(row[None])
