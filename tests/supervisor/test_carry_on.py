"""What the next supervisor makes of what was wished for and was under way when the last one died."""

from __future__ import annotations

import asyncio
import errno
from dataclasses import replace

import pytest

from blackhole_cg.core.probe_spec import ExecTarget, ProbeSpec, ProbesSpec
from blackhole_cg.core.socket_spec import SocketKind, SocketSpec
from blackhole_cg.core.words import Desired, Health, State
from blackhole_cg.errors import OperationError, SpawnError
from blackhole_cg.supervisor import carry_on
from tests.support.builders import service, supervisor_spec
from tests.support.fake_host import Behaviour, FakeHost
from tests.support.faults import Fate
from tests.support.lives import Observer, Wish, World
from tests.support.virtual_loop import run_virtual


def world(directory, *specs, **behaviours) -> World:
    return World(supervisor_spec(*specs), directory, FakeHost(**behaviours))


def status(it: World, name: str):
    assert it.supervisor is not None
    return it.supervisor.services.runners[name].status


async def follow(it: World) -> None:
    """The supervisor is killed, and another one comes."""
    await it.kill()
    assert await it.begin(Fate())
    assert await it.settle()


def test_what_was_stopped_stays_so_though_another_needs_it(tmp_path):
    async def main():
        it = world(tmp_path, service("db"), service("web", "db"))
        assert await it.begin(Fate())
        await it.ask(Wish("stop", ("db",)))
        await follow(it)
        assert (status(it, "db").desired, status(it, "web").state) == (Desired.DOWN, State.RUNNING)
        assert "db" not in it.host.live
        await it.ask(Wish("start", ()))
        assert status(it, "db").state is State.RUNNING, "a start of everything means it again"
        await it.end()

    run_virtual(main())


NOW_AND_THEN = [
    ("launch", OSError(errno.EMFILE, "on purpose")),
    ("launch", SpawnError("web", "make a pipe", errno.ENFILE)),
    ("executed", SpawnError("web", "execute it", errno.ENOMEM)),
    ("executed", SpawnError("web", "fork", errno.EAGAIN)),
    ("launch", SpawnError("web", "make the data_dir", errno.ENOSPC)),
    ("launch", SpawnError("web", "make the data_dir", errno.EDQUOT)),
]


@pytest.mark.parametrize(("call", "error"), NOW_AND_THEN)
def test_a_restart_that_cannot_begin_now_is_told_and_made_up_for(tmp_path, call, error):
    async def main():
        it = world(tmp_path, service("web", sockets=(SocketSpec("http", SocketKind.TCP, "127.0.0.1:80"),)))
        assert await it.begin(Fate(fail_at={(call, 2): error}))
        assert it.host.sockets.names("web")
        restart = Wish("restart", ("web",))
        assert await it.ask(restart)
        assert restart.refusal is not None
        assert restart.refusal.startswith("cannot start 'web'")
        web = status(it, "web")
        assert (web.state, web.desired) == (State.RESTARTING, Desired.UP)
        assert it.host.sockets.names("web")
        await follow(it)
        web = status(it, "web")
        assert (web.state, web.restarts) == (State.RUNNING, 1)
        await it.end()

    run_virtual(main())


def test_a_reload_whose_restart_cannot_begin_now_is_told_and_made_up_for(tmp_path):
    async def main():
        it = world(tmp_path, service("web", config_hash="1"))
        error = OSError(errno.EMFILE, "on purpose")
        assert await it.begin(Fate(fail_at={("launch", 2): error}))
        assert it.supervisor is not None
        with pytest.raises(OperationError, match="cannot start 'web'"):
            await it.supervisor.reload(supervisor_spec(service("web", umask=1, config_hash="2")))
        assert status(it, "web").state is State.RESTARTING
        assert await it.settle()
        assert status(it, "web").state is State.RUNNING
        await it.end()

    run_virtual(main())


async def die_twice(directory, action: str, die_at: int) -> World:
    """A wish is under way, the stop signal sent, when one supervisor dies, and the next dies taking over."""
    it = world(directory, service("web"), web=Behaviour(stop_seconds=5.0))
    assert await it.begin(Fate())
    it.fate.die_at = len(it.fate.points) + WRITE_AND_SIGNAL
    assert not await it.ask(Wish(action, ("web",)))
    assert it.host.runs[0].signals
    await it.kill()
    await it.begin(Fate(die_at))
    await follow(it)
    Observer(it).check_settled()
    return it


