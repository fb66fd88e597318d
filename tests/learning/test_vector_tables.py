"""Tables of class vectors: CSV and its relatives, with names in them or in another file."""

from __future__ import annotations

import numpy as np
import pytest

from zsd_core.errors import DataError
from zsd_core.learning.vectors import load_vectors


def test_table_with_inline_names_and_with_a_names_file(tmp_path):
    inline, plain, names = (tmp_path / n for n in ("a.csv", "b.csv", "names.txt"))
    inline.write_text("cat,3,4,0\ndog,0,0,2\n")
    plain.write_text("3,4,0\n0,0,2\n")
    names.write_text("cat\ndog\n")
    for source in (inline, f"{plain}::{names}"):
        table = load_vectors(source, ["dog", "cat"])
        np.testing.assert_allclose(table.vectors, [[0, 0, 1], [0.6, 0.8, 0]], rtol=1e-6)


@pytest.mark.parametrize(
    "text",
    [
        "\ufeffcat,3,4\r\nhot dog,0,2\r\n,,\r\n",  # as a spreadsheet saves it
        '"cat","3","4"\n"hot dog", 0, 2\n\n',
        "name,first,second\ncat,3,4\nhot dog,0,2\n",
        "cat;3;4\nhot dog;0;2\n",
        "\ufeffcat;3,0;4,0\nhot dog;0;2\n",
        "cat\t3\t4\nhot dog\t0\t2\n",
        "cat 3 4 \n'hot dog' 0 2\n".replace("'", '"'),
        "cat\t3\t4\t\nhot dog\t0\t2 \n",
        "cat,3,4,\nhot dog,0,2,\n",
        "cat;3,0;4,0;;\nhot dog;0;2;;\n",
        "name,first,second,\ncat,3,4,\nhot dog,0,2,\n",
        '"cat" ,3,4\n"hot dog" ,0,2\n',
        ",0,1\ncat,3,4\nhot dog,0,2\n",  # pandas' index and header
        ",name,0,1\n7,cat,3,4\n5,hot dog,0,2\n",
        "id,name, 0, 1\n0,cat,3,4\n1,hot dog,0,2\n",
        "0;cat;3,0;4,0\n1;hot dog;0;2\n",
        "# made by us, on a Monday; 3\n# again\nname,a,b\ncat,3,4\nhot dog,0,2\n",
    ],
)
def test_tables_as_spreadsheets_save_them(tmp_path, text):
    path = tmp_path / "a.csv"
    for encoding in ("utf-8", "utf-16"):
        path.write_bytes(text.removeprefix("\ufeff" * (encoding == "utf-16")).encode(encoding))
        table = load_vectors(path, ["hot dog", "cat"])
        np.testing.assert_allclose(table.vectors, [[0, 1], [0.6, 0.8]], rtol=1e-6)


@pytest.mark.parametrize("name", ['"', '"dog house', '""dog', '"a "b"', 'a "b"', '12" disc'])
def test_a_quote_that_does_not_close_is_a_letter(tmp_path, name):
    """It took all rows up to the next quote away, or the name of another row."""
    path = tmp_path / "a.csv"
    path.write_text(f"{name},1,0\ncat,0,1\n{name},3,4\ndog,0.6,0.8\n")
    table = load_vectors(path, [name, "cat", "dog"])
    np.testing.assert_allclose(table.vectors, [[1, 0], [0, 1], [0.6, 0.8]], rtol=1e-6)
    assert table.provenance["found as"] == {}


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("cat;dog,1\nhot dog,-1\n", ["cat;dog", "hot dog"]),
        ("cat;,1\ndog;,-1\n", ["cat;", "dog;"]),
        ("name;x,y\nhot dog house,1\na;b;c,-1\n", ["hot dog house", "a;b;c"]),
        ("a;b 1,0 1,0 \nc -1,0 1\n", ["a;b", "c"]),
    ],
)
def test_the_separator_leaves_numbers(tmp_path, text, names):
    (tmp_path / "a.csv").write_text(text)
    assert np.sign(load_vectors(tmp_path / "a.csv", names).vectors[:, 0]).tolist() == [1, -1]


@pytest.mark.parametrize(
    "text",
    [
        "0,1,2\n0,0,1\n0,1,0\n1,0,0\n",  # pandas' header, as many rows as columns
        "0,1,2,3\n0,0,1,0\n0,1,0,0\n1,0,0,0\n",
        ",0,1,2\n0,0,0,1\n1,0,1,0\n2,1,0,0\n",  # and its index
        ",a,b,c\n7,0,0,1\n8,0,1,0\n3,1,0,0\n",
        "# rows of 3 classes\n0 0 1 \n0 1 0 \n1 0 0 \n",
        "0,0;0,0;1,0;\n0,0;1,0;0,0;\n1,0;0,0;0,0;\n",
    ],
)
def test_a_table_of_pandas_and_its_names(tmp_path, text):
    """Names may begin as comments do: three of ``#1``, cat, dog were two, and columns classes."""
    path, names = tmp_path / "a.csv", tmp_path / "names.txt"
    path.write_text(text)
    names.write_text("#1\ncat\ndog\n")
    table = load_vectors(f"{path}::{names}", ["#1", "cat", "dog"])
    np.testing.assert_array_equal(table.vectors[:, :3], np.eye(3)[::-1])


def test_rows_that_look_like_headers_and_comments_stay(tmp_path):
    path, names = tmp_path / "a.csv", tmp_path / "names.txt"
    path.write_text("#1,3,4\ncat,0,1\n")
    np.testing.assert_allclose(load_vectors(path, ["#1"]).vectors, [[0.6, 0.8]], rtol=1e-6)
    path.write_text("cat,0,1,2\ndog,2,1,0\n")
    np.testing.assert_allclose(load_vectors(path, ["cat"]).vectors[0, 2], 2 / 5**0.5, rtol=1e-6)
    names.write_text("cat\ndog\n")
    for text in ("0,1,2\n2,0,0\n", "0,1\n1,1\n2,0\n"):  # the second has classes in columns
        path.write_text(text)
        found = load_vectors(f"{path}::{names}", ["cat"]).vectors
        np.testing.assert_allclose(found, [np.array([0, 1, 2]) / 5**0.5], rtol=1e-6)
    names.write_text("#1\ncat\ndog\n")
    path.write_text("1,0\n0,1\n3,4\n")
    found = load_vectors(f"{path}::{names}", ["#1", "cat", "dog"]).vectors
    np.testing.assert_allclose(found, [[1, 0], [0, 1], [0.6, 0.8]], rtol=1e-6)


def test_a_quoted_name_may_hold_a_comma_and_a_file_of_names_a_mark(tmp_path):
    path, names = tmp_path / "a.csv", tmp_path / "names.txt"
    for name in ("salt, pepper", "bow; arrow"):
        path.write_text(f'"{name}",3,4\n')
        assert load_vectors(path, [name]).names == (name,)
    np.savetxt(path, np.eye(2))  # between blanks
    names.write_text("\ufeffcat\r\n\r\nsalt, pepper", encoding="utf-8")
    table = load_vectors(f"{path}::{names}", ["salt, pepper", "cat"])
    np.testing.assert_array_equal(table.vectors, [[0, 1], [1, 0]])
    names.write_bytes("cat\ndog".encode("utf-16-le"))
    with pytest.raises(DataError, match=r"names\.txt is no text in UTF-8 .* without a byte order"):
        load_vectors(f"{path}::{names}", ["cat"])


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
