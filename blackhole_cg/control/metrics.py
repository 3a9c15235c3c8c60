"""Metrics over HTTP: the answer to `GET /metrics`, and a loopback listener that knows little else.

Whoever can reach the listener may read; there is nothing it could be told to do.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import socket
from collections.abc import Awaitable, Callable
from typing import Final
from urllib.parse import urlsplit

from aiohttp import web

from blackhole_cg.control.operations import Operations
from blackhole_cg.core.spec import TcpAddress
from blackhole_cg.observe.exposition import choose_content_type, render
from blackhole_cg.observe.metrics import collect

logger = logging.getLogger(__name__)

_BACKLOG: Final = 16
_CLOSE_TIMEOUT_SECONDS: Final = 2.0

_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


async def answer_metrics(request: web.Request, operations: Operations) -> web.Response:
    """The metrics of this moment, in the format that the Accept header prefers."""
    content_type = choose_content_type(request.headers.get("Accept", ""))
    parts = []
    for part in render(collect(operations.measurements()), content_type):
        parts.append(part)
        await asyncio.sleep(0)  # the text of many services must not keep the loop from everyone else
    return web.Response(body=b"".join(parts), headers={"Content-Type": content_type, "Vary": "Accept"})


class MetricsListener:
    """Answers `GET /metrics` and `GET /healthz` at a TCP address, between `open` and `close`.

    Where there is no address it does nothing.
    """

    def __init__(self, operations: Operations, address: TcpAddress | None) -> None:
        self._operations = operations
        self._address = address
        self._runner: web.AppRunner | None = None

    async def open(self) -> None:
        """Begin to answer; where the address cannot be had, say so: services are worth more than metrics."""
        if self._address is None:
            return
        try:
            listener = _bind(self._address)
        except OSError as cause:
            reason = cause.strerror or str(cause)
            logger.error("no metrics on %s: cannot listen there: %s", self._address, reason)
            return
        app = web.Application(middlewares=[_refuse_strangers])
        app.router.add_get("/metrics", self._get_metrics)
        app.router.add_get("/healthz", self._get_healthz)
        runner = web.AppRunner(
            app, access_log=None, handler_cancellation=True, shutdown_timeout=_CLOSE_TIMEOUT_SECONDS
        )
        await runner.setup()
        await web.SockSite(runner, listener).start()
        self._runner = runner

    async def close(self) -> None:
        """Answer no more."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def _get_metrics(self, request: web.Request) -> web.StreamResponse:
        return await answer_metrics(request, self._operations)

    async def _get_healthz(self, request: web.Request) -> web.StreamResponse:
        if self._operations.stopping:
            raise web.HTTPServiceUnavailable(text="the supervisor is shutting down\n")
        return web.Response(text="ok\n")


@web.middleware
async def _refuse_strangers(request: web.Request, handler: _Handler) -> web.StreamResponse:
    """Refuse a web page that reaches this host through a name of its own, by DNS rebinding."""
    host = request.headers.get("Host")
    if host is not None and not _is_loopback(host):
        raise web.HTTPForbidden(text="this is answered only as localhost or by a loopback address\n")
    return await handler(request)


def _is_loopback(host: str) -> bool:
    try:
        name = urlsplit(f"//{host}").hostname or ""
        return name == "localhost" or ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def _bind(address: TcpAddress) -> socket.socket:
    """Listen there; by hand, because the loop would look the address up in a thread if it were a name."""
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((address.host, address.port))
        listener.listen(_BACKLOG)
    except OSError:
        listener.close()
        raise
    return listener
