"""Connections: accepted, refused, never accepted; and that no probe starts a thread or keeps a descriptor."""

from __future__ import annotations

import asyncio
import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from blackhole_cg.core.probe_spec import Address, Answer, GrpcTarget, HttpTarget, Target, TcpTarget
from blackhole_cg.observe.probes.ask import Asker
from blackhole_cg.observe.probes.tcp import ask, connect
from tests.observe.probes.servers import (
    IMPATIENCE_SECONDS,
    PATIENCE_SECONDS,
    in_time,
    serve,
    silent,
    unserved_port,
)
from tests.support.builders import service
from tests.support.fake_commands import FakeCommands


def test_a_server_that_accepts_is_enough(tmp_path: Path) -> None:
    async def scenario() -> None:
        for path in (None, tmp_path / "s"):
            async with serve(silent, path) as address:
                answer = await ask(TcpTarget(address), PATIENCE_SECONDS)
                assert (answer.ok, answer.message) == (True, f"connect {address}: connected")

    in_time(scenario())


def test_ipv6() -> None:
    async def scenario() -> None:
        try:
            server = await asyncio.start_server(silent, "::1", 0)
        except OSError as cause:
            pytest.skip(f"no IPv6 on the loopback interface: {cause}")
        port = server.sockets[0].getsockname()[1]
        answer = await ask(TcpTarget(Address("::1", port)), PATIENCE_SECONDS)
        assert (answer.ok, answer.message) == (True, f"connect [::1]:{port}: connected")
        server.close()

    in_time(scenario())


def test_nobody_listens(tmp_path: Path) -> None:
    async def refusal(address: Address) -> str:
        answer = await ask(TcpTarget(address), PATIENCE_SECONDS)
        assert not answer.ok
        return answer.message

    with unserved_port() as port:
        assert in_time(refusal(Address(port=port))) == f"connect 127.0.0.1:{port}: connection refused"
    path = tmp_path / "s"
    assert (
        in_time(refusal(Address(unix_socket=str(path)))) == f"connect unix:{path}: no such file or directory"
    )
    with socket.socket(socket.AF_UNIX) as once:
        once.bind(str(path))
    assert in_time(refusal(Address(unix_socket=str(path)))) == f"connect unix:{path}: connection refused"
    long = Address(unix_socket="/" + "x" * 200)
    assert in_time(refusal(long)).endswith("AF_UNIX path too long")


@pytest.fixture
def crowded_socket(tmp_path: Path) -> Iterator[Path]:
    """A listening socket whose backlog is full."""
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen(0)
        waiting = []
        while True:
            client = socket.socket(socket.AF_UNIX)
            client.setblocking(False)
            try:
                client.connect(str(path))
            except BlockingIOError:
                client.close()
                break
            waiting.append(client)
        yield path
        for client in waiting:
            client.close()


def test_a_server_that_no_longer_accepts_is_no_success(crowded_socket: Path) -> None:
    answer = in_time(ask(TcpTarget(Address(unix_socket=str(crowded_socket))), IMPATIENCE_SECONDS))
    expected = f"connect unix:{crowded_socket}: no answer within {IMPATIENCE_SECONDS:g}s"
    assert (answer.ok, answer.message) == (False, expected)


def test_reaching_ourselves_is_a_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel may give a client the very port that it wants to reach, and connect it with itself."""
    with unserved_port() as port:
        free = port

    def bound(family: socket.AddressFamily) -> socket.socket:
        made = socket.socket(family, socket.SOCK_STREAM)
        made.setblocking(False)
        made.bind(("127.0.0.1", free))
        return made

    monkeypatch.setattr("blackhole_cg.observe.probes.tcp._new_socket", bound)
    answer = in_time(ask(TcpTarget(Address(port=free)), PATIENCE_SECONDS))
    assert (answer.ok, answer.message) == (False, f"connect 127.0.0.1:{free}: connection refused")


def test_a_connection_is_not_inherited_by_services() -> None:
    async def scenario() -> None:
        async with serve(silent) as address:
            connection = await connect(address)
            assert not connection.get_inheritable() and not connection.getblocking()
            connection.close()

    in_time(scenario())


def _patience(target: Target) -> float:
    """A silent server accepts, and answers nothing else."""
    return PATIENCE_SECONDS if isinstance(target, TcpTarget) else IMPATIENCE_SECONDS


def test_no_probe_starts_a_thread_or_keeps_a_descriptor(tmp_path: Path) -> None:
    """The supervisor forks, so it has one thread."""

    async def scenario() -> None:
        ask_once = Asker(service(), FakeCommands())
        async with serve(silent) as here, serve(silent, tmp_path / "s") as there:
            with unserved_port() as port:
                addresses = (here, there, Address(port=port), Address("::1", port))
                targets: list[Target] = []
                for address in addresses:
                    targets += [TcpTarget(address), HttpTarget(address), GrpcTarget(address)]
                await ask_once(targets[0], PATIENCE_SECONDS)
                await ask_once(targets[2], IMPATIENCE_SECONDS)  # imports what it needs
                await asyncio.sleep(0.1)
                before = set(os.listdir("/proc/self/fd"))
                answers: list[Answer] = await asyncio.gather(
                    *(ask_once(target, _patience(target)) for target in targets)
                )
                assert [answer.ok for answer in answers].count(True) == 2
                assert threading.active_count() == 1
                assert len(os.listdir("/proc/self/task")) == 1
            while set(os.listdir("/proc/self/fd")) - before:  # noqa: ASYNC110  (servers close a turn later)
                await asyncio.sleep(0.01)

    in_time(scenario())
