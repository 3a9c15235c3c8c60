"""The control API over a real unix socket, asked with the client."""

from __future__ import annotations

import http.client
import json
import logging
import os
import select
import socket
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from blackhole_cg.control.client import ControlClient
from blackhole_cg.core.words import Dependents, Stream
from blackhole_cg.errors import (
    ConfigError,
    ControlError,
    Diagnostic,
    IsolationError,
    KernelError,
    NoSupervisorError,
    OperationError,
)
from tests.control.fake_operations import Served, make_event, make_info, make_line, make_sample
from tests.support.waiting import eventually


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    with Served(tmp_path) as served:
        yield served


@pytest.fixture
def client(served: Served) -> ControlClient:
    return ControlClient(served.runtime_dir)


class _Connection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=30)
        self.path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(30)
        self.sock.connect(str(self.path))


def ask(
    served: Served, method: str, path: str, body: bytes | None = None, **headers: str
) -> tuple[int, dict[str, str], bytes]:
    """A request without the client's help: status, headers, body."""
    connection = _Connection(served.socket_path)
    try:
        connection.request(method, path, body, headers)
        response = connection.getresponse()
        return response.status, dict(response.headers), response.read()
    finally:
        connection.close()


def refusal(client_call: Any) -> ControlError:
    with pytest.raises(ControlError) as caught:
        client_call()
    return caught.value


# ---- facts ----


def test_services_come_in_start_order_in_the_shape_of_the_contract(client: ControlClient) -> None:
    services = client.services()
    assert [info["name"] for info in services] == ["store", "web", "spare"]
    assert services[1] == json.loads(json.dumps(make_info("web").to_json()))
    assert client.service("web") == services[1]


def test_host_and_healthz(served: Served, client: ControlClient) -> None:
    assert client.host()["controllers"]["memory"] == {
        "available": False,
        "reason": "bound to cgroup v1 on this host",
    }
    assert json.loads(ask(served, "GET", "/healthz")[2]) == {"status": "ok"}


def test_samples_are_the_newest_and_on_request_the_past(served: Served, client: ControlClient) -> None:
    early = make_sample(at_wall="2030-01-31T11:00:00.000000Z")
    served.operations.taken = [{"service": "web", **early}, {"service": "web", **make_sample()}]
    assert client.samples(["web", "spare"]) == {"web": {"latest": make_sample()}, "spare": {"latest": None}}
    assert list(client.samples()) == ["store", "web", "spare"]
    history = client.samples(["web"], history=True)["web"]["history"]
    assert (len(history["points"]), history["spans"]) == (2, [])
    newer = client.samples(["web"], history=True, since="2030-01-31T11:30:00Z")["web"]["history"]
    assert [point["at_wall"] for point in newer["points"]] == [make_sample()["at_wall"]]


def test_samples_of_no_service_are_no_samples(served: Served, client: ControlClient) -> None:
    served.operations.infos.clear()
    assert client.samples() == {}


def test_followed_samples_come_as_they_are_taken_one_on_a_line(served: Served, client: ControlClient) -> None:
    stream = client.follow_samples(["web"])
    assert next(stream) == {"service": "web", **make_sample()}
    served.operations.taken += [{"service": name, **make_sample(pids=5)} for name in ("store", "web")]
    served.call(served.operations.announce)
    assert (sample := next(stream))["pids"] == 5
    assert sample["service"] == "web"


def test_processes_are_those_of_one_service(client: ControlClient) -> None:
    (process,) = client.processes("web")
    assert (process["pid"], process["command"]) == (4242, "/opt/web --serve")
    assert refusal(lambda: client.processes("wep")).kind == "unknown_service"


