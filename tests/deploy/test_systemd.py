"""The systemd unit, checked by systemd itself where it is; no service manager has run it here."""

from __future__ import annotations

import configparser
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
UNIT = ROOT / "deploy" / "systemd" / "contrastzsd.service"
TOOL = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed"
)


def value(name: str) -> str:
    parser = configparser.ConfigParser(strict=False, interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read_string(UNIT.read_text("utf-8"))
    return parser["Service"][name]


@pytest.fixture
def here(tmp_path):
    """The unit with a program that exists on this machine."""
    unit = tmp_path / UNIT.name
    program = value("ExecStart").split()[0]
    unit.write_text(UNIT.read_text("utf-8").replace(program, sys.executable))
    return unit


@TOOL
def test_systemd_finds_nothing_wrong(here):
    said = subprocess.run(["systemd-analyze", "verify", here], capture_output=True, text=True)
    assert (said.returncode, said.stderr) == (0, "")


@TOOL
def test_little_is_left_open(here):
    """Systemd rates what a unit may do from 0 to 10; 9.6 is a unit that says nothing."""
    said = subprocess.run(
        ["systemd-analyze", "security", "--offline=yes", here], capture_output=True, text=True
    )
    level = re.search(r"Overall exposure level for \S+: ([\d.]+)", said.stdout)
    if level is None:
        pytest.skip("this systemd-analyze cannot rate a file")
    assert float(level[1]) <= 2.5


def test_it_starts_the_service_as_the_notify_module_expects():
    from contrastzsd.cli import COMMANDS

    program, command, *arguments = value("ExecStart").split()
    assert Path(program).name == "contrastzsd" and command in COMMANDS
    assert arguments[0] == "--token-file"
    assert value("Type") == "notify"
    assert int(value("WatchdogSec")) >= 10
