"""Reading the words a bundle brings along."""

from __future__ import annotations

import numpy as np
import pytest
import tiny
from safetensors.numpy import save_file

from export.writing.bundle_writer import amend_bundle
from export.writing.words import read_words
from zsd_core.errors import DataError

MINILM = {"vectors": {"kind": "minilm", "encoder": "all-MiniLM-L6-v2", "template": "a {}."}}


def read(path, training=MINILM, width=4, source="", licence=""):
    return read_words(path, training, width, source=source, licence=licence)


def test_quantised_words_are_restored_with_what_the_file_says_of_them(tmp_path):
    path = tmp_path / "words.safetensors"
    arrays = {
        "names": np.frombuffer("crème brûlée\nCat\ncat".encode(), np.uint8),
        "vectors": np.int8([[127, 0, 0, 0], [0, 64, 0, 0], [1, 1, 1, 1]]),
        "scales": np.float32([0.5, 2, 1]),
    }
    save_file(arrays, path, metadata={"source": "a dictionary", "encoder": "mine"})
    words = read(path, licence="CC0-1.0")
    assert words.names == ("crème brûlée", "Cat")  # one of each, whatever its case
    np.testing.assert_array_equal(words.vectors, [[63.5, 0, 0, 0], [0, 128, 0, 0]])
    assert words.info == {"source": "a dictionary", "encoder": "mine", "licence": "CC0-1.0"}


def test_words_of_a_bundle_bring_their_licence(fresh_bundle_path):
    said = {"source": "a dictionary", "licence": "WordNet", "licence text": "a long one"}
    amend_bundle(fresh_bundle_path, vocabulary={"file": "vocabulary.safetensors", **said})
    words = read(fresh_bundle_path / "vocabulary.safetensors", width=tiny.VECTOR)
    assert words.info == said


def test_names_alone_are_encoded_as_the_classes_were(tmp_path, monkeypatch):
    import zsd_core.text

    asked = {}

    def encode(names, template):
        asked[template] = list(names)
        return np.eye(len(names), 4, dtype=np.float32)

    monkeypatch.setattr(zsd_core.text, "encode_names", encode)
    path = tmp_path / "words.txt"
    path.write_text("# a comment\nzebra\n\n fire truck \n", encoding="utf-8")
    words = read(path, source="me")
    assert asked == {"a {}.": ["zebra", "fire truck"]} and words.names == ("zebra", "fire truck")
    assert words.info == {"encoder": "all-MiniLM-L6-v2", "template": "a {}.", "source": "me"}
    with pytest.raises(DataError, match="of kind 'glove', which cannot be computed"):
        read(path, training={"vectors": {"kind": "glove"}})


@pytest.mark.parametrize(
    ("arrays", "text"),
    [
        ({"names": ["a"]}, "holds no"),
        ({"names": ["a"], "vectors": np.zeros((1, 3))}, "reads vectors of width 4"),
        ({"names": ["a"], "vectors": np.zeros((2, 4))}, "has 1 names and vectors of shape"),
        (
            {"names": ["a", "b"], "vectors": np.eye(4)[:2] * [[1], [0]]},
            "vector of 'b' has no length",
        ),
        ({"names": ["a"], "vectors": np.full((1, 4), np.nan)}, "vector of 'a' has no length"),
        (
            {"names": np.uint8([255]), "vectors": np.eye(1, 4)},
            r"words\.npz cannot be read: 'utf-8'",
        ),
        ({"names": ["a"], "vectors": np.eye(1, 4), "scales": 1.0}, r"words\.npz cannot be read"),
    ],
)
def test_a_table_that_does_not_fit_is_an_error(tmp_path, arrays, text):
    np.savez(tmp_path / "words.npz", **arrays)
    with pytest.raises(DataError, match=text):
        read(tmp_path / "words.npz")


def test_a_file_of_another_kind_or_damaged_is_an_error(tmp_path):
    for name in ("words.csv", "words.npz", "words.safetensors"):
        (tmp_path / name).write_text("nonsense")
        with pytest.raises(DataError, match=name):
            read(tmp_path / name)
    (tmp_path / "words.txt").write_bytes(b"caf\xe9")  # not UTF-8
    with pytest.raises(DataError, match=r"words\.txt is no text in UTF-8"):
        read(tmp_path / "words.txt")
    for name in ("missing.txt", "x" * 300 + ".txt", "a\0b.txt"):
        with pytest.raises(DataError, match="no vocabulary at"):
            read(tmp_path / name)
