"""Descriptions of names as rows of word vectors, from a miniature WordNet."""

from __future__ import annotations

import numpy as np
import pytest

from scripts.vocabulary import glosses
from scripts.vocabulary.nouns import WordNet
from zsd_core.learning.vectors import load_vectors


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("forklift", ["forklift", "small", "industrial", "vehicle"]),
        ("steam Forklift", ["steam", "forklift", "small"]),
        ("unicorn", ["unicorn"]),
    ],
)
def test_a_name_is_described_by_its_words_and_its_glosss(folder, name, expected):
    wordnet = WordNet.read(folder)
    assert glosses.description(wordnet, name, len(expected)) == expected


def test_the_command_writes_class_vectors(folder, tmp_path, monkeypatch, capsys):
    def encode(words, *, template):
        assert template == "{}"
        return np.array([[len(w), ord(w[0])] for w in words], np.float32)

    monkeypatch.setattr(glosses, "encode_names", encode)
    names, output = tmp_path / "names.txt", tmp_path / "glosses.npz"
    names.write_text("forklift\n\n")
    arguments = ["--split", "voc_16_4", "--names", str(names), "--words", "3"]
    arguments += ["--output", str(output), "--wordnet", str(folder)]
    assert glosses.main(arguments) == 0
    assert "21 names of up to 3 words" in capsys.readouterr().out
    (row,) = load_vectors(output, ["forklift"]).vectors
    assert row.shape == (6,) and row.any() and np.linalg.norm(row) == pytest.approx(1)
    (other,) = load_vectors(output, ["cow"]).vectors  # one word: the miniature does not know it
    assert other[:2].any() and not other[2:].any()
    assert glosses.main([*arguments[:3], "no/file", *arguments[4:]]) == 1
