"""The page's files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

__all__ = ["PAGE", "PAGE_HEADERS", "PageFiles"]

PAGE = Path(__file__).parent / "page"
PAGE_HEADERS = {
    "Cache-Control": "no-cache",
    "Content-Security-Policy": "default-src 'self'; img-src 'self' blob: data:; "
    "media-src 'self' blob:; object-src 'none'; base-uri 'none'; frame-ancestors 'none'",
    "Permissions-Policy": "camera=(self), microphone=(), geolocation=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


class PageFiles(StaticFiles):
    """The page's files; a browser asks whether they are still the same."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        """As starlette's; a path that no file can have is not found."""
        if not path.isprintable() or not path.isascii():
            raise HTTPException(404)
        return await super().get_response(path, scope)

    def file_response(self, *arguments: Any, **options: Any) -> Response:
        """As starlette's, with the page's headers."""
        response = super().file_response(*arguments, **options)
        response.headers.update(PAGE_HEADERS)
        return response
