"""Inputs of a batch: folders, globs, lists and tables of paths."""

from __future__ import annotations

import os

import pytest

from runtime.batch.inputs import list_images
from zsd_core.errors import ImageError


def test_a_folder_is_listed_with_its_subfolders_in_order_and_says_what_it_leaves_out(photos):
    listing = list_images([str(photos)])
    names = [os.path.relpath(path, photos) for path in listing.paths]
    assert names == [
        "0.png",
        "2.png",
        "4.png",
        "6.png",
        "broken.jpg",
        "sub/1.png",
        "sub/3.png",
        "sub/5.png",
        "sub/7.png",
    ]
    assert listing.notes == (
        f"{photos}: 2 hidden names left out",
        f"{photos}: 1 file left out, no images (1 .txt)",
    )


def test_a_linked_folder_is_not_followed_and_that_is_said(photos):
    (photos / "loop").symlink_to(photos)
    listing = list_images([str(photos)])
    assert len(listing.paths) == 9
    assert f"{photos}: 1 linked folder not followed" in listing.notes


def test_globs_lists_and_tables_name_images(photos, tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    wanted = [str(photos / "0.png"), str(photos / "sub" / "1.png")]
    text = tmp_path / "list.txt"
    text.write_text(f"# two photographs\n{wanted[0]}\n\n  {wanted[1]}\n")
    table = tmp_path / "table.parquet"
    parquet.write_table(pyarrow.table({"n": [1, 2], "path": wanted, "more": wanted}), table)
    assert list_images([str(text)]).paths == tuple(wanted)
    assert list_images([str(table)]).paths == tuple(wanted)
    assert list_images([str(table)], "more").paths == tuple(wanted)
    assert list_images([f"{photos}/**/[01].png"]).paths == tuple(wanted)
    assert list_images([wanted[1], wanted[0]]).paths == (wanted[1], wanted[0])


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_list_of_an_editor_with_marks_is_read(photos, tmp_path, encoding):
    text = tmp_path / "list.txt"
    text.write_bytes(f"{photos / '0.png'}\r\n".encode(encoding))
    assert list_images([str(text)]).paths == (str(photos / "0.png"),)
    text.write_bytes("a.png".encode("utf-16-le"))
    with pytest.raises(ImageError, match=r"list\.txt is no text in UTF-8 or UTF-16"):
        list_images([str(text)])


def test_an_image_named_twice_is_searched_once_and_that_is_said(photos):
    listing = list_images([str(photos), str(photos / "0.png")])
    assert len(listing.paths) == 9
    assert f"{photos / '0.png'}: 1 path named before, searched once" in listing.notes


def test_an_image_named_twice_in_other_spellings_is_searched_once(photos, monkeypatch):
    monkeypatch.chdir(photos)
    listing = list_images(["sub", "./sub", str(photos / "sub"), "sub//*.png", "./sub/1.png"])
    assert listing.paths == ("sub/1.png", "sub/3.png", "sub/5.png", "sub/7.png")


def test_a_glob_follows_no_linked_folder_but_one_that_it_names(photos, monkeypatch):
    monkeypatch.chdir(photos)
    plain = list_images(["**/*.png"])
    assert plain.paths == ("0.png", "2.png", "4.png", "6.png", *list_images(["sub"]).paths)
    for name in ("loop", "sub/loop"):  # glob would go round, with two of them without end
        (photos / name).symlink_to(photos)
    listing = list_images(["**/*.png"])
    assert listing.paths == plain.paths
    assert ".: 2 linked folders not followed" in listing.notes
    assert list_images(["loop/**/[01].png"]).paths == ("loop/0.png", "loop/sub/1.png")
    assert list_images(["**//**//[01].png"]).paths == ("0.png", "sub/1.png")
    assert list_images([f"{photos}/**"]).paths == list_images([str(photos)]).paths


def test_a_table_whose_text_is_no_utf8_is_a_sentence(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    data = pyarrow.py_buffer(b"caf\xe9.png")
    offsets = pyarrow.py_buffer(bytes([0, 0, 0, 0, data.size, 0, 0, 0]))
    text = pyarrow.StringArray.from_buffers(1, offsets, data)
    parquet.write_table(pyarrow.table({"path": text}), tmp_path / "t.parquet")
    with pytest.raises(ImageError, match="cannot be read as Parquet: 'utf-8' codec can't decode"):
        list_images([str(tmp_path / "t.parquet")])


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("nowhere", "nowhere: no such file or folder."),
        ("*.gif", r"no file matches; is the pattern quoted"),
        ("model.onnx", r"\.onnx is neither an image .* nor a \.parquet file"),
        ("empty", r"empty: names no image"),
        ("empty.txt", r"empty\.txt: names no image"),
        ("bad.parquet", r"bad\.parquet: cannot be read as Parquet"),
    ],
)
def test_an_input_that_names_nothing_is_refused(tmp_path, monkeypatch, name, sentence):
    monkeypatch.chdir(tmp_path)
    if name.endswith("parquet"):
        pytest.importorskip("pyarrow")
    (tmp_path / "empty").mkdir()
    for file in ("model.onnx", "empty.txt", "bad.parquet"):
        (tmp_path / file).touch()
    with pytest.raises(ImageError, match=sentence):
        list_images([name])


def test_a_table_with_many_texts_wants_a_column(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    table = tmp_path / "table.parquet"
    parquet.write_table(pyarrow.table({"a": ["x.png"], "b": ["y.png"]}), table)
    with pytest.raises(ImageError, match="Name it with --column; columns of text: a, b"):
        list_images([str(table)])
    assert list_images([str(table)], "b").paths == ("y.png",)


def test_the_hash_of_a_listing_is_that_of_its_paths_in_order(photos):
    one, two = str(photos / "0.png"), str(photos / "2.png")
    assert list_images([one, two]).sha256 == list_images([one, two]).sha256
    assert list_images([one, two]).sha256 != list_images([two, one]).sha256