WRITE_AND_SIGNAL = 5  # points: before, within and after the one, before and after the other


@pytest.mark.parametrize("die_at", range(1, 20))
def test_a_restart_goes_on_over_two_crashes_and_is_none_of_the_policys(tmp_path, die_at):
    async def main():
        it = await die_twice(tmp_path, "restart", die_at)
        web = status(it, "web")
        assert (web.state, web.restarts, web.desired) == (State.RUNNING, 0, Desired.UP)
        assert [run.began for run in it.host.runs].count(True) == 2
        await it.end()

    run_virtual(main())


@pytest.mark.parametrize("die_at", range(1, 20))
def test_a_stop_goes_on_over_two_crashes(tmp_path, die_at):
    async def main():
        it = await die_twice(tmp_path, "stop", die_at)
        assert (status(it, "web").state, status(it, "web").desired) == (State.STOPPED, Desired.DOWN)
        assert len(it.host.runs) == 1
        await it.end()

    run_virtual(main())


def test_after_a_reboot_wishes_hold(tmp_path):
    async def main():
        it = world(tmp_path, service("db"), service("web", "db"), service("rare", enabled=False))
        assert await it.begin(Fate())
        await it.ask(Wish("start", ("rare",)))
        await it.ask(Wish("stop", ("web",)))
        await it.kill()
        runs = {run.spec.name: run.run_id for run in it.host.runs}
        it.host.live.clear()
        it.host.facts = replace(it.host.facts, boot_id="the next boot")
        assert await it.begin(Fate())
        assert await it.settle()
        assert {name: run.run_id for name, run in it.host.live.items()} == {
            "db": runs["db"] + 1,
            "rare": runs["rare"] + 1,
        }
        assert status(it, "web").desired is Desired.DOWN
        await it.end()

    run_virtual(main())


def test_a_run_that_never_began_is_started_as_if_for_the_first_time(tmp_path):
    async def main():
        it = world(tmp_path, service("web"))
        fate = Fate()
        assert await it.begin(fate)
        launched = fate.points.index("after launch") + 1
        await it.end()

        it = world(tmp_path / "again", service("web"))
        assert not await it.begin(Fate(launched))
        await it.kill()
        assert await it.begin(Fate())
        web = status(it, "web")
        assert (web.state, web.run_id, web.restarts, web.last_exit) == (State.RUNNING, 2, 0, None)
        assert [run.began for run in it.host.runs] == [False, True]
        assert it.supervisor is not None
        told = [event.detail for event in it.supervisor.events.read(service="web")]
        assert "the supervisor ended before the run began" in told
        await it.end()

    run_virtual(main())


def test_health_is_what_it_was_until_probes_say_otherwise(tmp_path):
    async def main():
        probe = ProbeSpec(ExecTarget(("/bin/check",)), period_seconds=10.0, failure_threshold=3)
        probed = ProbesSpec(readiness=probe)
        it = world(tmp_path, service("good", probes=probed), service("bad", probes=probed, required=False))
        it.host.commands.failing["bad"] = "no"
        assert await it.begin(Fate())
        await asyncio.sleep(100)
        for name, health in (("good", Health.HEALTHY), ("bad", Health.UNHEALTHY)):
            assert status(it, name).health is health
        await it.kill()
        asyncio.ensure_future(it.begin(Fate()))  # noqa: RUF006  (waits for the bad one)
        await asyncio.sleep(1)
        for name, health in (("good", Health.HEALTHY), ("bad", Health.UNHEALTHY)):
            assert status(it, name).health is health
        del it.host.commands.failing["bad"]
        await asyncio.sleep(100)
        assert status(it, "bad").health is Health.HEALTHY
        await it.end()

    run_virtual(main())


@pytest.mark.parametrize(("has_taken_over", "seconds"), [(False, 0.0), (True, carry_on.SETTLE_SECONDS)])
def test_memory_is_settled_at_once_or_when_who_waited_was_answered(monkeypatch, has_taken_over, seconds):
    settled: list[float] = []

    async def main() -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        monkeypatch.setattr(carry_on, "settle_memory", lambda: settled.append(loop.time() - began))
        carry_on.settle(has_taken_over)
        await asyncio.sleep(2 * carry_on.SETTLE_SECONDS)

    run_virtual(main())
    assert settled == [pytest.approx(seconds)]
