"""Connections that ask for nothing or take nothing keep nobody else out."""

from __future__ import annotations

import errno
import gc
import http.client
import socket
import time
import weakref
from unittest.mock import Mock

import h11
import pytest
from raw_clients import BIG, CHUNKED, GET, SIZED, all_of, answered, is_closed, serving

from runtime.serve.connections import _Transport


@pytest.mark.parametrize(
    "sent",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(GET[:20], id="half a head"),
        pytest.param(GET + GET[:20], id="half a second head"),
    ],
)
def test_a_connection_without_a_whole_head_is_closed(sent):
    with serving(head_seconds=0.5) as connect:
        client = connect(sent)
        start = time.monotonic()
        assert is_closed(client) and time.monotonic() - start > 0.3


def test_a_head_that_trickles_in_is_not_waited_for():
    with serving(head_seconds=0.5) as connect:
        client, sent = connect(), 0
        with pytest.raises(ConnectionError):
            for byte in GET * 100:
                client.sendall(bytes([byte]))
                sent += 1
                time.sleep(0.1)
        assert sent < 20


def test_a_connection_that_asks_again_and_again_stays():
    with serving(head_seconds=0.5) as connect:
        client = connect()
        for _ in range(5):
            client.sendall(GET)
            assert answered(client)
            time.sleep(0.25)


def test_the_connection_that_waits_longest_makes_room():
    with serving(most=20, head_seconds=60) as connect:
        idle = [connect() for _ in range(60)]
        assert answered(connect(GET))
        assert is_closed(idle[0])
        assert len(connect.server.server_state.connections) <= 20


def test_a_newcomer_does_not_make_room_for_itself():
    with serving(most=4) as connect:
        slow = [connect(GET.replace(b"/ ", b"/slow ", 1)) for _ in range(3)]
        time.sleep(0.3)  # all are in work
        assert answered(connect(GET))
        assert all(map(answered, slow))


def test_a_client_that_takes_nothing_is_let_go():
    with serving(stalled_seconds=0.5, keep_alive=60) as connect:
        connect(GET.replace(b"/ ", b"/big ", 1))
        held, end = connect.server.server_state.connections, time.monotonic() + 20
        while not held and time.monotonic() < end:
            time.sleep(0.01)
        assert held
        while held and time.monotonic() < end:
            time.sleep(0.01)
        assert not held


@pytest.mark.parametrize(("keep_alive", "head_seconds"), [(30, 30), (1, 30), (30, 0.5), (1, 0.5)])
def test_a_client_that_takes_its_answer_slowly_gets_all_of_it(keep_alive, head_seconds):
    """However soon a connection that waits is closed: an answer counts as sent once it waits."""
    with serving(stalled_seconds=1.0, keep_alive=keep_alive, head_seconds=head_seconds) as connect:
        client, taken = connect(GET.replace(b"/ ", b"/big ", 1)), 0
        start = time.monotonic()
        while taken < len(BIG):
            taken += len(client.recv(1 << 18))
            time.sleep(0.05)
        assert time.monotonic() - start > 1.5


def test_an_answer_before_the_end_of_a_body_reaches_who_reads_it_afterwards():
    """Closed at once, the connection would be reset: the client gets a broken pipe, no answer."""
    for close in (b"", b"Connection: close\r\n"):
        with serving() as connect:
            client = connect(SIZED.replace(b"Host", close + b"Host") % (b"", 20 << 20))
            for _ in range(20):
                client.sendall(bytes(1 << 20))
            answer = all_of(client)
            assert answer.startswith(b"HTTP/1.1 200") and answer.endswith(b"ok")


def test_no_body_is_let_pass_for_ever(monkeypatch):
    monkeypatch.setattr("runtime.serve.connections.UNREAD_BYTES", 4 << 20)
    with serving() as connect:
        client = connect(SIZED % (b"", 1 << 40))
        with pytest.raises(ConnectionError):
            for _ in range(100):
                client.sendall(bytes(1 << 20))


EARLY = {"a sized body": SIZED % (b"", 5), "chunks": CHUNKED % b""}


@pytest.mark.parametrize("early", EARLY.values(), ids=EARLY)
@pytest.mark.parametrize("rest", [b"", b"hello", b"5\r\nhello\r\n0\r\n\r\n"])
def test_an_answer_before_the_end_of_a_body_says_that_the_connection_ends(early, rest):
    with serving() as connect:
        client = connect(early)
        answer = b""
        while not answer.endswith(b"ok"):
            answer += client.recv(1 << 16)
        assert b"\r\nconnection: close\r\n" in answer.lower()
        client.sendall(rest)
        assert is_closed(client)


@pytest.mark.parametrize("method", ["GET", "DELETE", "POST"])
def test_the_request_after_an_early_answer_is_answered(method):
    """Clients that keep their connection send it there, unless they were told that it ends."""
    with serving() as connect:
        client = http.client.HTTPConnection(*connect().getpeername(), timeout=20)
        for path, size in [("/", 3), ("/", 300_000), ("/read", 3), ("/", 3)] * 4:
            client.request(method, path, body=bytes(size))  # sent apart from its head
            answer = client.getresponse()
            assert answer.read() == b"ok"
            assert answer.will_close or path == "/read" or size == 3
        client.close()


HALF = {
    "a late answer": GET.replace(b"/ ", b"/slow ", 1),
    "an answer to a body": SIZED % (b"slow", 5) + b"hello",
    "several": GET.replace(b"/ ", b"/slow ", 1) * 2 + GET,
    "several and a half": GET.replace(b"/ ", b"/slow ", 1) + GET + SIZED % (b"read", 5) + b"h",
    "a large answer": GET.replace(b"/ ", b"/big ", 1),
}


