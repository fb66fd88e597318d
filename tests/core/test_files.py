"""Text and arrays that a stranger wrote are refused before they take time or memory."""

from __future__ import annotations

import io
import time
import tracemalloc
import zipfile

import numpy as np
import pytest

from zsd_core.errors import BundleError, ConfigError, DataError
from zsd_core.files import (
    decode_text,
    parse_json,
    parse_yaml,
    prepare_files,
    read_file,
    read_lines,
    read_npz,
    read_text,
    shown,
)


@pytest.mark.parametrize("text", ["[" * 100_000, "{", "1" * 5000, b"\xff", '{"a": ' * 5000])
def test_json_that_cannot_be_read(text):
    with pytest.raises(BundleError, match="x is not JSON"):
        parse_json(text, "x", BundleError)


@pytest.mark.parametrize(
    "text",
    [
        '{"a": 1, "a": 2}',
        "NaN",
        "[Infinity]",
        "1e999",
        '"\\ud800"',
        "1" * 400,
        "[" * 200 + "]" * 200,
    ],
)
def test_strict_json_refuses_what_readers_understand_differently(text):
    parse_json(text, "x")
    with pytest.raises(DataError, match="x is not JSON"):
        parse_json(text, "x", strict=True)


def test_strict_json_reads_what_is_plain():
    assert parse_json('{"a": [1, 2.5, null, "é"]}', "x", strict=True) == {"a": [1, 2.5, None, "é"]}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: &a [1]\nb: *a", "has an alias"),
        ("[" + 500_000 * "1," + "1]", r"has 1,000,003 characters, and at most 1,000,000 are read"),
        ("a: [" * 5000, "nested too deeply"),
        ("[" * 100_000, "nested too deeply|nesting depth"),  # libyaml has a limit of its own
        ("a: 2026-99-99", "not valid YAML"),
        ("!!python/object/apply:os.system [ls]", r"has the tag 'tag:yaml\.org,2002:python/obj"),
        ("a: !!int ''", r"has the tag 'tag:yaml\.org,2002:int', which is not read"),
        ("a: !!float ''", "has the tag"),
        ("a: !!bool maybe", "has the tag"),
        ("a: !!timestamp x", "has the tag"),
        ("a: ! x", "has the tag '!'"),
        ("!!map {a: 1}", "has the tag"),
        ("a: 0x_", "not valid YAML"),
        ("a: 2026-01-01T99:00:00", "not valid YAML"),
        ("a: =", "not valid YAML"),
        ("a: 1\na: 2", r"a key stands there twice(.|\n)*line 1"),
        ("a: {1: x, 0x1: y}", "a key stands there twice"),
        ("a: [", "not valid YAML"),
        ("a: \ud800", "not valid YAML"),
    ],
)
def test_yaml_that_is_refused(text, message):
    start = time.perf_counter()
    with pytest.raises(ConfigError, match=message):
        parse_yaml(text, "x")
    assert time.perf_counter() - start < 10


def test_yaml_values_are_those_of_pyyaml_but_for_base_60():
    yaml = pytest.importorskip("yaml")
    plain = """
        [1, -1, +3, 0, 017, 0b101, 0x1F, 1_000, 089, 1e-3, 1.5e-3, 1.e+2, .5, -.5, -2.25, 1_0.5,
        .inf, -.INF, .nan, yes, off, ~, null, text, "1", '0x1', 2026-01-02, -, 1., +.5, .e+1, 0_1]
    """
    assert str(parse_yaml(plain, "x")) == str(yaml.safe_load(plain))
    assert parse_yaml("[1:30, 1:30.5, -1:2:3]", "x") == ["1:30", "1:30.5", "-1:2:3"]
    assert parse_yaml("<<: {a: 1}", "x") == {"<<": {"a": 1}}


