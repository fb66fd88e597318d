"""Estimates for other computers: counted work over published rates, and said to be estimates."""

from __future__ import annotations

import json

import pytest

from benchmarks import expect
from benchmarks.speed.rows import Bar, Row


def test_half_the_rate_takes_twice_the_time():
    gflop, medians = {"trunk": 1.0, "head": 1.0}, {"80 classes": 10.0, "81 classes": 20.0}
    rows = expect.estimates(gflop, medians, 200.0)  # half of the highest rate was reached
    for row in rows:
        assert row["share"] == {"80 classes": 0.5, "one more": 0.5}
        assert row["80 classes"] == pytest.approx(1e3 / (0.5 * row["computer"].gflops))
        assert row["one more"] == pytest.approx(2 * row["80 classes"])
    assert expect.COMPUTERS[0].gflops == pytest.approx(4 * 2.4 * 16)


def test_the_command_fills_its_slot_and_says_that_it_estimates(tmp_path, monkeypatch, capsys):
    bar = Bar(what="x", asked=1, at_most=True)
    medians = {"80 classes": 10.0, "81 classes": 20.0}
    rows = tmp_path / "speed.json"
    rows.write_text(json.dumps([Row(bar=bar, measured=1.0, medians=medians).as_json("g", "c")]))
    page = tmp_path / "page.md"
    page.write_text("<!-- numbers: expect -->\n<!-- /numbers -->\n")
    monkeypatch.setattr(expect, "operations", lambda: {"trunk": 1.0, "head": 1.0})
    assert expect.main(["--peak", "200", "--speed", str(rows), "--markdown", str(page)]) == 0
    assert "*estimate*" in page.read_text()
    assert "| Raspberry Pi 5 |" in capsys.readouterr().out


def test_what_was_not_measured_is_named(tmp_path, capsys):
    assert expect.main(["--peak", "200", "--speed", str(tmp_path / "none.json")]) == 1
    assert "--only classes --json" in capsys.readouterr().err


def test_operations_of_the_shipped_networks_are_counted():
    pytest.importorskip("onnx")
    found = expect.operations()
    assert 1 < found["trunk"] < 3
    assert 1 < found["head"] < 3
