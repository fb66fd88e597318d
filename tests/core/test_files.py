"""Text and arrays that a stranger wrote are refused before they take time or memory."""

from __future__ import annotations

import io
import time
import zipfile

import numpy as np
import pytest

from zsd_core.errors import BundleError, ConfigError, DataError
from zsd_core.files import parse_json, parse_yaml, read_npz, shown


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
        ("a: [" * 5000, "nested too deeply"),
        ("[" * 100_000, "nested too deeply|nesting depth"),  # libyaml has a limit of its own
        ("a: 2026-99-99", "not valid YAML"),
        ("!!python/object/apply:os.system [ls]", "not valid YAML"),
        ("a: [", "not valid YAML"),
        ("a: \ud800", "not valid YAML"),
    ],
)
def test_yaml_that_is_refused(text, message):
    start = time.perf_counter()
    with pytest.raises(ConfigError, match=message):
        parse_yaml(text, "x")
    assert time.perf_counter() - start < 10


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


def test_objects_and_damage_are_refused(tmp_path):
    (tmp_path / "a.npz").write_bytes(b"PK\x03\x04")
    with pytest.raises(DataError, match="not an npz file"):
        read_npz(tmp_path / "a.npz")
    buffer = io.BytesIO()
    np.savez(buffer, a=np.array([print], object))
    (tmp_path / "a.npz").write_bytes(buffer.getvalue())
    with pytest.raises(DataError, match="not an npz file"):
        read_npz(tmp_path / "a.npz")


def test_a_value_is_shown_short():
    deep = []
    for _ in range(100_000):
        deep = [deep]
    assert shown("a") == "'a'"
    assert len(shown("x" * 10_000)) < 250
    assert "too large" in shown(deep)
    assert "too large" in shown(10**5000)