def test_an_unknown_service_is_not_found_and_the_closest_is_named(client: ControlClient) -> None:
    for call in (
        lambda: client.service("wep"),
        lambda: client.change("start", ["web", "wep"]),
        lambda: list(client.logs("wep")),
        lambda: client.events("wep"),
        lambda: list(client.follow_events("wep")),
    ):
        error = refusal(call)
        assert error.kind == "unknown_service"
        assert str(error) == "there is no service 'wep' (did you mean 'web'?)"


def test_a_name_with_special_characters_stays_a_name(client: ControlClient) -> None:
    for name in ("a/b", "../host", "a?b#c", "%2e", "ü", "a b", "*x"):
        assert refusal(lambda name=name: client.service(name)).kind == "unknown_service"


# ---- changes ----


def test_a_change_returns_the_services_once_the_state_is_reached(
    served: Served, client: ControlClient
) -> None:
    stopped = client.change("stop", ["web", "store"])
    assert [(info["name"], info["state"], info["pid"]) for info in stopped] == [
        ("web", "stopped", None),
        ("store", "stopped", None),
    ]
    assert client.change("start", ["web"])[0]["state"] == "running"
    assert client.change("restart", ["web"])[0]["pid"] == 4244
    client.change("reset", ["web", "web"])
    assert served.operations.calls == [
        ("stop", ("web", "store")),
        ("start", ("web",)),
        ("restart", ("web",)),
        ("reset", ("web",)),
    ]


def test_a_star_leaves_the_choice_to_the_operation(served: Served, client: ControlClient) -> None:
    assert [info["name"] for info in client.change("stop", "*")] == ["store", "web", "spare"]
    assert served.operations.calls == [("stop", ())]


@pytest.mark.parametrize("word", list(Dependents))
def test_a_stop_says_what_becomes_of_dependents(
    served: Served, client: ControlClient, word: Dependents
) -> None:
    client.change("stop", ["web"], dependents=word)
    assert served.operations.dependents is word


def test_what_becomes_of_dependents_is_one_of_three_words(client: ControlClient) -> None:
    with pytest.raises(ControlError, match="accepted: refuse or stop or leave"):
        client.change("stop", ["web"], dependents="shoot")


@pytest.mark.parametrize("names", [",", "web,,store", "%20"])
def test_an_empty_name_among_names_is_refused(served: Served, names: str) -> None:
    status, _, body = ask(served, "POST", f"/v1/services/{names}/stop")
    assert status == 400
    assert "accepted: NAME, NAME,NAME or *" in json.loads(body)["error"]["message"]
    assert served.operations.calls == []


def test_an_operation_that_fails_says_why(served: Served, client: ControlClient) -> None:
    served.operations.failure = OperationError("cannot start 'web': superseded by a newer stop")
    error = refusal(lambda: client.change("start", ["web"]))
    assert (error.kind, str(error)) == ("operation_failed", "cannot start 'web': superseded by a newer stop")
    assert ask(served, "POST", "/v1/services/web/start")[0] == 409


def test_a_reload_tells_the_difference_or_what_is_wrong(served: Served, client: ControlClient) -> None:
    plan = client.reload()
    assert plan["changes"][1] == {"service": "web", "change": "restart", "keys": ["command", "umask"]}
    assert (plan["unchanged"], plan["runtime"], plan["deferred"]) == (
        ["spare"],
        ["max_processes"],
        ["isolation"],
    )
    for failure, status, kind in (
        (ConfigError([Diagnostic("f.yaml", 3, 1, "services.web", "wrong")]), 422, "invalid_config"),
        (IsolationError(["web: memory_max 1: no"]), 409, "operation_failed"),
        (OperationError("cannot start 'new': exit 3"), 409, "operation_failed"),
    ):
        served.operations.failure = failure
        code, _, body = ask(served, "POST", "/v1/reload")
        assert code == status
        assert json.loads(body)["error"] == {"kind": kind, "message": str(failure)}


