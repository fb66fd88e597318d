"""On a miniature WordNet of the real format."""

from __future__ import annotations

import pytest

from scripts.vocabulary.nouns import (
    BLOCKED,
    WordNet,
    choose_nouns,
    listed_names,
    ordinary_words,
    synonyms,
)
from zsd_core.errors import DataError
from zsd_core.learning.data.splits import load_split, split_names
from zsd_core.semantics import fold_name


@pytest.fixture
def wordnet(folder):
    return WordNet.read(folder)


def chosen(wordnet, count, frequency=len):
    return choose_nouns(wordnet, frequency, count)


def test_visible_things_are_chosen_and_nothing_else(wordnet):
    """Left out: acts, names, people by trait, slurs, drugs, crimes, blocked words, genera."""
    expected = {
        *("device", "worker", "welder", "mule", "forklift", "fire truck", "fire engine"),
        *("baseball", "wine", "lynx", "catamount", "lynx lynx"),
    }
    assert set(chosen(wordnet, len(expected))) == expected
    with pytest.raises(DataError, match=r"WordNet holds .* names of visible things"):
        chosen(wordnet, len(expected) + 1)


def test_later_senses_count_where_texts_say_little(wordnet):
    """A lynx is a beast in its second sense; a made thing in its third is too far."""
    names = chosen(wordnet, 12)
    assert "lynx" in names and not {"socket", "grin"} & set(names)
    frequency = {"lynx": 5.0, "mule": 4.5}
    names = chosen(wordnet, 12, lambda name: frequency.get(name, 0.0))
    assert names.index("mule") < names.index("lynx")  # its frequency is shared by two senses


def test_second_sense_counts_if_texts_use_it(wordnet):
    """A tenth of the uses of "baseball" is the ball; nobody used "running" for a thing."""
    assert wordnet.uses["baseball"] == {4: 9, 6: 1}
    assert wordnet.uses["running"] == {4: 40}  # the verb is not counted
    assert "running" not in chosen(wordnet, 12)


def test_most_frequent_come_first_and_phrases_pay_for_their_estimate(wordnet):
    zipf = {"fire truck": 5.5, "fire engine": 4.9, "mule": 3.0, "wine": 4.0}
    names = choose_nouns(wordnet, lambda name: zipf.get(name, 0.0), 6, always=["zebra", "teapot"])
    assert names == ["zebra", "teapot", "wine", "fire truck", "mule", "fire engine"]


def test_one_name_in_two_spellings_is_chosen_once(wordnet):
    names = choose_nouns(wordnet, len, 12, always=["Fire_Truck"])
    assert names[0] == "Fire_Truck" and "fire truck" not in names


def test_synonyms_are_the_common_names_of_the_same_thing(wordnet):
    assert synonyms(wordnet, ["Fire truck", "lynx", "unknown"]) == [
        "fire truck",
        "fire engine",
        "lynx",
        "catamount",
    ]


def test_ordinary_words_are_of_every_kind_and_written_often_enough(wordnet):
    zipf = {"titanic": 5.0, "mice": 3.0, "welder": 1.0}
    words = ordinary_words(wordnet, lambda word: zipf.get(word, 2.0), 2.0)
    assert {"dent", "rusty", "slowly", "mice", "mule"} <= set(words) and words == sorted(words)
    assert not {"titanic", "welder", "fire truck", "fire_truck"} & set(words)


def test_kinds_reach_down_through_every_step(wordnet):
    assert wordnet.kinds("worker") == {f"000000{n}" for n in ("09", "10", "13", "14", "19")}
    assert wordnet.kinds("unknown") == set()


def test_gloss_ends_before_the_example(wordnet):
    assert wordnet.synsets["00000021"].gloss == "a beast"


def test_folder_that_is_not_wordnet_says_how_to_get_one(tmp_path):
    with pytest.raises(DataError, match="apt-get install wordnet-base"):
        WordNet.read(tmp_path)
    for name in ("data.noun", "index.noun", "cntlist.rev"):
        (tmp_path / name).write_text("nonsense\n")
    with pytest.raises(DataError, match="is not a WordNet folder"):
        WordNet.read(tmp_path)


def test_listed_names_are_clean():
    names = listed_names("everyday")
    assert len(names) > 500 and len(set(names)) == len(names) and names == sorted(names)
    assert all(name == fold_name(name) and name for name in names)
    assert {"forklift", "hand truck", "traffic cone", "pallet jack", "baby bottle"} <= set(names)
    for name in ("everyday", "imagenet", "caltech101"):
        words = {word for name in listed_names(name) for word in name.split()}
        assert not words & BLOCKED - {"stool", "cock"}, name
    assert len(set(listed_names("imagenet"))) == 1000


def test_classes_of_every_split_can_be_asked_for_first(wordnet):
    classes = sorted({name for split in split_names() for name in load_split(split).classes})
    names = choose_nouns(wordnet, len, len(set(classes)), always=classes)
    assert names == classes
