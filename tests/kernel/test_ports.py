"""Who has a port, on the real kernel of this host."""

from __future__ import annotations

import asyncio
import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from blackhole_cg.core.ports import PortHolder
from blackhole_cg.kernel.ports import find_port_holder, read_sockets
from tests.support.ports import Occupant, free_port


@pytest.fixture
def port() -> int:
    return free_port()


@pytest.fixture
def occupant(port: int) -> Iterator[Occupant]:
    with Occupant(port) as it:
        yield it


def test_a_port_that_nobody_has_can_be_had_again_and_again(port: int) -> None:
    assert [find_port_holder(port) for _ in range(3)] == [None] * 3


@pytest.mark.parametrize("address", ["127.0.0.1", "0.0.0.0", "127.0.0.7", "::1", "::"])
def test_a_listener_on_any_address_is_seen_and_named(port: int, address: str) -> None:
    with Occupant(port, address) as occupant:
        holder = find_port_holder(port)
        assert find_port_holder(port, identify=False) == PortHolder()
    assert holder is not None
    assert (holder.pid, holder.uid) == (occupant.pid, os.geteuid())
    assert str(holder) == f"pid {occupant.pid} ({occupant.command})"
    assert find_port_holder(port) is None


def test_it_is_told_within_a_running_loop_and_without_a_thread(occupant: Occupant, port: int) -> None:
    async def main() -> None:
        before = threading.active_count()
        holder = find_port_holder(port)
        assert holder is not None and holder.pid == occupant.pid
        assert threading.active_count() == before

    asyncio.run(main())


def test_a_socket_that_is_bound_and_does_not_listen_has_the_port(port: int) -> None:
    with closing(socket.socket()) as bound:
        bound.bind(("127.0.0.1", port))
        assert find_port_holder(port) is not None


def test_several_processes_may_share_a_port_and_one_is_named(port: int) -> None:
    with Occupant(port, reuse_port=True) as one, Occupant(port, reuse_port=True) as other:
        holder = find_port_holder(port)
        assert holder is not None and holder.pid in (one.pid, other.pid)


@pytest.mark.parametrize("reuse", [True, False])
def test_what_is_left_of_connections_counts_only_where_it_stops_everybody(port: int, reuse: bool) -> None:
    server = socket.socket()
    server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, reuse)
    server.bind(("127.0.0.1", port))
    server.listen()
    client = socket.create_connection(("127.0.0.1", port))
    accepted, _ = server.accept()
    holder = find_port_holder(port)
    assert holder is not None and holder.pid == os.getpid()
    accepted.close()
    server.close()
    left = None if reuse else PortHolder(is_closing=True)
    assert find_port_holder(port) == left  # FIN_WAIT2: the client has not closed
    client.close()
    assert [each for each in read_sockets(port) if each.inode == 0], "nothing is in TIME_WAIT"
    assert find_port_holder(port) == left
    with closing(socket.socket()) as next_server:
        next_server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        assert can_bind(next_server, port) == reuse, "what was said is what a server finds"


def can_bind(server: socket.socket, port: int) -> bool:
    try:
        server.bind(("127.0.0.1", port))
    except OSError:
        return False
    return True


def test_an_open_connection_without_its_listener_has_the_port(port: int) -> None:
    with Occupant(port) as occupant, closing(socket.create_connection(("127.0.0.1", port))):
        occupant.keep_only_connection()
        holder = find_port_holder(port)
        assert holder is not None and holder.pid == occupant.pid


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_who_may_not_look_at_the_process_still_tells_its_user(occupant: Occupant, port: int) -> None:
    assert as_nobody(lambda: find_port_holder(port)) == "an unknown process of user 0"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_a_port_that_may_not_be_bound_says_so() -> None:
    if int(Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_text()) <= 1:
        pytest.skip("here everybody may bind every port")
    assert as_nobody(lambda: find_port_holder(1)) == "Permission denied"


def as_nobody(ask: Callable[[], object]) -> str:
    """What a user without privileges is told."""
    import pyroute2.netlink.diag  # noqa: F401  (that user may not read this Python)

    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)
        try:
            told = str(ask())
        except BaseException as error:
            told = repr(error)
        os.write(writer, told.encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        answer = pipe.read()
    os.waitpid(pid, 0)
    return answer
