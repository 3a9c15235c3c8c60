from __future__ import annotations

import asyncio
import itertools

import pytest

from blackhole_cg.core.facts import ExitStatus
from blackhole_cg.core.spec import ResourceLimits, RestartPolicy, StopPolicy
from blackhole_cg.core.words import Condition, Desired, Overcommit, Reason, RestartWhen, ServiceType, State
from blackhole_cg.errors import OperationError, UnknownServiceError
from tests.support.builders import service
from tests.support.fake_host import Behaviour
from tests.support.stage import Stage
from tests.support.virtual_loop import run_virtual

CRASH = ExitStatus(code=1)


def test_dependents_start_after_what_they_need_and_independents_side_by_side():
    async def main():
        slow = Behaviour(exec_seconds=1)
        stage = Stage(
            service("web", "db"), service("db"), service("cache"), behaviours={"db": slow, "cache": slow}
        )
        began = asyncio.get_running_loop().time()
        await stage.operations.start(["web", "cache"])
        assert [name for _, name in stage.host.history] == ["db", "cache", "web"]
        assert asyncio.get_running_loop().time() - began == pytest.approx(1, abs=0.1)
        assert set(stage.states().values()) == {State.RUNNING}

    run_virtual(main())


def test_a_oneshot_completes_before_what_waits_for_it():
    async def main():
        stage = Stage(
            service("web", depends_on={"migrate": Condition.COMPLETED}),
            service("migrate", type=ServiceType.ONESHOT),
            behaviours={"migrate": Behaviour(exit_after_seconds=5)},
        )
        await stage.operations.start(["web"])
        assert stage.host.history == [("launch", "migrate"), ("end", "migrate"), ("launch", "web")]
        assert stage.path("migrate") == ["waiting", "starting", "running", "completed"]

    run_virtual(main())


def test_a_start_that_fails_rolls_back_in_reverse_and_touches_nothing_that_ran_before():
    async def main():
        stage = Stage(
            service("old"),
            service("a", "old"),
            service("b", "a"),
            service("c", "b"),
            service("d", "b"),
            behaviours={"c": Behaviour(spawn_error="execute /no/such")},
        )
        await stage.operations.start(["old"])
        stage.host.history.clear()
        with pytest.raises(OperationError) as failure:
            await stage.operations.start(["c"])
        assert failure.value.rolled_back
        assert str(failure.value).splitlines() == [
            "cannot start 'c': execute /no/such",
            "rolled back: b, a",
        ]
        assert [name for what, name in stage.host.history if what == "end"] == ["c", "b", "a"]
        assert stage.status("old").state is State.RUNNING
        assert stage.status("c").state is State.FAILED
        assert stage.status("b").last_exit.reason is Reason.START_FAILED
        assert all(stage.status(name).desired is Desired.DOWN for name in "abc")

    run_virtual(main())


def test_a_failed_dependency_names_itself_in_the_error_of_what_needs_it():
    async def main():
        stage = Stage(
            service("db", required=False),
            service("web", "db"),
            behaviours={"db": Behaviour(launch_error="create cgroup")},
        )
        with pytest.raises(OperationError) as failure:
            await stage.operations.start(["web"])
        assert str(failure.value).splitlines() == [
            "cannot start 'db': create cgroup",
            "cannot start 'web': it depends on 'db', which did not start",
            "rolled back: web",
        ]
        assert stage.states() == {"db": State.FAILED, "web": State.STOPPED}

    run_virtual(main())


def test_a_service_that_is_not_required_does_not_roll_anything_back():
    async def main():
        stage = Stage(
            service("extra", required=False),
            service("web"),
            behaviours={"extra": Behaviour(launch_error="no")},
        )
        with pytest.raises(OperationError) as failure:
            await stage.operations.start(["extra", "web"])
        assert not failure.value.rolled_back
        assert stage.states() == {"extra": State.FAILED, "web": State.RUNNING}

    run_virtual(main())


