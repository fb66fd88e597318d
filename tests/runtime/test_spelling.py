"""Words that look misspelt, and those that do not."""

import time
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime import Detector
from runtime.spelling import Spelling, edits_apart, trained_name

NAMES = (
    "zebra",
    "fire truck",
    "crème brûlée",
    "refrigerator",
    "traffic cone",
    "pallet",
    "broccoli",
    "jalapeño",
    "cafe table",
    "souffle",
    "rose",
    "cree",
    "touch",
    "o'clock",
)
ORDINARY = {"dent", "chip", "red", "rust", "wooden", "cozy", "bone"}


@pytest.fixture(scope="module")
def spelling():
    return Spelling(NAMES, ORDINARY)


@pytest.mark.parametrize(
    ("phrase", "right"),
    [
        ("zebar", "zebra"),  # swapped
        ("Zebre", "zebra"),  # wrong
        ("zbra", "zebra"),  # missing
        ("zebrra", "zebra"),  # added
        ("a red palet", "a red pallet"),
        ("fire_trukc on a pallett", "fire truck on a pallet"),
        ("refrigeratr", "refrigerator"),
        ("refridgerater", "refrigerator"),  # eight letters and more may have two
        ("brocolli", "broccoli"),
        ("creme bruleee", "creme brûlée"),
        ("jalapeñp on a palet", "jalapeño on a pallet"),
        ("soufflée", "souffle"),
        ("cafee", "cafe"),
        ("café tabel", "café table"),
        ("piñata\u2019s tabel", "piñata\u2019s table"),
    ],
)
def test_a_slip_is_put_right(spelling, phrase, right):
    assert spelling.correction(phrase) == right


@pytest.mark.parametrize(
    "phrase",
    [
        "zebra",
        "dented red pallet",
        "chipped rusty pallets",
        "coziest zebra's",
        "quokka",  # near to nothing
        "zba",  # too short to be judged
        "cone",
        "bone",  # one letter from cone, and ordinary
        "zebr4",  # no word
        "42",
        "斑馬",
        "zbr",
        "e-zebra",
        "café",
        "cafés",
        "cafe\u0301",  # the accent a sign of its own
        "creme brulee",
        "soufflés",
        "jalapeno",
        "rosé table",
        "zébra\u2011table",
        "o\u2019clock",
        "zebra\u2019s",
        "BROCCŌLI",
        "crée",  # what is no accent's word is no slip for "cree" either
        "touché",  # one letter from "touch"
        "døre",
        "кафе́",
    ],
)
def test_what_is_ordinary_or_like_nothing_passes(spelling, phrase):
    assert spelling.correction(phrase) is None


def test_short_words_may_have_one_slip_only(spelling):
    assert spelling.correction("zbrea") is None  # two
    assert spelling.correction("palelt") == "pallet"


def test_the_nearest_comes_first_then_the_same_first_letter_then_the_alphabet():
    spelling = Spelling(["boats", "goats", "coatss"], ())
    assert spelling.correction("goatz") == "goats"
    assert spelling.correction("zoats") == "boats"
    assert spelling.correction("coats") == "coatss"


def test_no_names_correct_nothing():
    assert Spelling((), ()).correction("zebar") is None


@pytest.mark.parametrize(
    ("first", "second", "count"),
    [
        ("", "", 0),
        ("cat", "cat", 0),
        ("cat", "cut", 1),
        ("cat", "act", 1),
        ("cat", "ca", 1),
        ("cat", "coat", 1),
        ("cat", "dog", 3),
        ("abcdef", "badcfe", 3),
    ],
)
def test_edits_are_counted(first, second, count):
    assert edits_apart(first, second, 4) == count
    assert edits_apart(first, second, 1) == min(count, 2)


@given(st.text("abc", max_size=6), st.text("abc", max_size=6), st.integers(0, 3))
def test_distance_is_symmetric_and_stops_at_its_limit(first, second, most):
    found = edits_apart(first, second, most)
    assert found == edits_apart(second, first, most)
    assert (found == 0) == (first == second)
    assert found == min(edits_apart(first, second, 12), most + 1)


