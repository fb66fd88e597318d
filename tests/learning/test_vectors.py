from __future__ import annotations

import gzip
import json
import time

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
    for text, says in (("cat 1 0\ndog 1\n", "'dog 1"), ("", "is empty; word"), ("a b c", "cannot")):
        path.write_text(text)
        with pytest.raises(DataError, match=says):
            load_vectors(path, ["cat"])


def test_array_files_and_a_bundle_vocabulary(tmp_path):
    names, rows = ["cat", "fire truck"], np.array([[3, 4], [0, 2]], np.float32)
    utf8 = np.frombuffer("\n".join(names).encode(), np.uint8)
    np.savez(tmp_path / "a.npz", names=np.array(names), vectors=rows)
    np.savez(tmp_path / "d.npz", names=np.array([n.encode() for n in names]), vectors=rows)
    save_file({"names": utf8, "vectors": rows}, tmp_path / "b.safetensors")
    save_file(
        {
            "names": utf8,
            "vectors": np.array([[3, 4], [0, 127]], np.int8),
            "scales": np.array([1, 0.01], np.float32),
        },
        tmp_path / "c.safetensors",
    )
    for file in ("a.npz", "b.safetensors", "c.safetensors", "d.npz"):
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
        (write("h.txt", "2 3\ncat 1.000 2.000 3.000\n"), "holds 1 words and their numbers, not 2"),
        (write("i.txt", f"1 {10**30}\ncat 1\n"), "too few for 1 x 1000000"),
        (write("j.txt", "1 0\ncat\n"), "must hold a word and 1 numbers on every line: b'cat'"),
        (write("k.csv", "cat,1,2\ndog,2,\n"), "different numbers of columns"),
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


TWICE = {"cat": [[1, 0], [0, 1]], "ZEBRA": [[3, 4]], "Zebra": [[4, 3]], "dog": [[0, 2]]}
FORMATS = ["a.txt", "a.vec", "a.bin", "a.txt.gz", "a.vec.gz", "a.bin.gz", "a.csv", "a.npz"]


def write_pairs(path, pairs):
    """Names, also those that stand there twice, and their vectors, in the format of a suffix."""
    names, rows = [name for name, _ in pairs], np.array([row for _, row in pairs], np.float32)
    if path.suffix == ".npz":
        np.savez(path, names=np.array(names), vectors=rows)
    elif path.suffix == ".safetensors":
        save_file(
            {"names": np.frombuffer("\n".join(names).encode(), np.uint8), "vectors": rows}, path
        )
    else:
        header = f"{len(names)} {rows.shape[1]}\n" if ".txt" not in path.name else ""
        blank = "," if path.suffix == ".csv" else " "
        text = "".join(blank.join([n, *map(str, row)]) + "\n" for n, row in pairs)
        data = ((header if path.suffix != ".csv" else "") + text).encode()
        if ".bin" in path.name:
            words = [n.encode() + b" " + row.tobytes() for n, row in zip(names, rows, strict=True)]
            data = header.encode() + b"".join(words)
        path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


@pytest.mark.parametrize("name", [*FORMATS, "a.safetensors", "names file"])
def test_the_first_of_two_vectors_counts_in_every_format(tmp_path, name):
    """Some formats took the last. Gensim leaves a place without a name behind the word."""
    pairs = [(word, row) for word, rows in TWICE.items() for row in rows]
    if name == "names file":
        names = tmp_path / "names.txt"
        names.write_text("\n".join(word for word, _ in pairs))
        (tmp_path / "a.csv").write_text("\n".join(f"{a},{b}" for _, (a, b) in pairs))
        source = f"{tmp_path / 'a.csv'}::{names}"
    else:
        source = write_pairs(tmp_path / name, pairs)
    table = load_vectors(source, ["cat", "dog", "zebra", "Zebra", "CAT"])
    expected = [[1, 0], [0, 1], [0.6, 0.8], [0.8, 0.6], [1, 0]]
    np.testing.assert_allclose(table.vectors, expected, rtol=1e-6)


def safetensors(path, vectors, names=b"cat\ndog", **more):
    """A file of raw bytes, also of types that numpy has not."""
    header, body = {}, b""
    for key, (dtype, shape, data) in {
        "names": ("U8", [len(names)], names),
        "vectors": vectors,
        **more,
    }.items():
        header[key] = {
            "dtype": dtype,
            "shape": shape,
            "data_offsets": [len(body), len(body) + len(data)],
        }
        body += data
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + body)
    return path