def test_a_oneshot_that_fails_rolls_back_what_waited_for_it():
    async def main():
        stage = Stage(
            service("side"),
            service(
                "migrate", "side", type=ServiceType.ONESHOT, restart=RestartPolicy(when=RestartWhen.NEVER)
            ),
            service("web", depends_on={"migrate": Condition.COMPLETED}),
            behaviours={"migrate": Behaviour(exit_after_seconds=1, exit_status=CRASH)},
        )
        with pytest.raises(OperationError, match="cannot start 'migrate': exit 1; restart policy is never"):
            await stage.operations.start(["web"])
        assert stage.states() == {"side": State.STOPPED, "migrate": State.FAILED, "web": State.STOPPED}
        assert ("launch", "web") not in stage.host.history

    run_virtual(main())


def test_stop_goes_in_reverse_and_side_by_side():
    async def main():
        slow = Behaviour(stop_seconds=1)
        names = ["db", "cache", "web", "api"]
        stage = Stage(
            service("db"),
            service("cache"),
            service("web", "db", "cache"),
            service("api", "db"),
            behaviours=dict.fromkeys(names, slow),
        )
        await stage.operations.start(names)
        began = asyncio.get_running_loop().time()
        await stage.operations.stop(names)
        ended = [name for what, name in stage.host.history if what == "end"]
        assert set(ended[:2]) == {"web", "api"}
        assert set(ended[2:]) == {"db", "cache"}
        assert asyncio.get_running_loop().time() - began == pytest.approx(2, abs=0.1)

    run_virtual(main())


def test_a_service_that_ignores_the_signal_is_killed_after_its_timeout():
    async def main():
        stage = Stage(
            service("web", stop=StopPolicy(timeout_seconds=7)),
            behaviours={"web": Behaviour(stop_seconds=None)},
        )
        await stage.operations.start(["web"])
        began = asyncio.get_running_loop().time()
        await stage.operations.stop(["web"])
        assert stage.host.runs[0].signals == [15]
        assert stage.host.runs[0].killed
        assert asyncio.get_running_loop().time() - began == pytest.approx(7, abs=0.1)

    run_virtual(main())


def test_grandchildren_that_outlive_the_main_process_are_asked_then_killed():
    async def main():
        stage = Stage(service("web"), behaviours={"web": Behaviour(leftovers=True)})
        await stage.operations.start(["web"])
        await stage.operations.stop(["web"])
        assert stage.host.runs[0].signals == [15, 15]
        assert stage.host.runs[0].killed

    run_virtual(main())


def test_backoff_doubles_and_the_breaker_opens_until_a_manual_start():
    async def main():
        stage = Stage(
            service("web"), behaviours={"web": Behaviour(exit_after_seconds=0.5, exit_status=CRASH)}
        )
        loop = asyncio.get_running_loop()
        launches: list[float] = []
        stage.host.on_launch = lambda spec: launches.append(loop.time())
        await stage.operations.start(["web"])
        await stage.until("web", State.FAILED)
        gaps = [after - before - 0.5 for before, after in itertools.pairwise(launches)]
        assert gaps == pytest.approx([1, 2, 4, 8, 16], abs=0.1)
        assert stage.status("web").last_error == "exit 1; gave up after 5 restarts within 3600s"
        assert [record.reason for record in stage.records if record.to_state == "failed"] == ["exited"]
        stage.services.reset(["web"])
        assert (stage.status("web").state, stage.status("web").restarts) == (State.STOPPED, 0)
        await stage.operations.start(["web"])
        assert stage.status("web").state is State.RUNNING

    run_virtual(main())


def test_max_processes_refuses_one_more_and_says_so():
    async def main():
        stage = Stage(service("a"), service("b"), service("c"), max_processes=2)
        await stage.operations.start(["a", "b"])
        with pytest.raises(OperationError, match=r"2 services are running and .*max_processes is 2"):
            await stage.operations.start(["c"])
        await stage.operations.stop(["a"])
        await stage.operations.start(["c"])
        assert stage.states() == {"a": State.STOPPED, "b": State.RUNNING, "c": State.RUNNING}

    run_virtual(main())


def test_restart_keeps_the_order_and_the_wish():
    async def main():
        stage = Stage(service("db"), service("web", "db"), service("other"))
        await stage.operations.start(["web", "other"])
        stage.host.history.clear()
        await stage.operations.restart(["db", "web"])
        assert stage.host.history == [("end", "web"), ("end", "db"), ("launch", "db"), ("launch", "web")]
        assert stage.status("web").run_id == 2
        assert stage.status("other").run_id == 1
        assert not [record for record in stage.records if record.kind == "desired"]

    run_virtual(main())


