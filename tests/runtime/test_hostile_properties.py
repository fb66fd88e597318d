"""Properties of the loaders for any input at all, as hypothesis makes it; the same in every run."""

from __future__ import annotations

import argparse
import json
from pathlib import Path, PureWindowsPath

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some

from runtime.archive import safe_name, safe_names
from runtime.arguments import parse_classes
from runtime.onnx_file import check_network
from zsd_core.errors import BundleError, ConfigError, DataError
from zsd_core.files import LONGEST, parse_json, parse_yaml, read_npz, shown
from zsd_core.semantics import fold_name

any_input = settings(
    max_examples=150,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
PLAIN = some.recursive(
    some.none() | some.booleans() | some.integers() | some.floats(allow_nan=False) | some.text(),
    lambda inner: some.lists(inner, max_size=4) | some.dictionaries(some.text(), inner, max_size=4),
    max_leaves=20,
)
# Text that looks like what is read: brackets, quotes, keys and numbers.
PIECES = some.lists(
    some.sampled_from([*'[]{}:,"\\-&*!?#\n \t|>%@0159eE.', "null", "true", "NaN", "\ud800"])
    | some.text(max_size=3),
    max_size=40,
).map("".join)


@any_input
@given(PLAIN)
def test_json_of_plain_values_is_read_as_it_was_or_refused(value):
    try:
        found = parse_json(json.dumps(value), "x", BundleError, strict=True)
    except BundleError as error:
        assert str(error).startswith("x is not JSON")
    else:
        assert found == value


@any_input
@given(PIECES)
def test_any_text_is_json_and_yaml_or_an_error_of_ours(text):
    for read, kind in ((parse_json, BundleError), (parse_yaml, ConfigError)):
        try:
            read(text, "x", kind)
        except kind as error:
            assert "x" in str(error)


@any_input
@given(some.text(max_size=40) | PIECES | some.lists(some.sampled_from("a./\\ :~"), max_size=9))
def test_a_name_that_is_taken_stays_inside_on_every_system(name):
    name = "".join(name)
    try:
        safe_name(Path("b"), name)
    except BundleError:
        return
    assert (Path("/b") / name).resolve().is_relative_to("/b")
    windows = PureWindowsPath("C:/b") / name
    assert windows.is_relative_to("C:/b") and ".." not in windows.parts
    assert name.isascii() and str(Path(name)) == name


@any_input
@given(some.lists(some.sampled_from(["a", "A", "b", "a/b", "A/b", "a/B"]), unique=True))
def test_names_that_are_one_file_somewhere_are_refused(names):
    if len({name.lower() for name in names}) == len(names):
        safe_names(Path("b"), names)
    else:
        with pytest.raises(BundleError, match="one file on many systems"):
            safe_names(Path("b"), names)


@any_input
@given(some.binary(max_size=60))
def test_any_bytes_are_a_network_and_arrays_or_an_error_of_ours(tmp_path, data):
    path = tmp_path / "x.onnx"
    path.write_bytes(data)
    try:
        check_network(tmp_path, "x.onnx", path, {"x.onnx": {"bytes": len(data)}}, tmp_path.joinpath)
    except BundleError as error:
        assert "x.onnx" in str(error)
    with pytest.raises(DataError, match="not an npz file"):
        read_npz(path)


@any_input
@given(some.binary(max_size=40) | some.text(max_size=40).map(lambda text: text.encode("utf-16")))
def test_any_file_is_class_names_or_a_sentence(tmp_path, data):
    (tmp_path / "classes.txt").write_bytes(data)
    try:
        names = parse_classes(f"@{tmp_path}/classes.txt")
    except (argparse.ArgumentTypeError, ConfigError) as error:
        assert str(error)
    else:
        assert names and all(isinstance(name, str) for name in names)


@any_input
@given(some.text(some.characters(codec="latin-1"), max_size=20))
def test_folding_a_folded_name_changes_nothing(text):
    """Not of every text: a letter of two that folding makes may take up an accent that follows."""
    folded = fold_name(text)
    assert fold_name(folded) == folded
    assert folded == folded.strip()


@any_input
@given(PLAIN | some.text(min_size=300, max_size=400) | some.integers(min_value=10**30))
def test_a_value_in_a_message_is_short(value):
    assert len(shown(value)) <= LONGEST + 3
    assert isinstance(shown(np.zeros(999)), str)
