"""The shapes of answers and errors.

A request may also have been sent to one program and be answered by the next, in the same process.
"""

from __future__ import annotations

import json
import os
from contextlib import suppress
from http import HTTPStatus
from typing import Any, Final

from aiohttp import web

from blackhole_cg.errors import (
    BlackholeError,
    ConfigError,
    ControlError,
    DependentsError,
    IsolationError,
    OperationError,
    UnknownServiceError,
)

_STATUS_OF_KIND: Final = {
    "bad_request": 400,
    "forbidden": 403,
    "not_found": 404,
    "unknown_service": 404,
    "invalid_config": 422,
    "method_not_allowed": 405,
    "operation_failed": 409,
    "dependents": 409,
    "too_large": 413,
    "stopping": 503,
}
_KIND_OF_STATUS: Final = {400: "bad_request", 404: "not_found", 405: "method_not_allowed", 413: "too_large"}


def answer(value: Any, status: int = 200) -> web.Response:
    """A JSON value."""
    body = json.dumps(value).encode() + b"\n"
    return web.Response(body=body, status=status, content_type="application/json")


def kind_of(error: BlackholeError) -> str:
    """The word by which a program tells this error from others."""
    if isinstance(error, ControlError):
        return error.kind
    if isinstance(error, UnknownServiceError):
        return "unknown_service"
    if isinstance(error, DependentsError):
        return "dependents"
    if isinstance(error, ConfigError):
        return "invalid_config"
    return "operation_failed" if isinstance(error, OperationError | IsolationError) else "internal"


def refuse(kind: str, message: str) -> web.Response:
    """The one shape of an error."""
    return answer({"error": {"kind": kind, "message": message}}, _STATUS_OF_KIND.get(kind, 500))


def refuse_http(request: web.Request, refused: web.HTTPException) -> web.Response:
    """What the HTTP layer refused by itself, in our shape."""
    message = f"cannot answer {request.method} {request.path}: {refused.reason}"
    response = refuse(_KIND_OF_STATUS.get(refused.status, "internal"), message)
    if isinstance(refused, web.HTTPMethodNotAllowed):
        allowed = ", ".join(sorted(refused.allowed_methods))
        response = refuse("method_not_allowed", f"{request.path} takes {allowed}, not {request.method}")
        response.headers["Allow"] = allowed
    return response


class AnsweredElsewhere(web.StreamResponse):
    """No answer: another program gives it, by a descriptor of its own. This one lets go of the connection."""

    def __init__(self, request: web.Request) -> None:
        super().__init__()
        self.force_close()
        if request.transport is not None:
            request.transport.close()

    async def prepare(self, request: web.BaseRequest) -> None:
        """Send nothing."""

    async def write_eof(self, data: bytes = b"") -> None:
        """Send nothing."""


def answer_handed(descriptor: int, value: dict[str, Any], status: HTTPStatus = HTTPStatus.OK) -> None:
    """Answer with a JSON object on the connection, and close it; a client that has left is told nothing."""
    body = json.dumps(value).encode() + b"\n"
    head = (
        f"HTTP/1.1 {status.value} {status.phrase}\r\n"
        "Content-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n"
        "Connection: close\r\n\r\n"
    )
    with suppress(OSError):
        os.set_blocking(descriptor, False)
        os.write(descriptor, head.encode() + body)
    os.close(descriptor)


def refuse_handed(descriptor: int, message: str) -> None:
    """Say on the connection why what was asked for was not done, and close it."""
    answer_handed(
        descriptor, {"error": {"kind": "operation_failed", "message": message}}, HTTPStatus.CONFLICT
    )
