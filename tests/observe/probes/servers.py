"""Servers on the loopback interface for probes to ask, all in the test's own loop."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

from blackhole_cg.core.probe_spec import Address

DEADLINE_SECONDS = 60.0
PATIENCE_SECONDS = 30.0  # for answers that must come
IMPATIENCE_SECONDS = 0.3  # for answers that never come

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def in_time(coroutine: Any) -> Any:
    """Run a test's coroutine with a deadline."""

    async def limited() -> Any:
        async with asyncio.timeout(DEADLINE_SECONDS):
            return await coroutine

    return asyncio.run(limited())


@contextlib.asynccontextmanager
async def serve(
    handle: Handler, path: Path | None = None, tls: ssl.SSLContext | None = None
) -> AsyncIterator[Address]:
    """A server that does with each connection what `handle` does, and then closes it."""

    async def one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await handle(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    if path is not None:
        server = await asyncio.start_unix_server(one, path)
        address = Address(unix_socket=str(path))
    else:
        server = await asyncio.start_server(one, "127.0.0.1", 0, ssl=tls)
        address = Address(port=server.sockets[0].getsockname()[1])
    try:
        yield address
    finally:
        server.close()


def replying(*pieces: bytes) -> Handler:
    """Reads a request's head, writes the pieces one by one, and closes."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        for piece in pieces:
            writer.write(piece)
            await writer.drain()

    return handle


async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Accepts and never answers; goes when the other side goes."""
    while await reader.read(65536):
        pass


@contextlib.contextmanager
def unserved_port() -> Any:
    """A port of which it is certain that nobody listens on it."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]
