"""Asks a supervisor through its control socket; the standard library alone, to be imported fast.

Answers are the JSON objects of the API, unchanged.
"""

from __future__ import annotations

import errno
import json
import os
import select
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPException, HTTPResponse, RemoteDisconnected
from pathlib import Path
from typing import Any, Final, Literal
from urllib.parse import quote, urlencode

from blackhole_cg.control import SOCKET_NAME
from blackhole_cg.errors import ControlError, NoSupervisorError

JsonObject = dict[str, Any]
Action = Literal["start", "stop", "restart", "reset"]
ALL: Final[Literal["*"]] = "*"

_ANSWER_TIMEOUT_SECONDS: Final = 10.0
_UPGRADE_TIMEOUT_SECONDS: Final = 300.0
_MEANWHILE_SECONDS: Final = 0.3
_CHUNK_BYTES: Final = 64 * 1024


class ControlClient:
    """A client of the supervisor that owns `runtime_dir`; every call is one connection.

    Every method raises:
        NoSupervisorError: nobody listens on the socket, or whoever does has not answered within 10 seconds.
        ControlError: the supervisor refused, or we may not use its socket; `kind` says which.
    """

    def __init__(self, runtime_dir: str | Path) -> None:
        self._socket_path = str(Path(runtime_dir) / SOCKET_NAME)
        self.while_waiting: Callable[[], None] | None = None  # called until a configuration is applied

    def services(self) -> list[JsonObject]:
        """Every configured service, in start order."""
        services: list[JsonObject] = self._get("/v1/services")["services"]
        return services

    def service(self, name: str) -> JsonObject:
        """One service."""
        return self._get(f"/v1/services/{quote(name, safe='')}")

    def health(self, name: str | Literal["*"] = ALL) -> JsonObject:
        """The health of one service or of all, and what is known of each probe, by name."""
        text = ALL if name == ALL else quote(name, safe="")
        services: JsonObject = self._get(f"/v1/services/{text}/health")["services"]
        return services

    def samples(
        self, names: Sequence[str] | Literal["*"] = ALL, *, history: bool = False, since: str | None = None
    ) -> JsonObject:
        """The newest sample of each service, by name; with `history` also its past, from `since` on."""
        query = _encode_query({"history": 1 if history else None, "since": since})
        services: JsonObject = self._get(f"/v1/services/{_join(names)}/samples{query}")["services"]
        return services

    def follow_samples(self, names: Sequence[str] | Literal["*"] = ALL) -> Iterator[JsonObject]:
        """The newest sample of each service, and then each as it is taken."""
        for line in self._stream_lines(f"/v1/services/{_join(names)}/samples?follow=1", endless=True):
            sample: JsonObject = json.loads(line)
            yield sample

    def processes(self, name: str) -> list[JsonObject]:
        """What every single process of a service uses."""
        processes: list[JsonObject] = self._get(f"/v1/services/{_join([name])}/processes")["processes"]
        return processes

    def why(self, name: str) -> JsonObject:
        """A service, what it waits for, and what its restart policy has left; events tell the rest."""
        return self._get(f"/v1/services/{_join([name])}/why")

    def endpoints(self, name: str | None = None) -> dict[str, JsonObject]:
        """Where services can be reached, by name: all that listen somewhere, or one."""
        query = _encode_query({"service": name})
        endpoints: dict[str, JsonObject] = self._get(f"/v1/endpoints{query}")["endpoints"]
        return endpoints

    def host(self) -> JsonObject:
        """What the supervisor's host can do."""
        return self._get("/v1/host")

    def unknown_cgroups(self) -> list[JsonObject]:
        """The cgroups below the supervisor's that belong to no service, and who is in them."""
        cgroups: list[JsonObject] = self._get("/v1/host/cgroups")["unknown"]
        return cgroups

    def kill_cgroup(self, name: str) -> list[int]:
        """Kill what is in one of those, and have it removed; the processes that were in it."""
        path = f"/v1/host/cgroups/{_join([name])}/kill"
        with self._exchange("POST", path, timeout_seconds=None) as response:
            pids: list[int] = json.load(response)["killed"]
            return pids

    def metrics(self) -> str:
        """The metrics of all services, in Prometheus' text format."""
        with self._exchange("GET", "/metrics", _ANSWER_TIMEOUT_SECONDS) as response:
            return response.read().decode()

    def change(
        self, action: Action, names: Sequence[str] | Literal["*"], *, dependents: str | None = None
    ) -> list[JsonObject]:
        """Start, stop, restart or reset services as one operation; return them once it is done.

        Waits for as long as the operation takes. To stop waiting does not take the wish back. For a stop
        `dependents` says what becomes of running services that need one of these: refuse, stop or leave.
        """
        path = f"/v1/services/{_join(names)}/{action}{_encode_query({'dependents': dependents})}"
        with self._exchange("POST", path, timeout_seconds=None) as response:
            services: list[JsonObject] = json.load(response)["services"]
            return services

    def reload(self, *, force: bool = False) -> JsonObject:
        """Have the configuration read again and the difference applied; the difference, once that is done."""
        return self._post(f"/v1/reload{_encode_query({'force': 1 if force else None})}")

    def plan(self, config: Path) -> JsonObject:
        """What would change if the configuration in this file, an absolute path, were applied."""
        return self._post("/v1/plan", {"config": str(config)})

    def apply(self, config: Path, *, force: bool = False) -> JsonObject:
        """Have the configuration in this file applied; the difference, once that is done."""
        return self._post("/v1/apply", {"config": str(config), "force": force})

    def roll_back(self, number: int | None, *, force: bool = False) -> JsonObject:
        """Have a configuration from before applied again; the difference, once that is done."""
        chosen = {} if number is None else {"number": number}
        return self._post("/v1/rollback", {**chosen, "force": force})

    def rollouts(self) -> list[JsonObject]:
        """Rolling changes that are under way or have failed."""
        found: list[JsonObject] = self._get("/v1/rollouts")["rollouts"]
        return found

    def configurations(self) -> list[JsonObject]:
        """The configurations that were applied last, oldest first; the last one is in effect."""
        found: list[JsonObject] = self._get("/v1/configurations")["configurations"]
        return found

    def _post(self, path: str, body: JsonObject | None = None) -> JsonObject:
        with self._exchange("POST", path, timeout_seconds=None, body=body) as response:
            answer: JsonObject = json.load(response)
            return answer

    def upgrade(self) -> JsonObject:
        """Have the supervisor replaced by the next program; what that says of itself once it is at work.

        Raises ControlError of kind "broken_off" where it went away and did not come back.
        """
        self._get("/healthz")  # from here on there is a supervisor
        try:
            with self._exchange("POST", "/v1/upgrade", _UPGRADE_TIMEOUT_SECONDS) as response:
                upgraded: JsonObject = json.load(response)
                return upgraded
        except NoSupervisorError as cause:
            raise ControlError(
                "broken_off",
                f"the upgrade did not come to its end: {cause}; services go on without a supervisor, "
                "its log says more (under systemd: journalctl -u blackhole-cg)",
            ) from cause

    def logs(
        self,
        name: str,
        *,
        tail: int | None = None,
        since: str | None = None,
        stream: str | None = None,
        follow: bool = False,
    ) -> Iterator[bytes]:
        """The raw JSON lines of a service's log, newline included; with `follow` also those to come.

        Args:
            since: a duration such as "5m", or an ISO 8601 time.
            stream: "stdout" or "stderr"; None is both.
        """
        query = {"tail": tail, "since": since, "stream": stream, "follow": 1 if follow else None}
        path = f"/v1/services/{quote(name, safe='')}/logs{_encode_query(query)}"
        return self._stream_lines(path, endless=follow)

    def events(
        self, service: str | None = None, *, after: int | None = None, tail: int | None = None
    ) -> list[JsonObject]:
        """Stored events, oldest first; without `after` and `tail` the newest thousand."""
        query = _encode_query({"service": service, "after": after, "tail": tail})
        events: list[JsonObject] = self._get(f"/v1/events{query}")["events"]
        return events

    def follow_events(
        self, service: str | None = None, *, after: int | None = None, tail: int | None = None
    ) -> Iterator[JsonObject]:
        """Events as they happen; first those after an id, or the newest `tail` of the stored ones.

        Goes on over an upgrade without losing one; ends when the supervisor does.
        """
        if after is None and not tail:  # to know where to go on, should nothing happen before an upgrade
            stored, tail = self.events(service, tail=1), None
            after = stored[-1]["id"] if stored else 0
        seen = 0
        for event in self._follow_events(service, after, tail):
            seen = event["id"]
            yield event
        while True:  # a supervisor that ends takes its socket away, one that is upgraded leaves it
            try:
                for event in self._follow_events(service, seen or after or 0, None):
                    seen = event["id"]
                    yield event
            except NoSupervisorError as error:
                if not isinstance(error.__cause__, TimeoutError):  # late: it is on its way, on a busy machine
                    return

    def _follow_events(
        self, service: str | None, after: int | None, tail: int | None
    ) -> Iterator[JsonObject]:
        query = _encode_query({"service": service, "after": after, "tail": tail, "follow": 1})
        for line in self._stream_lines(f"/v1/events{query}", endless=True):
            if line.startswith(b"data:"):  # the data repeats the id; the rest is blank
                event: JsonObject = json.loads(line[len(b"data:") :])
                yield event

    def _get(self, path: str) -> JsonObject:
        with self._exchange("GET", path, _ANSWER_TIMEOUT_SECONDS) as response:
            answer: JsonObject = json.load(response)
            return answer

    def _stream_lines(self, path: str, *, endless: bool) -> Iterator[bytes]:
        """The lines of an answer as they arrive; an endless one may pause for as long as it likes."""
        with self._exchange("GET", path, _ANSWER_TIMEOUT_SECONDS, endless=endless) as response:
            rest = b""
            while chunk := response.read1(_CHUNK_BYTES):
                *lines, rest = (rest + chunk).split(b"\n")
                for line in lines:
                    yield line + b"\n"
            if rest:
                yield rest

    @contextmanager
    def _exchange(
        self,
        method: str,
        path: str,
        timeout_seconds: float | None,
        *,
        endless: bool = False,
        body: JsonObject | None = None,
    ) -> Iterator[HTTPResponse]:
        """One request and its successful answer."""
        connection = _UnixConnection(self._socket_path)
        connection.meanwhile = self.while_waiting if timeout_seconds is None else None
        answered = False
        try:
            try:
                response, unix_socket = _ask(connection, method, path, body, timeout_seconds)
            except ConnectionError as cause:
                if not _was_left_unread(cause, method):
                    raise
                connection.close()
                response, unix_socket = _ask(connection, method, path, body, timeout_seconds)
            answered = True
            if endless:
                unix_socket.settimeout(None)
            with response:
                if response.status != 200:
                    raise _read_refusal(response)
                yield response
        except TimeoutError as cause:
            late = f"no answer within {timeout_seconds or _ANSWER_TIMEOUT_SECONDS:g} seconds"
            raise NoSupervisorError(self._socket_path, late) from cause
        except (HTTPException, ConnectionError, ValueError) as cause:
            raise _explain_break(self._socket_path, cause, answered) from cause
        finally:
            connection.close()