@pytest.mark.parametrize(
    ("phrase", "likelier"),
    [
        ("dentd red pallet", "dented red pallet"),  # no known name is near: a hint only
        ("Rustyy pallet", "rusty pallet"),
        ("woden cone", "wooden cone"),  # most slips leave a letter out
        ("palet", "pallet"),
    ],
)
def test_a_word_that_nobody_knows_has_a_likelier_spelling(spelling, phrase, likelier):
    assert spelling.likelier(phrase) == likelier


@pytest.mark.parametrize("phrase", ["dented red pallet", "quokka", "zebra's bones", "斑馬", "rst"])
def test_words_that_are_right_or_like_nothing_have_no_hint(spelling, phrase):
    assert spelling.likelier(phrase) is None


@pytest.mark.parametrize("word", ["dentd", "rustyy", "chipp", "woodenn"])
def test_an_ending_that_english_does_not_have_is_no_regular_form(spelling, word):
    assert spelling.likelier(word) not in (None, word)


def test_a_correction_keeps_the_ending_of_the_word():
    spelling = Spelling(["crack", "scratcher"], {"scratch"})
    assert spelling.correction("crackd") == "cracked"
    assert spelling.correction("scratchd") == "scratched"


def test_a_word_of_forty_letters_is_judged_and_a_longer_one_is_not():
    word = "abcdefghij" * 4
    known = Spelling([word, word + "k"], set())
    assert known.correction(word[:-1]) == word
    assert known.likelier(word[1:]) == word
    assert known.correction("x" + word[1:] + "k") is None
    assert known.likelier("x" + word[1:] + "k") is None


def test_a_long_word_takes_neither_time_nor_memory(spelling):
    """2,000 letters took two seconds and 200 MB."""
    phrase = " ".join(letter * 20_000 for letter in "qxz")
    tracemalloc.start()
    start = time.process_time()
    assert spelling.likelier(phrase) is None
    assert spelling.correction(phrase) is None
    assert time.process_time() - start < 1
    assert tracemalloc.get_traced_memory()[1] < 8 << 20
    tracemalloc.stop()


TRAINED = {name: name for name in ("horse", "person", "knife", "bus", "traffic light", "skis")}


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("horses", "horse"),
        ("A horse", "horse"),
        ("the horses", "horse"),
        ("persons", "person"),
        ("people", "person"),
        ("knives", "knife"),
        ("Buses", "bus"),
        ("some traffic lights", "traffic light"),
        ("the skis", "skis"),
        ("horse", None),
        ("skis", None),
        ("horse race", None),
        ("s", None),
        ("a ", None),
        ("zebras", None),
    ],
)
def test_a_trained_class_in_the_plural_or_with_an_article_is_recognised(name, meant):
    assert trained_name(name, TRAINED) == meant


def test_of_two_words_as_near_the_trained_one_is_the_guess():
    names = ["horde", "horse"]
    assert Spelling(names, ()).correction("horze") == "horde"  # by the alphabet
    assert Spelling(names, (), ["horse"]).correction("horze") == "horse"


def test_a_trained_word_may_have_two_slips_for_a_hint():
    spelling = Spelling(["bicycle", "icicle"], (), ["bicycle"])
    assert spelling.correction("bycicle") is None  # it is accepted as it stands
    assert spelling.likelier("bycicle") == "bicycle"
    assert spelling.likelier("tricycle") is None
    assert Spelling(["bicycle"], ()).likelier("bycicle") is None


def test_a_detector_hints_at_its_trained_classes(bundle_path):
    with Detector(bundle_path, backend="onnxruntime", threads=1) as detector:
        detector.add_classes({"trucks": np.eye(8)[0]})  # a bundle without a text encoder
        assert detector.spelling_hints(detector.classes) == {"trucks": "truck"}
