"""Names to vectors, stored small, and the search for misspelt ones."""

import numpy as np
import pytest
import tiny
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from runtime.vocabulary import Vocabulary, rank_names
from zsd_core.errors import ClassError
from zsd_core.semantics import fold_name, quantize_rows

NAMES = ("truck", "trunk", "fire truck", "Teddy bear", "crème brûlée", "TRUCK")


@pytest.fixture
def vocabulary():
    rows, scales = quantize_rows(tiny.unit_vectors(len(NAMES), 6))
    return Vocabulary("\n".join(NAMES).encode(), rows, scales)


@pytest.mark.parametrize("name", ["fire truck", "Fire_Truck", "  FIRE \t truck ", "fire__truck"])
def test_case_underscores_and_blanks_do_not_matter(vocabulary, name):
    np.testing.assert_array_equal(vocabulary.lookup(name), vocabulary.lookup("fire truck"))
    assert name in vocabulary


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("creme brulee", "crème brûlée"),
        ("cre\u0300me bru\u0302le\u0301e", "crème brûlée"),
        ("CRÈME_brulée", "crème brûlée"),
        ("trück", "truck"),
        ("ﬁre truck", "fire truck"),
    ],
)
def test_accents_do_not_matter_where_no_name_is_written_so(vocabulary, written, meant):
    assert written in vocabulary
    np.testing.assert_array_equal(vocabulary.lookup(written), vocabulary.lookup(meant))


def test_a_name_that_is_written_so_comes_before_one_with_other_accents():
    rows, scales = quantize_rows(tiny.unit_vectors(3, 6))
    vocabulary = Vocabulary("rosé\nrose\npotter's wheel".encode(), rows, scales)
    assert [vocabulary.row(name) for name in ("rosé", "ROSE", "rosè")] == [0, 1, 1]
    assert vocabulary.row("potter\u2019s wheel") == 2
    assert vocabulary.row("potters wheel") == -1


def test_vectors_have_unit_length_and_are_close_to_what_was_stored(vocabulary):
    original = tiny.unit_vectors(len(NAMES), 6)
    for name, vector in zip(NAMES[:5], original, strict=False):
        found = vocabulary.lookup(name)
        assert found.dtype == np.float32
        assert abs(np.linalg.norm(found) - 1) < 1e-6
        assert found @ vector > 0.999


def test_of_two_equal_names_the_first_counts(vocabulary):
    first = tiny.unit_vectors(len(NAMES), 6)[0]
    assert vocabulary.lookup("truck") @ first > 0.999


def test_an_unknown_word_names_the_nearest(vocabulary):
    with pytest.raises(ClassError, match=r"'truk' is not in .* did you mean 'truck'"):
        vocabulary.lookup("truk")
    with pytest.raises(ClassError, match=r"of 6 names\. Or give the class a vector"):
        vocabulary.lookup("zzzzzz")


def test_an_empty_vocabulary_says_so():
    empty = Vocabulary(b"", np.zeros((0, 8), np.int8), np.zeros(0, np.float32))
    assert len(empty) == 0
    assert empty.names == ()
    assert empty.search("cat") == []
    with pytest.raises(ClassError, match="this bundle has none"):
        empty.lookup("cat")


def test_search_ranks_by_likeness_and_part(vocabulary):
    assert vocabulary.search("truk")[0] == "truck"
    assert vocabulary.search("bear") == ["Teddy bear"]
    assert vocabulary.search("truck", 2) == ["truck", "TRUCK"]
    assert vocabulary.search("creme brulee")[:1] == ["crème brûlée"]
    assert vocabulary.search("qqq") == []
    assert vocabulary.search("truck", 0) == []


def test_search_counts_a_class_table_in_once(vocabulary):
    found = vocabulary.search("truck", also=("Truck", "tow truck"))
    assert found.count("Truck") == 1
    assert "truck" not in found
    assert "tow truck" in found


@given(st.text(max_size=12), st.lists(st.text(max_size=12), max_size=8))
def test_any_text_can_be_searched_for(text, names):
    found = rank_names(text, names, 5)
    assert len(found) <= 5
    assert set(found) <= set(names)


@given(st.text())
def test_folding_twice_changes_nothing_for_plain_words(text):
    assert fold_name(f" {text.lower()} ") == fold_name(text.lower())


@given(hnp.arrays(np.float32, (4, 6), elements=st.floats(-2, 2, width=32)))
def test_stored_rows_are_within_half_a_step(rows):
    small, scales = quantize_rows(rows)
    assert small.dtype == np.int8
    error = np.abs(small * scales[:, None] - rows)
    assert (error <= scales[:, None] * 0.5001).all()


def test_a_row_of_almost_nothing_is_stored_as_zero():
    rows = np.array([[3e-45, 0], [1e-36, -1e-37], [1e-35, 0], [0, 0]], np.float32)
    small, scales = quantize_rows(rows)
    np.testing.assert_array_equal(small, [[0, 0], [0, 0], [127, 0], [0, 0]])
    assert (scales >= np.finfo(np.float32).tiny).all()
