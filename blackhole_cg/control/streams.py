"""Long answers: newline-delimited JSON and server-sent events, each ended promptly when the server closes."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable, Iterable, Mapping
from typing import Any, Final

from aiohttp import web

from blackhole_cg.core.facts import EventRecord

logger = logging.getLogger(__name__)

JSON: Final = "application/json"
NDJSON: Final = "application/x-ndjson"
EVENT_STREAM: Final = "text/event-stream"


class Streams:
    """The streams being sent; one ends with its source, when its client leaves or by `end_all`."""

    def __init__(self) -> None:
        self._pumps: set[asyncio.Task[None]] = set()
        self._ended = False

    async def send(
        self, request: web.Request, content_type: str, chunks: AsyncIterable[bytes]
    ) -> web.StreamResponse:
        """Send every chunk as it comes; the headers go out at once, also when the first chunk is far away."""
        response = web.StreamResponse(headers={"Content-Type": content_type, "Cache-Control": "no-store"})
        await response.prepare(request)
        if request.method == "HEAD" or self._ended:
            return response
        pump = asyncio.create_task(_pump(request, response, chunks))
        self._pumps.add(pump)
        try:
            await pump
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if not pump.cancelled() or (task is not None and task.cancelling()):
                raise  # it is this request that ends, not all streams
        finally:
            self._pumps.discard(pump)
        return response

    def end_all(self) -> None:
        """End every stream, and any that is still to come, with a proper last chunk."""
        self._ended = True
        for pump in self._pumps:
            pump.cancel()


async def encode_events(events: AsyncIterable[EventRecord]) -> AsyncIterator[bytes]:
    """Each event as a server-sent event with its id, by which a client that lost its connection goes on.

    Source: HTML standard, section 9.2 "Server-sent events".
    """
    try:
        async for event in events:
            yield b"id: %d\ndata: %s\n\n" % (event.id, json.dumps(event.to_json()).encode())
    finally:
        await _close(events)


async def encode_lines(values: AsyncIterable[Mapping[str, Any]]) -> AsyncIterator[bytes]:
    """Each object as a line of JSON."""
    try:
        async for value in values:
            yield json.dumps(value).encode() + b"\n"
    finally:
        await _close(values)


async def encode_by_name(
    title: str, names: Iterable[str], read: Callable[[str], object]
) -> AsyncIterator[bytes]:
    """One JSON object, of something large for each name, made name by name: nobody has to wait for all."""
    yield b"{%s: {" % json.dumps(title).encode()
    comma = ""
    for name in names:
        yield f"{comma}{json.dumps(name)}: {json.dumps(read(name))}".encode()
        comma = ", "
    yield b"}}\n"


async def _pump(request: web.Request, response: web.StreamResponse, chunks: AsyncIterable[bytes]) -> None:
    try:
        async for chunk in chunks:
            await response.write(chunk)
            await asyncio.sleep(0)  # a source that never waits must not keep the loop from everyone else
    except ConnectionError:
        return  # the client left
    except Exception:
        # The headers are out, so the one way left to say "this is not all" is to break the connection off.
        logger.exception("cannot go on sending %s", request.path)
        if request.transport is not None:
            request.transport.abort()
    finally:
        await _close(chunks)


async def _close(source: AsyncIterable[object]) -> None:
    """Close a source that can be closed now, rather than leave its descriptors to the garbage collector."""
    if isinstance(source, AsyncGenerator):
        await source.aclose()