def test_an_upgrade_is_answered_by_the_next_program(
    served: Served, client: ControlClient, caplog: pytest.LogCaptureFixture
) -> None:
    upgraded = client.upgrade()
    assert (upgraded["version_before"], upgraded["version"]) == ("1.0.0", "1.1.0")
    status, headers, body = ask(served, "POST", "/v1/upgrade")
    assert (status, headers["Content-Type"]) == (200, "application/json")
    assert json.loads(body) == upgraded
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(client.services()) == 3, "this one goes on answering others until it ends"


def test_an_upgrade_that_is_refused_or_abandoned_says_so(served: Served, client: ControlClient) -> None:
    served.operations.failure = OperationError("cannot upgrade: /opt/bin/blackhole-cg does not exist")
    error = refusal(client.upgrade)
    assert (error.kind, str(error)) == ("operation_failed", str(served.operations.failure))
    served.operations.failure, served.operations.abandons = None, True
    error = refusal(client.upgrade)
    assert error.kind == "broken_off"
    assert "services go on without a supervisor" in str(error)
    assert ask(served, "POST", "/v1/upgrade?force=1")[0] == 400


def test_nothing_is_changed_while_the_supervisor_stops_but_facts_are_told(
    served: Served, client: ControlClient
) -> None:
    served.operations.stopping = True
    for action in ("start", "stop", "restart", "reset"):
        status, _, body = ask(served, "POST", f"/v1/services/web/{action}")
        assert (status, json.loads(body)["error"]["kind"]) == (503, "stopping")
    assert served.operations.calls == []
    assert ask(served, "GET", "/healthz")[0] == 503
    assert len(client.services()) == 3


def test_a_client_that_leaves_takes_back_its_wait_but_not_its_wish(served: Served) -> None:
    served.call(served.operations.gate.clear)
    connection = _Connection(served.socket_path)
    connection.request("POST", "/v1/services/web/stop")
    eventually(lambda: served.operations.calls, "the operation begins")
    connection.close()
    eventually(lambda: not served.call(lambda: open_handlers(served)), "the request is given up")
    assert served.operations.finished == []
    served.call(served.operations.gate.set)
    eventually(lambda: served.operations.finished == ["stop"], "the operation ends")
    assert served.operations.infos["web"].state == "stopped"


def test_a_failure_that_nobody_waits_for_any_more_is_no_noise(
    served: Served, caplog: pytest.LogCaptureFixture
) -> None:
    served.call(served.operations.gate.clear)
    served.operations.failure = OperationError("no")
    connection = _Connection(served.socket_path)
    connection.request("POST", "/v1/services/web/stop")
    eventually(lambda: served.operations.calls, "the operation begins")
    connection.close()
    eventually(lambda: not served.call(lambda: open_handlers(served)), "the request is given up")
    with caplog.at_level(logging.WARNING):
        served.call(served.operations.gate.set)
        eventually(lambda: not served.call(lambda: served.server._wishes), "the operation ends")
        import gc

        served.call(gc.collect)
    assert caplog.records == []


def open_handlers(served: Served) -> list[Any]:
    """Requests that are being answered."""
    runner = served.server._runner
    assert runner is not None and runner.server is not None
    return [each for each in runner.server.connections if each._current_request is not None]


# ---- logs ----


def test_logs_are_passed_on_unchanged(served: Served, client: ControlClient) -> None:
    served.operations.lines = [make_line("one"), make_line("zwei \udcff") + make_line("x" * 100_000)]
    assert b"".join(client.logs("web")) == b"".join(served.operations.lines)
    assert len(list(client.logs("web"))) == 3
    _, headers, _ = ask(served, "GET", "/v1/services/web/logs")
    assert headers["Content-Type"] == "application/x-ndjson"


def test_a_log_query_reaches_the_reader(served: Served, client: ControlClient) -> None:
    list(client.logs("web", tail=5, since="5m", stream="stderr"))
    (query,) = served.operations.queries
    assert (query.tail, query.stream) == (5, Stream.STDERR)
    assert query.since is not None
    assert abs(datetime.now(UTC) - timedelta(minutes=5) - query.since) < timedelta(minutes=1)


