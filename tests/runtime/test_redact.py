import os

import pytest

from runtime.redact import hide_credentials, printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("rtsp://u:p@cam/1", "rtsp://***@cam/1"),
        ("rtsp://u:p@ss@cam:554/1?x=1", "rtsp://***@cam:554/1?x=1"),
        ("rtsp://u:p/ss?a#b@cam/1", "rtsp://***@cam/1"),
        ("rtsp://u:12/34@cam/1", "rtsp://***@cam/1"),
        ("rtsp://u:p w@cam/1", "rtsp://***@cam/1"),
        ("rtsp://token@cam/1", "rtsp://***@cam/1"),
        ("rtsp:/u:p@cam/1", "rtsp:/***@cam/1"),
        ("u:p@cam/1", "***@cam/1"),
        ("error: rtsp://u:p@cam/1: lost", "error: rtsp://***@cam/1: lost"),
        (
            "http://cam/s?camera=1&user=a&pwd=b&token=c",
            "http://cam/s?camera=1&user=***&pwd=***&token=***",
        ),
        ("rtsp://cam/user=a&password=b&channel=1", "rtsp://cam/user=***&password=***&channel=1"),
        (
            "rtspsrc location=x user-id=me user-pw=s ! sink",
            "rtspsrc location=x user-id=*** user-pw=*** ! sink",
        ),
    ],
)
def test_credentials_are_hidden(text, shown):
    assert hide_credentials(text) == shown
    assert hide_credentials(shown) == shown


@pytest.mark.parametrize(
    "text",
    [
        "rtsp://cam:554/1",
        "rtsp://[::1]:554/a",
        "http://cam/a@b.jpg",
        "10:30 clip.mp4",
        "a@b.mp4",
        "C:\\video.mp4",
        "http://cam/s?camera=1",
    ],
)
def test_nothing_else_is(text):
    assert hide_credentials(text) == text


def test_names_that_are_no_utf_8_can_be_printed():
    name = os.fsdecode(b"caf\xe9.mp4")
    assert printable(name) == "caf\ufffd.mp4"
    assert printable("café.mp4") == "café.mp4"
