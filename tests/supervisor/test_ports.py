"""Ports given to services, on a fake host: kept, taken back, tried, missing."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from blackhole_cg.core.ports import PORT_MARK, PortHolder
from blackhole_cg.core.spec import PortRange, RestartPolicy, ServiceSpec
from blackhole_cg.core.words import AUTO, RestartWhen, State
from blackhole_cg.errors import OperationError
from tests.supervisor.test_supervisor import supervisor
from tests.support.builders import service, supervisor_spec
from tests.support.fake_host import Behaviour, FakeHost
from tests.support.stage import Stage
from tests.support.virtual_loop import run_virtual

NGINX = PortHolder(812, "nginx", 33)
QUICK = RestartPolicy(initial_delay_seconds=1.0, jitter=0.0)
ONCE = RestartPolicy(when=RestartWhen.NEVER)


def auto(name: str, *needs: str, **fields) -> ServiceSpec:
    return service(name, *needs, tcp_port=AUTO, argv=("/bin/x", f"--port={PORT_MARK}"), **fields)


def ports_of(stage: Stage) -> dict[str, int | None]:
    return {name: runner.port for name, runner in stage.services.runners.items()}


def told(stage: Stage, name: str) -> list[str]:
    return [each.detail for each in stage.records if each.service == name and each.kind == "port"]


def arguments(stage: Stage, name: str) -> str:
    return stage.host.run_of(name).spec.argv[1]


def test_each_gets_one_of_its_own_and_its_run_is_told():
    async def main():
        stage = Stage(auto("a"), auto("b"), service("fixed", tcp_port=30000), service("none"))
        await stage.operations.start(["a", "b", "fixed", "none"])
        assert ports_of(stage) == {"a": 30001, "b": 30002, "fixed": 30000, "none": None}
        assert [arguments(stage, name) for name in "ab"] == ["--port=30001", "--port=30002"]
        assert told(stage, "a") == ["assigned 30001"]

    run_virtual(main())


def test_it_is_kept_across_restarts_and_given_back_on_stop():
    async def main():
        stage = Stage(auto("a", restart=QUICK), auto("b"), port_range=PortRange(9000, 9001))
        await stage.operations.start(["a"])
        stage.host.run_of("a").end()
        await stage.until("a", State.RESTARTING)
        assert ports_of(stage)["a"] == 9000
        await stage.operations.start(["b"])
        await stage.until("a", State.RUNNING)
        assert arguments(stage, "a") == "--port=9000"
        await stage.operations.restart(["a"])
        assert ports_of(stage) == {"a": 9000, "b": 9001}
        await stage.operations.stop(["a"])
        assert ports_of(stage) == {"a": None, "b": 9001}
        await stage.operations.start(["a"])
        assert ports_of(stage)["a"] == 9000
        assert told(stage, "a") == ["assigned 9000"] * 2

    run_virtual(main())


@pytest.mark.parametrize("code", [0, 1])
def test_what_is_done_or_has_failed_gives_it_back(code):
    async def main():
        stage = Stage(auto("a", restart=ONCE), auto("b"), port_range=PortRange(9000, 9000))
        await stage.operations.start(["a"])
        run = stage.host.run_of("a")
        run.behaviour.exit_status = type(run.behaviour.exit_status)(code=code)
        run.end()
        await stage.until("a", State.FAILED if code else State.COMPLETED)
        await stage.operations.start(["b"])
        assert ports_of(stage) == {"a": None, "b": 9000}

    run_virtual(main())


def test_a_port_that_somebody_else_has_is_told_and_another_is_tried():
    async def main():
        stage = Stage(auto("a"))
        stage.host.port_holders = dict.fromkeys(range(30000, 30007), NGINX)
        await stage.operations.start(["a"])
        assert ports_of(stage) == {"a": 30007}
        assert told(stage, "a") == [
            "conflict: pid 812 (nginx) has port 30000: another is tried",
            "conflict: pid 812 (nginx) has port 30001: another is tried",
            "conflict: pid 812 (nginx) has port 30002: another is tried",
            "conflict: 4 more ports of the range are taken",
            "assigned 30007",
        ]

    run_virtual(main())


def test_one_that_is_taken_while_the_service_is_down_is_not_used_again():
    async def main():
        stage = Stage(auto("a", restart=QUICK))
        await stage.operations.start(["a"])
        stage.host.run_of("a").end()
        await stage.until("a", State.RESTARTING)
        stage.host.port_holders = {30000: NGINX}
        await stage.until("a", State.RUNNING)
        assert arguments(stage, "a") == "--port=30001"
        assert told(stage, "a")[1:] == [
            "conflict: pid 812 (nginx) has port 30000: another is tried",
            "assigned 30001",
        ]

    run_virtual(main())


def test_who_took_it_between_the_check_and_the_start_is_named_when_the_run_has_died():
    async def main():
        stage = Stage(auto("a", restart=QUICK), service("fixed", tcp_port=80, restart=QUICK))
        await stage.operations.start(["a", "fixed"])
        stage.host.port_holders = {30000: NGINX, 80: NGINX}
        for name in ("a", "fixed"):
            stage.host.run_of(name).end()
            await stage.until(name, State.RESTARTING)
            await stage.until(name, State.RUNNING)
        assert arguments(stage, "a") == "--port=30001"
        assert told(stage, "a") == [
            "assigned 30000",
            "conflict: pid 812 (nginx) has port 30000: another is tried at the next start",
            "conflict: pid 812 (nginx) has port 30000: another is tried",
            "assigned 30001",
        ]
        assert told(stage, "fixed") == [
            "conflict: pid 812 (nginx) has port 80, which is the tcp_port of this service"
        ]

    run_virtual(main())


def test_when_none_is_left_only_that_service_fails_and_nothing_is_undone():
    async def main():
        stage = Stage(auto("a"), auto("b"), auto("c"), auto("d", "c"), port_range=PortRange(9000, 9002))
        stage.host.port_holders = {9001: NGINX}
        with pytest.raises(OperationError) as failure:
            await stage.operations.start(["a", "b", "c", "d"])
        assert str(failure.value).splitlines() == [
            "cannot start 'c': find a port: no port of runtime.orchestrator.ports.range 9000-9002 is left: "
            "2 with services, 1 with other programs",
            "cannot start 'd': it depends on 'c', which did not start",
        ]
        assert stage.states() | {"d": None} == {"a": "running", "b": "running", "c": "failed", "d": None}
        await stage.operations.stop(["a"])
        await stage.operations.start(["c"])
        assert ports_of(stage) == {"a": None, "b": 9002, "c": 9000, "d": 9000} | {"d": ports_of(stage)["d"]}

    run_virtual(main())


def test_once_it_wants_to_start_again_a_failure_is_one_like_any_other():
    async def main():
        stage = Stage(service("b"), auto("a"), port_range=PortRange(9000, 9000), max_processes=1)
        stage.host.port_holders = {9000: NGINX}
        with pytest.raises(OperationError, match="no port"):
            await stage.operations.start(["a"])
        stage.host.port_holders = {}
        with pytest.raises(OperationError, match="rolled back: b") as failure:
            await stage.operations.start(["b", "a"])
        assert "max_processes" in str(failure.value)

    run_virtual(main())


def test_a_written_port_that_another_run_still_has_is_refused():
    async def main():
        stage = Stage(auto("a"), service("b"))
        await stage.operations.start(["a"])
        stage.services.reconfigure(supervisor_spec(auto("a"), service("b", tcp_port=30000)))
        with pytest.raises(OperationError, match="cannot start 'b': take tcp_port 30000: 'a' has it"):
            await stage.services.operations.start(["b"])
        await stage.services.operations.restart(["a"])
        await stage.services.operations.start(["b"])
        assert ports_of(stage) == {"a": 30001, "b": 30000}

    run_virtual(main())


def test_two_services_can_swap_the_ports_they_have_written():
    async def main():
        stage = Stage(service("a", tcp_port=80), service("b", tcp_port=81))
        await stage.operations.start(["a", "b"])
        stage.services.reconfigure(supervisor_spec(service("a", tcp_port=81), service("b", tcp_port=80)))
        await stage.services.operations.restart(["a", "b"])
        assert ports_of(stage) == {"a": 81, "b": 80}

    run_virtual(main())


def test_a_service_that_is_removed_gives_its_port_back():
    async def main():
        stage = Stage(auto("a"), port_range=PortRange(9000, 9000))
        await stage.operations.start(["a"])
        await stage.operations.stop(["a"])
        stage.services.reconfigure(supervisor_spec(auto("b"), port_range=PortRange(9000, 9000)))
        await stage.services.operations.start(["b"])
        assert ports_of(stage) == {"b": 9000}

    run_virtual(main())


def test_the_next_supervisor_holds_what_lives_or_is_wanted_before_it_gives_any(tmp_path: Path):
    """`waits` waits out a backoff, `lives` is taken over, `down` was stopped: all three had ports."""

    async def main():
        host = FakeHost()
        soon = RestartPolicy(initial_delay_seconds=0.3, jitter=0.0)
        specs = (auto("new"), auto("waits", restart=soon), auto("lives"), auto("down"))
        first = supervisor(tmp_path, *specs, host=host, port_range=PortRange(9000, 9002))
        await first.open()
        await first.start("waits", "lives", "down")
        had = {name: first.service_info(name).tcp_port for name in ("waits", "lives", "down")}
        assert had == {"waits": 9000, "lives": 9001, "down": 9002}
        await first.stop("down")
        host.run_of("waits").end()
        await first.services.runners["waits"].settle(lambda status: status.restarts or None)
        await first.detach()

        async with supervisor(tmp_path, *specs, host=host, port_range=PortRange(9000, 9002)) as second:
            assert second.service_info("lives").tcp_port == 9001
            assert second.service_info("down").tcp_port is None
            await second.start("new")
            assert second.service_info("new").tcp_port == 9002, "it is not held, and there is no other"
            await second.services.runners["waits"].settle(lambda status: status.run_id == 2 or None)
            assert second.service_info("waits").tcp_port == 9000
            with pytest.raises(OperationError, match="3 with services"):
                await second.start("down")

    asyncio.run(main())


def test_the_next_supervisor_moves_who_was_given_a_port_that_is_written_by_now(tmp_path: Path):
    async def main():
        host = FakeHost()
        first = supervisor(tmp_path, auto("web"), host=host)
        await first.open()
        await first.start()
        await first.detach()
        async with supervisor(tmp_path, auto("web"), service("db", tcp_port=30000), host=host) as second:
            await second.start()
            await second.services.runners["web"].settle(lambda status: status.run_id == 2 or None)
            assert {name: second.service_info(name).tcp_port for name in ("web", "db")} == {
                "web": 30001,
                "db": 30000,
            }
            assert second.service_info("db").run_id == 1

    asyncio.run(main())


def test_ports_are_remembered_after_an_end_in_order(tmp_path: Path):
    async def main():
        host = FakeHost()
        async with supervisor(tmp_path, auto("a"), auto("b"), host=host) as first:
            await first.start("b")
            assert first.service_info("b").tcp_port == 30000
        async with supervisor(tmp_path, auto("a"), auto("b"), host=host) as second:
            await second.start("a", "b")
            assert {name: second.service_info(name).tcp_port for name in "ab"} == {"a": 30001, "b": 30000}

    asyncio.run(main())


def test_the_port_is_stored_before_the_run_begins(tmp_path: Path):
    async def main():
        host = FakeHost(a=Behaviour(launch_error="the host is gone"))
        first = supervisor(tmp_path, auto("a", restart=ONCE), host=host)
        stored = []
        host.on_launch = lambda spec: stored.append(
            dict(first._stores.states.begin(host.facts.boot_id).ports)
        )
        await first.open()
        with pytest.raises(OperationError, match="the host is gone"):
            await first.start()
        assert stored == [{"a": 30000}]
        await first.shutdown()

    asyncio.run(main())


def test_a_written_port_is_not_given_to_a_second_service_either():
    """Two may have written the same one, as long as one of them is disabled."""

    async def main():
        stage = Stage(service("a", tcp_port=80), service("b", tcp_port=80, enabled=False))
        await stage.operations.start(["a"])
        with pytest.raises(OperationError, match="take tcp_port 80: 'a' has it for as long as it runs"):
            await stage.operations.start(["b"])
        await stage.operations.stop(["a"])
        await stage.operations.start(["b"])

    run_virtual(main())


def test_what_the_supervisor_itself_holds_for_a_service_is_no_conflict():
    """As a socket that is handed to each run."""

    async def main():
        stage = Stage(auto("a"), auto("b"))
        await stage.operations.start(["a"])
        stage.host.port_holders = {30000: PortHolder(os.getpid(), "python3", 0)}
        await stage.operations.restart(["a"])
        await stage.operations.start(["b"])
        assert ports_of(stage) == {"a": 30000, "b": 30001}
        assert told(stage, "a") == ["assigned 30000"]

    run_virtual(main())
