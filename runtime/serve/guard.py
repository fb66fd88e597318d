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

from runtime.serve.config import host_name
from runtime.serve.errors import RequestError, answer

__all__ = ["Guard"]

OPEN = ("/health", "/ready")  # what watches over the service needs no secret
LONGEST_FORM = 4096  # bytes, which every connection may hold
FORM_SECONDS = 10.0  # in which a form must have come
SAFE = ("GET", "HEAD", "OPTIONS")
PORTS = {"http": ":80", "https": ":443"}  # that a browser leaves out


class Guard:
    """Refuse requests without the token, for another host, or sent by another site's page.

    A browser asks for the token once, on a page of its own, and keeps a cookie that scripts cannot
    read and other sites cannot use. A browser sends a host's cookies to all its ports, so the name
    of the cookie says which token it stands for. All addresses in the answers are relative: a proxy
    may put the service below a path.

    Args:
        app: what is guarded.
        token: None lets everyone in.
        hosts: names that ``Host`` may carry, as ``host_name`` spells them; empty takes any.
    """

    def __init__(self, app: ASGIApp, token: str | None, hosts: Sequence[str]) -> None:
        self._app, self._token, self._hosts = app, token, tuple(hosts)
        self._cookie = self._made("contrastzsd session")
        self._cookie_name = f"contrastzsd-{self._made('contrastzsd cookie')[:8]}"

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
        headers, path = request.headers, _path(request.scope)
        if path in OPEN:
            return None
        host = headers.get("host", "")
        if self._hosts and host_name(host) not in self._hosts:
            raise RequestError(
                421,
                f"this service answers for {', '.join(self._hosts)}, not for {host!r}; start it "
                "with --host or --allow-host to have it answer for another name.",
            )
        if request.method not in SAFE and _is_from_elsewhere(headers, host):
            origin = headers.get("origin", "null")
            site = "another site" if origin == "null" else origin
            raise RequestError(
                403,
                f"a page of {site} may not change this service, which is called "
                f"{host!r} here; a proxy must leave the Host header as it is.",
            )
        # One that asks for no document of its own shows the answer: an <img>, or a frame.
        cross = headers.get("sec-fetch-site") == "cross-site"
        if cross and headers.get("sec-fetch-dest") != "document":
            raise RequestError(
                403,
                "a page of another site may not show what this service answers; link to it, or "
                "show it on a page of the same site.",
            )
        if self._token is None:
            return None
        if path == "/session" and request.method == "POST":
            return await self._sign_in(request)
        if self._knows(headers, request.cookies.get(self._cookie_name, "")):
            return None
        if request.method == "GET" and "text/html" in headers.get("accept", ""):
            return _sign_in_page(path)
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

    def _made(self, what: str) -> str:
        """A text that only the token gives."""
        return hmac.new((self._token or "").encode(), what.encode(), hashlib.sha256).hexdigest()

    async def _sign_in(self, request: Request) -> Response:
        try:
            with anyio.fail_after(FORM_SECONDS):
                body = await _form(request)
        except TimeoutError as error:
            raise RequestError(
                408, f"the form did not come within {FORM_SECONDS:g} s.", {"Connection": "close"}
            ) from error
        given = parse_qs(body.decode("utf-8", "replace")).get("token", [""])[0]
        if not self._right(given.strip()):
            return _sign_in_page("/session", "This is not the service's token.")
        response = RedirectResponse("./", status_code=303)
        https = request.headers.get("origin", "").startswith("https://")  # whatever the proxy says
        response.set_cookie(
            self._cookie_name,
            self._cookie,
            path=None,  # where the browser sees this service
            httponly=True,
            samesite="strict",
            secure=https or request.scope["scheme"] == "https",
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


def _sign_in_page(path: str, problem: str = "") -> HTMLResponse:
    """The page that asks for the token, shown at a path of this service."""
    page = (Path(__file__).parent / "page" / "sign-in.html").read_text(encoding="utf-8")
    action = "../" * (path.count("/") - 1) + "session"
    return HTMLResponse(
        page.replace("{{problem}}", problem).replace("{{action}}", action),
        status_code=401,
        headers={
            "WWW-Authenticate": "Bearer",
            "Cache-Control": "no-store",
            "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; "
            "form-action 'self'; frame-ancestors 'none'",
        },
    )


def _path(scope: Scope) -> str:
    """The path below the one at which the application is mounted, as the router sees it."""
    path: str = scope["path"]
    below = path.removeprefix(scope.get("root_path", ""))
    return below if below.startswith("/") else path


def _is_from_elsewhere(headers: Headers, host: str) -> bool:
    """Whether a browser sends a request for a page of another site."""
    site = headers.get("sec-fetch-site")  # which pages cannot set; only safe origins send it
    if site is not None:
        return site not in ("same-origin", "none")
    origin = headers.get("origin")
    if not origin:
        return False
    try:
        parts = urlsplit(origin)
    except ValueError:  # it is no address
        return True
    port = PORTS.get(parts.scheme, "")
    return not parts.netloc or parts.netloc.removesuffix(port) != host.lower().removesuffix(port)
