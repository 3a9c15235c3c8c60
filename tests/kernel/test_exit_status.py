"""How processes end that are children of somebody else: by pidfd, by zombie, by the process connector."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from blackhole_cg.core.facts import ExitStatus
from blackhole_cg.errors import KernelError
from blackhole_cg.kernel import exit_listener
from blackhole_cg.kernel.exit_listener import ExitListener, exit_filter, parse_exit
from blackhole_cg.kernel.exit_status import (
    ForeignExits,
    ask_kernel,
    parse_wait_status,
    pidfd_keeps_exit_status,
)
from blackhole_cg.kernel.process import Children, MainProcess, is_child

PARENT = """
import ctypes, os, signal, sys, threading, time
pid = os.fork()
if pid == 0:
    os.read(int(sys.argv[1]), 1)
    exec(sys.argv[3])
    os._exit(0)
print(pid, flush=True)
if sys.argv[2] == "reap":
    os.waitpid(pid, 0)
    print("reaped", flush=True)
sys.stdin.read()
"""
ENDINGS = [
    ("os._exit(0)", ExitStatus(code=0)),
    ("os._exit(7)", ExitStatus(code=7)),
    ("os.kill(os.getpid(), signal.SIGSEGV)", ExitStatus(signal=11)),
    ("os.kill(os.getpid(), signal.SIGKILL)", ExitStatus(signal=9)),
]
FIRST_THREAD_LEAVES = (
    "threading.Thread(target=lambda: (time.sleep(0.3), os._exit(9))).start()\n"
    "ctypes.CDLL(None).syscall({exit}, 0)".format(exit={"x86_64": 60}.get(os.uname().machine, 93))
)


class Foreigner:
    """A process that is not our child, about to end in some way; its own parent reaps it or does not."""

    def __init__(self, ending: str, *, reaped: bool) -> None:
        reader, self._writer = os.pipe()
        self._parent = subprocess.Popen(
            [sys.executable, "-c", PARENT, str(reader), "reap" if reaped else "leave", ending],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            pass_fds=[reader],
            text=True,
        )
        os.close(reader)
        self.pid = int(self._line())
        self.pidfd = os.pidfd_open(self.pid)
        self.is_reaped = reaped

    def end(self) -> None:
        os.write(self._writer, b"x")

    def wait_reaped(self) -> None:
        assert self._line() == "reaped\n"

    def close(self) -> None:
        self.end()
        self._parent.communicate()
        os.close(self._writer)

    def _line(self) -> str:
        assert self._parent.stdout is not None
        return self._parent.stdout.readline()


@contextmanager
def foreigner(ending: str, *, reaped: bool = True) -> Iterator[Foreigner]:
    process = Foreigner(ending, reaped=reaped)
    try:
        yield process
    finally:
        process.close()


def end_others(count: int) -> None:
    """Processes that nobody watches."""
    for _ in range(count):
        subprocess.run(["/bin/true"], check=True)


def listening() -> ForeignExits:
    """One that knows only what the connector says."""
    return ForeignExits(ask=lambda pid, pidfd: None, always_answers=False)


def require_connector() -> None:
    async def try_it() -> None:
        ExitListener.open().close()

    try:
        asyncio.run(try_it())
    except KernelError as error:
        pytest.skip(str(error))


async def learn(foreign: ForeignExits, process: Foreigner) -> ExitStatus:
    """What a main process of that pid is said to have ended with."""
    children = Children(foreign)
    held = MainProcess.taken_over(process.pid, process.pidfd, children)
    await asyncio.sleep(0)  # the filter is narrow by now
    process.end()
    async with asyncio.timeout(30):
        status = await held.exited()
    assert threading.active_count() == 1
    assert children.known == {}
    return status


@pytest.mark.parametrize(("ending", "expected"), ENDINGS)
@pytest.mark.every_kernel
def test_the_connector_tells_how_a_process_ended(ending: str, expected: ExitStatus) -> None:
    require_connector()
    with foreigner(ending) as process:
        assert asyncio.run(learn(listening(), process)) == expected


def test_the_connector_is_right_when_the_first_thread_leaves_before_the_others() -> None:
    require_connector()
    with foreigner(FIRST_THREAD_LEAVES) as process:
        assert asyncio.run(learn(listening(), process)) == ExitStatus(code=9)


@pytest.mark.parametrize(("ending", "expected"), ENDINGS)
@pytest.mark.parametrize("reaped", [True, False])
def test_the_pidfd_or_the_zombie_tells(ending: str, expected: ExitStatus, reaped: bool) -> None:
    if reaped and not pidfd_keeps_exit_status():
        pytest.skip(f"Linux {os.uname().release} tells nothing of a reaped process by its pidfd (6.15 does)")
    with foreigner(ending, reaped=reaped) as process:
        process.end()
        if reaped:
            process.wait_reaped()
        else:
            os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        assert asyncio.run(learn(ForeignExits(always_answers=True), process)) == expected


def test_a_live_process_has_not_ended() -> None:
    with foreigner("pass") as process:
        assert ask_kernel(process.pid, process.pidfd) is None
        assert not is_child(process.pidfd)
        os.close(process.pidfd)


def test_a_child_is_reaped_as_ever() -> None:
    async def scenario() -> None:
        pidfd = os.pidfd_open(child.pid)
        assert is_child(pidfd)
        foreign = ForeignExits(always_answers=False)
        assert await MainProcess.taken_over(child.pid, pidfd, Children(foreign)).exited() == ExitStatus(
            code=3
        )

    child = subprocess.Popen(["/bin/sh", "-c", "exit 3"])
    asyncio.run(scenario())
    child.wait()  # finds it reaped


def test_without_the_connector_it_is_unknown_and_told_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(exit_listener, "NETLINK_CONNECTOR", 31)  # there is no such protocol
    foreign = listening()
    for _ in range(2):
        with foreigner("os._exit(7)") as process:
            assert asyncio.run(learn(foreign, process)) == ExitStatus()
    assert [record.message for record in caplog.records] == [
        "how services end that were taken over will not be known: "
        "cannot listen to the kernel's process connector: Protocol not supported"
    ]


def test_what_the_socket_could_not_hold_is_unknown_and_never_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    """All the ends of the host come in, into a tiny buffer, and the one that counts is not among them."""
    require_connector()
    monkeypatch.setattr(exit_listener, "BUFFER_BYTES", 2048)
    monkeypatch.setattr(exit_listener, "PATIENCE_SECONDS", 0.5)
    monkeypatch.setattr(ExitListener, "_narrow", lambda self: None)

    async def scenario(process: Foreigner) -> None:
        listener = ExitListener.open()
        listener.watch(process.pid, process.pidfd)
        end_others(100)
        process.end()
        process.wait_reaped()
        answer: asyncio.Future[ExitStatus] = asyncio.get_running_loop().create_future()
        listener.tell(process.pid, answer.set_result)
        assert await answer == ExitStatus()
        listener.close()

    with foreigner("os._exit(7)") as process:
        asyncio.run(scenario(process))
        os.close(process.pidfd)


def test_only_what_is_watched_wakes_us() -> None:
    require_connector()

    async def scenario() -> None:
        with foreigner("os._exit(7)") as process:
            listener = ExitListener.open()
            listener.watch(process.pid, process.pidfd)
            await asyncio.sleep(0)
            seen: list[bytes] = []
            listener._note = seen.append  # type: ignore[method-assign]
            end_others(1)
            process.end()
            process.wait_reaped()
            listener._read()
            found = [parse_exit(message) for message in seen]
            mine = [each for each in found if each is not None and each[0] == process.pid]
            assert mine == [(process.pid, ExitStatus(code=7))]
            listener.close()
            os.close(process.pidfd)

    asyncio.run(scenario())


@pytest.mark.parametrize("count", [0, 1, 199, 200, 201, 1000])
def test_the_filter_lets_through_what_it_should(count: int) -> None:
    """As the kernel runs it: on datagrams of the size and layout of the connector's."""
    pids = list(range(5, 5 + 3 * count, 3))

    def event(what: int, pid: int) -> bytes:
        return (
            bytes(36)
            + what.to_bytes(4, sys.byteorder)
            + bytes(16)
            + pid.to_bytes(4, sys.byteorder) * 2
            + bytes(16)
        )

    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with ours, theirs:
        ours.setblocking(False)
        exit_listener._attach(ours, exit_filter(pids))

        def passes(message: bytes) -> bool:
            theirs.send(message)
            try:
                return bool(ours.recv(4096))
            except BlockingIOError:
                return False

        exit_event, fork_event = 0x80000000, 1
        assert passes(event(0, 0)), "the answer to a subscription"
        assert not passes(event(fork_event, 5))
        assert all(passes(event(exit_event, pid)) for pid in pids)
        assert passes(event(exit_event, 6)) == (not pids)


@pytest.mark.parametrize("message", [b"", bytes(40), bytes(80), b"\xff" * 80])
def test_other_messages_are_about_something_else(message: bytes) -> None:
    assert parse_exit(message) is None


def test_a_wait_status() -> None:
    cases: list[tuple[int, ExitStatus]] = [
        (0, ExitStatus(code=0)),
        (7 << 8, ExitStatus(code=7)),
        (11 | 0x80, ExitStatus(signal=11)),  # with a core dump
    ]
    assert [parse_wait_status(status) for status, _ in cases] == [expected for _, expected in cases]
