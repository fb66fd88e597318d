"""Hostile requests to the service, in one process: bodies, queries and headers of a stranger.

Every answer must be of the kind that the service promises, never a failure of its own, and now and
then a picture must still be answered as at first.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from benchmarks.trust.attempts import WrongResultError, loader_part
from benchmarks.trust.mutate import mutated_bytes
from benchmarks.trust.small import helper
from benchmarks.trust.table import Attempt
from runtime.detector import Detector

__all__ = ["PARTS", "requests"]

CHECKED = 0.05  # share of the inputs after which the service is asked for what it answered at first
BUSY = (503, 504)
STREAMS = ("/live/{source}", "/events")  # which have no end
TEXTS = ("cat", "person", "seen", "gzsd", "", " ", "\ud800", "a\0b", "a\u202eb", "x" * 300, "null")
NUMBERS = (0, 1, -1, 0.5, 1e308, float("nan"), float("inf"), 2**63, 10**30, 10**400)
HEADERS = ("accept", "origin", "host", "cookie", "authorization", "range", "content-length")
VALUES = ("http://[", "null", "*/*;q=nan", "bytes=9-1,x", "9" * 5000, "Bearer ", 'x="\\777"', "")
PARAMETERS = ("name", "box", "text", "count", "draw", "source", "frames")
FIELDS = {  # of a path; elsewhere a body has none
    "/classes": ("classes", "mode", "exact"),
    "/thresholds": ("score_threshold", "nms_threshold", "max_detections"),
}


def requests(folder: Path, quiet: bool = True) -> Attempt:
    """Requests to every route but the endless ones.

    Args:
        folder: for the bundle.
        quiet: send standard error of this process to nowhere: the log names every refusal.
    """
    import cv2

    from runtime.serve import ServeConfig, create_app
    from runtime.serve.operations import OPERATIONS

    if quiet:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    bundle = helper("tiny").tiny_bundle(folder / "bundle")
    detector = Detector(bundle, backend="onnxruntime", threads=1, score_threshold=0.0)
    app, loop = create_app(detector, ServeConfig(hosts=())), asyncio.new_event_loop()
    noise = np.random.default_rng(0).integers(0, 256, (60, 90, 3), np.uint8)
    picture = cv2.imencode(".png", noise)[1].tobytes()
    width = detector.bundle.model_config.scoring.vector_dim
    routes = [(o.method, o.path) for o in OPERATIONS if o.path not in STREAMS]
    queries = {(o.method, o.path): list(o.query or ()) for o in OPERATIONS}
    routes += [place for place in routes if place[1] in FIELDS] * 3  # there is the most to say
    routes += [("GET", "/"), ("GET", "/static/app.js"), ("OPTIONS", "/classes")]

    def ask(method: str, path: str, query: str, body: bytes, headers: Any) -> tuple[int, bytes]:
        return loop.run_until_complete(_asked(app, method, path, query, body, headers))

    def found() -> Any:
        return json.loads(ask("POST", "/detect", "", picture, ())[1])["detections"]

    limits = {**json.loads(ask("GET", "/thresholds", "", b"", ())[1]), "score_threshold": [0, 0]}
    first = found()

    def attempt(rng: random.Random) -> None:
        method, path = rng.choice(routes)
        own = queries.get((method, path), [])  # with any other, a request ends at its query
        names = rng.sample(own, rng.randrange(len(own) + 1))
        if rng.random() < 0.1:
            names += rng.choices(PARAMETERS, k=2)
        query = "&".join(f"{name}={quote(_text(rng), errors='surrogatepass')}" for name in names)
        known = FIELDS.get(path, ("classes",))
        fields = {rng.choice(known): _value(rng, 3, width) for _ in range(rng.randrange(1, 3))}
        body = json.dumps(fields).encode()
        if rng.random() < 0.2:
            body = mutated_bytes(picture if rng.random() < 0.5 else body, rng)
        headers = [
            (rng.choice(HEADERS).encode(), rng.choice(VALUES).encode())
            for _ in range(rng.randrange(3))
        ]
        status, said = ask(method, path, query, body, headers)
        if status >= 500 and status not in BUSY:
            raise WrongResultError(f"{method} {path} {query} {body[:200]!r}: {status} {said!r}")
        if rng.random() < CHECKED:
            ask("PUT", "/classes", "", b'{"classes": null, "mode": "gzsd"}', ())
            ask("PATCH", "/thresholds", "", json.dumps(limits).encode(), ())
            if (now := found()) != first:
                raise WrongResultError(f"a picture gives {now}, and gave {first} at first")
            for path in ("/classes", "/thresholds", "/metrics"):
                if ask("GET", path, "", b"", ())[0] != 200:
                    raise WrongResultError(f"{path} does not answer any more")

    return attempt


def _text(rng: random.Random) -> str:
    return rng.choice(TEXTS) if rng.random() < 0.7 else "9" * rng.choice((1, 30, 5000))


def _value(rng: random.Random, depth: int, width: int) -> Any:
    """A value as JSON may hold it, now and then one that fits."""
    kind = rng.randrange(8 if depth else 5)
    if kind < 2:
        return _text(rng)
    if kind < 4:
        return rng.choice(NUMBERS)
    if kind == 4:
        return rng.choice((None, True, False, [rng.choice(NUMBERS)] * width))
    values = [_value(rng, depth - 1, width) for _ in range(rng.randrange(4))]
    return values if kind == 5 else {_text(rng): value for value in values}


async def _asked(
    app: Any,
    method: str,
    path: str,
    query: str,
    body: bytes,
    headers: Sequence[tuple[bytes, bytes]],
) -> tuple[int, bytes]:
    """Status and body of the answer to one request."""
    answer: list[Any] = []
    parts = [{"type": "http.request", "body": body}]

    async def receive() -> Any:
        return parts.pop() if parts else {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        answer.append(message)

    scope = {
        "type": "http",
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "root_path": "",
        "query_string": query.encode(),
        "headers": headers,
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 8000),
    }
    await app(scope, receive, send)
    return answer[0]["status"], b"".join(part.get("body", b"") for part in answer[1:])


PARTS = (
    loader_part(
        requests,
        "requests",
        "bodies, queries and headers of a stranger to every route of the service",
        20_000,
        300,
    ),
)
