from __future__ import annotations

import gzip

import numpy as np
import pytest
from safetensors.numpy import save_file

from zsd_core.errors import ClassError, DataError
from zsd_core.learning import vectors as module
from zsd_core.learning.vectors import load_vectors

WORDS = {
    "fire": [3.0, 4.0],
    "truck": [0.0, 2.0],
    "hot_dog": [1.0, 0.0],
    "hot": [0.0, 1.0],
    "dog": [0.0, 5.0],
    "Zebra": [-1.0, 0.0],
    "traffic-light": [0.0, -3.0],
    "tv": [1.0, 1.0],
    "dining": [1.0, 0.0],
    "table": [0.0, 1.0],
}


def lines(header=False):
    rows = [f"{word} {' '.join(map(str, row))}" for word, row in WORDS.items()]
    return "\n".join(([f"{len(WORDS)} 2"] if header else []) + rows) + "\n"


@pytest.fixture(
    params=["glove.txt", "word2vec.txt", "fasttext.vec", "word2vec.bin", "glove.txt.gz"]
)
def word_file(request, tmp_path):
    path = tmp_path / request.param
    if path.suffix == ".bin":
        with path.open("wb") as file:
            file.write(f"{len(WORDS)} 2\n".encode())
            for word, row in WORDS.items():
                file.write(word.encode() + b" " + np.array(row, np.float32).tobytes() + b"\n")
    elif path.suffix == ".gz":
        with gzip.open(path, "wt") as file:
            file.write(lines())
    else:
        path.write_text(lines(header="glove" not in path.name))
    return path


def test_every_word_vector_format_gives_the_same_unit_rows(word_file):
    table = load_vectors(word_file, ["truck", "hot dog", "fire truck"])
    mean = np.array([1.5, 3.0])
    np.testing.assert_allclose(
        table.vectors, [[0, 1], [1, 0], mean / np.linalg.norm(mean)], atol=1e-6
    )
    assert table.vectors.dtype == np.float32
    assert table.names == ("truck", "hot dog", "fire truck")
    facts = table.provenance
    assert facts["source"] == word_file.name and facts["width"] == 2
    assert facts["found as"] == {"hot dog": "hot_dog", "fire truck": "fire + truck"}
    assert facts["normalisation"] == "unit length (L2)"
    np.testing.assert_allclose(facts["lengths before"], [1, np.linalg.norm(mean)])


@pytest.fixture
def glove(tmp_path):
    path = tmp_path / "glove.txt"
    path.write_text(lines())
    return path


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("zebra", "Zebra"),
        ("Hot Dog", "hot_dog"),
        ("traffic light", "traffic-light"),
        ("tvmonitor", "tv"),
        ("diningtable", "dining + table"),
        ("fire-truck", "fire + truck"),
    ],
)
def test_spellings_are_found_and_recorded(glove, name, found):
    assert load_vectors(glove, [name]).provenance["found as"] == {name: found}


def test_unknown_names_come_with_their_nearest_spellings(glove):
    with pytest.raises(
        ClassError, match=r"no vector for 2 of 3 classes: 'trukc'; did you mean 'truck'\?; 'qqq'"
    ):
        load_vectors(glove, ["trukc", "qqq", "dog"])
    with pytest.raises(ClassError, match="fire qqq"):  # half a phrase is not a phrase
        load_vectors(glove, ["fire qqq"])


def test_glove_words_may_hold_spaces_and_a_short_row_is_an_error(tmp_path):
    path = tmp_path / "glove.840B.txt"
    path.write_text("cat 1 0\n. . . 0 1\nat name@domain.com 0.6 0.8\n")
    np.testing.assert_allclose(load_vectors(path, [". . ."]).vectors, [[0, 1]])
    for text, says in (("cat 1 0\ndog 1\n", "'dog 1"), ("", "not in GloVe"), ("a b c", "cannot")):
        path.write_text(text)
        with pytest.raises(DataError, match=says):
            load_vectors(path, ["cat"])


def test_table_with_inline_names_and_with_a_names_file(tmp_path):
    inline, plain, names = (tmp_path / n for n in ("a.csv", "b.csv", "names.txt"))
    inline.write_text("cat,3,4,0\ndog,0,0,2\n")
    plain.write_text("3,4,0\n0,0,2\n")
    names.write_text("cat\ndog\n")
    for source in (inline, f"{plain}::{names}"):
        table = load_vectors(source, ["dog", "cat"])
        np.testing.assert_allclose(table.vectors, [[0, 0, 1], [0.6, 0.8, 0]], rtol=1e-6)


