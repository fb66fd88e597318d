"""Compiling engines for a user without a home: help is shown, and the cure is said."""

from __future__ import annotations

import pytest
from hostile import leave_home

from export import engine


@pytest.fixture(autouse=True)
def homeless(monkeypatch):
    leave_home(monkeypatch)


def test_help_needs_no_home(capsys):
    with pytest.raises(SystemExit) as ended:
        engine.parse(["--help"])
    assert ended.value.code == 0 and "--cache DIR" in capsys.readouterr().out


def test_no_place_for_builds_is_said_before_anything_is_done(tmp_path, capsys):
    assert engine.main([str(tmp_path / "nothing")]) == 1
    said = capsys.readouterr().err
    assert "has no home" in said and "name a folder with --cache" in said
    for options in (["--no-cache"], ["--cache", str(tmp_path)]):
        assert engine.main([str(tmp_path / "nothing"), *options]) == 1
        assert "no such bundle" in capsys.readouterr().err
