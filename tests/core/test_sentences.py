"""Sentences about names, from a miniature WordNet."""

from __future__ import annotations

import pytest

from scripts.vocabulary import sentences
from scripts.vocabulary.nouns import WordNet


@pytest.fixture
def wordnet(folder):
    return WordNet.read(folder)


def test_the_sense_is_the_first_that_a_photograph_can_show(wordnet):
    assert sentences.visible_sense(wordnet, "lynx") == "00000025"  # the first is a program
    assert sentences.visible_sense(wordnet, "Fire Truck") == "00000003"
    assert sentences.visible_sense(wordnet, "no such word") is None


@pytest.mark.parametrize(
    ("name", "sense", "expected"),
    [
        ("forklift", "00000002", "a forklift, a kind of device: a small industrial vehicle."),
        ("mule", "00000021", "a mule: a beast."),  # no kind, and the quotation is left out
        ("welder", "00000010", "a welder, a kind of worker: joins metal."),
    ],
)
def test_a_sentence_names_the_kind_and_the_definition(wordnet, name, sense, expected):
    assert sentences.describe(wordnet, name, sense) == f"a photo of {expected}"


def test_the_command_writes_the_names_whose_synsets_are_there(folder, tmp_path, monkeypatch):
    lists = tmp_path / "lists"
    lists.mkdir()
    (lists / "imagenet_synsets.txt").write_text(
        "# names and synsets\nforklift\tn00000002\nlynx\tn00000025\nunicorn\tn99999999\n"
    )
    monkeypatch.setattr(sentences, "LISTS", lists)
    output = tmp_path / "out.tsv"
    assert sentences.main(["--output", str(output), "--wordnet", str(folder)]) == 0
    assert output.read_text().splitlines() == [
        "forklift\ta photo of a forklift, a kind of device: a small industrial vehicle.",
        "lynx\ta photo of a lynx: a cat.",
    ]
