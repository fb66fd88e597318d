"""What the command line and the environment make of the doors."""

from __future__ import annotations

import os
import re

import pytest

from runtime.serve.__main__ import configured, parse
from zsd_core.errors import ConfigError

TOKEN = "a-token-of-twenty-characters"


@pytest.mark.parametrize(
    ("arguments", "token", "words"),
    [
        ([], "", "CONTRASTZSD_TOKEN is blank, so anybody would be let in"),
        ([], " " * 20, "CONTRASTZSD_TOKEN is blank"),
        ([], "short", "16 printable"),
        (["--token-file", os.devnull], None, f"--token-file {os.devnull} is blank"),
        (["--token-file", os.devnull], TOKEN, f"--token-file {os.devnull} is blank"),
        (["--token-file", __file__], TOKEN, "hold different tokens; leave one out"),
        (["--host", ""], None, "--host is blank, which would listen on every address"),
        (["--allow-host", ""], None, "'' is no name or address"),
    ],
)
def test_a_protection_that_is_blank_is_no_open_door(monkeypatch, arguments, token, words):
    monkeypatch.delenv("CONTRASTZSD_TOKEN", raising=False)
    if token is not None:
        monkeypatch.setenv("CONTRASTZSD_TOKEN", token)
    with pytest.raises(ConfigError, match=re.escape(words)):
        configured(parse(arguments))


def test_the_token_is_read_as_any_editor_saves_it(monkeypatch, tmp_path):
    monkeypatch.delenv("CONTRASTZSD_TOKEN", raising=False)
    for encoding in ("utf-8", "utf-8-sig", "utf-16"):
        (tmp_path / "token").write_text(f"{TOKEN}\r\n", encoding=encoding)
        assert configured(parse(["--token-file", str(tmp_path / "token")])).token == TOKEN


@pytest.mark.parametrize(
    ("host", "any_name"),
    [
        ("127.0.0.1", False),
        ("127.0.0.2", False),
        ("LocalHost", False),
        ("0:0:0:0:0:0:0:1", False),
        ("127.1", False),
        ("::ffff:127.0.0.1", False),
        ("nowhere.invalid", True),
        ("::", True),
        ("0.0.0.0", True),
        ("192.0.2.1", True),
    ],
)
def test_every_address_of_the_loopback_takes_its_names_only(monkeypatch, host, any_name):
    monkeypatch.delenv("CONTRASTZSD_TOKEN", raising=False)
    assert (configured(parse(["--host", host])).hosts == ()) is any_name
