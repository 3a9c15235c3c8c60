"""A supervisor in the foreground: signals, in whichever order they come."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Iterator

import pytest

from blackhole_cg.cli.foreground import SIGNALS, STOP_SIGNALS, Foreground
from blackhole_cg.errors import ConfigError, Diagnostic, LockHeldError, OperationError


@pytest.fixture(autouse=True)
def usual_hang_up() -> Iterator[None]:
    """SIGHUP as it is where nobody has set it otherwise, also where the tests run under nohup."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


class FakeSupervisor:
    """Notes what is asked of it. A start or a shutdown that is held goes on when it is killed or let go."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.opening: Exception | None = None
        self.starting: Exception | None = None
        self.reloading: Exception | None = None
        self.start_gate = asyncio.Event()
        self.shutdown_gate = asyncio.Event()
        self.start_gate.set()
        self.shutdown_gate.set()
        self.on_shutdown: Callable[[], None] = lambda: None

    async def __aenter__(self) -> FakeSupervisor:
        if self.opening:
            raise self.opening
        self.calls.append("open")
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.shutdown()

    async def start(self) -> None:
        self.calls.append("start")
        await self.start_gate.wait()
        if self.starting:
            raise self.starting

    async def shutdown(self) -> None:
        if "shutdown" not in self.calls:
            self.calls.append("shutdown")
            self.on_shutdown()
            self.starting = OperationError("superseded")
            self.start_gate.set()
            await self.shutdown_gate.wait()

    async def reload(self) -> None:
        self.calls.append("reload")
        if self.reloading:
            raise self.reloading

    def kill(self) -> None:
        self.calls.append("kill")
        self.shutdown_gate.set()


def send(number: int) -> None:
    os.kill(os.getpid(), number)


def run(
    prepare: Callable[[FakeSupervisor], None] = lambda supervisor: None,
    on_running: Callable[[], None] = lambda: send(signal.SIGINT),
    terminal: Callable[[], bool] = lambda: False,
) -> list[str]:
    """What is asked of the supervisor, until the foreground is done."""
    calls: list[str] = []

    async def main() -> None:
        nonlocal calls
        supervisor = FakeSupervisor()
        calls = supervisor.calls
        prepare(supervisor)

        def running() -> None:
            calls.append("running")
            on_running()

        async with asyncio.timeout(30):
            await Foreground(supervisor, running, has_terminal=terminal).run()

    before = [signal.getsignal(number) for number in SIGNALS]
    try:
        asyncio.run(main())
    except Exception as error:
        calls.append(type(error).__name__)
    assert [signal.getsignal(number) for number in SIGNALS] == before
    return calls


@pytest.mark.parametrize("number", STOP_SIGNALS)
def test_a_signal_stops_everything_in_order(number: int) -> None:
    assert run(on_running=lambda: send(number)) == ["open", "start", "running", "shutdown"]


def hang_up_then_interrupt() -> None:
    send(signal.SIGHUP)
    asyncio.get_running_loop().call_later(0.05, send, signal.SIGINT)


def test_a_hang_up_reloads() -> None:
    calls = run(on_running=hang_up_then_interrupt)
    assert calls == ["open", "start", "running", "reload", "shutdown"]


def test_a_reload_that_fails_is_told_and_nothing_ends(caplog: pytest.LogCaptureFixture) -> None:
    def prepare(supervisor: FakeSupervisor) -> None:
        supervisor.reloading = ConfigError([Diagnostic("f.yaml", 3, 1, "k", "wrong")])

    assert run(prepare, hang_up_then_interrupt)[-2:] == ["reload", "shutdown"]
    assert "reload: f.yaml:3:1: k: wrong" in caplog.text


def test_a_hang_up_of_its_terminal_stops_everything_in_order() -> None:
    answers = iter([True, False])
    calls = run(on_running=lambda: send(signal.SIGHUP), terminal=lambda: next(answers))
    assert calls == ["open", "start", "running", "shutdown"]


def test_under_nohup_the_end_of_its_terminal_ends_nothing() -> None:
    answers = iter([True, False])
    supervisor = FakeSupervisor()
    signal.signal(signal.SIGHUP, signal.SIG_IGN)

    async def main() -> None:
        await Foreground(supervisor, hang_up_then_interrupt, has_terminal=lambda: next(answers)).run()

    asyncio.run(main())
    assert supervisor.calls == ["open", "start", "reload", "shutdown"]


def test_a_second_signal_kills_at_once() -> None:
    def prepare(supervisor: FakeSupervisor) -> None:
        supervisor.shutdown_gate.clear()
        supervisor.on_shutdown = lambda: send(signal.SIGTERM)

    assert run(prepare) == ["open", "start", "running", "shutdown", "kill"]


def test_a_signal_while_it_starts_ends_the_start() -> None:
    def prepare(supervisor: FakeSupervisor) -> None:
        supervisor.start_gate.clear()
        asyncio.get_running_loop().call_later(0.05, send, signal.SIGINT)

    assert run(prepare) == ["open", "start", "shutdown"]


def test_a_second_signal_while_it_starts_kills_at_once() -> None:
    def prepare(supervisor: FakeSupervisor) -> None:
        supervisor.start_gate.clear()
        supervisor.shutdown_gate.clear()
        asyncio.get_running_loop().call_later(0.05, send, signal.SIGINT)
        supervisor.on_shutdown = lambda: send(signal.SIGINT)

    assert run(prepare) == ["open", "start", "shutdown", "kill"]


def test_a_start_that_fails_is_told_after_the_shutdown() -> None:
    def prepare(supervisor: FakeSupervisor) -> None:
        supervisor.starting = OperationError("cannot start 'web'", rolled_back=True)

    assert run(prepare) == ["open", "start", "shutdown", "OperationError"]


def test_services_that_are_not_required_may_fail_without_the_others() -> None:
    def prepare(supervisor: FakeSupervisor) -> None:
        supervisor.starting = OperationError("cannot start 'extra'")

    assert run(prepare) == ["open", "start", "running", "shutdown"]


def test_a_supervisor_that_cannot_be_opened_is_told() -> None:
    def prepare(supervisor: FakeSupervisor) -> None:
        supervisor.opening = LockHeldError("another one runs")

    assert run(prepare) == ["LockHeldError"]


def test_a_supervisor_that_is_replaced_departs_and_signals_wait_for_the_next() -> None:
    calls: list[str] = []

    async def main() -> None:
        supervisor = FakeSupervisor()
        supervisor.calls = calls

        async def depart() -> None:
            send(signal.SIGTERM)
            send(signal.SIGHUP)
            calls.append("depart")

        def left() -> None:
            calls.append("shutdown")  # so that leaving its context is none

        foreground = Foreground(
            supervisor,
            lambda: (left(), foreground.leave(depart)),
            has_terminal=lambda: False,
            on_open=lambda: calls.append("opened"),
        )
        await foreground.run()

    try:
        asyncio.run(main())
        assert calls == ["open", "opened", "start", "shutdown", "depart"]
        assert signal.sigpending() == {signal.SIGTERM, signal.SIGHUP}
        assert run(on_running=lambda: None)[-1] == "shutdown", "the next one hears them"
        assert signal.sigpending() == set()
    finally:
        for number in SIGNALS:
            signal.signal(number, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        for number in SIGNALS:
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