class _UnixConnection(HTTPConnection):
    """HTTP on a unix socket."""

    def __init__(self, socket_path: str) -> None:
        super().__init__("localhost")
        self._socket_path = socket_path
        self.meanwhile: Callable[[], None] | None = None

    def wait(self) -> None:
        """Until there is an answer, do what there is to do meanwhile, and once more in the end."""
        while self.meanwhile is not None:
            ready = select.select([self.sock], [], [], _MEANWHILE_SECONDS)[0]
            self.meanwhile()
            if ready:
                return

    def connect(self) -> None:
        """Connect, and say what it means when that fails."""
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.settimeout(_ANSWER_TIMEOUT_SECONDS)
        try:
            connection.connect(self._socket_path)
        except TimeoutError:
            connection.close()
            raise
        except OSError as cause:
            connection.close()
            raise _explain_connect(self._socket_path, cause) from cause
        self.sock = connection


def _ask(
    connection: _UnixConnection,
    method: str,
    path: str,
    body: JsonObject | None,
    timeout_seconds: float | None,
) -> tuple[HTTPResponse, socket.socket]:
    connection.request(method, path, None if body is None else json.dumps(body))
    unix_socket = connection.sock  # which the connection gives away when nothing follows the answer
    unix_socket.settimeout(timeout_seconds)
    connection.wait()
    return connection.getresponse(), unix_socket


