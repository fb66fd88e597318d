"""Connections that ask for nothing or take nothing keep nobody else out."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from contextlib import contextmanager

import pytest
import uvicorn

from runtime.serve.connections import connections

BIG = b"x" * (8 << 20)  # more than sockets hold


async def app(scope, receive, send):
    if scope["type"] != "http":
        return
    if scope["path"] == "/slow":
        await asyncio.sleep(1)
    body = BIG if scope["path"] == "/big" else b"ok"
    headers = [(b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


@contextmanager
def serving(most=1000, keep_alive=30, **seconds):
    """A server on a port of its own; yields how a client connects to it."""
    options = {"lifespan": "off", "log_config": None, "timeout_keep_alive": keep_alive}
    config = uvicorn.Config(app, http=connections(most, **seconds), port=0, **options)
    server = uvicorn.Server(config)
    listener = socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=lambda: asyncio.run(server.serve(sockets=[listener])))
    thread.start()
    clients = []

    def connect(send=b""):
        clients.append(socket.create_connection(listener.getsockname(), timeout=20))
        clients[-1].sendall(send)
        return clients[-1]

    connect.server = server
    try:
        yield connect
    finally:
        for client in clients:
            client.close()
        server.should_exit = True
        thread.join()
        listener.close()


GET = b"GET / HTTP/1.1\r\nHost: here\r\n\r\n"


def is_closed(client):
    """Wait for the end of a connection."""
    try:
        while client.recv(1 << 16):
            pass
    except ConnectionError:
        pass
    except TimeoutError:
        return False
    return True


def answered(client):
    held = b""
    while not held.endswith(b"ok") and (piece := client.recv(1 << 16)):
        held += piece
    return held.startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize(
    "sent",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(GET[:20], id="half a head"),
        pytest.param(GET + GET[:20], id="half a second head"),
        pytest.param(
            b"POST / HTTP/1.1\r\nHost: here\r\nContent-Length: 99\r\n\r\nx", id="half a body"
        ),
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
