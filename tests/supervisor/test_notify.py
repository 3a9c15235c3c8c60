"""What services say of themselves, in virtual time: readiness, more time, watchdog, main process."""

from __future__ import annotations

import asyncio

import pytest

from blackhole_cg.core.facts import ExitStatus
from blackhole_cg.core.spec import RestartPolicy, ServiceSpec, StopPolicy
from blackhole_cg.core.words import Reason, RestartWhen, ServiceType, State
from blackhole_cg.errors import OperationError
from tests.support.builders import service
from tests.support.fake_host import Behaviour, FakeRun
from tests.support.stage import Stage
from tests.support.virtual_loop import run_virtual


def notifier(name: str = "web", *needs: str, **fields) -> ServiceSpec:
    return service(name, *needs, type=ServiceType.NOTIFY, **fields)


async def started(stage: Stage, name: str = "web") -> FakeRun:
    """The run of a service that has said that it is ready."""
    start = asyncio.create_task(stage.operations.start([name]))
    await asyncio.sleep(1)
    run = stage.host.run_of(name)
    run.say("READY=1")
    await start
    return run


def text_of(stage: Stage, name: str = "web") -> str | None:
    return stage.services.runners[name].notify_watch.status_text


def causes(stage: Stage, name: str = "web") -> list[tuple[Reason, str]]:
    return [
        (each.reason, each.detail)
        for each in stage.records
        if each.service == name and each.to_state == "stopping"
    ]


def test_a_dependent_waits_until_what_it_needs_says_that_it_is_ready():
    async def main():
        stage = Stage(service("web", "db"), notifier("db"))
        start = asyncio.create_task(stage.operations.start(["web"]))
        await asyncio.sleep(30)
        assert stage.states() == {"db": State.STARTING, "web": State.WAITING}
        stage.host.run_of("db").say("READY=1", "STATUS=serving")
        await start
        assert stage.states() == {"db": State.RUNNING, "web": State.RUNNING}
        assert stage.status("db").detail == "pid 1000 is ready: serving"

    run_virtual(main())


def test_a_start_that_is_not_ready_in_time_fails_with_what_it_said_last():
    async def main():
        stage = Stage(notifier(start_timeout_seconds=20))
        start = asyncio.create_task(stage.operations.start(["web"]))
        await asyncio.sleep(1)
        stage.host.run_of("web").say("STATUS=reading 3 of 9")
        with pytest.raises(OperationError, match=r"not up within 20s \(reading 3 of 9\)"):
            await start

    run_virtual(main())


def test_a_start_may_ask_for_more_time_and_must_go_on_asking():
    async def main():
        stage = Stage(notifier(start_timeout_seconds=20))
        start = asyncio.create_task(stage.operations.start(["web"]))
        await asyncio.sleep(10)
        for _ in range(5):
            stage.host.run_of("web").say("EXTEND_TIMEOUT_USEC=15000000")
            await asyncio.sleep(10)
        assert stage.status("web").state is State.STARTING
        began = asyncio.get_running_loop().time()
        with pytest.raises(OperationError):
            await start
        assert asyncio.get_running_loop().time() - began == pytest.approx(5, abs=0.1)

    run_virtual(main())


def test_asking_for_less_time_than_there_is_takes_nothing_away():
    async def main():
        stage = Stage(notifier(start_timeout_seconds=20))
        start = asyncio.create_task(stage.operations.start(["web"]))
        await asyncio.sleep(1)
        stage.host.run_of("web").say("EXTEND_TIMEOUT_USEC=1000000")
        await asyncio.sleep(18)
        assert stage.status("web").state is State.STARTING
        stage.host.run_of("web").say("READY=1")
        await start

    run_virtual(main())


def test_a_stop_may_ask_for_more_time():
    async def main():
        stage = Stage(
            notifier(stop=StopPolicy(timeout_seconds=10)), behaviours={"web": Behaviour(stop_seconds=None)}
        )
        run = await started(stage)
        stop = asyncio.create_task(stage.operations.stop(["web"]))
        await asyncio.sleep(9)
        run.say("EXTEND_TIMEOUT_USEC=20000000")
        await asyncio.sleep(19)
        assert not run.killed
        await stop
        assert run.killed

    run_virtual(main())


