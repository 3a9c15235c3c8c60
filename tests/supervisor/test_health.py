"""Health between services, in virtual time: gates, rollback, restarts, and who is left alone."""

from __future__ import annotations

import asyncio

import pytest

from blackhole_cg.core.facts import ExitStatus
from blackhole_cg.core.probe_spec import ExecTarget, ProbeSpec, ProbesSpec
from blackhole_cg.core.spec import RestartPolicy
from blackhole_cg.core.words import Condition, Health, Reason, State
from blackhole_cg.errors import OperationError
from tests.support.builders import service
from tests.support.fake_host import Behaviour
from tests.support.stage import Stage
from tests.support.virtual_loop import run_virtual

PROBE = ProbeSpec(ExecTarget(("/bin/check",)), period_seconds=1.0, failure_threshold=3)
READY = ProbesSpec(readiness=PROBE)
LIVE = ProbesSpec(liveness=PROBE)


def healthy(*names: str) -> dict[str, Condition]:
    return dict.fromkeys(names, Condition.HEALTHY)


def health(stage: Stage, name: str) -> Health:
    return stage.status(name).health


async def until_health(stage: Stage, name: str, wanted: Health) -> None:
    await stage.services.runners[name].settle(lambda status: status.health is wanted or None)


def test_a_dependent_waits_until_what_it_needs_is_healthy():
    async def main():
        stage = Stage(service("web", depends_on=healthy("db")), service("db", probes=READY))
        stage.host.commands.failing["db"] = "not yet"
        start = asyncio.create_task(stage.operations.start(["web"]))
        await asyncio.sleep(30)
        assert stage.states() == {"db": State.RUNNING, "web": State.WAITING}
        del stage.host.commands.failing["db"]
        await start
        assert stage.states()["web"] is State.RUNNING
        assert health(stage, "db") is Health.HEALTHY
        told = [(each.from_state, each.to_state) for each in stage.records if each.kind == "health"]
        assert told == [("unknown", "unhealthy"), ("unhealthy", "healthy")]

    run_virtual(main())


def test_a_start_that_does_not_become_healthy_in_time_is_rolled_back_with_the_last_answer():
    async def main():
        stage = Stage(
            service("db", probes=READY, start_timeout_seconds=20),
            service("web", depends_on=healthy("db")),
            service("cache"),
        )
        stage.host.commands.failing["db"] = "no space"
        with pytest.raises(OperationError) as failure:
            await stage.operations.start(["web", "cache"])
        assert str(failure.value).splitlines() == [
            "cannot start 'db': not healthy within 20s (readiness probe: exec check: exit 1: no space)",
            "cannot start 'web': it depends on 'db', which did not start",
            "rolled back: cache, web",
        ]
        assert set(stage.states().values()) == {State.STOPPED}

    run_virtual(main())


def test_a_start_returns_when_the_service_is_healthy_also_without_dependents():
    async def main():
        stage = Stage(service("web", probes=LIVE))
        await stage.operations.start(["web"])
        assert health(stage, "web") is Health.HEALTHY

    run_virtual(main())


def test_failing_liveness_restarts_by_the_policy_and_leaves_neighbours_alone():
    async def main():
        policy = RestartPolicy(max_restarts=2, reset_after_seconds=1000)
        stage = Stage(service("web", probes=LIVE, restart=policy), service("calm", probes=LIVE))
        await stage.operations.start(["web", "calm"])
        stage.host.commands.failing["web"] = "hangs"
        await stage.until("web", State.FAILED)
        assert stage.path("web").count("running") == 3
        stops = [each for each in stage.records if each.service == "web" and each.to_state == "stopping"]
        assert [each.reason for each in stops] == [Reason.PROBE_FAILED] * 3
        assert stops[0].detail == "liveness probe failed 3 times in a row: exec check: exit 1: hangs"
        assert "gave up after 2 restarts" in (stage.status("web").last_error or "")
        assert stage.path("calm") == ["waiting", "starting", "running"]

    run_virtual(main())


