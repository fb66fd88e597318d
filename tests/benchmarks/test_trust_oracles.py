"""The fuzzers see: a loader with a fault of each kind, put in on purpose, is caught."""

from __future__ import annotations

import dataclasses
import itertools
import json
import random
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest

from benchmarks.trust import attempts, wire
from benchmarks.trust.graphs import Network, network
from benchmarks.trust.mutate import mutated_json
from benchmarks.trust.parts import (
    annotations,
    bundles,
    cache,
    checkpoints,
    class_vectors,
    networks,
    places,
    scale,
)
from benchmarks.trust.small import helper


def said(attempt, count, first=0) -> Counter[str]:
    """What the fuzzer says of its inputs; None where they are refused or right."""
    found = (attempts.refusal(attempt, random.Random(f"0 {n}")) for n in range(first, count))
    return Counter(str(fault).partition(": ")[2] for fault in found if fault)


def test_json_is_changed_in_every_way_that_readers_stumble_over():
    good = {"list": [[1, 2], [3, 4]], "text": "abc", "number": 7}
    seen = {"element": False, "part": False, "text": False, "long": False, "thousands": False}
    for seed in range(6000):
        found = mutated_json(good, random.Random(seed))
        if isinstance(found, dict):
            values, number = found.get("list"), found.get("number")
            seen["element"] |= values in ([1, 2], [3, 4])
            seen["part"] |= found.get("text") in ([[1, 2], [3, 4]], 7)
            seen["text"] |= number == "7"
            seen["long"] |= isinstance(number, int) and abs(number) > 10**308
            seen["thousands"] |= isinstance(values, list) and len({*map(repr, values)}) > 999
    assert all(seen.values()), seen


def test_a_message_is_written_as_it_was_read_and_longer_numbers_are_the_same():
    import onnx

    good = helper("tiny").trunk_model().SerializeToString()
    assert wire.message(wire.read(good)) == good
    longer = wire.message(wire.read(good), padding=2)
    assert longer != good
    assert onnx.load_from_string(longer) == onnx.load_from_string(good)


def test_networks_of_every_kind_are_made_and_not_a_number_is_in_them():
    import onnx

    good = helper("tiny").trunk_model().SerializeToString()
    made = [network(good, random.Random(n)) for n in range(600)]
    assert {each.wanted for each in made} == {"refused", "equal", "near", "any"}
    kinds = {each.kind for each in made}
    assert {"NaN, floats", "NaN, a type twice", "an output of type 8", "many sizes"} <= kinds
    for each in made:
        if each.kind in ("NaN, floats", "NaN, raw twice", "NaN, packed sizes"):
            weights = onnx.load_from_string(each.data).graph.initializer
            assert any(np.isnan(onnx.numpy_helper.to_array(w)).any() for w in weights)


@pytest.mark.parametrize("part", [networks.networks, places.places])
def test_a_detector_that_takes_every_network_is_caught(tmp_path, monkeypatch, part):
    helper("tiny")
    module = networks if part is networks.networks else places
    found = SimpleNamespace(scores=np.float32([0.5]))
    monkeypatch.setattr(module, "run_bundle", lambda bundle, backend="": found)
    monkeypatch.setattr(module, "open_bundle", lambda path: None)
    assert any("taken" in fault for fault in said(part(tmp_path), 100))


def test_a_network_that_gives_other_numbers_is_caught():
    numbers = np.float32([0.5, 0.25])
    for wanted, found in (("equal", numbers + 1e-6), ("near", numbers * 2), ("near", numbers[:1])):
        with pytest.raises(attempts.WrongResultError, match="other numbers"):
            networks.judge(Network(b"", wanted, "x"), found, numbers)
    networks.judge(Network(b"", "near", "x"), numbers + 1e-6, numbers)


def test_weights_that_are_not_finite_and_taken_are_caught(tmp_path, monkeypatch):
    monkeypatch.setattr(bundles, "score_bundle", lambda *_, **__: None)
    monkeypatch.setattr(bundles, "open_bundle", lambda path: None)
    assert any("not finite" in fault for fault in said(bundles.tensors(tmp_path), 60))


def wrapped(monkeypatch, place, change):
    """Put a fault into a function: ``change`` gets the right one, and its arguments."""
    import importlib

    module, _, name = place.rpartition(".")
    right = getattr(importlib.import_module(module), name)
    monkeypatch.setattr(place, lambda *given, **options: change(right, *given, **options))


