"""A service on one detector: REST, live streams, metrics and a page to show.

    from runtime import Detector
    from runtime.serve import ServeConfig, create_app

    app = create_app(Detector(), ServeConfig(queue=8))  # any ASGI server runs it

The command ``python -m runtime.serve`` does this with uvicorn. Needs ``contrastzsd[serve]``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from runtime.serve.config import ServeConfig
from zsd_core.errors import require

if TYPE_CHECKING:
    from starlette.applications import Starlette

__all__ = ["ServeConfig", "create_app"]


def create_app(
    detector: Any, config: ServeConfig | None = None, sources: Sequence[str] = ()
) -> Starlette:
    """An ASGI application that answers with one detector.

    Args:
        detector: a ``runtime.Detector``. The application is the only one that changes its classes
            and thresholds from now on, and does not close it.
        config: limits, token and time-outs.
        sources: live cameras, addresses and videos to watch, as ``runtime.Stream`` takes them.

    Raises:
        MissingPackageError: starlette or prometheus-client is not installed.
    """
    require("starlette", "serve")
    require("prometheus_client", "serve")
    from runtime.serve.app import build

    return build(detector, config or ServeConfig(), sources)
