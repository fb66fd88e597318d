"""The ASGI application: every operation's handler, and what goes around them."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import anyio
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Match, Mount, Route
from starlette.types import Scope

from runtime.annotate import annotate
from runtime.serve.bodies import Bodies, stopping
from runtime.serve.changes import Change
from runtime.serve.config import ServeConfig
from runtime.serve.errors import RequestError, answer
from runtime.serve.guard import Guard
from runtime.serve.hub import Hub, Subscription
from runtime.serve.live import Live, Shown, open_stream, play_again, source_names
from runtime.serve.measure import Measured
from runtime.serve.metrics import CONTENT_TYPE, Metrics
from runtime.serve.notify import notify, watchdog
from runtime.serve.operations import OPERATIONS, Operation, openapi
from runtime.serve.page_files import PAGE, PageFiles
from runtime.serve.pictures import decode, encode
from runtime.serve.records import describe
from runtime.serve.requests import (
    JSON_BYTES,
    parameter,
    read_body,
    read_box,
    read_choice,
    read_count,
    read_fields,
    read_flag,
    read_query,
    wanted_format,
)
from runtime.serve.service import Service
from runtime.serve.streams import mjpeg, server_sent_events
from runtime.serve.workers import Place, Workers
from runtime.sources import source_of
from zsd_core.errors import ZsdError

__all__ = ["Application", "build"]

log = logging.getLogger(__name__)
CHANGES, CHANGING = 8, 2  # of classes and thresholds: with their bodies in memory, and worked on
SEARCHES, SEARCHING = 64, 2  # of names, which wait and are worked on


def build(detector: Any, config: ServeConfig, sources: Sequence[str] = ()) -> Starlette:
    """The application around a detector; ``app.state.service`` is an ``Application``."""
    service = Application(detector, config, sources)
    routes: list[Any] = [
        Route(o.path, service.endpoint(o), methods=[o.method], name=o.handler) for o in OPERATIONS
    ]
    page = PageFiles(directory=PAGE, html=True)
    routes.append(Route("/", page, methods=["GET"], name="page"))
    routes.append(Mount("/static", PageFiles(directory=PAGE), name="static"))

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        service.start()
        alive = asyncio.create_task(watchdog())
        try:
            yield
        finally:
            alive.cancel()
            await anyio.to_thread.run_sync(service.close)

    app = Starlette(
        routes=routes,
        lifespan=lifespan,
        middleware=[
            Middleware(Measured, metrics=service.metrics),
            Middleware(Guard, token=config.token, hosts=config.hosts),
        ],
        exception_handlers={HTTPException: _not_here},
    )
    app.router.redirect_slashes = False  # to an address that a proxy does not know
    app.state.service = service
    return app


class Application:
    """State of the handlers: the detector behind its queue, live sources, viewers, numbers."""

    def __init__(self, detector: Any, config: ServeConfig, sources: Sequence[str] = ()) -> None:
        self.config, self.hub = config, Hub(config.viewers)
        self.service = Service(detector, self.hub.send)
        self.workers = Workers(config.workers, config.queue, largest=config.body_bytes)
        self.metrics = Metrics(
            depth=lambda: self.workers.taken,
            version=lambda: detector.class_set_version,
            viewers=lambda: self.hub.viewers,
        )
        self.status = "starting"
        # Changes take turns anyway; what they prepare, and the search of names, need no more.
        self.changes = Workers(CHANGING, CHANGES, "change", JSON_BYTES)
        self.searches = Workers(SEARCHING, SEARCHES, "search")
        self._bodies = Bodies(config.timeout)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._warm = threading.Thread(target=self._warm_up, name="warm-up")
        named = source_names(sources)
        for source in sources:
            source_of(source)  # what is not there is an error now, not later
        self.live = Live(
            partial(open_stream, detector, named, config),
            tuple(named),
            shown=self._shown,
            changed=partial(self.hub.send, "sources"),
            replay=partial(play_again, named) if config.loop else None,
            retry=config.retry,
        )

    def start(self) -> None:
        """Warm the detector up and watch the sources; called in the event loop."""
        self.hub.start()
        self._loop = asyncio.get_running_loop()
        self.hub.publish("classes", self.service.classes())
        self.hub.publish("thresholds", self.service.thresholds())
        self.hub.publish("sources", self.live.sources)
        self._warm.start()
        if self.live.names:
            self.live.start()

    def stop(self) -> None:
        """Take no more work and end every open stream; safe in any thread, and again."""
        self.status = "stopping"
        notify("STOPPING=1")
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._end_waiting)

    def _end_waiting(self) -> None:
        """End streams, and requests whose bodies have not come."""
        self.hub.stop()
        self._bodies.stop()

    def close(self, timeout: float = 0.3) -> bool:
        """Stop; return whether everything has ended within the seconds given."""
        self.stop()
        for workers in (self.workers, self.changes, self.searches):
            workers.close()
        self.live.stop()
        ended = self.live.join(timeout)
        if self._warm.ident is not None:
            self._warm.join(timeout)
        return ended and not self._warm.is_alive()

    def endpoint(self, operation: Operation) -> Callable[[Request], Awaitable[Response]]:
        """The handler of an operation, its errors turned into answers."""
        handler: Callable[[Request], Awaitable[Response]] = getattr(self, operation.handler)

        async def endpoint(request: Request) -> Response:
            request.scope["zsd.route"] = operation.path
            try:
                request.state.query = read_query(request, operation.query or {})
                with self._bodies.in_time(request):
                    return await handler(request)
            except ZsdError as error:
                return answer(error)
            except TimeoutError:
                return answer(
                    RequestError(
                        504,
                        f"the answer was not ready within {self.config.timeout:g} s; send a "
                        "smaller picture, or try again later.",
                    )
                )
            except asyncio.CancelledError:
                if self.status != "stopping":
                    raise
                return answer(stopping())  # cancelled, since it took longer than the end may
            except Exception:
                log.exception("%s %s failed", operation.method, operation.path)
                return answer(
                    RequestError(500, "the service failed on this request; its log says where.")
                )

        return endpoint

    async def detect(self, request: Request) -> Response:
        """Search the body for the classes."""
        form = wanted_format(", ".join(request.headers.getlist("accept")))
        with self.workers.place() as place:
            body = await self._picture(request, place)

            def work() -> tuple[Any, dict[str, Any], bytes]:
                image = decode(body, self.config.pixels)
                found = self.service.detect(image)
                record = describe(found, image.shape[1], image.shape[0])
                return (
                    found,
                    record,
                    encode(annotate(image, found), form) if form[0] == "." else b"",
                )

            found, record, drawn = await place.run(work)
        self.metrics.picture("request", found)
        if not drawn:
            return JSONResponse(record)
        kind = {".jpg": "image/jpeg", ".png": "image/png"}[form]
        version = str(record["class_set_version"])
        return Response(drawn, media_type=kind, headers={"X-Class-Set-Version": version})

    async def get_classes(self, request: Request) -> Response:
        """The class list."""
        return JSONResponse(self.service.classes())

    async def put_classes(self, request: Request) -> Response:
        """Replace the classes."""
        with self.changes.place() as place:
            fields = await self._fields(request, place, "classes", "mode", "exact")
            mode, exact = fields.get("mode"), read_choice(fields, "exact")
            if "classes" in fields:
                work = partial(self.service.replace, fields["classes"], mode, exact)
            elif mode is not None:
                work = partial(self.service.set_mode, mode)
            else:
                raise RequestError(400, "the body names neither classes nor mode.")
            return JSONResponse(await place.change(work))

    async def post_classes(self, request: Request) -> Response:
        """Add classes."""
        with self.changes.place() as place:
            fields = await self._fields(request, place, "classes", "exact")
            classes, exact = fields.get("classes"), read_choice(fields, "exact")
            if classes in (None, [], {}):
                raise RequestError(400, "the body names no classes.")
            return JSONResponse(await place.change(partial(self.service.add, classes, exact)))

    async def delete_classes(self, request: Request) -> Response:
        """Remove classes."""
        names = request.state.query.get("name")
        if not names:
            raise RequestError(400, "no class is named; write DELETE /classes?name=cat&name=cup.")
        with self.changes.place() as place:
            return JSONResponse(await place.change(partial(self.service.remove, names)))

    async def post_example(self, request: Request) -> Response:
        """Make a class from the body, or make it better."""
        name, place_of_object = parameter(request, "name", ""), read_box(request, "box")
        with self.workers.place() as place:
            body = await self._picture(request, place)

            def work(change: Change) -> dict[str, Any]:
                image = decode(body, self.config.pixels)
                return self.service.teach(name, image, place_of_object, change)

            return JSONResponse(await place.change(work))

    async def get_thresholds(self, request: Request) -> Response:
        """The limits."""
        return JSONResponse(self.service.thresholds())

    async def patch_thresholds(self, request: Request) -> Response:
        """Change some limits."""
        with self.changes.place() as place:
            fields = await self._fields(
                request, place, "score_threshold", "nms_threshold", "max_detections"
            )
            work = partial(self.service.set_thresholds, fields)
            return JSONResponse(await place.change(work))

    async def get_search(self, request: Request) -> Response:
        """The nearest names."""
        text, count = parameter(request, "text", ""), read_count(request, "count", 8, 50)
        with self.searches.place() as place:
            return JSONResponse(await place.run(partial(self.service.search, text[:200], count)))

    async def get_sources(self, request: Request) -> Response:
        """The live sources."""
        return JSONResponse({"sources": self.live.sources})

    async def get_live(self, request: Request) -> Response:
        """A source as MJPEG."""
        draw = read_flag(request, "draw", True)
        source = request.path_params["source"]
        return mjpeg(self._subscribe(source, "sources"), source, draw)

    async def get_events(self, request: Request) -> Response:
        """Detections, classes and sources as they change."""
        frames = read_flag(request, "frames", True)
        source = parameter(request, "source", None)
        viewer = self._subscribe(source, "classes", "thresholds", "sources", frames=frames)
        return server_sent_events(viewer)

    async def get_about(self, request: Request) -> Response:
        """Describe what runs here."""
        limits = {n: getattr(self.config, n) for n in ("body_bytes", "pixels", "queue", "timeout")}
        return JSONResponse({**self.service.about(), "limits": limits})

    async def get_health(self, request: Request) -> Response:
        """The process answers."""
        return JSONResponse({"status": "ok"})

    async def get_ready(self, request: Request) -> Response:
        """Whether pictures can be searched."""
        if self.status != "ready":
            raise RequestError(503, f"not ready: {self.status}.", {"Retry-After": "1"})
        return JSONResponse({"status": "ready"})

    async def get_metrics(self, request: Request) -> Response:
        """Numbers for Prometheus."""
        self.metrics.states(self.live.sources)
        return Response(self.metrics.text(), headers={"Content-Type": CONTENT_TYPE})

    async def get_openapi(self, request: Request) -> Response:
        """The description of all this."""
        return JSONResponse(openapi(_version(), self.config.token is not None))

    async def _picture(self, request: Request, place: Place) -> bytes:
        return await self._bodies.read(
            request, place, partial(read_body, request, self.config.body_bytes)
        )

    async def _fields(self, request: Request, place: Place, *known: str) -> dict[str, Any]:
        return await self._bodies.read(request, place, partial(read_fields, request, known))

    def _subscribe(self, source: str | None, *topics: str, frames: bool = True) -> Subscription:
        if source is not None and source not in self.live.names:
            known = ", ".join(self.live.names) or "none; name sources when the service starts"
            raise RequestError(404, f"there is no source {source!r}; sources here: {known}.")
        sources = (self.live.names if source is None else (source,)) if frames else ()
        return self.hub.subscribe(frozenset((*topics, *(f"frame {name}" for name in sources))))

    def _shown(self, shown: Shown) -> None:
        """Hand on a searched frame; called in the thread of the sources."""
        self.hub.send(f"frame {shown.source}", shown)
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self.metrics.picture, shown.source, shown.found)

    def _warm_up(self) -> None:
        start = time.perf_counter()
        try:
            self.service.detector.warmup()
        except Exception as error:
            said = isinstance(error, ZsdError)
            why = str(error) if said else f"{type(error).__name__}, see the log of the service"
            self.status = f"the detector does not run: {why}"
            log.error("%s", self.status, exc_info=None if said else error)
            return
        if self.status == "starting":
            self.status = "ready"
            notify("READY=1")
            log.info("ready after %.1f s", time.perf_counter() - start)


async def _not_here(request: Request, error: Exception) -> Response:
    """No such path, or not with this method."""
    status = error.status_code if isinstance(error, HTTPException) else 404
    scope, headers = request.scope, dict(getattr(error, "headers", None) or {})
    hint, path = "GET /openapi.json lists all there is", scope["path"]
    if methods := _methods(request.app, scope):
        headers["Allow"] = ", ".join(sorted(methods))
    elif path.endswith("/") and _methods(request.app, {**scope, "path": path.rstrip("/")}):
        hint = "leave out the / at the end"
    return answer(
        RequestError(status, f"there is no {request.method} {path} here; {hint}.", headers)
    )


def _methods(app: Starlette, scope: Scope) -> set[str]:
    """The methods of a path, of which each route knows its own."""
    scope = {**scope, "root_path": scope.get("app_root_path", scope.get("root_path", ""))}
    routes = [route for route in app.routes if isinstance(route, Route)]
    here = [route.methods or () for route in routes if route.matches(scope)[0] != Match.NONE]
    return set().union(*here)


def _version() -> str:
    try:
        return version("contrastzsd")
    except PackageNotFoundError:  # run from a checkout that is not installed
        return "0"