@pytest.mark.parametrize(
    "long",
    [
        lambda n: "a: " + "1:" * n + "1",
        lambda n: "a: " + "1:" * n + "1.5",
        lambda n: "a: 0x" + "f" * n,
        lambda n: "".join(f"a{i}: 1\n" for i in range(n // 4)),
    ],
    ids=["base 60", "base 60 fraction", "hexadecimal", "mapping"],
)
def test_the_time_of_yaml_grows_with_its_length(long):
    def seconds(size):
        text, start = long(size), time.process_time()
        parse_yaml(text, "x")
        return time.process_time() - start

    short, long_text = (min(seconds(size) for _ in range(2)) for size in (20_000, 80_000))
    assert long_text < max(1, 9 * short)  # four times the text; its square is sixteen times


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_text_is_read_as_editors_save_it(tmp_path, encoding):
    path = tmp_path / "a.txt"
    path.write_bytes("café\r\ncup\rcat\n".encode(encoding))
    assert read_text(path, "names") == "café\ncup\ncat\n"


def test_lists_have_comments_and_blank_lines(tmp_path):
    (tmp_path / "a.txt").write_text("# ours\n\n fire truck \r\nC# book\n")
    assert read_lines(tmp_path / "a.txt", "names") == ["fire truck", "C# book"]
    assert read_lines(tmp_path / "a.txt", "names", comments=False)[0] == "# ours"
    with pytest.raises(ConfigError, match=r"cannot read names \S+none\.txt: No such file"):
        read_lines(tmp_path / "none.txt", "names", ConfigError)


@pytest.mark.parametrize(
    "data",
    [b"caf\xe9", "cup".encode("utf-16-le"), "cup".encode("utf-32"), b"\xff\xfe\x00\xd8", b"\xff"],
)
def test_other_encodings_are_refused_with_the_remedy(data):
    with pytest.raises(
        BundleError, match=r"names a\.txt is no text in UTF-8 or .*save it as UTF-8"
    ):
        decode_text(data, "names a.txt", BundleError)


def npz(path, header=None, **arrays):
    if header is None:
        np.savez(path, **arrays)
        return path
    start = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.npy", start + header + bytes(48))
    return path


def test_arrays_are_read(tmp_path):
    found = read_npz(npz(tmp_path / "a.npz", a=np.arange(3), b=np.array(["x"])))
    assert found["a"].tolist() == [0, 1, 2]
    assert found["b"].tolist() == ["x"]


@pytest.mark.parametrize(
    ("kind", "shape"),
    [("<f4", "(4000000000, 4)"), ("<U1000000", "(9,)"), ("<f4", "(-3,)"), ("|O", "(1,)")],
)
def test_an_array_must_be_as_long_as_its_header_says(tmp_path, kind, shape):
    header = f"{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    with pytest.raises(DataError, match=r"a\.npz is not an npz file"):
        read_npz(npz(tmp_path / "a.npz", header))


@pytest.mark.parametrize("kind", ["<U0", "|S0", "|V0"])
def test_an_array_of_items_without_bytes_is_refused(tmp_path, kind):
    """433 bytes became 20 million names."""
    for shape in ("(20000000,)", "(0,)"):
        header = f"{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}, }}\n".encode()
        with pytest.raises(DataError, match="has items of type"):
            read_npz(npz(tmp_path / "a.npz", header))


def test_a_header_is_not_read_before_its_length_is_known(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.npz", "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        length = (60 << 20).to_bytes(4, "little")
        archive.writestr("a.npy", b"\x93NUMPY\x02\x00" + length + b" " * (60 << 20))
    tracemalloc.start()
    with pytest.raises(DataError, match="not an npz file"):
        read_npz(tmp_path / "a.npz")
    assert tracemalloc.get_traced_memory()[1] < 2 << 20
    tracemalloc.stop()


def test_what_many_arrays_unpack_to_is_counted_together(tmp_path):
    """A thousand entries of a zip can share their bytes."""
    np.savez_compressed(tmp_path / "a.npz", a=np.zeros(1 << 18, np.uint8))
    data = (tmp_path / "a.npz").read_bytes()
    with zipfile.ZipFile(tmp_path / "a.npz") as archive:
        entry = data[archive.start_dir : data.rindex(b"PK\x05\x06")]
    end = bytearray(data[data.rindex(b"PK\x05\x06") :])
    end[8:12] = (1000).to_bytes(2, "little") * 2
    end[12:16] = (1000 * len(entry)).to_bytes(4, "little")
    (tmp_path / "a.npz").write_bytes(data[: archive.start_dir] + entry * 1000 + end)
    with pytest.raises(DataError, match="would unpack to 262272000 bytes"):
        read_npz(tmp_path / "a.npz")


def test_objects_and_damage_are_refused(tmp_path):
    (tmp_path / "a.npz").write_bytes(b"PK\x03\x04")
    with pytest.raises(DataError, match="not an npz file"):
        read_npz(tmp_path / "a.npz")
    buffer = io.BytesIO()
    np.savez(buffer, a=np.array([print], object))
    (tmp_path / "a.npz").write_bytes(buffer.getvalue())
    with pytest.raises(DataError, match="not an npz file"):
        read_npz(tmp_path / "a.npz")


def test_a_file_that_cannot_be_read_or_written_is_named(tmp_path):
    (tmp_path / "a").write_bytes(b"1")
    assert read_file(tmp_path / "a", "text") == b"1"
    for name, says in (
        ("none", "No such file"),
        ("x" * 300, "File name too long"),
        ("a\0b", "a character that no file's name can hold"),
        ("\ud800", "a character that no file's name can hold"),
    ):
        with pytest.raises(BundleError, match=rf"cannot read text .*{says}"):
            read_file(tmp_path / name, "text", BundleError)
        if name != "none":
            for path in (tmp_path / name, tmp_path / name / "file"):
                with pytest.raises(ConfigError, match=rf"cannot write .*{says}"):
                    prepare_files(path)
    prepare_files(tmp_path / "new" / "file", tmp_path / "a", None)
    assert (tmp_path / "new").is_dir()
    with pytest.raises(ConfigError, match="it is a folder"):
        prepare_files(tmp_path / "new")
    (tmp_path / "circle").symlink_to("circle")
    with pytest.raises(ConfigError, match="Too many levels"):
        prepare_files(tmp_path / "circle")
    (tmp_path / "to be").symlink_to("new/made")
    prepare_files(tmp_path / "to be")


def test_a_value_is_shown_short():
    deep = []
    for _ in range(100_000):
        deep = [deep]
    assert shown("a") == "'a'"
    assert len(shown("x" * 10_000)) < 250
    assert "too large" in shown(deep)
    assert "too large" in shown(10**5000)