def test_a_run_that_falls_silent_is_ended_as_broken_and_restarted():
    async def main():
        stage = Stage(notifier(watchdog_seconds=30.0))
        run = await started(stage)
        for _ in range(10):
            await asyncio.sleep(25)
            run.say("WATCHDOG=1")
        assert stage.path("web") == ["waiting", "starting", "running"]
        await stage.until("web", State.RESTARTING)
        assert causes(stage) == [(Reason.WATCHDOG, "no watchdog message for 30s")]
        last_exit = stage.status("web").last_exit
        assert last_exit is not None
        assert last_exit.reason is Reason.WATCHDOG

    run_virtual(main())


def test_nobody_waits_for_signs_of_life_before_the_start_and_during_the_stop():
    async def main():
        stage = Stage(
            notifier(watchdog_seconds=5.0, stop=StopPolicy(timeout_seconds=60)),
            behaviours={"web": Behaviour(stop_seconds=40)},
        )
        start = asyncio.create_task(stage.operations.start(["web"]))
        await asyncio.sleep(60)
        stage.host.run_of("web").say("READY=1")
        await start
        await stage.operations.stop(["web"])
        assert causes(stage) == [(Reason.OPERATOR, "stop requested")]

    run_virtual(main())


def test_a_run_can_trigger_its_watchdog_and_set_it_and_switch_it_off():
    async def main():
        stage = Stage(notifier())
        run = await started(stage)
        run.say("WATCHDOG_USEC=5000000")
        await asyncio.sleep(4)
        run.say("WATCHDOG_USEC=0")
        await asyncio.sleep(60)
        assert stage.status("web").state is State.RUNNING
        run.say("WATCHDOG_USEC=7000000")
        await stage.until("web", State.STOPPING)
        await stage.until("web", State.STARTING)
        again = stage.host.run_of("web")
        await asyncio.sleep(1)
        again.say("READY=1")
        again.say("WATCHDOG=trigger")
        await stage.until("web", State.STOPPING)
        assert [detail for _, detail in causes(stage)] == [
            "no watchdog message for 7s",
            "it says that it is broken (WATCHDOG=trigger)",
        ]

    run_virtual(main())


def test_what_a_service_says_is_kept_until_the_next_run_and_is_no_event():
    async def main():
        stage = Stage(notifier(restart=RestartPolicy(when=RestartWhen.NEVER)))
        run = await started(stage)
        assert text_of(stage) is None
        events = len(stage.records)
        for number in range(100):
            run.say(f"STATUS=job {number}")
        assert text_of(stage) == "job 99"
        run.say("RELOADING=1")
        assert text_of(stage) == "reloading: job 99"
        run.say("READY=1", "STATUS=reloaded")
        assert text_of(stage) == "reloaded"
        assert len(stage.records) == events
        run.end(ExitStatus(code=1))
        await stage.until("web", State.FAILED)
        assert text_of(stage) == "reloaded"
        await started(stage)
        assert text_of(stage) is None

    run_virtual(main())


def test_a_run_that_says_that_it_stops_is_not_restarted_before_its_end():
    async def main():
        stage = Stage(notifier(watchdog_seconds=5.0, stop=StopPolicy(timeout_seconds=10)))
        run = await started(stage)
        run.say("STOPPING=1")
        await asyncio.sleep(9)
        assert stage.status("web").state is State.STOPPING
        assert run.signals == []
        run.end()
        await stage.until("web", State.RESTARTING)
        last_exit = stage.status("web").last_exit
        assert last_exit is not None
        assert (last_exit.reason, run.killed) == (Reason.EXITED, False)

    run_virtual(main())


def test_another_main_process_is_shown_if_it_is_one_of_the_run():
    async def main():
        stage = Stage(notifier())
        run = await started(stage)
        run.members = {77}
        run.say("MAINPID=1")
        assert stage.status("web").pid == 1000
        run.say("MAINPID=77")
        assert stage.status("web").pid == 77

    run_virtual(main())


@pytest.mark.parametrize(("late_seconds", "state"), [(0.0, State.STOPPING), (40.0, State.RUNNING)])
def test_time_that_we_slept_through_does_not_count_as_silence(late_seconds, state):
    async def main():
        stage = Stage(notifier(watchdog_seconds=30.0, stop=StopPolicy(timeout_seconds=1000)))
        stage.host.behaviours["web"] = Behaviour(stop_seconds=None)
        await started(stage)
        await asyncio.sleep(20)
        asyncio.get_running_loop().lose(late_seconds)
        await asyncio.sleep(11)
        assert stage.status("web").state is state

    run_virtual(main())
