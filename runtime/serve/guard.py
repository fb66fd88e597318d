"""Who may come in: a bearer token, or the cookie that a browser gets for it; the right host."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import anyio
from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from runtime.serve.errors import RequestError, answer

__all__ = ["Guard"]

OPEN = ("/health", "/ready")  # what watches over the service needs no secret
COOKIE = "contrastzsd"
LONGEST_FORM = 4096  # bytes
FORM_SECONDS = 10.0  # in which a form must have come
MOST_SIGNING_IN = 16  # at a time, since they have shown no token yet
SAFE = ("GET", "HEAD", "OPTIONS")


class Guard:
    """Refuse requests without the token, for another host, or sent by another site's page.

    A browser asks for the token once, on a page of its own, and keeps a cookie that scripts cannot
    read and other sites cannot use.

    Args:
        app: what is guarded.
        token: None lets everyone in.
        hosts: names that ``Host`` may carry, without the port; empty takes any.
    """

    def __init__(self, app: ASGIApp, token: str | None, hosts: Sequence[str]) -> None:
        self._app, self._token, self._hosts = app, token, tuple(hosts)
        self._signing_in = 0
        secret = (token or "").encode()
        self._cookie = hmac.new(secret, b"contrastzsd session", hashlib.sha256).hexdigest()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer for the application, or pass the request on."""
        if scope["type"] == "websocket":  # there are none here
            await send({"type": "websocket.close", "code": 1000})
            return
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            response = await self._refusal(Request(scope, receive))
        except RequestError as error:
            response = answer(error)
        await (response or self._app)(scope, receive, send)

    async def _refusal(self, request: Request) -> Response | None:
        # Of the scope: request.url is made with the Host header, which is the client's to choose.
        headers, path = request.headers, request.scope["path"]
        host = headers.get("host", "")
        if self._hosts and _name(host).lower() not in self._hosts:
            raise RequestError(
                421,
                f"this service answers for {', '.join(self._hosts)}, not for {host!r}; start it "
                "with --host or --allow-host to have it answer for another name.",
            )
        origin = headers.get("origin")
        if request.method not in SAFE and origin and _netloc(origin) != host:
            raise RequestError(403, f"a page of {origin} may not change this service.")
        if self._token is None or path in OPEN:
            return None
        if path == "/session" and request.method == "POST":
            return await self._sign_in(request)
        if self._knows(headers, request.cookies.get(COOKIE, "")):
            return None
        if request.method == "GET" and "text/html" in headers.get("accept", ""):
            return _sign_in_page()
        raise RequestError(
            401,
            "this service needs its token; send the header Authorization: Bearer TOKEN.",
            {"WWW-Authenticate": "Bearer"},
        )

    def _knows(self, headers: Headers, cookie: str) -> bool:
        scheme, _, token = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            return self._right(token.strip())
        return hmac.compare_digest(cookie.encode(), self._cookie.encode())

    def _right(self, token: str) -> bool:
        return hmac.compare_digest(token.encode(), (self._token or "").encode())

    async def _sign_in(self, request: Request) -> Response:
        if self._signing_in >= MOST_SIGNING_IN:
            raise RequestError(
                503, f"{MOST_SIGNING_IN} others are signing in; try again.", {"Retry-After": "1"}
            )
        self._signing_in += 1
        try:
            with anyio.fail_after(FORM_SECONDS):
                body = await _form(request)
        except TimeoutError as error:
            raise RequestError(
                408, f"the form did not come within {FORM_SECONDS:g} s.", {"Connection": "close"}
            ) from error
        finally:
            self._signing_in -= 1
        given = parse_qs(body.decode("utf-8", "replace")).get("token", [""])[0]
        if not self._right(given.strip()):
            return _sign_in_page("This is not the service's token.")
        response = RedirectResponse("/", status_code=303)
        response.set_cookie(
            COOKIE,
            self._cookie,
            httponly=True,
            samesite="strict",
            secure=request.scope["scheme"] == "https",
        )
        return response


async def _form(request: Request) -> bytes:
    """The body, which is short."""
    body = b""
    try:
        async for part in request.stream():
            body += part
            if len(body) > LONGEST_FORM:
                raise RequestError(413, "a token is shorter than that.")
    except ClientDisconnect as error:
        raise RequestError(400, "the request ended early.") from error
    return body


def _sign_in_page(problem: str = "") -> HTMLResponse:
    page = (Path(__file__).parent / "page" / "sign-in.html").read_text(encoding="utf-8")
    return HTMLResponse(
        page.replace("{{problem}}", problem),
        status_code=401,
        headers={
            "WWW-Authenticate": "Bearer",
            "Cache-Control": "no-store",
            "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; "
            "form-action 'self'; frame-ancestors 'none'",
        },
    )


def _netloc(origin: str) -> str | None:
    """Host and port of an origin; None of what is no address."""
    try:
        return urlsplit(origin).netloc
    except ValueError:
        return None


def _name(host: str) -> str:
    """The host without its port; an IPv6 address keeps its brackets."""
    if host.startswith("["):
        return host.partition("]")[0] + "]"
    return host.rpartition(":")[0] if ":" in host else host