def test_restart_of_what_is_down_starts_it_with_what_it_needs():
    async def main():
        stage = Stage(service("db"), service("web", "db"))
        await stage.operations.restart(["web"])
        assert set(stage.states().values()) == {State.RUNNING}

    run_virtual(main())


def test_the_newest_wish_wins():
    async def main():
        stage = Stage(service("web"), behaviours={"web": Behaviour(stop_seconds=3)})
        await stage.operations.start(["web"])
        stop = asyncio.create_task(stage.operations.stop(["web"]))
        await stage.until("web", State.STOPPING)
        await stage.operations.start(["web"])
        with pytest.raises(OperationError, match="cannot stop 'web': a newer wish started it"):
            await stop
        assert stage.status("web").run_id == 2

        stage.host.behaviours["web"] = Behaviour(exec_seconds=5)
        start = asyncio.create_task(stage.operations.restart(["web"]))
        await stage.until("web", State.STARTING)
        await stage.operations.stop(["web"])
        with pytest.raises(OperationError, match="cannot start 'web': a newer wish stopped it"):
            await start
        assert stage.states() == {"web": State.STOPPED}

    run_virtual(main())


def test_an_explicit_start_runs_a_completed_oneshot_again_and_a_needed_one_does_not():
    async def main():
        stage = Stage(
            service("migrate", type=ServiceType.ONESHOT),
            service("web", depends_on={"migrate": Condition.COMPLETED}),
            behaviours={"migrate": Behaviour(exit_after_seconds=1)},
        )
        await stage.operations.start(["migrate"])
        await stage.operations.start(["web"])
        assert stage.status("migrate").run_id == 1
        await stage.operations.start(["migrate"], again=False)
        assert stage.status("migrate").run_id == 1
        await stage.operations.start(["migrate"])
        assert stage.status("migrate").run_id == 2

    run_virtual(main())


def test_a_dependency_that_recovers_lets_its_dependents_start():
    async def main():
        stage = Stage(service("db"), service("web", "db"))
        await stage.operations.start(["web"])
        stage.host.behaviours["db"] = Behaviour(launch_error="not now")
        stage.host.run_of("db").end(CRASH)
        await stage.until("db", State.RESTARTING)
        stage.host.run_of("web").end(CRASH)
        await stage.until("web", State.WAITING)
        stage.host.behaviours["db"] = Behaviour()
        await stage.until("web", State.RUNNING)
        assert stage.status("db").state is State.RUNNING

    run_virtual(main())


def test_an_unknown_name_is_refused_with_the_closest_one():
    async def main():
        stage = Stage(service("identity"))
        with pytest.raises(UnknownServiceError, match=r"no service 'identiti' .did you mean 'identity'"):
            stage.services.check_names(["identiti"])

    run_virtual(main())


def test_kill_ends_everything_at_once():
    async def main():
        stubborn = Behaviour(stop_seconds=None)
        stage = Stage(service("db"), service("web", "db"), behaviours={"db": stubborn, "web": stubborn})
        await stage.operations.start(["web"])
        began = asyncio.get_running_loop().time()
        stage.operations.kill(["db", "web"])
        await stage.operations.until_down(["db", "web"])
        assert asyncio.get_running_loop().time() - began < 1
        assert stage.states() == {"db": State.STOPPED, "web": State.STOPPED}

    run_virtual(main())


def test_a_start_that_promises_more_memory_than_there_is_goes_by_the_policy():
    async def main(policy):
        big = ResourceLimits(memory_max_bytes=600)
        stage = Stage(
            service("one", limits=big),
            service("two", limits=big),
            memory_bytes=1000,
            memory_overcommit=policy,
        )
        await stage.operations.start(["one"])
        if policy is Overcommit.REFUSE:
            with pytest.raises(OperationError, match=r"add up to 1\.2K, and there are 1K"):
                await stage.operations.start(["two"])
            await stage.operations.stop(["one"])
        await stage.operations.start(["two"])
        return [record.detail for record in stage.records if record.kind == "limit"]

    assert len(run_virtual(main(Overcommit.WARN))) == 1
    assert run_virtual(main(Overcommit.ALLOW)) == []
    assert run_virtual(main(Overcommit.REFUSE)) == []
