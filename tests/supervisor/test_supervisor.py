from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from blackhole_cg.core.facts import LimitProblem
from blackhole_cg.core.spec import ServiceSpec
from blackhole_cg.core.words import Dependents, Isolation, State
from blackhole_cg.errors import (
    DependentsError,
    IsolationError,
    LockHeldError,
    OperationError,
    UnknownServiceError,
)
from blackhole_cg.supervisor.paths import Paths, default_paths
from blackhole_cg.supervisor.supervisor import Supervisor
from tests.support.builders import service, supervisor_spec
from tests.support.fake_host import Behaviour, FakeHost
from tests.support.stage import Stage
from tests.support.virtual_loop import run_virtual


def paths_in(directory: Path) -> Paths:
    return Paths(directory / "run", directory / "state", directory / "log")


def supervisor(directory: Path, *specs: ServiceSpec, host: FakeHost | None = None, **runtime) -> Supervisor:
    return Supervisor(supervisor_spec(*specs, **runtime), paths=paths_in(directory), host=host or FakeHost())


def test_the_operations_of_the_python_api(tmp_path):
    async def main():
        async with supervisor(tmp_path, service("db"), service("web", "db")) as it:
            assert [info.state for info in it.all_services()] == ["stopped", "stopped"]
            await it.start()
            assert it.is_running("web")
            assert it.status("db") is State.RUNNING
            info = it.service_info("web")
            assert (info.name, info.state, info.desired, info.run_id) == ("web", "running", "up", 1)
            assert info.usage["memory_bytes"] == 4096
            await it.restart("web")
            assert it.service_info("web").run_id == 2
            await it.stop("db", dependents=Dependents.LEAVE)
            assert (it.is_running("db"), it.is_running("web")) == (False, True)
            with pytest.raises(UnknownServiceError, match="no service 'wbe'"):
                await it.start("wbe")
        with pytest.raises(OperationError, match="shutting down"):
            await it.start()
        assert it.status("web") is State.STOPPED

    asyncio.run(main())


def test_a_stop_asks_what_becomes_of_those_that_depend_on_it(tmp_path):
    async def main():
        specs = service("db"), service("web", "db"), service("api", "web"), service("off", "db")
        async with supervisor(tmp_path, *specs) as it:
            await it.start("api")
            with pytest.raises(DependentsError) as refusal:
                await it.stop("db", "off")
            assert str(refusal.value) == "cannot stop 'db': 'web' and 'api' depend on it"
            assert it.is_running("db")
            await it.stop("db", "web", dependents=Dependents.STOP)
            assert [info.state for info in it.all_services()] == ["stopped"] * 4
            await it.start("web")
            await it.stop("api")  # it is down, and so is what needs it
            await it.stop("web", "db")  # all that need db are named
            assert it.status("db") is State.STOPPED

    asyncio.run(main())


def test_required_isolation_refuses_before_anything_is_touched(tmp_path):
    async def main():
        host = FakeHost()
        host.limit_problems = {
            "web": [
                LimitProblem("web", "memory_max", 4096, "memory: v1"),
                LimitProblem("web", "io_weight", 1, "no io"),
            ]
        }
        with pytest.raises(IsolationError) as refusal:
            await supervisor(tmp_path / "x", service("web"), host=host).open()
        assert "web: memory_max 4096: memory: v1\n  web: io_weight" in str(refusal.value)
        assert not host.opened
        assert not (tmp_path / "x").exists()

    asyncio.run(main())


def test_best_effort_starts_and_records_what_is_not_enforced(tmp_path):
    async def main():
        host = FakeHost()
        host.limit_problems = {"web": [LimitProblem("web", "memory_max", 4096, "no")]}
        it = supervisor(tmp_path, service("web"), host=host, isolation=Isolation.BEST_EFFORT)
        async with it:
            events = it.events.read(service="web")
            assert [(event.kind, event.detail) for event in events] == [
                ("limit", "not enforced: memory_max 4096: no")
            ]

    asyncio.run(main())


