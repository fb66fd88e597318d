"""What a person sees while waiting."""

from __future__ import annotations

import re
import sys

import pytest

from zsd_core.errors import MissingPackageError
from zsd_core.progress import Progress, Steps


def test_steps_are_numbered_and_timed_on_stderr(capsys):
    steps = Steps(2)
    with steps("load"):
        pass
    with pytest.raises(ValueError, match="no"), steps("compare"):
        raise ValueError("no")
    out, err = capsys.readouterr()
    assert out == ""
    lines = err.splitlines()
    assert re.fullmatch(r"\[1/2\] load \.\.\. \d+\.\d s", lines[0])
    assert lines[1] == "[2/2] compare ... failed"


def test_progress_counts_and_notes_on_stderr(capsys):
    with Progress("work", 3, done=1) as progress:
        progress.advance(values={"loss": "0.5"})
        progress.note("half way")
        progress.advance()
    out, err = capsys.readouterr()
    assert out == ""
    assert "half way" in err
    assert "3/3" in err


def test_a_bar_does_not_ask_for_torch(monkeypatch):
    monkeypatch.setitem(sys.modules, "tqdm", None)
    with pytest.raises(MissingPackageError, match=r"pip install 'contrastzsd\[report\]'"):
        Progress("work", 1)
