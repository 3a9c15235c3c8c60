"""For how long sockets stay bound, on a fake host."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from blackhole_cg.core.facts import ExitStatus
from blackhole_cg.core.socket_spec import SocketKind, SocketSpec
from blackhole_cg.core.spec import RestartPolicy, ServiceSpec
from blackhole_cg.core.words import Desired, RestartWhen, ServiceType, State
from blackhole_cg.errors import OperationError
from blackhole_cg.supervisor.paths import Paths
from blackhole_cg.supervisor.supervisor import Supervisor
from tests.support.builders import service, supervisor_spec
from tests.support.fake_host import Behaviour, FakeHost
from tests.support.stage import Stage
from tests.support.virtual_loop import run_virtual

HTTP = (SocketSpec("http", SocketKind.TCP, "127.0.0.1:80"),)


def web(**fields) -> ServiceSpec:
    return service("web", sockets=HTTP, **fields)


def test_they_are_held_from_run_to_run_and_until_the_last_process_has_ended():
    async def main():
        stage = Stage(web(), behaviours={"web": Behaviour(stop_seconds=3)})
        seen = []
        held = stage.host.sockets.held
        stage.services.changed = _noting(stage.services.changed, held, seen)
        await stage.operations.start(["web"])
        await stage.operations.restart(["web"])
        assert all(seen[2:]), "never closed after the first launch"
        stopping = asyncio.create_task(stage.operations.stop(["web"]))
        await asyncio.sleep(1)
        assert (stage.status("web").state, stage.status("web").desired) == (State.STOPPING, Desired.DOWN)
        assert "web" in held
        await stopping
        assert held == {}

    run_virtual(main())


def _noting(changed, held, seen):
    def note(runner):
        changed(runner)
        seen.append("web" in held)

    return note


@pytest.mark.parametrize(
    ("fields", "state", "stays"),
    [
        ({}, State.RESTARTING, True),
        ({"restart": RestartPolicy(max_restarts=0)}, State.FAILED, True),
        ({"restart": RestartPolicy(when=RestartWhen.ON_FAILURE), "exit": 0}, State.COMPLETED, False),
        ({"type": ServiceType.ONESHOT, "restart": RestartPolicy(when=RestartWhen.NEVER), "exit": 0},
         State.COMPLETED, False),
    ],
    ids=["restarting", "given up", "done", "a oneshot that is done"],
)  # fmt: skip
def test_after_an_end_they_wait_for_the_next_run_if_there_is_to_be_one(fields, state, stays):
    async def main():
        code = fields.pop("exit", 3)
        ends = Behaviour(exit_after_seconds=10, exit_status=ExitStatus(code=code))
        stage = Stage(web(**fields), behaviours={"web": ends})
        await stage.operations.start(["web"])
        await asyncio.sleep(10.1)
        assert stage.status("web").state is state
        assert ("web" in stage.host.sockets.held) is stays
        await stage.operations.stop(["web"])
        assert stage.host.sockets.held == {}

    run_virtual(main())


def test_a_start_that_is_undone_leaves_nothing_bound():
    async def main():
        stage = Stage(web(), service("api", "web"), behaviours={"api": Behaviour(spawn_error="execute it")})
        with pytest.raises(OperationError):
            await stage.operations.start(["api"])
        assert stage.status("web").state is State.STOPPED
        assert stage.host.sockets.held == {}

    run_virtual(main())


def test_the_next_supervisor_keeps_what_is_wanted_and_closes_the_rest(tmp_path):
    paths = Paths(tmp_path / "run", tmp_path / "state", tmp_path / "log")
    specs = [
        replace(web(), name=name)
        for name in ("web", "stopped", "removed", "backoff")
    ]  # fmt: skip

    def supervisor(host: FakeHost, *specs: ServiceSpec) -> Supervisor:
        return Supervisor(supervisor_spec(*specs), paths=paths, host=host)

    async def main():
        host = FakeHost(backoff=Behaviour(exit_after_seconds=0.01, exit_status=ExitStatus(code=1)))
        first = supervisor(host, *specs)
        await first.open()
        await first.start()
        await first.stop("stopped")
        await first.services.runner("backoff").settle(lambda status: status.state is State.RESTARTING or None)
        await first.detach()
        host.sockets.held = dict.fromkeys((*(spec.name for spec in specs), "stranger"), ("http",))
        fresh = replace(web(), name="fresh")
        host.sockets.held |= {"fresh": ("http",), "off": ("http",)}
        off = replace(web(), name="off", enabled=False)
        second = supervisor(host, specs[0], specs[1], specs[3], fresh, off)
        await second.open()
        assert sorted(host.sockets.held) == ["backoff", "fresh", "web"]
        info = second.service_info("web").to_json()
        assert info["sockets"] == {"http": {"kind": "tcp", "address": "127.0.0.1:80", "held": True}}
        await second.shutdown()
        assert host.sockets.held == {}

    asyncio.run(main())
