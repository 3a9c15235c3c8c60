"""The control API: HTTP/1.1 with JSON on a unix socket, in front of `Operations`.

Owns routes, access, the shapes of answers and errors. Decides nothing about services. Starts no thread.
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
import socket
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar

from aiohttp import web

from blackhole_cg.control.access import (
    Peer,
    bind_control_socket,
    identify_socket,
    read_peer,
    resolve_access,
    resume_control_socket,
)
from blackhole_cg.control.answers import AnsweredElsewhere, answer, kind_of, refuse, refuse_http
from blackhole_cg.control.configurations import ConfigurationRoutes
from blackhole_cg.control.metrics import answer_metrics
from blackhole_cg.control.operations import Operations
from blackhole_cg.control.queries import (
    BadQueryError,
    check_known,
    parse_count,
    parse_flag,
    parse_since,
    parse_word,
)
from blackhole_cg.control.streams import (
    EVENT_STREAM,
    JSON,
    NDJSON,
    Streams,
    encode_by_name,
    encode_events,
    encode_lines,
)
from blackhole_cg.core.facts import EventRecord
from blackhole_cg.core.words import Dependents, Stream
from blackhole_cg.errors import (
    BlackholeError,
    ControlError,
    UnknownServiceError,
)
from blackhole_cg.observe.log_reader import LogQuery

logger = logging.getLogger(__name__)

DEFAULT_EVENTS: Final = 1000
_BODY_MAX_BYTES: Final = 64 * 1024
_CLOSE_TIMEOUT_SECONDS: Final = 2.0

T = TypeVar("T")
_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class ControlServer:
    """Serves one supervisor's control API between `open` and `close`."""

    def __init__(self, operations: Operations, socket_path: Path, group: str | None = None) -> None:
        self._operations = operations
        self._socket_path = socket_path
        self._group = group
        self._access = resolve_access(None)
        self._streams = Streams()
        self._wishes: set[asyncio.Task[Any]] = set()
        self._configurations = ConfigurationRoutes(operations, self)
        self._runner: web.AppRunner | None = None
        self._listener: socket.socket | None = None
        self._is_shared = False

    def _routes(self) -> list[tuple[str, str, _Handler]]:
        """The whole API. Every GET answers HEAD as well."""
        change = self._change
        return [
            ("GET", "/healthz", self._get_healthz),
            ("GET", "/metrics", self._get_metrics),
            ("GET", "/v1/host", self._get_host),
            ("GET", "/v1/host/cgroups", self._get_cgroups),
            ("GET", "/v1/services", self._get_services),
            ("GET", "/v1/services/{name}", self._get_service),
            ("GET", "/v1/services/{name}/logs", self._get_logs),
            ("GET", "/v1/services/{names}/health", self._get_health),
            ("GET", "/v1/services/{names}/samples", self._get_samples),
            ("GET", "/v1/services/{name}/processes", self._get_processes),
            ("GET", "/v1/services/{name}/why", self._get_why),
            ("GET", "/v1/endpoints", self._get_endpoints),
            ("GET", "/v1/events", self._get_events),
            ("POST", "/v1/services/{names}/start", partial(change, "start")),
            ("POST", "/v1/services/{names}/stop", partial(change, "stop")),
            ("POST", "/v1/services/{names}/restart", partial(change, "restart")),
            ("POST", "/v1/services/{names}/reset", partial(change, "reset")),
            *self._configurations.routes(),
            ("POST", "/v1/host/cgroups/{name}/kill", self._kill_cgroup),
            ("POST", "/v1/upgrade", self._upgrade),
        ]

    async def open(self, inherited: int | None = None) -> None:
        """Begin to answer; the caller holds the runtime directory's lock.

        `inherited` is the socket as an earlier program listened on it, with whoever waits in it.

        Raises:
            ControlError: the socket cannot be made, or the group does not exist.
        """
        self._access = resolve_access(self._group)
        app = web.Application(middlewares=[self._guard], client_max_size=_BODY_MAX_BYTES)
        for method, path, handler in self._routes():
            add = app.router.add_get if method == "GET" else app.router.add_post
            add(path, handler)
        runner = web.AppRunner(
            app, access_log=None, handler_cancellation=True, shutdown_timeout=_CLOSE_TIMEOUT_SECONDS
        )
        listener = None
        if inherited is not None:
            listener = resume_control_socket(inherited, self._socket_path, self._access)
        if listener is None:
            listener = bind_control_socket(self._socket_path, self._access)
        await runner.setup()
        self._site = web.SockSite(runner, listener)
        await self._site.start()
        self._runner, self._listener = runner, listener
        self._identity = identify_socket(self._socket_path)

    async def renew(self) -> bool:
        """Listen under the same name again where somebody has deleted that; whether it was so.

        Who is connected already stays so. Raises ControlError.
        """
        assert self._runner is not None and self._listener is not None, "open() comes first"
        if self._is_shared or identify_socket(self._socket_path) == self._identity:
            return False
        listener, site = bind_control_socket(self._socket_path, self._access), self._site
        self._site = web.SockSite(self._runner, listener)
        await self._site.start()
        self._listener, self._identity = listener, identify_socket(self._socket_path)
        await site.stop()
        return True

    def share(self) -> int:
        """Another descriptor of the socket: whoever connects from now on waits for the next to answer."""
        assert self._listener is not None, "open() comes first"
        self._is_shared = True
        return fcntl.fcntl(self._listener, fcntl.F_DUPFD_CLOEXEC, 0)

    async def close(self) -> None:
        """Take the socket away, end every stream, give operations a moment, and answer what is left."""
        if self._runner is None:
            return
        if self._is_shared:
            await self._site.stop()  # before streams end: whoever asks again is to wait for the next program
        else:
            self._socket_path.unlink(missing_ok=True)
        self._streams.end_all()
        if self._wishes:
            await asyncio.wait(self._wishes, timeout=_CLOSE_TIMEOUT_SECONDS)
        for wish in self._wishes:
            wish.cancel()
        await self._runner.cleanup()
        self._runner = None

    @web.middleware
    async def _guard(self, request: web.Request, handler: _Handler) -> web.StreamResponse:
        """Let in whom the socket is for, and turn every error into the one shape of an error."""
        try:
            self._admit(_peer_of(request))
            return await handler(request)
        except ConnectionError:
            raise  # the client left
        except web.HTTPException as refused:
            return refuse_http(request, refused)
        except BlackholeError as error:
            return refuse(kind_of(error), str(error))
        except Exception as error:
            logger.exception("cannot answer %s %s", request.method, request.path)
            return refuse("internal", f"cannot answer {request.method} {request.path}: {error!r}")

    def _admit(self, peer: Peer) -> None:
        if not self._access.allows(peer):
            raise ControlError("forbidden", f"user {peer.uid} may not use this supervisor's control socket")

    async def _get_healthz(self, request: web.Request) -> web.StreamResponse:
        check_known(request.query, ())
        self.refuse_when_stopping()
        return answer({"status": "ok"})

    async def _get_metrics(self, request: web.Request) -> web.StreamResponse:
        check_known(request.query, ())
        return await answer_metrics(request, self._operations)

    async def _get_host(self, request: web.Request) -> web.StreamResponse:
        check_known(request.query, ())
        return answer(self._operations.host().to_json())

    async def _get_cgroups(self, request: web.Request) -> web.StreamResponse:
        check_known(request.query, ())
        return answer({"unknown": self._operations.unknown_cgroups()})

    async def _kill_cgroup(self, request: web.Request) -> web.StreamResponse:
        check_known(request.query, ())
        self.refuse_when_stopping()
        return answer({"killed": await self._operations.kill_cgroup(request.match_info["name"])})

    async def _get_services(self, request: web.Request) -> web.StreamResponse:
        check_known(request.query, ())
        return answer({"services": [info.to_json() for info in self._operations.services()]})

    async def _get_service(self, request: web.Request) -> web.StreamResponse:
        check_known(request.query, ())
        return answer(self._operations.service(request.match_info["name"]).to_json())

    async def _get_health(self, request: web.Request) -> web.StreamResponse:
        check_known(request.query, ())
        names = self._select(request.match_info["names"]) or self._operations.names()
        return answer({"services": {name: self._operations.health(name) for name in names}})

    async def _get_endpoints(self, request: web.Request) -> web.StreamResponse:
        check_known(request.query, ("service",))
        endpoints, name = self._operations.endpoints(), request.query.get("service")
        if name is not None:
            self._check_name(name)
            endpoints = {each: found for each, found in endpoints.items() if each == name}
        return answer({"endpoints": endpoints})

    async def _get_samples(self, request: web.Request) -> web.StreamResponse:
        follow = parse_flag(request.query, "follow")
        history = parse_flag(request.query, "history")
        accepted = (
            ("follow",) if follow else ("follow", "history", "since") if history else ("follow", "history")
        )
        check_known(request.query, accepted)
        names = self._select(request.match_info["names"])
        if follow:
            lines = encode_lines(self._operations.follow_samples(names))
            return await self._streams.send(request, NDJSON, lines)
        since = parse_since(request.query, "since", datetime.now(UTC))
        samples = partial(self._operations.samples, history=history, since=since)
        chunks = encode_by_name("services", names or self._operations.names(), samples)
        return await self._streams.send(request, JSON, chunks)

    async def _get_processes(self, request: web.Request) -> web.StreamResponse:
        check_known(request.query, ())
        name = self._check_name(request.match_info["name"])
        return answer({"processes": self._operations.processes(name)})

    async def _get_why(self, request: web.Request) -> web.StreamResponse:
        check_known(request.query, ())
        return answer(self._operations.why(self._check_name(request.match_info["name"])))

    async def _get_logs(self, request: web.Request) -> web.StreamResponse:
        check_known(request.query, ("tail", "since", "stream", "follow"))
        name = self._check_name(request.match_info["name"])
        query = LogQuery(
            tail=parse_count(request.query, "tail"),
            since=parse_since(request.query, "since", datetime.now(UTC)),
            stream=parse_word(request.query, "stream", Stream),
        )
        if parse_flag(request.query, "follow"):
            return await self._streams.send(request, NDJSON, self._operations.follow_logs(name, query))
        lines = self._operations.log_lines(name, query)
        return await self._streams.send(request, NDJSON, lines)

    async def _get_events(self, request: web.Request) -> web.StreamResponse:
        check_known(request.query, ("service", "after", "tail", "follow"))
        service = request.query.get("service")
        after, tail = parse_count(request.query, "after"), parse_count(request.query, "tail")
        self._check_has_history(service)
        if parse_flag(request.query, "follow"):
            after = self._find_beginning(request, service, after, tail)
            events = self._operations.follow_events(service, after)
            return await self._streams.send(request, EVENT_STREAM, encode_events(events))
        newest = DEFAULT_EVENTS if after is None and tail is None else tail
        stored = self._read_events(service, after, newest)
        return answer({"events": [event.to_json() for event in stored]})

    def _find_beginning(
        self, request: web.Request, service: str | None, after: int | None, tail: int | None
    ) -> int:
        """The id after which a stream begins: where its client stopped, or just before the newest `tail`."""
        resumed = request.headers.get("Last-Event-ID")
        if resumed is not None:
            return parse_count({"Last-Event-ID": resumed}, "Last-Event-ID") or 0
        if after is not None and tail is None:
            return after
        stored = self._read_events(service, after, tail or 0)
        if stored:
            return stored[0].id - 1
        newest = self._operations.events(None, None, 1)
        return newest[-1].id if newest else 0

    def _read_events(
        self, service: str | None, after: int | None, newest: int | None
    ) -> Sequence[EventRecord]:
        return () if newest == 0 else self._operations.events(service, after, newest)

    def _check_has_history(self, service: str | None) -> None:
        """Refuse an unknown service, but not one that was configured once and has left events."""
        if service is not None and not self._operations.events(service, None, 1):
            self._check_name(service)

    async def _change(self, action: str, request: web.Request) -> web.StreamResponse:
        is_stop = action == "stop"
        check_known(request.query, ("dependents",) if is_stop else ())
        more = (parse_word(request.query, "dependents", Dependents) or Dependents.REFUSE,) if is_stop else ()
        await request.read()  # it has no meaning, but an endless one is refused
        names = self._select(request.match_info["names"])
        self.refuse_when_stopping()
        peer = _peer_of(request)
        logger.info(
            "%s of %s asked for by user %d, pid %d", action, ", ".join(names) or "all", peer.uid, peer.pid
        )
        if action == "reset":
            self._operations.reset(names)
        else:
            names = await self.outlive(getattr(self._operations, action)(names, *more)) or names
        names = names or list(self._operations.names())
        return answer({"services": [self._operations.service(name).to_json() for name in names]})

    async def _upgrade(self, request: web.Request) -> web.StreamResponse:
        """Refused, it is answered here; else by the next program, on a descriptor of its own."""
        check_known(request.query, ())
        await request.read()
        self.refuse_when_stopping()
        peer = _peer_of(request)
        logger.info("upgrade asked for by user %d, pid %d", peer.uid, peer.pid)
        client = os.dup(request.get_extra_info("socket").fileno())
        await self.outlive(self._operations.upgrade(client))
        return AnsweredElsewhere(request)

    async def outlive(self, wish: Coroutine[Any, Any, T]) -> T:
        """Wait for an operation that goes on when its client leaves."""
        task = asyncio.create_task(wish)
        self._wishes.add(task)
        task.add_done_callback(self._forget)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            if not task.cancelled():
                raise  # the client left
            raise ControlError("stopping", "the supervisor ended before this was done") from None

    def _forget(self, wish: asyncio.Task[Any]) -> None:
        self._wishes.discard(wish)
        if not wish.cancelled():
            wish.exception()  # marks it as seen: the client that would be told may have left

    def _select(self, text: str) -> list[str]:
        """The services that `a,b` names; none for `*`, which every operation takes as all it applies to."""
        if text == "*":
            return []
        names = list(dict.fromkeys(name.strip() for name in text.split(",")))
        if not all(names):
            raise BadQueryError(f"cannot read the services in {text!r} (accepted: NAME, NAME,NAME or *)")
        return [self._check_name(name) for name in names]

    def _check_name(self, name: str) -> str:
        known = self._operations.names()
        if name not in known:
            raise UnknownServiceError(name, known)
        return name

    def refuse_when_stopping(self) -> None:
        """Raise ControlError during the shutdown."""
        if self._operations.stopping:
            raise ControlError("stopping", "the supervisor is shutting down")

    def peer_of(self, request: web.Request) -> Peer:
        """Who asks. Raises ConnectionError where nobody does any more."""
        return _peer_of(request)

    def answer(self, value: Any) -> web.StreamResponse:
        """The value as JSON."""
        return answer(value)


def _peer_of(request: web.Request) -> Peer:
    connection = request.get_extra_info("socket")
    if connection is None:
        raise ConnectionResetError("the client left")
    return read_peer(connection)
