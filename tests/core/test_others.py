"""Photographs of names that are no class and no kind of one, from a miniature WordNet."""

from __future__ import annotations

import json

from scripts.vocabulary import others
from scripts.vocabulary.nouns import WordNet


def test_classes_kinds_of_them_and_what_is_above_are_left_out(folder):
    wordnet = WordNet.read(folder)
    (kind,) = wordnet.synsets[wordnet.senses["forklift"][0]].kinds_of[:1]
    above = wordnet.synsets[kind].words[0]
    pictures = [
        {"file": f"{n}.jpg", "name": n} for n in ("forklift", above, "mule", "mule", "sofa")
    ]
    left = others.others(wordnet, pictures, ["forklift"])
    assert left == [{"file": "mule.jpg", "name": "mule"}]  # WordNet here does not know a sofa
    assert "forklift" not in {one["name"] for one in others.others(wordnet, pictures, [above])}


def test_imagenets_sense_decides_where_it_is_given(folder):
    wordnet = WordNet.read(folder)
    forklift = wordnet.senses["forklift"][0]
    pictures = [{"file": "a.jpg", "name": "mule", "wnid": f"n{forklift}"}]
    assert others.others(wordnet, pictures, ["forklift"]) == []


def test_the_command_writes_the_list(folder, tmp_path, capsys):
    labels, classes, output = (tmp_path / n for n in ("labels.json", "classes.txt", "words.json"))
    labels.write_text(json.dumps([{"file": "m.jpg", "name": "mule"}]))
    classes.write_text("forklift\n")
    arguments = ["--labels", str(labels), "--classes", str(classes), "--output", str(output)]
    arguments += ["--wordnet", str(folder)]
    assert others.main(arguments) == 0
    assert json.loads(output.read_text()) == [{"file": "m.jpg", "name": "mule"}]
    labels.write_text('[{"file": "m.jpg"}]')
    assert others.main(arguments) == 1
    assert "KeyError('name')" in capsys.readouterr().err
