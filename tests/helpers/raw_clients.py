"""A server of our connections, and raw clients of it."""

from __future__ import annotations

import asyncio
import socket
import threading
from contextlib import contextmanager

import uvicorn

from runtime.serve.connections import connections

BIG = b"x" * (8 << 20)  # more than sockets hold


async def app(scope, receive, send):
    if scope["type"] != "http":
        return
    if scope["path"] == "/slow":
        await asyncio.sleep(0.5)
    while scope["path"] == "/read":
        message = await receive()
        if not message.get("more_body"):
            break
    body = BIG if scope["path"] == "/big" else b"ok"
    endless = scope["path"] == "/endless"
    headers = [] if endless else [(b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    while endless and (await receive())["type"] != "http.disconnect":
        await send({"type": "http.response.body", "body": body, "more_body": True})
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
CHUNKED = b"POST /%b HTTP/1.1\r\nHost: here\r\nTransfer-Encoding: chunked\r\n\r\n"
SIZED = b"POST /%b HTTP/1.1\r\nHost: here\r\nContent-Length: %d\r\n\r\n"


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


def all_of(client, most=1 << 30):
    """What comes until the end of a connection, or until it is more."""
    held = b""
    while len(held) <= most and (piece := client.recv(1 << 20)):
        held += piece
    return held


def answered(client):
    held = b""
    while not held.endswith(b"ok") and (piece := client.recv(1 << 16)):
        held += piece
    return held.startswith(b"HTTP/1.1 200")
