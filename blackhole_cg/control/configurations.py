"""The part of the control API that is about configurations: to preview one, apply it, list and return."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final, Protocol

from aiohttp import web

from blackhole_cg.control.access import Peer
from blackhole_cg.control.operations import Operations
from blackhole_cg.control.queries import BadQueryError, check_known, parse_flag
from blackhole_cg.errors import ControlError

logger = logging.getLogger(__name__)

_ROOT: Final = 0

Route = tuple[str, str, Callable[[web.Request], Awaitable[web.StreamResponse]]]


class Server(Protocol):
    """What is needed of the server here."""

    async def outlive(self, wish: Coroutine[Any, Any, Any]) -> Any:
        """Wait for an operation that goes on when its client leaves."""

    def refuse_when_stopping(self) -> None:
        """Raise ControlError during the shutdown."""

    def peer_of(self, request: web.Request) -> Peer:
        """Who asks."""

    def answer(self, value: Any) -> web.StreamResponse:
        """The value as JSON."""


class ConfigurationRoutes:
    """These routes, of one server."""

    def __init__(self, operations: Operations, server: Server) -> None:
        self._operations = operations
        self._server = server

    def routes(self) -> list[Route]:
        """Method, path and handler of each."""
        return [
            ("GET", "/v1/configurations", self._list),
            ("POST", "/v1/reload", self._reload),
            ("POST", "/v1/plan", self._plan),
            ("POST", "/v1/apply", self._apply),
            ("POST", "/v1/rollback", self._roll_back),
        ]

    async def _list(self, request: web.Request) -> web.StreamResponse:
        check_known(request.query, ())
        return self._server.answer({"configurations": self._operations.configurations()})

    async def _reload(self, request: web.Request) -> web.StreamResponse:
        check_known(request.query, ("force",))
        force = parse_flag(request.query, "force")
        await request.read()
        self._admit(request, "reload")
        return self._server.answer(await self._server.outlive(self._operations.reload(force=force)))

    async def _plan(self, request: web.Request) -> web.StreamResponse:
        body = await _read_body(request, {"config": str})
        self._admit(request, "plan")
        self._refuse_strangers(request)
        return self._server.answer(await self._server.outlive(self._operations.plan(_path(body))))

    async def _apply(self, request: web.Request) -> web.StreamResponse:
        body = await _read_body(request, {"config": str, "force": bool})
        self._admit(request, "apply")
        self._refuse_strangers(request)
        applying = self._operations.apply(_path(body), force=body.get("force", False))
        return self._server.answer(await self._server.outlive(applying))

    async def _roll_back(self, request: web.Request) -> web.StreamResponse:
        body = await _read_body(request, {"number": int, "force": bool})
        self._admit(request, "rollback")
        returning = self._operations.roll_back(body.get("number"), force=body.get("force", False))
        return self._server.answer(await self._server.outlive(returning))

    def _admit(self, request: web.Request, what: str) -> None:
        self._server.refuse_when_stopping()
        peer = self._server.peer_of(request)
        logger.info("%s asked for by user %d, pid %d", what, peer.uid, peer.pid)

    def _refuse_strangers(self, request: web.Request) -> None:
        """Whoever names a file decides what we run, as us: a member of the control group may not."""
        if self._server.peer_of(request).uid not in (_ROOT, os.geteuid()):
            raise ControlError(
                "forbidden", "only root, or the user it runs as, gives it another configuration"
            )


async def _read_body(request: web.Request, kinds: dict[str, type]) -> dict[str, Any]:
    """The JSON object in the body, with no other keys than these. Raises BadQueryError."""
    check_known(request.query, ())
    text = await request.read()
    try:
        body = json.loads(text) if text.strip() else {}
    except ValueError as error:
        raise BadQueryError(f"cannot read the body: {error} (accepted: a JSON object)") from None
    if not isinstance(body, dict):
        raise BadQueryError("cannot read the body (accepted: a JSON object)")
    for name, value in body.items():
        kind = kinds.get(name)
        is_right = kind is not None and isinstance(value, kind) and (kind is bool or value is not True)
        if not is_right:
            accepted = ", ".join(f"{each}: {kinds[each].__name__}" for each in kinds)
            raise BadQueryError(f"cannot use {name!r} of the body (accepted: {accepted})")
    return body


def _path(body: dict[str, Any]) -> str:
    path = body.get("config", "")
    if not isinstance(path, str) or not path.startswith("/") or "\0" in path:
        raise BadQueryError("cannot use 'config' (accepted: the absolute path of a configuration file)")
    return path