def test_a_second_supervisor_is_refused_and_leaves_the_first_alone(tmp_path):
    async def main():
        async with supervisor(tmp_path, service("web")) as first:
            await first.start()
            with pytest.raises(LockHeldError, match=r"a supervisor with pid \d+ already runs"):
                await supervisor(tmp_path, service("web")).open()
            assert first.is_running("web")
            assert (tmp_path / "run" / "control.sock").exists()
        async with supervisor(tmp_path, service("web")) as second:
            await second.start()

    asyncio.run(main())


def test_run_numbers_go_on_where_the_last_supervisor_ended(tmp_path):
    async def main():
        async with supervisor(tmp_path, service("web")) as first:
            await first.start()
            await first.restart("web")
        async with supervisor(tmp_path, service("web"), service("new")) as second:
            await second.start()
            assert {info.name: info.run_id for info in second.all_services()} == {"web": 3, "new": 1}

    asyncio.run(main())


def test_shutdown_kills_what_does_not_end_in_time(tmp_path):
    async def main():
        host = FakeHost(web=Behaviour(stop_seconds=None))
        it = supervisor(
            tmp_path, service("web"), service("api", "web"), host=host, shutdown_timeout_seconds=0.2
        )
        async with it:
            await it.start()
        assert host.runs[0].killed
        assert not host.live
        assert host.is_closed

    asyncio.run(main())


def test_a_failure_while_opening_gives_everything_back(tmp_path):
    async def main():
        host = FakeHost()
        (tmp_path / "run").mkdir()
        (tmp_path / "run" / "control.sock").mkdir()
        with pytest.raises(Exception, match=r"control.sock"):
            await supervisor(tmp_path, service("web"), host=host).open()
        assert host.is_closed
        (tmp_path / "run" / "control.sock").rmdir()
        async with supervisor(tmp_path, service("web")) as it:
            await it.start()

    asyncio.run(main())


def test_a_log_file_that_cannot_be_opened_keeps_no_service_from_running(tmp_path):
    async def main():
        (tmp_path / "log" / "web.log").mkdir(
            parents=True
        )  # root may write anywhere, but not into a directory
        async with supervisor(tmp_path, service("web")) as it:
            await it.start()
            assert it.is_running("web")

    asyncio.run(main())


def test_a_spool_that_cannot_be_made_keeps_no_service_from_running(tmp_path, caplog):
    async def main():
        (tmp_path / "run").mkdir()
        (tmp_path / "run" / "spool").write_text("in the way")
        async with supervisor(tmp_path, service("web")) as it:
            await it.start()
            assert it.is_running("web")

    asyncio.run(main())
    warnings = [text for text in caplog.messages if "may lose log lines" in text]
    assert warnings == ["web: a kill of the supervisor may lose log lines: File exists"]


def test_durations_do_not_follow_the_wall_clock(tmp_path):
    async def main():
        stage = Stage(service("web"), behaviours={"web": Behaviour(exit_after_seconds=1)})
        stage.wall_jump_seconds = -86400.0
        launches: list[float] = []
        loop = asyncio.get_running_loop()
        stage.host.on_launch = lambda spec: launches.append(loop.time())
        await stage.operations.start(["web"])
        await stage.until("web", State.RESTARTING)
        stage.wall_jump_seconds = 10 * 86400.0
        await stage.until("web", State.RUNNING)
        assert launches[1] - launches[0] == pytest.approx(2, abs=0.1)

    run_virtual(main())


def test_default_directories():
    assert default_paths({}, 0).socket == Path("/run/blackhole-cg/control.sock")
    user = default_paths({"HOME": "/home/u", "XDG_RUNTIME_DIR": "/run/user/7"}, 7)
    assert user.socket == Path("/run/user/7/blackhole-cg/control.sock")
    assert user.database == Path("/home/u/.local/state/blackhole-cg/state.db")