def test_attribute_table_has_classes_in_columns(tmp_path):
    attributes = np.random.default_rng(0).random((64, 3)).astype(np.float32)
    path, names = tmp_path / "attributes.txt", tmp_path / "names.txt"
    path.write_text("\n".join(",".join(f"{v:.8f}" for v in row) for row in attributes))
    names.write_text("aeroplane\nsofa\ntvmonitor")
    table = load_vectors(f"{path}::{names}", ["couch", "airplane"])
    expected = attributes[:, [1, 0]].T
    np.testing.assert_allclose(
        table.vectors, expected / np.linalg.norm(expected, axis=1, keepdims=True), rtol=1e-5
    )
    assert table.provenance["found as"] == {"couch": "sofa", "airplane": "aeroplane"}


def test_array_files_and_a_bundle_vocabulary(tmp_path):
    names, rows = ["cat", "fire truck"], np.array([[3, 4], [0, 2]], np.float32)
    utf8 = np.frombuffer("\n".join(names).encode(), np.uint8)
    np.savez(tmp_path / "a.npz", names=np.array(names), vectors=rows)
    save_file({"names": utf8, "vectors": rows}, tmp_path / "b.safetensors")
    save_file(
        {
            "names": utf8,
            "vectors": np.array([[3, 4], [0, 127]], np.int8),
            "scales": np.array([1, 0.01], np.float32),
        },
        tmp_path / "c.safetensors",
    )
    for file in ("a.npz", "b.safetensors", "c.safetensors"):
        table = load_vectors(tmp_path / file, ["Fire_Truck", "cat"])
        np.testing.assert_allclose(table.vectors, [[0, 1], [0.6, 0.8]], rtol=1e-6)


def test_malformed_sources_are_sentences(tmp_path):
    def write(name, text):
        (tmp_path / name).write_text(text)
        return tmp_path / name

    names = write("names.txt", "cat\ndog\n")
    for source, says in (
        (tmp_path / "none.csv", "no class vectors at"),
        (write("a.csv", "1,2,3\n4,5\n"), "different numbers of columns"),
        (f"{write('b.csv', '1,2,3')}::{names}", r"table of 1 x 3, but there are 2 names"),
        (write("c.csv", "cat,one,two\n"), "cannot read class vectors"),
        (write("d.npz", "not a zip"), "not an npz file of arrays"),
        (write("e.safetensors", "short"), "cannot read class vectors"),
        (write("f.pkl", ""), "not .pkl"),
        (write("g.csv", "cat,0,0\n"), "g.csv: the vector of 'cat' has length 0"),
        (write("h.txt", "2 3\ncat 1 2 3\n"), "cannot read class vectors"),
    ):
        with pytest.raises(DataError, match=says):
            load_vectors(source, ["cat"])
    np.savez(tmp_path / "h.npz", vectors=np.eye(2))
    with pytest.raises(DataError, match="holds vectors, but not 'names'"):
        load_vectors(tmp_path / "h.npz", ["cat"])
    np.savez(tmp_path / "i.npz", vectors=np.eye(2), names=np.array(["cat"]))
    with pytest.raises(DataError, match="1 names and vectors of shape"):
        load_vectors(tmp_path / "i.npz", ["cat"])


def test_minilm_is_a_source(monkeypatch):
    asked = {}

    def encode(names, *, template, folder):
        asked.update(names=names, template=template, folder=folder)
        return np.eye(2, dtype=np.float32)

    monkeypatch.setattr(module, "encode_names", encode)
    monkeypatch.setattr(module, "encoder_folder", lambda folder: "/opt/models/all-MiniLM-L6-v2")
    table = load_vectors("minilm:here", ["cat", "dog"], template="the {}")
    assert asked == {"names": ["cat", "dog"], "template": "the {}", "folder": "here"}
    assert table.provenance["source"] == "models/all-MiniLM-L6-v2"  # no folder of this machine
    assert table.provenance["template"] == "the {}"


def test_a_word_that_a_file_names_twice_is_one_word(tmp_path):
    """Gensim leaves a place without a name behind it."""
    path = tmp_path / "words.txt"
    path.write_text("3 2\ncat 1 0\ncat 0 1\ndog 0 2\n")
    table = load_vectors(path, ["cat", "dog"])
    np.testing.assert_array_equal(table.vectors, [[1, 0], [0, 1]])
