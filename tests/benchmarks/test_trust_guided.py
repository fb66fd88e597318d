"""Loaders for a fuzzer guided by coverage: they load, and faults are found again."""

from __future__ import annotations

import importlib.util
import json
import sys

import pytest

from benchmarks.trust import corpora, guided, loads


def test_the_command_names_every_loader():
    assert sorted(guided.LOADERS) == sorted(loads.LOADS)


@pytest.mark.parametrize("name", guided.LOADERS)
def test_inputs_to_start_from_and_damaged_ones_are_no_faults(tmp_path, name):
    load, seeds = loads.LOADS[name](tmp_path)
    for seed in seeds:
        assert guided.take(load, seed) is None
        for damaged in (b"", seed[: len(seed) // 2], seed[:1] + b"\xff" + seed[2:]):
            assert guided.take(load, damaged) is None


@pytest.mark.parametrize("name", guided.LOADERS)
def test_inputs_that_reached_new_code_once_are_no_faults(tmp_path, name):
    load, _ = loads.LOADS[name](tmp_path)
    kept = corpora.read_corpus(name)
    assert kept
    assert {file: fault for file in kept if (fault := guided.take(load, kept[file]))} == {}


def test_the_same_inputs_are_kept_as_the_same_bytes(tmp_path):
    inputs, folders = tmp_path / "inputs", [tmp_path / "a", tmp_path / "b"]
    (inputs / "folder").mkdir(parents=True)
    for name, data in (("two", b"\x00"), ("one", b"")):
        (inputs / name).write_bytes(data)
    for folder in folders:
        assert corpora.write_corpus("coco", inputs, folder) == 2
        assert corpora.read_corpus("coco", folder) == {"one": b"", "two": b"\x00"}
    assert (folders[0] / "coco.zip").read_bytes() == (folders[1] / "coco.zip").read_bytes()
    assert corpora.read_corpus("coco", tmp_path) == {}


def test_a_table_of_all_runs_since_the_last_fault(tmp_path, monkeypatch, capsys):
    runs = iter([(5, False), (7, False), (9, True), (2, False)])
    monkeypatch.setattr(guided, "_fuzz", lambda *given: next(runs))
    rows, page = tmp_path / "rows.json", tmp_path / "page.md"
    page.write_text("<!-- numbers: guided -->\n<!-- /numbers -->\n")
    asked = ["coco", "--corpus", str(tmp_path / "corpus"), "--json", str(rows)]
    asked += ["--markdown", str(page)]
    found = []
    for status in (0, 0, 1, 0):
        assert guided.main(asked) == status
        row = json.loads(rows.read_text())[0]
        found.append((row["inputs"], row["lost"]))
    assert found == [(5, 0), (12, 0), (21, 1), (2, 0)]
    assert "| `coco` | 2 | 0.0 s |" in page.read_text()


def test_a_file_is_tried_again(tmp_path, monkeypatch, capsys):
    def broken(folder):
        return lambda data: {b"x": 1}[data], [b"x"]

    monkeypatch.setitem(loads.LOADS, "coco", broken)
    for name, data, status in (("good", b"x", 0), ("bad", b"y", 1)):
        (tmp_path / name).write_bytes(data)
        assert guided.main(["coco", "--again", str(tmp_path / name)]) == status
    assert "KeyError" in capsys.readouterr().err
    assert guided.main(["coco", "--again", str(tmp_path / "none")]) == 1
    assert "cannot be read" in capsys.readouterr().err


def test_atheris_is_named_where_it_is_missing(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "atheris", None)
    assert guided.main(["coco", "--corpus", str(tmp_path / "corpus")]) == 1
    assert "pip install atheris" in capsys.readouterr().err


@pytest.mark.skipif(not importlib.util.find_spec("atheris"), reason="pip install atheris")
@pytest.mark.parametrize("fault", [False, True])
def test_atheris_fuzzes_for_a_second(tmp_path, monkeypatch, fault):
    def prepare(folder):
        def load(data):
            if fault and data:
                raise KeyError(data)

        return load, [b"good"]

    monkeypatch.setitem(loads.LOADS, "coco", prepare)
    asked = ["coco", "--seconds", "1", "--corpus", str(tmp_path / "corpus")]
    assert guided.main(asked) == int(fault)
    assert bool([*tmp_path.glob("crash-*")]) == fault
