"""What only the supervisor knows: whom a service waits for, and what its restart policy has left."""

from __future__ import annotations

import asyncio

import pytest

from blackhole_cg.core.probe_spec import ExecTarget, ProbeSpec, ProbesSpec
from blackhole_cg.core.spec import RestartPolicy
from blackhole_cg.core.words import Condition, State
from blackhole_cg.errors import UnknownServiceError
from blackhole_cg.supervisor.explain import explain
from tests.support.builders import service
from tests.support.fake_host import Behaviour
from tests.support.stage import Stage
from tests.support.virtual_loop import run_virtual

READY = ProbesSpec(readiness=ProbeSpec(ExecTarget(("/bin/check",)), period_seconds=1.0, failure_threshold=3))


def asked(stage: Stage, name: str) -> dict:
    return explain(stage.services, name, asyncio.get_running_loop().time())


def test_a_waiting_service_names_what_it_waits_for_and_what_that_waits_for():
    async def main():
        stage = Stage(
            service("db", probes=READY),
            service("web", depends_on={"db": Condition.HEALTHY}),
            service("front", "web", "db"),
        )
        stage.host.commands.failing["db"] = "not yet"
        start = asyncio.create_task(stage.operations.start(["front"]))
        await asyncio.sleep(10)
        (web,) = asked(stage, "front")["waits_for"]
        assert (web["service"], web["condition"], web["state"]) == ("web", "started", "waiting")
        (db,) = web["waits_for"]
        assert (db["service"], db["condition"], db["state"], db["health"]) == (
            "db", "healthy", "running", "unhealthy",
        )  # fmt: skip
        assert db["problem"] == "readiness probe: exec check: exit 1: not yet"
        assert asked(stage, "db")["problem"] == db["problem"]
        assert asked(stage, "db")["waits_for"] == []
        del stage.host.commands.failing["db"]
        await start
        assert asked(stage, "front")["waits_for"] == []

    run_virtual(main())


def test_a_dependency_that_failed_says_with_what():
    async def main():
        behaviours = {"db": Behaviour(spawn_error="set RLIMIT_NOFILE: no")}
        stage = Stage(
            service("db", required=False), service("web", "db", required=False), behaviours=behaviours
        )
        start = asyncio.create_task(stage.operations.start(["web"]))
        await stage.until("db", State.FAILED)
        await asyncio.sleep(1)
        (db,) = asked(stage, "web")["waits_for"]
        assert (db["state"], "RLIMIT_NOFILE" in db["problem"]) == ("failed", True)
        start.cancel()
        await asyncio.gather(start, return_exceptions=True)

    run_virtual(main())


def test_restarts_are_counted_as_the_policy_counts_them():
    async def main():
        policy = RestartPolicy(max_restarts=5, initial_delay_seconds=1, reset_after_seconds=60)
        behaviours = {"web": Behaviour(exit_after_seconds=1)}
        stage = Stage(service("web", restart=policy), behaviours=behaviours)
        await stage.operations.start(["web"])
        await asyncio.sleep(3.5)
        behaviours["web"].exit_after_seconds = None
        restarts = stage.status("web").restarts
        assert restarts > 0
        assert asked(stage, "web")["restart"] == {
            "policy": "always",
            "type": "simple",
            "recent": restarts,
            "max_restarts": 5,
            "window_seconds": policy.window_seconds,
        }
        await stage.until("web", State.RUNNING)
        await asyncio.sleep(100)
        assert asked(stage, "web")["restart"]["recent"] == 0

    run_virtual(main())


def test_an_unknown_service_is_refused():
    async def main():
        with pytest.raises(UnknownServiceError):
            asked(Stage(service("web")), "wep")

    run_virtual(main())
