"""The socket that runs say something of themselves by: on its own, and with real processes of real runs."""

from __future__ import annotations

import asyncio
import os
import pwd
import select
import socket
import stat
import sys
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import pytest

from blackhole_cg.core.notify import MAX_MESSAGE_BYTES
from blackhole_cg.core.spec import ServiceSpec
from blackhole_cg.core.words import Stream
from blackhole_cg.kernel.identity import Identity
from blackhole_cg.kernel.notify_socket import MESSAGES_PER_TURN, NotifySocket
from tests.kernel.machine import Machine, eventually, in_time, read_all
from tests.support.notifier import PYTHON, SAY

Heard = list[bytes]


async def with_socket(tmp_path: Path, main: Callable[[NotifySocket, socket.socket], Awaitable[None]]) -> None:
    """Give a test a socket of ours, and one of a client of it."""
    path = tmp_path / "notify" / "web"
    bound = NotifySocket.bind(path, Identity.of_this_process())
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as client:
        client.connect(str(path))
        client.setblocking(False)
        try:
            await main(bound, client)
        finally:
            bound.close()


def fill(client: socket.socket, at_least: int) -> int:
    """Send as much as the kernel queues."""
    sent = 0
    try:
        while sent < 1000:
            client.send(b"%d" % sent)
            sent += 1
    except BlockingIOError:
        pass
    if sent < at_least:
        pytest.skip(f"the kernel queues only {sent} datagrams here (net.unix.max_dgram_qlen)")
    return sent


def test_a_socket_whose_name_was_deleted_hears_by_the_name_and_on_the_old_connection(tmp_path):
    async def main(bound, client):
        heard: Heard = []
        both = asyncio.Event()

        def take(message: bytes, sender: int) -> None:
            heard.append(message)
            if len(heard) == 2:
                both.set()

        bound.listen(take)
        bound.restore()  # nothing is lost yet
        (tmp_path / "notify" / "web").unlink()
        (tmp_path / "notify").rmdir()
        bound.restore()
        client.send(b"connected")
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
            other.sendto(b"by the name", str(tmp_path / "notify" / "web"))
        await asyncio.wait_for(both.wait(), 30)
        assert sorted(heard) == [b"by the name", b"connected"]
        bound.close()
        assert not (tmp_path / "notify" / "web").exists()

    asyncio.run(with_socket(tmp_path, main))


def test_messages_wait_and_are_handed_over_with_their_sender(tmp_path):
    async def main(bound, client):
        client.send(b"READY=1")
        client.send(b"STATUS=x")
        heard = []
        bound.listen(lambda message, sender: heard.append((message, sender)))
        await eventually(lambda: len(heard) == 2, "both")
        assert heard == [(b"READY=1", os.getpid()), (b"STATUS=x", os.getpid())]

    in_time(with_socket(tmp_path, main))


def test_a_turn_of_the_loop_takes_so_many_and_no_more(tmp_path):
    async def main(bound, client):
        heard: Heard = []
        bound.listen(lambda message, _: heard.append(message))
        sent = fill(client, at_least=2)
        bound.read(1)
        assert len(heard) == 1
        bound.read()
        assert len(heard) == min(sent, 1 + MESSAGES_PER_TURN)
        await eventually(lambda: len(heard) == sent, "the rest comes by itself")

    in_time(with_socket(tmp_path, main))


def test_a_message_that_was_cut_off_is_dropped_and_the_next_is_heard(tmp_path):
    async def main(bound, client):
        heard: Heard = []
        bound.listen(lambda message, _: heard.append(message))
        client.send(b"STATUS=" + b"x" * MAX_MESSAGE_BYTES)
        client.send(b"READY=1".ljust(MAX_MESSAGE_BYTES))
        await eventually(lambda: heard, "the second")
        assert [len(message) for message in heard] == [MAX_MESSAGE_BYTES]

    in_time(with_socket(tmp_path, main))


def test_a_descriptor_that_comes_along_is_closed_once_all_before_it_is_heard(tmp_path):
    async def main(bound, client):
        reader, writer = os.pipe()
        before = set(os.listdir("/proc/self/fd"))
        client.send(b"STATUS=first")
        socket.send_fds(client, [b"BARRIER=1"], [writer])
        os.close(writer)
        heard: list[tuple[bytes, bool]] = []
        poll = select.poll()
        poll.register(reader, 0)

        def take(message: bytes, _: int) -> None:
            heard.append((message, bool(poll.poll(0))))

        bound.listen(take)
        await eventually(lambda: len(heard) == 2, "both messages")
        assert heard[0] == (b"STATUS=first", False)
        await eventually(lambda: poll.poll(0), "the barrier falls")
        assert set(os.listdir("/proc/self/fd")) <= before
        os.close(reader)

    in_time(with_socket(tmp_path, main))