def test_followed_logs_begin_at_once_and_go_on(served: Served, client: ControlClient) -> None:
    lines = client.logs("web", follow=True)
    served.operations.lines = [make_line("first")]
    assert next(lines) == make_line("first")
    served.operations.lines = [make_line("first"), make_line("second")]
    served.call(served.operations.announce)
    assert next(lines) == make_line("second")
    lines.close()
    eventually(lambda: served.operations.followers == 0, "the follower is let go")


def test_headers_of_a_silent_stream_come_at_once(served: Served) -> None:
    connection = _Connection(served.socket_path)
    for path in ("/v1/services/web/logs?follow", "/v1/events?follow"):
        connection = _Connection(served.socket_path)
        connection.request("GET", path)
        assert connection.getresponse().status == 200
        connection.close()


def test_a_log_that_cannot_be_read_to_the_end_is_broken_off(served: Served, client: ControlClient) -> None:
    served.operations.lines = [make_line("one")]
    served.operations.log_failure = OSError(5, "Input/output error")
    found = []
    error = refusal(lambda: found.extend(client.logs("web")))
    assert error.kind == "broken_off"


# ---- events ----


def test_events_are_filtered(served: Served, client: ControlClient) -> None:
    served.operations.stored = [make_event(n, "web" if n % 2 else "store") for n in range(1, 7)]
    assert [event["id"] for event in client.events()] == [1, 2, 3, 4, 5, 6]
    assert [event["id"] for event in client.events("web")] == [1, 3, 5]
    assert [event["id"] for event in client.events(after=4)] == [5, 6]
    assert [event["id"] for event in client.events("store", tail=2)] == [4, 6]
    assert client.events(tail=0) == []
    assert client.events()[0] == make_event(1).to_json()


def test_without_bounds_events_are_the_newest_thousand(served: Served, client: ControlClient) -> None:
    served.operations.stored = [make_event(n) for n in range(1, 1101)]
    assert [client.events()[0]["id"], len(client.events())] == [101, 1000]
    assert len(client.events(after=0)) == 1100
    assert len(client.events(tail=1050)) == 1050


def test_a_service_that_was_configured_once_still_has_its_events(
    served: Served, client: ControlClient
) -> None:
    served.operations.stored = [make_event(1, "retired")]
    assert len(client.events("retired")) == 1


def test_followed_events_begin_where_asked(served: Served, client: ControlClient) -> None:
    served.operations.stored = [make_event(n) for n in (1, 2, 3)]
    assert next(client.follow_events(tail=2))["id"] == 2
    assert next(client.follow_events(after=0))["id"] == 1
    eventually(lambda: served.operations.followers == 0, "both are let go")
    fresh = client.follow_events("store")
    first: list[int] = []
    reader = threading.Thread(target=lambda: first.append(next(fresh)["id"]))
    reader.start()
    eventually(lambda: served.operations.followers == 1, "it follows")
    served.operations.stored.append(make_event(4, "store"))
    served.call(served.operations.announce)
    reader.join(30)
    assert first == [4]


def test_a_follower_asks_again_where_the_next_supervisor_takes_long_to_answer(tmp_path: Path) -> None:
    late, gone = NoSupervisorError("socket", "late"), NoSupervisorError("socket", "gone")
    late.__cause__ = TimeoutError()
    answers: list[list[int] | Exception] = [[1, 2], late, late, [3], gone]
    asked_after = []

    class Replaced(ControlClient):
        """Of a supervisor whose machine is so busy that an upgrade takes longer than an answer may."""

        def _follow_events(
            self, service: str | None, after: int | None, tail: int | None
        ) -> Iterator[dict[str, Any]]:
            asked_after.append(after)
            answer = answers.pop(0)
            if isinstance(answer, Exception):
                raise answer
            yield from ({"id": number} for number in answer)

        def _has_left(self) -> bool:
            return not answers

    followed = list(Replaced(tmp_path).follow_events(after=0))
    assert [event["id"] for event in followed] == [1, 2, 3]
    assert asked_after == [0, 2, 2, 2, 3]


