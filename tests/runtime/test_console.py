"""Printing that ends nothing, and signals that end well."""

import io
import signal
import sys
import threading

import pytest

from runtime.console import Stop, say, tolerate_any_text


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
    assert signal.getsignal(number) == before


def test_a_signal_that_is_ignored_stays_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    try:
        with Stop() as stop:
            signal.raise_signal(signal.SIGHUP)
            assert stop.signal is None
    finally:
        signal.signal(signal.SIGHUP, before)
