"""The public package: lazy names, the check for intruders, and one entry point for all commands."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import contrastzsd
import runtime
from contrastzsd import cli

ROOT = Path(__file__).resolve().parents[2]


def python(*arguments: str, path: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run Python with ``path`` before this project in its path, from a neutral folder."""
    places = os.pathsep.join(str(p) for p in (path, ROOT) if p)
    return subprocess.run(
        [sys.executable, "-W", "error", *arguments],
        cwd=path or ROOT,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": places},
    )


def test_the_public_names_are_those_of_runtime():
    for name in runtime.__all__:
        assert getattr(contrastzsd, name) is getattr(runtime, name)
    assert set(runtime.__all__) <= set(dir(contrastzsd))
    scope: dict[str, object] = {}
    exec("from contrastzsd import *", scope)
    assert set(runtime.__all__) <= set(scope)


def test_an_unknown_name_is_answered_with_those_there_are():
    with pytest.raises(AttributeError, match=r"no attribute 'Detecter', only .*Detector"):
        _ = contrastzsd.Detecter


def test_importing_it_loads_nothing_and_runtime_comes_with_the_first_name():
    result = python(
        "-c",
        "import sys, contrastzsd; assert 'numpy' not in sys.modules; contrastzsd.Detector; "
        "print(*sorted({'cv2', 'onnxruntime', 'openvino', 'torch', 'numpy'} & set(sys.modules)))",
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.split() == ["numpy"]


def test_importing_runtime_takes_less_than_half_a_second():
    """Measured in processor time, since other programs run on this machine too."""
    code = "import time; t = time.process_time(); import runtime; print(time.process_time() - t)"
    assert min(float(python("-c", code).stdout) for _ in range(3)) < 0.5


@pytest.mark.parametrize("name", ["runtime", "zsd_core"])
@pytest.mark.parametrize("kind", ["package", "module"])
def test_an_intruder_is_named_with_the_cure(tmp_path, name, kind):
    place = tmp_path / (name if kind == "package" else f"{name}.py")
    if kind == "package":
        place.mkdir()
        (place / "__init__.py").touch()
    else:
        place.touch()
    result = python("-c", "from contrastzsd import Detector", path=tmp_path)
    last = result.stderr.strip().splitlines()[-1]
    assert result.returncode == 1
    assert last.startswith(f"ImportError: contrastzsd: Python finds {place} under the name")
    assert f"hides the package at {ROOT / name}" in last
    assert f"Rename {place}, or take {tmp_path} out of Python's path" in last


def test_an_intruder_that_is_imported_already_is_noticed(tmp_path):
    (tmp_path / "runtime.py").touch()
    code = "import runtime; from contrastzsd import Detector"
    result = python("-c", code, path=tmp_path)
    assert f"Python finds {tmp_path / 'runtime.py'} under" in result.stderr


def test_export_is_checked_when_a_command_needs_it(tmp_path):
    (tmp_path / "export").mkdir()
    (tmp_path / "export" / "__init__.py").touch()
    result = python("-m", "contrastzsd", "verify", "--help", path=tmp_path)
    assert result.returncode == 1
    assert f"Python finds {tmp_path / 'export'} under the name 'export'" in result.stderr
    assert python("-m", "contrastzsd", "detect", "--help", path=tmp_path).returncode == 0


def test_a_folder_without_code_hides_nothing(tmp_path):
    (tmp_path / "runtime").mkdir()  # Python takes a real package before a bare folder
    assert python("-c", "from contrastzsd import Detector", path=tmp_path).returncode == 0


def test_the_command_alone_lists_all_with_a_line_each(capsys):
    assert cli.main([]) == 0
    listing = capsys.readouterr().out
    for name, command in cli.COMMANDS.items():
        assert f"  {name} " in listing and command.line in listing
    assert max(map(len, listing.splitlines())) <= 80


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_every_command_of_the_table_is_a_module_with_a_main(name):
    spec = importlib.util.find_spec(cli._runnable(cli.COMMANDS[name].module))
    assert spec is not None and spec.origin is not None
    source = Path(spec.origin).read_text(encoding="utf-8")
    assert "def main(" in source or "import main" in source


def test_a_command_gets_its_arguments_and_gives_its_status(monkeypatch):
    module, given = importlib.import_module("runtime.detect"), []
    monkeypatch.setattr(module, "main", lambda argv: given.append(argv) or 3)
    assert cli.main(["detect", "photo.jpg", "--classes", "cat"]) == 3
    assert given == [["photo.jpg", "--classes", "cat"]]


PAGES = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_options_shown_with_a_command_are_options_it_has(name):
    """``--x`` behind ``contrastzsd NAME`` in a page appears in the help of that command."""
    shown = set()
    for page in PAGES:
        text = page.read_text(encoding="utf-8").replace("\\\n", " ")
        for rest in re.findall(rf"contrastzsd {name} ([^`\n#]*)", text):
            shown |= set(re.findall(r"(?<!\S)--[a-z][\w-]*", rest))
    if shown:
        result = python("-m", "contrastzsd", name, "--help")
        assert result.returncode == 0, result.stderr
        assert shown <= set(re.findall(r"--[a-z][\w-]*", result.stdout))


def test_commands_named_in_pages_exist():
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        named = set(re.findall(r"^(?:sudo )?contrastzsd ([a-z]+)", text, re.MULTILINE))
        assert named <= set(cli.COMMANDS), page.name


def test_a_misspelt_command_gets_the_nearest(capsys):
    assert cli.main(["detekt"]) == 1
    assert "no command 'detekt'; did you mean 'detect'?" in capsys.readouterr().err


def test_a_missing_package_is_named_with_its_extra(monkeypatch, capsys):
    def absent(name):
        raise ModuleNotFoundError("No module named 'torch'", name="torch")

    monkeypatch.setattr(cli.importlib, "import_module", absent)
    monkeypatch.setattr(cli, "own_package", lambda name: None)
    assert cli.main(["train"]) == 1
    message = capsys.readouterr().err
    assert "error: contrastzsd train: No module named 'torch'. Install it: " in message
    assert "pip install 'contrastzsd[train]'" in message
