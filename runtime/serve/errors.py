"""Errors as answers: a sentence of ours and a status that fits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from starlette.responses import JSONResponse

from zsd_core.errors import BundleError, ClassError, DeviceError, MissingPackageError, ZsdError
from zsd_core.files import visible

__all__ = ["RequestError", "answer"]

STATUS = {DeviceError: 503, BundleError: 500, MissingPackageError: 501}


class RequestError(ZsdError, ValueError):
    """A request that cannot be answered as it stands.

    Args:
        status: of the answer, 400 to 599.
        sentence: where, what and the fix.
        headers: of the answer, such as ``Retry-After``.
    """

    def __init__(
        self, status: int, sentence: str, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(sentence)
        self.status, self.headers = status, dict(headers or {})


def answer(error: ZsdError) -> JSONResponse:
    """The answer to a request that met an error: ``{"error": sentence, "type": its class}``.

    Where class names look misspelt, ``"meant"`` holds a likelier spelling of each.
    A request that was understood but cannot be done is 422.
    """
    if isinstance(error, RequestError):
        status, headers = error.status, error.headers
    else:
        status = next((s for kind, s in STATUS.items() if isinstance(error, kind)), 422)
        headers = {}
    # A client's own words may stand in the sentence; they may be no UTF-8, or color a terminal.
    sentence = visible(str(error))
    content: dict[str, Any] = {"error": sentence, "type": type(error).__name__}
    if isinstance(error, ClassError) and error.meant:
        content["meant"] = error.meant
    return JSONResponse(content, status_code=status, headers=headers)