def _was_left_unread(cause: ConnectionError, method: str) -> bool:
    """Whether it is safe to ask again, as after an upgrade that came just when we did.

    A socket that is closed with something unread in it resets the connection; closed after it was read, the
    connection merely ends. Source: net/unix/af_unix.c, unix_release_sock.
    """
    if isinstance(cause, RemoteDisconnected):
        return method == "GET"
    return isinstance(cause, ConnectionResetError | BrokenPipeError)


def _join(names: Sequence[str] | Literal["*"]) -> str:
    """The services as a part of a path."""
    return ALL if names == ALL else ",".join(quote(name, safe="") for name in names)


def _encode_query(values: Mapping[str, str | int | None]) -> str:
    given = {name: value for name, value in values.items() if value is not None}
    return f"?{urlencode(given)}" if given else ""


def _explain_connect(socket_path: str, cause: OSError) -> ControlError:
    if cause.errno in {errno.EACCES, errno.EPERM}:
        return ControlError("forbidden", f"cannot use {socket_path}: {os.strerror(cause.errno)}")
    return NoSupervisorError(socket_path, cause.strerror or str(cause))


def _explain_break(socket_path: str, cause: Exception, answered: bool) -> ControlError:
    if answered:
        return ControlError("broken_off", f"the supervisor on {socket_path} broke off its answer")
    return NoSupervisorError(socket_path, f"the connection was closed without an answer ({cause})")


def _read_refusal(response: HTTPResponse) -> ControlError:
    """The error that the supervisor answered with."""
    body = response.read()
    try:
        error = json.loads(body)["error"]
        return ControlError(str(error["kind"]), str(error["message"]))
    except (ValueError, KeyError, TypeError):
        return ControlError("bad_answer", f"cannot read the supervisor's answer: status {response.status}")
