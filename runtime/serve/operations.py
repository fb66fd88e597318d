"""Every operation of the service, once: the routes and their OpenAPI description."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["OPERATIONS", "Operation", "openapi"]

NUMBER, TEXT, FLAG = {"type": "number"}, {"type": "string"}, {"type": "boolean"}
WHOLE = {"type": "integer"}
PICTURE = {
    kind: {"schema": {"type": "string", "format": "binary"}}
    for kind in ("image/jpeg", "image/png", "image/webp", "image/bmp")
}
ERRORS = {
    400: "The request is malformed.",
    404: "There is no such source.",
    406: "No format that the request accepts.",
    408: "The body came too slowly.",
    413: "The body or the picture is too large.",
    415: "The body is no picture of a known format, is compressed, or is a form.",
    422: "Understood, but it cannot be done; the sentence says why.",
    503: "Too much to do, or not ready; Retry-After says when to try again.",
    504: "The answer was not ready in time.",
}


@dataclass(frozen=True, slots=True)
class Operation:
    """One method of one path.

    Attributes:
        method: such as "GET".
        path: with ``{source}`` for a variable part.
        handler: name of the method that answers.
        summary: one line.
        answer: media types of the answer to a request that worked, and their schemas.
        query: schema of every parameter after the question mark; others are refused.
        body: media types of the request's body, and their schemas.
        errors: statuses that may come instead, beside 400.
    """

    method: str
    path: str
    handler: str
    summary: str
    answer: Mapping[str, Any]
    query: Mapping[str, Any] | None = None
    body: Mapping[str, Any] | None = None
    errors: Sequence[int] = ()


def _reference(name: str) -> dict[str, Any]:
    return {"application/json": {"schema": {"$ref": f"#/components/schemas/{name}"}}}


CHANGE_ERRORS = (408, 413, 415, 422, 503, 504)  # of a request whose body is JSON
CLASS_LIST = _reference("ClassList")
OPERATIONS = (
    Operation(
        "POST",
        "/detect",
        "detect",
        "Find the classes in a picture; the answer is JSON, or the drawn picture.",
        {
            **_reference("Found"),
            "image/jpeg": {"schema": {"type": "string", "format": "binary"}},
            "image/png": {"schema": {"type": "string", "format": "binary"}},
        },
        body=PICTURE,
        errors=(406, 408, 413, 415, 422, 503, 504),
    ),
    Operation("GET", "/classes", "get_classes", "The active classes.", CLASS_LIST),
    Operation(
        "PUT",
        "/classes",
        "put_classes",
        "Replace the classes (null: the bundle's own), and the mode if it is given.",
        CLASS_LIST,
        body=_reference("NewClasses"),
        errors=CHANGE_ERRORS,
    ),
    Operation(
        "POST",
        "/classes",
        "post_classes",
        "Add classes.",
        CLASS_LIST,
        body=_reference("NewClasses"),
        errors=CHANGE_ERRORS,
    ),
    Operation(
        "DELETE",
        "/classes",
        "delete_classes",
        "Remove classes; repeat the parameter for several, or PUT the others for very many.",
        CLASS_LIST,
        query={"name": {"type": "array", "items": TEXT}},
        errors=(422, 503, 504),
    ),
    Operation(
        "POST",
        "/classes/examples",
        "post_example",
        "Make a class from a picture of it, or make it better with one more.",
        CLASS_LIST,
        query={
            "name": TEXT,
            "box": {**TEXT, "description": "x1,y1,x2,y2 in pixels; left out, the whole picture"},
        },
        body=PICTURE,
        errors=(408, 413, 415, 422, 503, 504),
    ),
    Operation(
        "GET", "/thresholds", "get_thresholds", "The limits in force.", _reference("Thresholds")
    ),
    Operation(
        "PATCH",
        "/thresholds",
        "patch_thresholds",
        "Change some limits from the next picture on; the others stay.",
        _reference("Thresholds"),
        body=_reference("Thresholds"),
        errors=CHANGE_ERRORS,
    ),
    Operation(
        "GET",
        "/search",
        "get_search",
        "Names of the vocabulary that are spelled like a text.",
        _reference("Names"),
        query={"text": TEXT, "count": WHOLE},
        errors=(503, 504),
    ),
    Operation(
        "GET",
        "/sources",
        "get_sources",
        "The live sources and their states.",
        _reference("Sources"),
    ),
    Operation(
        "GET",
        "/live/{source}",
        "get_live",
        "A source as MJPEG, every frame's detections in its header X-Frame.",
        {"multipart/x-mixed-replace": {"schema": TEXT}},
        query={"draw": {**FLAG, "description": "boxes in the picture (true) or not"}},
        errors=(404, 503),
    ),
    Operation(
        "GET",
        "/events",
        "get_events",
        "Server-sent events: frame; classes, thresholds and sources when they change.",
        {"text/event-stream": {"schema": TEXT}},
        query={"source": TEXT, "frames": {**FLAG, "description": "false: only the changes"}},
        errors=(404, 503),
    ),
    Operation(
        "GET",
        "/about",
        "get_about",
        "The bundle, the backend, and what they can do.",
        _reference("About"),
    ),
    Operation("GET", "/health", "get_health", "The process answers.", _reference("Status")),
    Operation(
        "GET",
        "/ready",
        "get_ready",
        "Pictures can be searched: warm, and not stopping.",
        _reference("Status"),
        errors=(503,),
    ),
    Operation(
        "GET",
        "/metrics",
        "get_metrics",
        "Numbers for Prometheus.",
        {"text/plain": {"schema": TEXT}},
    ),
    Operation(
        "GET",
        "/openapi.json",
        "get_openapi",
        "This description.",
        {"application/json": {"schema": {"type": "object"}}},
    ),
)


def _object(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties}


def _list(items: Any) -> dict[str, Any]:
    return {"type": "array", "items": items}


def _map(values: Any) -> dict[str, Any]:
    return {"type": "object", "additionalProperties": values}


SCHEMAS = {
    "Found": _object(
        image=_object(width=WHOLE, height=WHOLE),
        detections=_list(
            _object(
                box={**_list(NUMBER), "description": "x1 y1 x2 y2 in pixels of the picture"},
                score=NUMBER,
                role={"enum": ["seen", "unseen"]},
                color=TEXT,
                **{"class": TEXT},
            )
        ),
        class_set_version={**WHOLE, "description": "of the classes the picture was searched for"},
        times_ms=_map(NUMBER),
        near_miss={
            "oneOf": [_object(score=NUMBER, **{"class": TEXT}), {"type": "null"}],
            "description": "where nothing was found, the best class and its score",
        },
        message=TEXT,
    ),
    "ClassList": _object(
        version=WHOLE,
        mode={"enum": ["zsd", "gzsd", "seen"]},
        classes=_list(
            _object(
                name=TEXT,
                role=TEXT,
                color=TEXT,
                examples=WHOLE,
                hint={"type": ["string", "null"], "description": "a likelier spelling of the name"},
            )
        ),
    ),
    "NewClasses": _object(
        classes={
            "oneOf": [
                {**_list(TEXT), "description": "names, or phrases where the bundle encodes them"},
                {**_map({"oneOf": [_list(NUMBER), {"type": "null"}]}), "description": "vectors"},
                {"type": "null", "description": "the bundle's own classes (PUT only)"},
            ]
        },
        mode={"enum": ["zsd", "gzsd", "seen"], "description": "PUT only"},
        exact={**FLAG, "description": "take names that look misspelt as they are"},
    ),
    "Thresholds": _object(
        score_threshold={
            "oneOf": [
                NUMBER,
                _list(NUMBER),
                _map({"oneOf": [NUMBER, {"type": "null"}]}),
            ],
            "description": "one number, [seen, unseen], or numbers by role or class name",
        },
        nms_threshold=NUMBER,
        max_detections=WHOLE,
    ),
    "Names": _object(text=TEXT, known=FLAG, names=_list(TEXT)),
    "Sources": _object(
        sources=_list(
            _object(
                name=TEXT,
                state={"enum": ["opening", "running", "lost", "ended", "failed"]},
                error={"type": ["string", "null"]},
            )
        )
    ),
    "About": _object(
        bundle=TEXT,
        description=TEXT,
        vocabulary=WHOLE,
        phrases=FLAG,
        examples=FLAG,
        colors=_map(TEXT),
        limits=_map(NUMBER),
    ),
    "Status": _object(status=TEXT),
    "Error": _object(
        error={**TEXT, "description": "where, what and the fix"},
        type=TEXT,
        meant={**_map(TEXT), "description": "likelier spellings of names that look misspelt"},
    ),
}


def openapi(version: str, token: bool) -> dict[str, Any]:
    """The OpenAPI 3.1 description of every operation.

    Args:
        version: of this project.
        token: whether requests need a bearer token.
    """
    paths: dict[str, dict[str, Any]] = {}
    for operation in OPERATIONS:
        paths.setdefault(operation.path, {})[operation.method.lower()] = _described(operation)
    description: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {
            "title": "ContrastZSD",
            "version": version,
            "description": "Find any classes in pictures; classes change while it runs.",
        },
        "paths": paths,
        "components": {"schemas": SCHEMAS},
    }
    if token:
        description["components"]["securitySchemes"] = {
            "token": {"type": "http", "scheme": "bearer"}
        }
        description["security"] = [{"token": []}]
    return description


def _described(operation: Operation) -> dict[str, Any]:
    parts = [part[1:-1] for part in operation.path.split("/") if part.startswith("{")]
    parameters = [
        {"name": name, "in": "path", "required": True, "schema": TEXT} for name in parts
    ] + [
        {
            "name": name,
            "in": "query",
            "required": name in ("name", "text"),
            "schema": schema,
        }
        for name, schema in (operation.query or {}).items()
    ]
    described: dict[str, Any] = {
        "operationId": operation.handler,
        "summary": operation.summary,
        "responses": {
            "200": {"description": "It worked.", "content": dict(operation.answer)},
            **{
                str(status): {"description": ERRORS[status], "content": _reference("Error")}
                for status in (400, *operation.errors)
            },
        },
    }
    if parameters:
        described["parameters"] = parameters
    if operation.body:
        described["requestBody"] = {"required": True, "content": dict(operation.body)}
    return described