def test_server_sent_events_carry_ids_and_resume_after_the_last_one(served: Served) -> None:
    served.operations.stored = [make_event(n) for n in (1, 2, 3)]
    connection = _Connection(served.socket_path)
    connection.request("GET", "/v1/events?follow", headers={"Last-Event-ID": "2"})
    response = connection.getresponse()
    assert response.headers["Content-Type"] == "text/event-stream"
    assert response.readline() == b"id: 3\n"
    assert json.loads(response.readline().removeprefix(b"data: ")) == make_event(3).to_json()
    assert response.readline() == b"\n"
    response.close()
    connection.close()


# ---- what is refused ----


@pytest.mark.parametrize(
    ("method", "path", "status", "kind"),
    [
        ("GET", "/v1/services/web/logs?tail=x", 400, "bad_request"),
        ("GET", "/v1/services/web/logs?since=x", 400, "bad_request"),
        ("GET", "/v1/services/web/logs?stream=x", 400, "bad_request"),
        ("GET", "/v1/services/web/logs?follow=x", 400, "bad_request"),
        ("GET", "/v1/services/web/logs?lines=3", 400, "bad_request"),
        ("GET", "/v1/services/web/samples?since=5m", 400, "bad_request"),
        ("GET", "/v1/services/web/samples?follow&history", 400, "bad_request"),
        ("GET", "/v1/services/web,/samples", 400, "bad_request"),
        ("GET", "/v1/services/wep/samples?follow", 404, "unknown_service"),
        ("GET", "/v1/services/web,store/processes", 404, "unknown_service"),
        ("GET", "/v1/events?after=-1", 400, "bad_request"),
        ("GET", "/v1/services?x", 400, "bad_request"),
        ("POST", "/v1/services/web/stop?force", 400, "bad_request"),
        ("GET", "/v2", 404, "not_found"),
        ("GET", "/", 404, "not_found"),
        ("POST", "/v1/services/web/explode", 404, "not_found"),
        ("DELETE", "/v1/services/web", 405, "method_not_allowed"),
        ("GET", "/v1/services/web/start", 405, "method_not_allowed"),
        ("POST", "/v1/host", 405, "method_not_allowed"),
        ("POST", "/v1/host/cgroups/web/kill", 409, "operation_failed"),
    ],
)
def test_every_refusal_has_one_shape(served: Served, method: str, path: str, status: int, kind: str) -> None:
    found, headers, body = ask(served, method, path)
    error = json.loads(body)["error"]
    assert (found, error["kind"]) == (status, kind)
    assert error["message"]
    assert headers["Content-Type"].startswith("application/json")
    assert served.operations.calls == []
    if status == 405:
        assert headers["Allow"] in error["message"]


def test_head_answers_without_a_body_and_does_not_follow(served: Served) -> None:
    for path in ("/v1/services", "/healthz", "/v1/events?follow", "/v1/services/*/samples?follow"):
        status, _, body = ask(served, "HEAD", path)
        assert (status, body) == (200, b"")
    assert served.operations.followers == 0


def test_a_body_is_ignored_but_an_endless_one_is_refused(served: Served) -> None:
    assert ask(served, "POST", "/v1/services/web/reset", b"{}")[0] == 200
    status, _, body = ask(served, "POST", "/v1/services/web/stop", b"x" * 1_000_000)
    assert (status, json.loads(body)["error"]["kind"]) == (413, "too_large")
    assert ("stop", ("web",)) not in served.operations.calls


