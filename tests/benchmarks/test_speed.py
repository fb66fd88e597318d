"""The table of speeds: verdicts, files, slots; and a group or two for real, briefly."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.speed import __main__ as speed
from benchmarks.speed.rows import Bar, Group, Row, Settings, in_turns, read_rows, readme_row, table

ROOT = Path(__file__).parents[2]
BARS = [
    Bar(what="fast enough", asked=1.3, at_most=True),
    Bar(what="small enough", asked=200, at_most=True, unit="MB"),
    Bar(what="not there", asked=0.95, at_most=False, unit="share"),
]


def rows(values=(1.2, 250, None)):
    return [
        Row(bar=bar, measured=value, medians={"a": 1.0}, note="" if value else "no such thing")
        for bar, value in zip(BARS, values, strict=True)
    ]


@pytest.fixture
def calls(monkeypatch):
    """The groups are two made-up ones; returns the names of those that ran."""
    ran = []

    def group(name):
        def run(bars, settings):
            assert settings.threads == 1
            ran.append(name)
            return rows()

        return Group(name=name, bars=BARS, run=run)

    monkeypatch.setattr(speed, "GROUPS", {name: group(name) for name in ("one", "two")})
    return ran


def test_every_bar_is_met_missed_or_not_measured():
    found = [row.as_json("g", "here") for row in rows()]
    assert [row["met"] for row in found] == [True, False, None]
    assert rows((1.2, 250, 0.96))[2].as_json("g", "here")["met"] is True
    printed = table(found)
    assert (
        "| fast enough | ≤ 1.3 \N{MULTIPLICATION SIGN} | 1.2 \N{MULTIPLICATION SIGN} | met |"
        in printed
    )
    assert "| small enough | ≤ 200 MB | 250 MB | missed |" in printed
    assert "| not there (1) | ≥ 95 % |  | not measured |" in printed
    assert "(1) no such thing" in printed


def test_a_group_that_is_in_the_file_is_not_measured_again(calls, tmp_path, capsys):
    path, page = tmp_path / "rows.json", tmp_path / "page.md"
    page.write_text("<!-- numbers: speed -->\n<!-- /numbers -->\n")
    words = ["--threads", "1", "--json", str(path)]
    assert speed.main([*words, "--only", "two"]) == 0
    assert speed.main([*words, "--markdown", str(page)]) == 0
    assert calls == ["two", "one"]
    assert [row["group"] for row in read_rows(path)] == ["one"] * 3 + ["two"] * 3
    assert page.read_text().count("| fast enough |") == 2
    assert speed.main([*words, "--only", "two", "--again"]) == 0
    assert calls == ["two", "one", "two"]
    assert "missed" in capsys.readouterr().out


def test_what_was_measured_before_an_error_is_kept(calls, tmp_path, monkeypatch, capsys):
    def fail(bars, settings):
        raise OSError("the disk is full")

    monkeypatch.setitem(speed.GROUPS, "two", Group(name="two", bars=BARS, run=fail))
    path = tmp_path / "rows.json"
    assert speed.main(["--threads", "1", "--json", str(path)]) == 1
    assert {row["group"] for row in read_rows(path)} == {"one"}
    assert "the disk is full" in capsys.readouterr().err


def test_errors_are_sentences(tmp_path, capsys):
    path = tmp_path / "rows.json"
    path.write_text('[{"a": 1}]')
    assert speed.main(["--json", str(path)]) == 1
    assert "holds no rows of benchmarks.speed" in capsys.readouterr().err
    for words, message in (
        (["--rounds", "2"], "at least 3"),
        (["--images", "x"], "belong together"),
    ):
        with pytest.raises(SystemExit):
            speed.parse(words)
        assert message in capsys.readouterr().err


def test_in_turns_times_the_second_of_two_calls():
    called = []
    found = in_turns({"a": lambda: called.append("a"), "b": lambda: called.append("b")}, 2)
    assert set(found) == {"a", "b"}
    assert called == ["a", "a", "b", "b"] * 5  # three rounds warm up


def test_the_shipped_int8_network_is_measured():
    group = speed.GROUPS["int8"]
    faster, many = group.run(group.bars, Settings(threads=1, rounds=1))
    assert set(many.medians) == {"80 classes, int8", "float32", "int8"}
    assert faster.measured > 0 and many.measured > 0


def test_the_shipped_model_is_measured_beside_its_trunk():
    group = speed.GROUPS["classes"]
    over_trunk, many = group.run(group.bars, Settings(threads=1, rounds=1))
    assert set(many.medians) == {"trunk", "80 classes", "81 classes", "1,203 classes"}
    assert over_trunk.measured > 0 and many.measured > 0


def test_the_line_of_the_readme_is_that_of_the_measurements():
    measured = json.loads((ROOT / "docs/measurements/speed.json").read_text(encoding="utf-8"))
    assert readme_row(measured) in (ROOT / "README.md").read_text(encoding="utf-8").splitlines()


def test_the_table_of_the_page_is_that_of_the_measurements():
    measured = json.loads((ROOT / "docs/measurements/speed.json").read_text(encoding="utf-8"))
    page = (ROOT / "docs/benchmarks.md").read_text(encoding="utf-8")
    assert f"<!-- numbers: speed -->\n{table(measured)}\n<!-- /numbers -->" in page
    assert {row["group"] for row in measured} == set(speed.GROUPS)
