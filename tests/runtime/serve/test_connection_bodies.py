"""Bodies of requests that come in pieces, too slowly, or not at all."""

from __future__ import annotations

import io
import random
import time
from contextlib import suppress

import pytest
from raw_clients import CHUNKED, GET, SIZED, all_of, answered, is_closed, serving


@pytest.mark.parametrize("path", [b"read", b"", b"big"])
def test_a_body_in_tiny_chunks_is_refused(path, caplog):
    """Each takes microseconds to parse: a megabyte of them kept everybody waiting for seconds."""
    with serving() as connect:
        client = connect(CHUNKED % path)
        if path:
            time.sleep(0.2)  # the answer is under way
        with suppress(ConnectionError):
            for _ in range(20):
                client.sendall(b"1\r\nx\r\n" * 10_000)
        with suppress(ConnectionError):
            answer = all_of(client)
        if path == b"read":
            assert answer.startswith(b"HTTP/1.1 400") and b"less than 64 bytes each" in answer
            assert b'"type":"RequestError"' in answer
        assert answered(connect(GET))
    assert not [record for record in caplog.records if record.name == "asyncio"]


# Who sends a photograph as an open file in Python sends it line by line.
LINES = list(io.BytesIO(random.Random(0).randbytes(3 << 20)))
BODIES = {"few": [b"abc"] * 900, "long": [b"x" * 64] * 9000, "lines": LINES}


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
def test_a_body_in_chunks_of_some_size_is_taken(body):
    sent = b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in body)
    with serving() as connect:
        assert answered(connect(CHUNKED % b"read" + sent + b"0\r\n\r\n"))


def test_a_body_with_two_lengths_is_refused():
    both = CHUNKED.replace(b"Host", b"Content-Length: 3\r\nHost") % b"read"
    with serving() as connect:
        answer = all_of(connect(both + b"0\r\n\r\n" + GET))
        assert answer.startswith(b"HTTP/1.1 400") and answer.count(b"HTTP/1.1") == 1
        assert b"a Content-Length and a Transfer-Encoding" in answer


HOST = b"Host: here\r\n"
LENGTH = b"Content-Length: 3\r\n"
REFUSED = {
    "no HTTP": (b"\x16\x03\x01 hello\r\n\r\n", 400, b"illegal request line"),
    "an empty line": (b"\r\n" + GET, 400, b"no request line"),
    "no host": (GET.replace(HOST, b""), 400, b"Missing mandatory Host"),
    "two hosts": (GET.replace(HOST, 2 * HOST), 400, b"multiple Host"),
    "no header": (GET.replace(HOST, b"\x01" + 200 * b"x" + b"\r\n"), 400, b"illegal header line"),
    "two lengths": (
        GET.replace(HOST, HOST + LENGTH + LENGTH.replace(b"3", b"4")),
        400,
        b"conflicting Content-Length",
    ),
    "a coding": (CHUNKED.replace(b"chunked", b"gzip, chunked") % b"", 501, b"chunked is supported"),
    "many headers": (GET[:-2] + b"a:b\r\n" * 50_000, 431, b"more than 16 KiB"),
    "a long cookie": (GET[:-2] + b"Cookie: " + b"x" * 40_000 + b"\r\n\r\n", 431, b"16 KiB"),
    "a long query": (GET.replace(b"/", b"/?" + b"name=cat&" * 4_000, 1), 431, b"PUT /classes"),
}


@pytest.mark.parametrize(("sent", "status", "words"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_read_is_refused_in_a_sentence_that_says_why(sent, status, words):
    with serving() as connect:
        client = connect()
        with suppress(ConnectionError):
            client.sendall(sent)
        head, _, body = all_of(client).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 %d" % status), head
        assert words in body and b'"type":"RequestError"' in body and b"bytearray" not in body, body


@pytest.mark.parametrize("path", [b"read", b"big"])
def test_garbage_in_a_body_ends_the_connection_only(path, caplog):
    with serving() as connect:
        client = connect(CHUNKED % path)
        time.sleep(0.2)
        client.sendall(b"garbage\r\n")
        assert is_closed(client)
        assert answered(connect(GET))
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


def test_a_body_that_does_not_come_makes_room():
    with serving(most=20, head_seconds=60) as connect:
        idle = [connect(SIZED % (b"read", 9)) for _ in range(60)]
        assert answered(connect(GET))
        assert is_closed(idle[0])


def test_a_body_that_comes_makes_no_room():
    with serving(most=20, head_seconds=60) as connect:
        client = connect(SIZED % (b"read", 30 << 17))
        for _ in range(30):
            client.sendall(bytes(1 << 17))
            time.sleep(0.02)
            idle = [connect() for _ in range(5)]
        assert answered(client)
        assert idle
