"""On a miniature WordNet of the real format."""

from __future__ import annotations

import pytest

from zsd_core.data.splits import load_split, split_names
from zsd_core.errors import DataError
from zsd_core.nouns import BLOCKED, WordNet, choose_nouns, everyday_names

ANIMAL, ARTIFACT, ACT, FOOD, PERSON, TALK = 5, 6, 4, 13, 18, 10
# offset: (lexicographer file, words, kinds of, instance of, usage domain, gloss)
SYNSETS = {
    "00000001": (ARTIFACT, "device", "", "", "", "a thing made"),
    "00000002": (ARTIFACT, "forklift", "00000001", "", "", "a small industrial vehicle"),
    "00000003": (ARTIFACT, "fire_truck fire_engine", "00000001", "", "", "carries firefighters"),
    "00000004": (ACT, "baseball", "", "", "", "a ball game"),
    "00000005": (ARTIFACT, "baseball", "00000001", "", "", "a ball"),
    "00000006": (ACT, "running", "", "", "", "the act of running"),
    "00000007": (ARTIFACT, "running", "", "", "", "never met in a text"),
    "00000008": (ARTIFACT, "Titanic", "", "00000001", "", "a ship of that name"),
    "00000009": (PERSON, "worker", "", "", "", "a person who works"),
    "00000010": (PERSON, "welder", "00000009", "", "", "joins metal"),
    "00000011": (PERSON, "lefty", "", "", "", "no kind of work"),
    "00000012": (TALK, "ethnic_slur", "", "", "", "an insult"),
    "00000013": (PERSON, "yob", "00000009", "", "00000012", "a name for a person"),
    "00000014": (PERSON, "oaf", "00000009", "", "", "an offensive term for a person"),
    "00000015": (ARTIFACT, "drug", "", "", "", "a substance"),
    "00000016": (ARTIFACT, "aspirin", "00000015", "", "", "against headache"),
    "00000017": (FOOD, "wine", "00000015", "", "", "fermented juice"),
    "00000018": (PERSON, "criminal", "", "", "", "breaks the law"),
    "00000019": (PERSON, "fence", "00000018 00000009", "", "", "sells stolen goods"),
    "00000020": (ANIMAL, "coon_cat", "", "", "", "a bushy tail"),
    "00000021": (ANIMAL, "mule", "", "", "", 'a beast; "stubborn as a mule"'),
}
TAGGED = [("baseball%1:04:00::", 9), ("baseball%1:06:00::", 1), ("running%1:04:00::", 40),
          ("running%2:38:00::", 5)]  # fmt: skip
HEAD = "  1 This software and database is being provided to you\n  2 under this license.  \n"


@pytest.fixture
def folder(tmp_path):
    data, index = [], {}
    for offset, (file, words, kinds, instances, domains, gloss) in SYNSETS.items():
        words = words.split()
        links = [("@", k) for k in kinds.split()] + [("@i", k) for k in instances.split()]
        links += [(";u", k) for k in domains.split()]
        text = " ".join(f"{mark} {target} n 0000" for mark, target in links)
        head = f"{offset} {file:02d} n {len(words):02x} {' '.join(f'{w} 0' for w in words)}"
        data.append(f"{head} {len(links):03d} {text}".rstrip() + f" | {gloss}  \n")
        for word in words:
            index.setdefault(word.lower(), []).append(offset)
    (tmp_path / "data.noun").write_text(HEAD + "".join(data))
    (tmp_path / "index.noun").write_text(
        HEAD
        + "".join(
            f"{word} n {len(at)} 1 @ {len(at)} 0 {' '.join(at)}  \n" for word, at in index.items()
        )
    )
    (tmp_path / "cntlist.rev").write_text("".join(f"{key} 1 {n}\n" for key, n in TAGGED))
    return tmp_path


@pytest.fixture
def wordnet(folder):
    return WordNet.read(folder)


def chosen(wordnet, count, frequency=len, always=()):
    own = len(set(always) | set(everyday_names()))
    return choose_nouns(wordnet, frequency, own + count, always=always)[own:]


def test_visible_things_are_chosen_and_nothing_else(wordnet):
    """Among the left out: acts, names, people by trait, slurs, drugs, crimes, blocked words."""
    expected = {"device", "worker", "welder", "mule"}
    everyday = {"forklift", "fire truck", "fire engine", "baseball", "wine"} & set(everyday_names())
    expected |= {"forklift", "fire truck", "fire engine", "baseball", "wine"} - everyday
    assert set(chosen(wordnet, len(expected))) == expected
    with pytest.raises(DataError, match=r"WordNet holds .* names of visible things"):
        chosen(wordnet, len(expected) + 1)


def test_second_sense_counts_if_texts_use_it(wordnet):
    """A tenth of the uses of "baseball" is the ball; nobody used "running" for a thing."""
    assert wordnet.uses["baseball"] == {4: 9, 6: 1}
    assert wordnet.uses["running"] == {4: 40}  # the verb is not counted
    assert "running" not in chosen(wordnet, 4)


def test_most_frequent_come_first_and_phrases_pay_for_their_estimate(wordnet, monkeypatch):
    monkeypatch.setattr("zsd_core.nouns.everyday_names", lambda: ["teapot"])
    zipf = {"fire truck": 5.5, "fire engine": 4.9, "mule": 3.0, "wine": 4.0}
    names = choose_nouns(wordnet, lambda name: zipf.get(name, 0.0), 6, always=["zebra"])
    assert names == ["zebra", "teapot", "wine", "fire truck", "mule", "fire engine"]


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


def test_everyday_names_are_clean():
    names = everyday_names()
    assert len(names) > 500 and len(set(names)) == len(names) and names == sorted(names)
    assert all(name == " ".join(name.lower().split()) and name for name in names)
    assert {"forklift", "hand truck", "traffic cone", "pallet jack", "qr code"} <= set(names)
    assert not {word for name in names for word in name.split()} & BLOCKED - {"stool"}


def test_classes_of_every_split_can_be_asked_for_first(wordnet):
    classes = sorted({name for split in split_names() for name in load_split(split).classes})
    names = choose_nouns(wordnet, len, len(set(classes) | set(everyday_names())), always=classes)
    assert names[: len(classes)] == classes and len(set(names)) == len(names)