@pytest.mark.parametrize("sent", HALF.values(), ids=HALF)
def test_a_client_that_sends_no_more_gets_its_answers(sent):
    with serving(head_seconds=60) as connect:
        client = connect(sent)
        client.shutdown(socket.SHUT_WR)
        start = time.monotonic()
        heard = all_of(client)
        whole = sent.count(b"Host") - (b"/read" in sent)
        assert heard.count(b"HTTP/1.1 200") == whole
        assert heard.endswith(b"ok") or len(heard) > len(BIG)
        assert time.monotonic() - start < 5  # nobody waits for what does not come


@pytest.mark.parametrize("path", [b"endless", b"read"])
def test_a_stream_and_a_half_body_end_with_what_the_client_sends(path):
    with serving(stalled_seconds=60) as connect:
        client = connect(GET.replace(b"/ ", b"/endless ", 1) if path == b"endless" else b"")
        client.sendall(b"" if path == b"endless" else SIZED % (path, 5) + b"h")
        time.sleep(0.2)  # the answer is under way
        client.shutdown(socket.SHUT_WR)
        start = time.monotonic()
        assert is_closed(client) and time.monotonic() - start < 5


def test_a_client_that_is_gone_leaves_no_connection():
    with serving(head_seconds=60) as connect:
        held, end = connect.server.server_state.connections, time.monotonic() + 20
        for path in (b"/slow ", b"/big ", b"/endless "):
            connect(GET.replace(b"/ ", path, 1)).close()
        while not held and time.monotonic() < end:
            time.sleep(0.01)
        while held and time.monotonic() < end:
            time.sleep(0.01)
        assert not held and time.monotonic() < end - 10


def test_a_body_that_was_answered_may_come_slowly():
    with serving(stalled_seconds=0.5) as connect:
        client, begin = connect(SIZED % (b"", 40 << 17)), time.monotonic()
        for _ in range(40):
            client.sendall(bytes(1 << 17))
            time.sleep(0.05)
        assert all_of(client).endswith(b"ok") and time.monotonic() - begin > 1.5


def test_the_rest_of_a_body_that_was_answered_is_not_waited_for():
    with serving(stalled_seconds=0.5) as connect:
        client = connect(SIZED % (b"", 20 << 20))
        assert all_of(client).endswith(b"ok")
        start = time.monotonic()
        with pytest.raises(ConnectionError):
            while time.monotonic() < start + 20:
                client.sendall(b"x")
                time.sleep(0.05)
        assert 0.3 < time.monotonic() - start < 10


def test_a_client_that_is_gone_before_its_answer_ends_is_not_waited_for():
    gone, protocol = Mock(), Mock()
    gone.is_closing.return_value, protocol.conn.their_state = False, h11.SEND_BODY
    gone.write_eof.side_effect = OSError(errno.ENOTCONN, "not connected")
    protocol.ended = protocol.stopping = False
    _Transport(gone, protocol).close()
    gone.close.assert_called_once_with()
    protocol.linger.assert_not_called()


def test_a_service_that_stops_waits_for_no_rest_of_a_body():
    """A body that is refused while it comes lingered, and the end was logged as an error."""
    with serving(stalled_seconds=60) as connect:
        client, held = connect(SIZED % (b"slow", 9)), connect.server.server_state.connections
        end = time.monotonic() + 20
        while not (held and next(iter(held)).cycle) and time.monotonic() < end:
            time.sleep(0.01)
        (connection,) = held
        connection.loop.call_soon_threadsafe(connection.shutdown)
        assert all_of(client).endswith(b"ok")  # the sending side stays open
        while held and time.monotonic() < end:
            time.sleep(0.01)
        assert not held and time.monotonic() < end - 10


def test_what_a_client_sent_is_freed_with_its_connection():
    """In a cycle of references it would stay until that is collected."""
    gc.disable()
    try:
        with serving() as connect:
            state, client = connect.server.server_state, connect(SIZED % (b"", 2 << 20))
            client.sendall(bytes(1 << 20))
            assert all_of(client).endswith(b"ok")
            held = [weakref.ref(one) for one in state.connections]
            client.close()
            end = time.monotonic() + 20
            while any(one() is not None for one in held) and time.monotonic() < end:
                time.sleep(0.01)
            assert [one() for one in held] == [None]
    finally:
        gc.enable()


def test_an_upgrade_that_is_not_spoken_is_answered_as_it_stands(caplog):
    with serving() as connect:
        for protocol in (b"h2c", b"websocket"):
            head = b"Connection: Upgrade\r\nUpgrade: %b\r\nHost" % protocol
            assert answered(connect(GET.replace(b"Host", head)))
    assert not caplog.records


def test_answers_that_nobody_takes_have_one_bound():
    most = 2 * len(BIG)
    with serving(unsent_bytes=most) as connect:
        clients = [connect(GET.replace(b"/ ", b"/big ", 1)) for _ in range(12)]
        state, end = connect.server.server_state, time.monotonic() + 20
        while state.total_requests < len(clients) and time.monotonic() < end:
            time.sleep(0.01)
        time.sleep(0.1)
        held = [one.transport for one in state.connections]
        assert 2 <= len(held) < len(clients)
        assert sum(one.get_write_buffer_size() for one in held) <= most
        assert len(all_of(clients[-1], len(BIG))) > len(BIG)
