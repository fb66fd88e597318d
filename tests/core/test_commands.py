"""Commands: what a person sees while waiting, and how every one of them ends."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from zsd_core.commands import Progress, Steps, command, new_parser
from zsd_core.errors import ConfigError, MissingPackageError

ROOT = Path(__file__).parents[2]
FILES = [
    path
    for package in ("zsd_core", "runtime", "export", "benchmarks")
    for path in sorted((ROOT / package).rglob("*.py"))
]
COMMANDS = [path for path in FILES if "\nif __name__ ==" in path.read_text()]


def ending(error: BaseException) -> int:
    """Exit status of a command in which ``error`` is raised."""

    @command
    def main(argv=None) -> int:
        raise error

    return main([])


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (ConfigError("size is 0, must be above 0."), 1, "error: size is 0, must be above 0.\n"),
        (OSError("no space left"), 1, "error: no space left\n"),
        (ConfigError("\x1b[31m.jpg"), 1, "error: \ufffd[31m.jpg\n"),
        (KeyboardInterrupt(), 130, "stopped\n"),
    ],
    ids=["ours", "system", "escape", "Ctrl-C"],
)
def test_a_command_ends_with_a_status_and_a_sentence(capsys, error, status, said):
    assert ending(error) == status
    assert capsys.readouterr() == ("", said)


def test_a_mistake_of_ours_keeps_its_traceback():
    with pytest.raises(ZeroDivisionError):
        ending(ZeroDivisionError())


def test_a_reader_that_has_seen_enough_ends_a_command_quietly():
    code = (
        "import sys; from zsd_core.commands import command\n"
        "sys.exit(command(lambda argv: print('line\\n' * 1_000_000) or 0)())"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout and process.stderr
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 1


def test_a_parser_shows_the_first_line_before_the_options_and_the_rest_after(capsys):
    with pytest.raises(SystemExit):
        new_parser("a.b", "Do it.\n\n    python -m a.b x\n").parse_args(["--help"])
    text = capsys.readouterr().out
    assert text.startswith("usage: python -m a.b")
    assert text.index("Do it.") < text.index("--help") < text.index("    python -m a.b x")


@pytest.mark.parametrize("path", COMMANDS, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_every_command_ends_like_this(path):
    assert "\n@command\ndef main(" in path.read_text()


def test_no_other_function_prints_the_sentence_of_an_error():
    assert len(COMMANDS) > 15
    found = [p.name for p in FILES if re.search(r"(print|say)\(f?.error: ", p.read_text())]
    assert found == ["commands.py"]


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


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the system has no /dev/full")
@pytest.mark.parametrize("closed", [False, True], ids=["full", "closed"])
def test_a_command_that_cannot_print_its_progress_goes_on(tmp_path, closed):
    code = (
        "import os, sys\nfrom zsd_core.commands import Steps, command\n"
        "from zsd_core.errors import ConfigError\n"
        "@command\ndef main(argv=None):\n"
        "    with Steps(1)('work'):\n        print('done')\n"
        "    if argv: raise ConfigError('no')\n    return 3\n"
        "sys.exit(main(sys.argv[1:]))"
    )

    def status(*arguments):
        with open("/dev/full", "w") as full:
            command = [sys.executable, "-c", code, *arguments]
            if closed:  # as a shell's 2>&-
                command = ["sh", "-c", 'exec "$@" 2>&-', "sh", *command]
            return subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=full)

    result = status()
    assert (result.returncode, result.stdout) == (3, b"done\n")
    assert status("fail").returncode == 1


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


def test_the_errors_of_a_parser_cannot_color_the_terminal(capsys):
    with pytest.raises(SystemExit):
        new_parser("package.module", "Summary.").parse_args(["\x1b[31m"])
    assert capsys.readouterr().err.endswith("unrecognized arguments: \ufffd[31m\n")


def test_a_step_cannot_color_the_terminal(capsys):
    with Steps(1)("read \x1b[31m.jpg"):
        pass
    assert "read \ufffd[31m.jpg" in capsys.readouterr().err