def test_the_socket_takes_the_place_of_an_old_one_and_goes_with_its_end(tmp_path):
    path = tmp_path / "notify" / "web"
    first = NotifySocket.bind(path, Identity.of_this_process())
    second = NotifySocket.bind(path, Identity.of_this_process())
    mode = path.stat().st_mode
    assert stat.S_ISSOCK(mode)
    assert stat.S_IMODE(mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o711
    second.close()
    second.close()
    assert not path.exists()
    first.close()


# ---- with real runs ----


def notifier(machine: Machine, script: str, **changes) -> ServiceSpec:
    spec = machine.spec(PYTHON, "-S", "-c", SAY + script, **changes)
    path = str(machine.base / "run" / "notify" / spec.name)
    return replace(spec, notify_socket=path, environment={**spec.environment, "NOTIFY_SOCKET": path})


def test_a_run_is_heard_from_any_of_its_processes(machine):
    async def main():
        script = "say('main')\nif os.fork() == 0: say('child')\nimport time; time.sleep(1000)"
        run = await machine.start(notifier(machine, script))
        heard: Heard = []
        run.listen(heard.append)
        await eventually(lambda: len(heard) == 2, "both")
        assert sorted(heard) == [b"child", b"main"]
        await machine.end(run)

    in_time(main())


def test_the_last_words_of_a_run_are_heard(machine):
    async def main():
        run = await machine.start(notifier(machine, "say('farewell')"))
        heard: Heard = []
        run.listen(heard.append)
        await run.exited()
        assert heard == [b"farewell"]
        await run.emptied()
        await run.close()

    in_time(main())


@pytest.mark.parametrize(("own", "other"), [(None, None), ("nobody", "nobody"), ("nobody", "daemon")])
def test_no_service_speaks_for_another(machine, caplog, own, other):
    """As root, as the same ordinary user, and as another one, who cannot even send."""
    for user in {own, other} - {None}:
        try:
            pwd.getpwnam(user)
        except KeyError:
            pytest.skip(f"there is no user {user} here")
    if (own or other) and sys.executable == PYTHON:
        pytest.skip("there is no /usr/bin/python3 that every user can execute")
    victim = notifier(machine, "import time; time.sleep(1000)", user=own)
    attack = f"""
path = {victim.notify_socket!r}
try:
    say("READY=1", path=path)
    print("sent", flush=True)
except PermissionError:
    print("refused", flush=True)
"""

    async def main():
        run = await machine.start(victim)
        heard: Heard = []
        run.listen(heard.append)
        attacker = machine.spec(PYTHON, "-S", "-c", SAY + attack + "import time; time.sleep(1000)")
        attacker = replace(attacker, user=other)
        streams = machine.host.open_streams(attacker)
        theirs = await machine.start(attacker)
        said = await eventually(lambda: read_all(streams[Stream.STDOUT]), "the attempt")
        if own == other:
            assert said == "sent\n"
            await eventually(lambda: "dropped a message of process" in caplog.text, "it is noticed")
        else:
            assert said == "refused\n"
        assert heard == []
        for each in (theirs, run):
            await machine.end(each)
        for descriptor in streams.values():
            os.close(descriptor)
        machine.host.remove_streams([attacker.name])

    in_time(main())


def test_a_run_is_over_when_the_process_ends_that_it_has_named_as_its_main_one(machine):
    async def main():
        script = """
import time
child = os.fork()
if child == 0:
    time.sleep(1000)
say(f"MAINPID={child}")
"""
        run = await machine.start(notifier(machine, script))
        first, ticks = run.pid, run.started_ticks
        named = []
        run.listen(lambda message: named.append(run.follow(int(message.partition(b"=")[2]))))
        waiting = asyncio.create_task(run.exited())
        await eventually(lambda: named, "another main process")
        assert named == [True]
        assert run.pid != first
        assert run.started_ticks >= ticks
        await eventually(lambda: not Path(f"/proc/{first}").exists(), "the first is reaped")
        assert not waiting.done()
        run.signal(15)
        status = await waiting
        assert (status.code, status.signal) == (None, 15), "though it was not our child"
        await run.emptied()
        await run.close()

    in_time(main())


def test_only_a_live_process_of_the_run_becomes_its_main_process(machine):
    async def main():
        run = await machine.start(notifier(machine, "import time; time.sleep(1000)"))
        other = await machine.start(machine.sh("sleep 1000"))
        for pid in (1, os.getpid(), other.pid, run.pid, 2**22 + 1):
            assert run.follow(pid) is False
        await machine.end(run)
        assert run.follow(other.pid) is False
        await machine.end(other)

    in_time(main())
