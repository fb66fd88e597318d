"""Class names and thresholds of a command line."""

import argparse

import pytest

from runtime.arguments import Parser, parse_classes, parse_threshold

FILE = """# our classes
cat
 fire truck   # with a blank

"salt, pepper"
'mother-in-law'  # in quotes
rock'n'roll
C# book
"""
NAMES = ["cat", "fire truck", "salt, pepper", "mother-in-law", "rock'n'roll", "C# book"]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le"])
def test_a_file_of_classes_may_have_comments_quotes_and_either_encoding(tmp_path, encoding):
    file = tmp_path / "classes.txt"
    mark = b"\xff\xfe" if encoding == "utf-16-le" else b""
    file.write_bytes(mark + FILE.replace("\n", "\r\n").encode(encoding))
    assert parse_classes(f"@{file}") == NAMES


def test_a_file_of_another_encoding_is_refused(tmp_path):
    file = tmp_path / "classes.txt"
    file.write_bytes("Käse\n".encode("latin-1"))
    with pytest.raises(
        argparse.ArgumentTypeError,
        match=r"class names \S+classes\.txt is no text in UTF-8 or UTF-16",
    ):
        parse_classes(f"@{file}")
    with pytest.raises(argparse.ArgumentTypeError, match=r"class names none\.txt: No such file"):
        parse_classes("@none.txt")


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("cat, fire truck,cup\n", ["cat", "fire truck", "cup"]),
        ("# ours\n\ncat,dog", ["cat", "dog"]),
        ("'salt, pepper'\n", ["salt, pepper"]),
        ("cat  # not a dog, not a cup\n", ["cat"]),
        ("tench, Tinca tinca\ngoldfish\n", ["tench, Tinca tinca", "goldfish"]),
    ],
)
def test_a_file_of_a_single_line_is_read_as_the_command_line_is(tmp_path, text, names):
    (tmp_path / "classes.txt").write_text(text)
    assert parse_classes(f"@{tmp_path / 'classes.txt'}") == names


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("data.yaml", "nc: 2\nnames: [cat, dog]\n"),
        ("classes.JSON", "cat\n"),
        ("classes.txt", '["cat", "dog"]\n'),
        ("classes.txt", '\n  {\n"cat": 1}'),
    ],
)
def test_a_file_that_is_no_list_of_names_is_refused(tmp_path, file, text):
    (tmp_path / file).write_text(text)
    with pytest.raises(argparse.ArgumentTypeError, match="is no list of names, one per line"):
        parse_classes(f"@{tmp_path / file}")


@pytest.mark.parametrize("name", ["a\0b", "\ud800", "x" * 300])
def test_a_name_that_no_file_has_is_an_error_of_the_command_line(name):
    with pytest.raises(argparse.ArgumentTypeError, match="cannot read class names"):
        parse_classes(f"@{name}")


def test_names_on_the_command_line_may_stand_in_quotes():
    assert parse_classes("""cat, "salt, pepper" ,rock'n'roll,'cup'""") == [
        "cat",
        "salt, pepper",
        "rock'n'roll",
        "cup",
    ]


@pytest.mark.parametrize(
    ("text", "readings"),
    [
        ("0,1", "the number 0.1 or as two.*; write 0.1 or seen=0,unseen=1"),
        ("0.1,0.05", "one number or as two.*; write 0.1 or seen=0.1,unseen=0.05"),
    ],
)
def test_two_numbers_are_refused_with_both_readings(text, readings):
    with pytest.raises(argparse.ArgumentTypeError, match=readings):
        parse_threshold(text)


def test_a_pair_is_written_by_its_names():
    assert parse_threshold("seen=0, unseen=1") == {"seen": 0, "unseen": 1}


@pytest.mark.parametrize("text", ["seen=0.1,seen=0.2", "cat=0.1, cat =0.1"])
def test_a_threshold_is_given_once(text):
    with pytest.raises(argparse.ArgumentTypeError, match=r"gives '(seen|cat)' twice"):
        parse_threshold(text)


def test_an_error_of_the_parser_shows_no_password(capsys):
    with pytest.raises(SystemExit):
        Parser(prog="x").parse_args(["rtsp://admin:secret@cam", "\x1b[31m.mp4"])
    error = capsys.readouterr().err
    assert "\ufffd[31m.mp4" in error
    assert "rtsp://***@cam" in error and "secret" not in error
