"""Loaders for a fuzzer guided by coverage: they load, and faults are found again."""

from __future__ import annotations

import importlib.util
import sys

import pytest

from benchmarks.trust import guided, loads


def test_the_command_names_every_loader():
    assert sorted(guided.LOADERS) == sorted(loads.LOADS)


@pytest.mark.parametrize("name", guided.LOADERS)
def test_inputs_to_start_from_and_damaged_ones_are_no_faults(tmp_path, name):
    load, seeds = loads.LOADS[name](tmp_path)
    for seed in seeds:
        assert guided.take(load, seed) is None
        for damaged in (b"", seed[: len(seed) // 2], seed[:1] + b"\xff" + seed[2:]):
            assert guided.take(load, damaged) is None


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