def test_safetensors_of_types_that_numpy_has_not_and_of_other_shapes(tmp_path):
    path, rows = tmp_path / "a.safetensors", np.eye(2, dtype=np.float32).tobytes()
    half = np.eye(2, dtype=np.float16).tobytes()
    table = load_vectors(safetensors(path, ("F16", [2, 2], half)), ["cat", "dog"])
    np.testing.assert_array_equal(table.vectors, np.eye(2))
    for vectors in (("BF16", [2, 2], bytes(8)), ("F8_E4M3", [2, 2], bytes(4))):
        # numpy has bfloat16 where another library brought it, as ml_dtypes does.
        with pytest.raises(DataError, match=r"cannot read class vectors|must be real numbers"):
            load_vectors(safetensors(path, vectors), ["cat"])
    with pytest.raises(DataError, match="vectors has dtype bool, must be real numbers"):
        load_vectors(safetensors(path, ("BOOL", [2, 2], b"\1\0\0\1")), ["cat"])
    for shape in ([], [1], [2, 1], [3]):
        scales = ("F32", shape, np.ones(shape, np.float32).tobytes())
        with pytest.raises(DataError, match=r"2 names and scales of shape"):
            load_vectors(safetensors(path, ("F32", [2, 2], rows), scales=scales), ["cat"])


@pytest.mark.parametrize(
    ("arrays", "says"),
    [
        ({"vectors": np.eye(2) + 5j}, "vectors has dtype complex128, must be real numbers"),
        ({"vectors": np.ones((2, 2), "M8[s]")}, "vectors has dtype datetime64"),
        ({"vectors": np.array([["1", "2"], ["3", "4"]])}, "vectors has dtype <U1"),
        ({"vectors": np.zeros((2, 2), [("a", "f4"), ("b", "f4")])}, "vectors has dtype .*'a'"),
        ({"vectors": np.ones((2, 2), [("a", "f4")])}, "vectors has dtype .*'a'"),
        ({"vectors": np.ones((2, 2), bool)}, "vectors has dtype bool"),
        ({"scales": np.ones(2, "m8[s]")}, "scales has dtype timedelta64"),
        ({"scales": np.float32(1)}, r"2 names and scales of shape \(\)"),
        ({"vectors": np.float32(1)}, r"2 names and vectors of shape \(\)"),
        ({"names": np.array([b"cat", b"\xff"])}, "'utf-8' codec can't decode"),
        ({"names": np.array(["cat", "dog"], object)}, "holds Python objects; save it with a dtype"),
        ({"names": np.array([1, 2])}, "names has shape"),
        ({"names": np.array([["cat"], ["dog"]])}, r"names has shape \(2, 1\)"),
        ({"vectors": np.full((2, 2), 1e300)}, "the vector of 'cat' has length inf"),
    ],
)
def test_arrays_that_are_no_vectors_are_refused(tmp_path, arrays, says):
    given = {"names": np.array(["cat", "dog"]), "vectors": np.eye(2), **arrays}
    np.savez(tmp_path / "a.npz", **given)
    with pytest.raises(DataError, match=says):
        load_vectors(tmp_path / "a.npz", ["cat"])


@pytest.mark.parametrize("name", ["x" * 300 + ".txt", "a\0b.csv", "\ud800.npz"])
def test_a_name_that_no_file_has_is_no_source(tmp_path, name):
    with pytest.raises(DataError, match="no class vectors at"):
        load_vectors(name, ["cat"])
    (tmp_path / "a.csv").write_text("1,2\n")
    with pytest.raises(DataError, match="cannot read class names"):
        load_vectors(f"{tmp_path / 'a.csv'}::{name}", ["cat"])


def test_many_missing_names_are_counted(tmp_path):
    """The nearest spellings of a name take a tenth of a second among 20,000 words."""
    path = tmp_path / "a.csv"
    path.write_text("".join(f"word{i},1\n" for i in range(20_000)))
    start = time.process_time()
    with pytest.raises(ClassError, match=r"no vector for 1000 of 1000 .*; and 990 others") as error:
        load_vectors(path, [f"ward{i}" for i in range(1000)])
    assert time.process_time() - start < 30
    assert len(str(error.value)) < 2000