def test_an_error_of_ours_is_told_and_an_unexpected_one_is_logged_too(
    served: Served, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(error: Exception) -> Any:
        def raise_it() -> Any:
            raise error

        return raise_it

    served.operations.host = fail(KernelError("read", "/sys/x", 13))  # type: ignore[method-assign]
    status, _, body = ask(served, "GET", "/v1/host")
    assert (status, json.loads(body)["error"]) == (
        500,
        {"kind": "internal", "message": "cannot read /sys/x: Permission denied"},
    )
    served.operations.host = fail(ZeroDivisionError("division by zero"))  # type: ignore[method-assign]
    with caplog.at_level(logging.ERROR):
        assert ask(served, "GET", "/v1/host")[0] == 500
    assert "cannot answer GET /v1/host" in caplog.text
    assert "Traceback" in caplog.text


def test_cgroups_that_belong_to_no_service_are_told_and_killed(served: Served, client: ControlClient) -> None:
    (found,) = client.unknown_cgroups()
    assert (found["name"], found["pids"]) == ("old", [7, 8])
    assert json.loads(ask(served, "GET", "/v1/host/cgroups")[2]) == {"unknown": [found]}
    assert client.kill_cgroup("old") == [7, 8]


@pytest.mark.parametrize("garbage", [b"\x00\x01\x02\r\n\r\n", b"GET\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n"])
def test_garbage_gets_an_answer_or_an_end_and_hurts_nobody(
    served: Served, client: ControlClient, garbage: bytes
) -> None:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(30)
        connection.connect(str(served.socket_path))
        connection.sendall(garbage)
        connection.shutdown(socket.SHUT_WR)
        while connection.recv(4096):
            pass
    assert len(client.services()) == 3


# ---- the end ----


def test_streams_end_properly_when_the_server_closes(tmp_path: Path) -> None:
    ends: list[str] = []

    def read(lines: Iterator[Any]) -> None:
        for _ in lines:
            pass
        ends.append("ended")

    with Served(tmp_path) as served:
        client = ControlClient(tmp_path)
        served.operations.lines = [make_line("x")]
        readers = [
            threading.Thread(target=read, args=(stream,))
            for stream in (client.logs("web", follow=True), client.follow_events())
        ]
        for reader in readers:
            reader.start()
        eventually(lambda: served.operations.followers == 2, "both follow")
    for reader in readers:
        reader.join(30)
    assert ends == ["ended", "ended"]
    assert not served.socket_path.exists()


def test_an_operation_that_hangs_is_answered_when_the_server_closes(tmp_path: Path) -> None:
    with Served(tmp_path) as served:
        served.call(served.operations.gate.clear)
        connection = _Connection(served.socket_path)
        connection.request("POST", "/v1/services/web/stop")
        eventually(lambda: served.operations.calls, "the operation begins")
    assert not served.socket_path.exists()
    response = connection.getresponse()
    assert (response.status, json.loads(response.read())["error"]["kind"]) == (503, "stopping")
    connection.close()


def test_no_thread_and_no_descriptor_is_left_by_requests(served: Served, client: ControlClient) -> None:
    def count() -> tuple[int, int]:
        return threading.active_count(), len(os.listdir("/proc/self/fd"))

    client.services()
    eventually(lambda: not served.call(lambda: served.server._runner.server.connections), "idle")  # type: ignore[union-attr]
    before = count()
    for _ in range(20):
        client.services()
        next(client.logs("web", follow=True), None) if served.operations.lines else None
        served.operations.stored = [make_event(1)]
        next(client.follow_events(tail=1))
    eventually(lambda: count() == before, f"as before: {before}")


# ---- nobody there ----


def test_no_socket_is_no_supervisor(tmp_path: Path) -> None:
    with pytest.raises(NoSupervisorError, match=r"no supervisor answers on .*control\.sock: No such file"):
        ControlClient(tmp_path).services()


def test_a_socket_nobody_listens_on_is_no_supervisor(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(tmp_path / "control.sock"))
    with pytest.raises(NoSupervisorError, match="Connection refused"):
        ControlClient(tmp_path).services()


def test_a_supervisor_that_hangs_up_is_no_supervisor(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as rude:
        rude.bind(str(tmp_path / "control.sock"))
        rude.listen()

        def hang_up() -> None:
            for _ in range(2):
                rude.accept()[0].close()

        thread = threading.Thread(target=hang_up)
        thread.start()
        with pytest.raises(NoSupervisorError, match=r"closed without an answer|reset|Broken pipe"):
            ControlClient(tmp_path).services()
        thread.join(30)


@pytest.mark.parametrize("is_read", [False, True], ids=["unread", "read"])
def test_only_a_wish_that_was_left_unread_is_sent_again(tmp_path: Path, is_read: bool) -> None:
    answer = b'HTTP/1.1 200 OK\r\nContent-Length: 16\r\n\r\n{"services": []}'
    requests = []

    def serve(listener: socket.socket) -> None:
        first, _ = listener.accept()
        select.select([first], [], [], 30)
        if is_read:
            requests.append(first.recv(65536))
        first.close()
        if is_read:
            return
        second, _ = listener.accept()
        requests.append(second.recv(65536))
        second.sendall(answer)
        second.close()

    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(tmp_path / "control.sock"))
        other.listen()
        thread = threading.Thread(target=serve, args=(other,))
        thread.start()
        client = ControlClient(tmp_path)
        if is_read:
            with pytest.raises(NoSupervisorError, match="closed without an answer"):
                client.change("restart", ["web"])
        else:
            assert client.change("restart", ["web"]) == []
        thread.join(30)
    assert len(requests) == 1


def test_an_answer_that_is_not_ours_is_no_traceback(tmp_path: Path) -> None:
    def serve(listener: socket.socket, answer: bytes) -> None:
        connection, _ = listener.accept()
        connection.recv(65536)
        connection.sendall(answer)
        connection.close()

    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(tmp_path / "control.sock"))
        other.listen()
        for answer, kind in (
            (b"HTTP/1.1 500 No\r\nContent-Length: 4\r\n\r\nnope", "bad_answer"),
            (b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nnope", "broken_off"),
            (b"HTTP/1.1 200 OK\r\nContent-Length: 400\r\n\r\n{", "broken_off"),
            (b"SSH-2.0-OpenSSH\r\n", "no_supervisor"),
        ):
            thread = threading.Thread(target=serve, args=(other, answer))
            thread.start()
            assert refusal(lambda: ControlClient(tmp_path).services()).kind == kind, answer
            thread.join(30)


def test_another_configuration_is_planned_applied_and_taken_back(
    served: Served, client: ControlClient
) -> None:
    client.plan(Path("/etc/next.yaml"))
    client.apply(Path("/etc/next.yaml"), force=True)
    client.roll_back(3)
    assert [call for call in served.operations.calls if call[0] != "reload"] == [
        ("plan", ("/etc/next.yaml",)),
        ("apply", ("/etc/next.yaml", "force")),
        ("rollback", ("3",)),
    ]
    assert [entry["number"] for entry in client.configurations()] == [1]
    assert client.rollouts() == []


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/plan", b""),
        ("/v1/plan", b'{"config": "next.yaml"}'),
        ("/v1/apply", b'{"config": "/a", "forse": true}'),
        ("/v1/apply", b'{"config": "/a", "force": 1}'),
        ("/v1/apply", b"[]"),
        ("/v1/apply", b"{"),
        ("/v1/rollback", b'{"number": true}'),
    ],
)
def test_a_wrong_body_is_refused_and_nothing_is_done(served: Served, path: str, body: bytes) -> None:
    status, _, answer = ask(served, "POST", path, body=body)
    assert (status, json.loads(answer)["error"]["kind"]) == (400, "bad_request")
    assert "accepted" in json.loads(answer)["error"]["message"]
    assert served.operations.calls == []
