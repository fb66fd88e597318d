"""Files of word vectors that a stranger wrote: what they unpack to, and where their words end."""

from __future__ import annotations

import gzip
import os
import time
import tracemalloc
import zlib

import numpy as np
import pytest

from zsd_core.errors import DataError
from zsd_core.learning import word_vectors as module
from zsd_core.learning.vectors import load_vectors
from zsd_core.learning.word_vectors import read_words

TEXT = b"cat 1 2 3\ndog 1 2 4\n"


def packed(path, data, **options):
    path.write_bytes(gzip.compress(data, **options))
    return path


def binary(words, width, junk=b""):
    rows = [w + b" " + np.arange(1, width + 1, dtype=np.float32).tobytes() + junk for w in words]
    return f"{len(words)} {width}\n".encode() + b"".join(rows)


@pytest.mark.parametrize("name", ["a.txt.gz", "a.vec.gz", "a.bin.gz", "a.txt", "a.vec", "a.bin"])
def test_every_format_is_read_packed_and_plain(tmp_path, name):
    if ".bin" in name:
        data = binary([b"cat", b"dog"], 3, b"\n")
    else:
        data = (b"2 3\n" if ".vec" in name else b"") + TEXT
    path = tmp_path / name
    path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    words, vector, _ = read_words(path, binary=".bin" in name)
    assert list(words) == ["cat", "dog"]
    np.testing.assert_array_equal(vector("cat"), [1, 2, 3])


@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize(
    "text",
    [
        "cat 1 2 \n. . 1 3 \n",  # as fastText writes it
        "2 2\ncat 1 2 \n. . 1 3 \n",
        "\ufeffcat 1 2\r\n. . 1 3\r\n",
        "\ufeff2 2\r\ncat 1 2\r\n. . 1 3\r\n",
        "cat\t1\t2\n. .\t1\t3\n",
        "\n\ncat 1 2\n\n. . 1 3\n\n",
        "2 2\n\ncat  1  2\n. .  1  3",
        "cat 1 2\n. . 1 3\n  9 9\n\xa0 8 8\n",  # words that are blanks
    ],
)
def test_blanks_tabs_and_a_mark_change_no_words(tmp_path, text, suffix):
    path = tmp_path / f"a.vec{suffix}"
    path.write_bytes(gzip.compress(text.encode()) if suffix else text.encode())
    words, vector, _ = read_words(path, binary=False)
    assert list(words)[:2] == ["cat", ". ."]
    np.testing.assert_array_equal(vector("cat"), [1, 2])
    np.testing.assert_array_equal(vector(". ."), [1, 3])


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le"])
def test_another_encoding_is_named(tmp_path, encoding):
    (tmp_path / "a.txt").write_bytes("cat 1 2\n".encode(encoding))
    with pytest.raises(DataError, match=r"a\.txt is UTF-16, or no text; save it as UTF-8"):
        load_vectors(tmp_path / "a.txt", ["cat"])


@pytest.mark.parametrize("name", ["a.txt", "a.vec.gz"])
def test_latin_1_is_told_to_be_saved_as_utf_8(tmp_path, name):
    data = "cat 1 2\ncafé 1 2\n".encode("latin-1")
    (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    with pytest.raises(DataError, match=r"is no text in UTF-8 \(.* 0xe9 .*\); save it as UTF-8"):
        load_vectors(tmp_path / name, ["cat"])


@pytest.mark.parametrize("name", ["a.txt.gz", "a.vec.gz", "a.bin.gz"])
def test_a_damaged_gz_is_a_sentence(tmp_path, name):
    data = bytearray(gzip.compress(os.urandom(20_000).hex().encode()))
    data[10] = 7  # a kind of block that deflate does not have
    with pytest.raises(zlib.error):
        gzip.decompress(data)
    for broken in (data, data[:2], gzip.compress(TEXT * 99)[:-9], b""):
        (tmp_path / name).write_bytes(broken)
        with pytest.raises(DataError, match=r"a\.(txt|vec|bin)\.gz"):
            load_vectors(tmp_path / name, ["cat"])


def peak(call):
    """Bytes that Python holds at most while ``call`` raises DataError, and the error's text."""
    tracemalloc.start()
    with pytest.raises(DataError) as error:
        call()
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return most, str(error.value)


@pytest.mark.parametrize(
    ("name", "start"),
    [("a.txt.gz", b""), ("a.vec.gz", b"2 3\n"), ("b.txt.gz", b"a 1 2\n"), ("b.vec.gz", b"2 3\na")],
)
def test_a_line_that_unpacks_without_end_takes_no_memory(tmp_path, name, start):
    path = packed(tmp_path / name, start + b"1" * (60 << 20), compresslevel=1)
    most, text = peak(lambda: load_vectors(path, ["cat"]))
    assert most < 8 << 20
    assert "a line of more than 1048576 bytes" in text and len(text) < 400


@pytest.mark.parametrize(
    ("name", "start"), [("a.txt.gz", b""), ("a.vec.gz", b"9 3\n"), ("a.bin.gz", b"90000 1\n")]
)
def test_a_file_that_unpacks_to_far_more_is_refused(tmp_path, name, start, monkeypatch):
    monkeypatch.setattr(module, "FREE", 1 << 14)
    path = packed(tmp_path / name, start + b"cat 1 2 3\n" * 100_000)
    assert path.stat().st_size < 3000
    most, text = peak(lambda: load_vectors(path, ["cat"]))
    assert "unpacks to more than 100 times" in text or "too few for 90000 x 1" in text
    assert most < 4 << 20


def test_a_binary_word_without_an_end_takes_neither_time_nor_memory(tmp_path):
    """40 MB took five seconds, 80 MB four times as long."""
    path = tmp_path / "a.bin"
    path.write_bytes(b"2 3\n" + b"a" * (80 << 20))
    start = time.process_time()
    most, text = peak(lambda: load_vectors(path, ["cat"]))
    assert "word 0 of 2 has no end within 4096 bytes" in text
    assert time.process_time() - start < 3
    assert most < 8 << 20


@pytest.mark.parametrize("width", [1, 3, 30_000])
@pytest.mark.parametrize("junk", [b"", b"\n"])
def test_binary_words_of_every_place_in_a_chunk(tmp_path, width, junk):
    words = [b"w" * (1 + i % 50) + str(i).encode() for i in range(5000 if width < 9 else 7)]
    path = tmp_path / "a.bin"
    whole = binary(words, width, junk)
    path.write_bytes(whole)
    found, vector, kind = read_words(path, binary=True)
    assert [word.encode() for word in found] == words and kind == "word2vec binary"
    np.testing.assert_array_equal(vector(found[-1]), np.arange(1, width + 1))
    path.write_bytes(whole[: -1 - len(junk)] + b"")
    with pytest.raises(DataError, match=r"ends within the vector of word|too few"):
        read_words(path, binary=True)
