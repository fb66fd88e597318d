"""Printing that ends nothing, and signals that end well."""

import io
import logging
import signal
import sys
import threading

import pytest

from runtime.console import Stop, log_to_stderr, say, tolerate_any_text


class Full(io.StringIO):
    def write(self, text):
        raise OSError(28, "No space left on device")


@pytest.mark.parametrize("stream", [Full(), io.TextIOWrapper(io.BytesIO(), "ascii")])
def test_printing_raises_nothing(stream, capsys):
    say("straße", file=stream)
    say("here")
    assert capsys.readouterr().out == "here\n"


def test_what_a_terminal_cannot_show_is_escaped(monkeypatch):
    stream = io.TextIOWrapper(io.BytesIO(), "ascii")
    monkeypatch.setattr(sys, "stdout", stream)
    tolerate_any_text()
    print("straße \udce9")
    stream.flush()
    assert stream.buffer.getvalue() == b"stra\\xdfe \\udce9\n"


def test_a_line_cannot_color_the_terminal(capsys):
    say("a\x1b[31m\rb.mp4\nc", start="\r")
    assert capsys.readouterr().out == "\ra\ufffd[31m\ufffdb.mp4\nc\n"


def test_a_record_shows_no_password_and_no_escape(capsys, monkeypatch):
    monkeypatch.setattr(logging, "root", logging.RootLogger(logging.WARNING))
    monkeypatch.setattr(logging.Logger, "root", logging.root)
    log_to_stderr(logging.WARNING, "%(levelname)s %(message)s")
    try:
        raise RuntimeError("rtsp://cam/1?p=secret")
    except RuntimeError:
        logging.root.exception("\x1b[31m%s", "http://u:secret@cam/")
    error = capsys.readouterr().err
    assert error.startswith("ERROR \ufffd[31mhttp://***@cam/\nTraceback")
    assert "RuntimeError: rtsp://cam/1?***" in error and "secret" not in error


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_is_a_request_and_the_second_one_is_not_caught(number):
    if threading.current_thread() is not threading.main_thread():
        pytest.skip("signals reach the main thread alone, and this runner is in another")
    told, before = [], signal.getsignal(number)
    with Stop() as stop:
        stop.tells(lambda: told.append(1))
        assert stop.signal is None
        signal.raise_signal(number)
        assert stop.signal == number and told == [1]
        assert signal.getsignal(number) == before
        stop.tells(lambda: told.append(2))  # whoever comes later is told at once
        assert told == [1, 2]
    assert signal.getsignal(number) == before


def test_a_signal_that_is_ignored_stays_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    try:
        with Stop() as stop:
            signal.raise_signal(signal.SIGHUP)
            assert stop.signal is None
    finally:
        signal.signal(signal.SIGHUP, before)