def test_vectors_in_another_order_are_caught(tmp_path, monkeypatch):
    def change(right, *given):
        found = right(*given)
        return dataclasses.replace(found, vectors=found.vectors[::-1])

    wrapped(monkeypatch, "zsd_core.learning.vectors.load_vectors", change)
    assert any("other vectors" in fault for fault in said(class_vectors.vectors(tmp_path), 100))


def test_a_crowd_that_is_none_is_caught(tmp_path, monkeypatch):
    def change(right, *given):
        found = right(*given)
        images = [dataclasses.replace(each, crowd=~each.crowd) for each in found.images]
        return dataclasses.replace(found, images=tuple(images))

    wrapped(monkeypatch, "zsd_core.learning.data.coco.read_coco", change)
    assert any("something else" in fault for fault in said(annotations.labels(tmp_path), 100))


def test_a_split_whose_names_are_made_text_and_a_cut_photograph_are_caught(tmp_path, monkeypatch):
    def text(right, path):
        return SimpleNamespace(seen=["dog", "more"], unseen=[])

    def grey(right, record):
        return np.zeros((80, 100, 3), np.uint8)

    wrapped(monkeypatch, "zsd_core.learning.data.splits.load_split", text)
    wrapped(monkeypatch, "zsd_core.learning.data.photographs.read_image", grey)
    assert any("another one" in fault for fault in said(annotations.splits(tmp_path), 60))
    assert any("cut" in fault for fault in said(annotations.photographs(tmp_path), 60))


def test_a_checkpoint_of_odd_tensors_that_is_taken_is_caught(tmp_path, monkeypatch):
    prepared = checkpoints.checkpoint(tmp_path)
    closure = dict(zip(prepared.__code__.co_freevars, prepared.__closure__, strict=True))
    taken = SimpleNamespace(vectors=np.zeros((3, 6)))
    closure["load_checkpoint"].cell_contents = lambda path: taken
    found = said(prepared, 40)
    assert any("vectors: " in fault for fault in found)


def test_a_cache_that_goes_by_the_name_alone_is_caught(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    known = {}

    def change(right, path):
        return known.setdefault(path, right(path)) if path not in known else known[path]

    wrapped(monkeypatch, "benchmarks.trust.parts.cache.open_bundle", change)
    assert any("in place of" in fault for fault in said(cache.cache(tmp_path), 4))


@pytest.fixture
def freed_memory():
    """Leave 600 MB of freed memory in the heap, as a long run of tests does."""
    blocks = [bytearray(20 << 20) for _ in range(33)]  # first each is mapped alone, then the
    del blocks  # threshold of glibc's malloc has grown, and they are cut from the heap
    blocks = [bytearray(20 << 20) for _ in range(33)]
    above = [bytearray(100) for _ in range(100_000)]  # so that the heap cannot shrink
    del blocks
    yield
    del above


def test_time_and_memory_out_of_proportion_are_caught(freed_memory):
    def squares(size):
        return lambda: sum(1 for _ in itertools.product(range(size), repeat=2))

    def large(size):
        return lambda: bytearray(size * 1000)[::4096].count(0)

    def good(size):
        return lambda: sum(range(size * 1000))

    scale.climb(good, 800, lambda: 10_000)
    with pytest.raises(attempts.WrongResultError, match="not in proportion"):
        scale.climb(squares, 800, lambda: 10_000)
    with pytest.raises(attempts.WrongResultError, match="of memory"):
        scale.climb(large, 100_000, lambda: 100_000)


def test_an_input_that_takes_too_long_or_too_much_is_a_fault(freed_memory, monkeypatch, tmp_path):
    cost = attempts.Cost()
    cost.begin(exact=True)
    assert cost.fault() is None
    bytearray(500_000_000)[::4096] = b"x" * len(range(0, 500_000_000, 4096))
    assert "MB of memory" in cost.fault() and "MB of memory" in cost.fault(tmp_path)
    (tmp_path / "inner").mkdir()
    with (tmp_path / "inner" / "large.json").open("wb") as file:
        file.truncate(50_000_000)  # of which ten times its size are no fault
    assert cost.fault(tmp_path) is None
    monkeypatch.setattr(attempts, "SLOW", 0.0)
    cost.begin()
    sum(range(100_000))
    assert "of the processor" in cost.fault()


def test_coco_read_strictly_takes_the_good_one(tmp_path):
    from zsd_core.learning.data.coco import read_coco

    (tmp_path / "a.jpg").touch()
    (tmp_path / "a.json").write_text(json.dumps(annotations.COCO))
    annotations.check_coco(annotations.COCO, read_coco(tmp_path / "a.json", tmp_path))