def test_failing_readiness_changes_health_and_nothing_else():
    async def main():
        stage = Stage(service("web", depends_on=healthy("db")), service("db", probes=READY))
        await stage.operations.start(["web"])
        stage.host.commands.failing["db"] = "busy"
        await until_health(stage, "db", Health.UNHEALTHY)
        await asyncio.sleep(600)
        assert set(stage.states().values()) == {State.RUNNING}
        assert len(stage.host.runs) == 2

    run_virtual(main())


def test_a_dependency_that_recovers_lets_its_dependent_start_again():
    async def main():
        stage = Stage(service("web", depends_on=healthy("db")), service("db", probes=READY))
        await stage.operations.start(["web"])
        stage.host.commands.failing["db"] = "busy"
        await until_health(stage, "db", Health.UNHEALTHY)
        stage.host.run_of("web").end()
        await stage.until("web", State.RESTARTING)
        await stage.until("web", State.WAITING)
        await asyncio.sleep(600)
        assert stage.status("web").state is State.WAITING
        assert stage.status("web").restarts == 1, "nothing is burnt while it waits"
        stage.host.commands.failing.clear()
        await stage.until("web", State.RUNNING)

    run_virtual(main())


@pytest.mark.parametrize("condition", [Condition.STARTED, Condition.HEALTHY])
def test_a_dependency_that_gives_up_suspends_the_restarts_of_its_dependents(condition: Condition):
    async def main():
        few = RestartPolicy(max_restarts=1, initial_delay_seconds=1.0)
        stage = Stage(
            service("top", depends_on={"web": condition}, restart=few),
            service("web", depends_on={"db": condition}, restart=few),
            service("db", restart=few, probes=READY),
        )
        await stage.operations.start(["top"])
        for _ in range(2):
            await stage.until("db", State.RUNNING)
            stage.host.run_of("db").end(ExitStatus(code=1))
            await stage.until("db", State.RESTARTING if stage.status("db").restarts == 0 else State.FAILED)
        for name in ("web", "top"):
            stage.host.run_of(name).end(ExitStatus(code=1))
        await asyncio.sleep(24 * 3600)
        assert stage.states() == {"db": State.FAILED, "web": State.WAITING, "top": State.WAITING}
        assert (stage.status("web").restarts, stage.status("top").restarts) == (1, 1)
        runs = len(stage.host.runs)
        start = asyncio.create_task(stage.operations.start(["db"]))
        await stage.until("top", State.RUNNING)
        await start
        assert len(stage.host.runs) == runs + 3, "one run each"

    run_virtual(main())


def test_what_is_asked_of_a_run_ends_with_the_run():
    async def main():
        stage = Stage(service("web", probes=LIVE), behaviours={"web": Behaviour(stop_seconds=5)})
        await stage.operations.start(["web"])
        await stage.operations.stop(["web"])
        asked = len(stage.host.commands.asked)
        await asyncio.sleep(60)
        assert len(stage.host.commands.asked) == asked
        assert health(stage, "web") is Health.UNKNOWN

    run_virtual(main())


def test_a_start_waits_for_the_health_of_what_runs_already_if_somebody_needs_it():
    async def main():
        stage = Stage(
            service("web", depends_on=healthy("db")),
            service("other", "db"),
            service("db", probes=READY, start_timeout_seconds=20),
        )
        await stage.operations.start(["db"])
        stage.host.commands.failing["db"] = "busy"
        await until_health(stage, "db", Health.UNHEALTHY)
        await stage.operations.start(["other"])
        with pytest.raises(OperationError, match="cannot start 'db': not healthy within 20s"):
            await stage.operations.start(["web"])
        assert stage.status("db").state is State.RUNNING, "it ran before this start"

    run_virtual(main())


def test_a_start_that_undoes_nothing_leaves_what_it_began_running():
    async def main():
        stage = Stage(service("db", probes=READY, start_timeout_seconds=20), service("cache"))
        stage.host.commands.failing["db"] = "busy"
        with pytest.raises(OperationError) as failure:
            await stage.operations.start(["db", "cache"], undo=False)
        assert not failure.value.rolled_back
        assert set(stage.states().values()) == {State.RUNNING}

    run_virtual(main())
