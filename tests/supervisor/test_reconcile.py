"""The reconciler on a fake host: whatever is wanted in between and fails, the newest wish is reached."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Mapping
from dataclasses import dataclass

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from blackhole_cg.core.facts import ExitStatus
from blackhole_cg.core.plan import Change, ChangeKind, Plan
from blackhole_cg.core.socket_spec import SocketKind, SocketSpec
from blackhole_cg.core.spec import PortRange, RestartPolicy, ServiceSpec, SupervisorSpec
from blackhole_cg.core.words import AUTO, MAX, State
from blackhole_cg.errors import OperationError
from blackhole_cg.runner.service import ServiceRunner
from blackhole_cg.supervisor.reconcile import Reconciler
from tests.support.builders import service, supervisor_spec
from tests.support.fake_host import Behaviour
from tests.support.stage import Stage
from tests.support.virtual_loop import run_virtual

NAMES = ["a", "b", "c", "d", "e"]
EXAMPLES = int(os.environ.get("BLACKHOLE_CG_EXAMPLES", "250"))
"""The full proof takes 10000, and minutes."""


@dataclass
class Theatre:
    """A stage with a reconciler, which fails at the first thing that must never happen."""

    stage: Stage
    problems: list[str]
    reconciler: Reconciler

    @classmethod
    def open(cls, spec: SupervisorSpec, **behaviours: Behaviour) -> Theatre:
        stage = Stage(*spec.services.values(), behaviours=behaviours, max_processes=len(NAMES))
        theatre = cls(stage, [], None)  # type: ignore[arg-type]
        theatre.reconciler = Reconciler(spec, stage.services, theatre, lambda: 0.0)
        stage.on_change = theatre.reconciler.note
        stage.host.on_launch = theatre.check_launch
        asyncio.get_running_loop().set_exception_handler(
            lambda loop, context: theatre.problems.append(repr(context.get("exception") or context))
        )
        return theatre

    def install(self, effective: SupervisorSpec, new: SupervisorSpec, plan: Plan) -> None:
        self.stage.services.reconfigure(effective)

    def limits_changed(self, runner: ServiceRunner) -> None:
        pass

    def drop(self, effective: SupervisorSpec) -> None:
        for runner in self.stage.services.reconfigure(effective):
            assert runner.name not in self.stage.host.live, f"{runner.name} was forgotten alive"

    def check_launch(self, spec: ServiceSpec) -> None:
        newest, runners = self.reconciler.spec.services[spec.name], self.stage.services.runners
        assert newest.config_hash == spec.config_hash, f"{spec.name} by an old configuration"
        ports = {name: runners[name].tcp_port for name in self.stage.host.live}
        own = runners[spec.name].tcp_port
        assert own is None or own not in ports.values(), f"{spec.name} with the port of another: {ports}"

    def running(self) -> dict[str, str]:
        return {name: run.spec.config_hash for name, run in self.stage.host.live.items()}

    def states(self) -> Mapping[str, State]:
        return self.stage.states()


def wanted(spec: SupervisorSpec) -> dict[str, str]:
    return {name: each.config_hash for name, each in spec.services.items() if each.enabled}


Wish = dict[str, tuple[int, int, bool, tuple[str, ...]]]
"""Name -> version, port, whether it is enabled, what it needs: short, so that a failure can be read.

A port of 0 is `auto`. The range is the very ports that others have written, and a few more.
"""


@st.composite
def wishes(draw: st.DrawFn) -> Wish:
    wish: Wish = {}
    ports = draw(st.permutations(range(1, 6)))
    for name, port in zip(NAMES, ports, strict=True):
        if draw(st.booleans()):
            able = [other for other, (_, _, enabled, _) in wish.items() if enabled]
            needs = draw(st.lists(st.sampled_from(able), unique=True, max_size=2)) if able else []
            enabled = draw(st.sampled_from([True, True, True, False]))
            given_or_written = draw(st.sampled_from([0, port]))
            wish[name] = (draw(st.integers(1, 2)), given_or_written, enabled, tuple(needs))
    return wish


def spec_of(wish: Wish) -> SupervisorSpec:
    services = [
        service(
            name,
            *needs,
            tcp_port=port or AUTO,
            enabled=enabled,
            umask=version,
            config_hash=f"{version}-{port}",  # as with real ones, of the port as well
            restart=RestartPolicy(max_restarts=MAX),
        )
        for name, (version, port, enabled, needs) in wish.items()
    ]
    return supervisor_spec(*services, max_processes=len(NAMES), port_range=PortRange(1, 2 * len(NAMES)))


behaviours = st.builds(
    Behaviour,
    exec_seconds=st.sampled_from([0.0, 0.5]),
    exit_after_seconds=st.sampled_from([None, None, 0.2, 30.0]),
    exit_status=st.sampled_from([ExitStatus(code=0), ExitStatus(code=1)]),
    stop_seconds=st.sampled_from([0.0, 1.0, None]),
    leftovers=st.booleans(),
    spawn_error=st.sampled_from([None, None, None, "set RLIMIT_NOFILE"]),
    launch_error=st.sampled_from([None, None, None, "create cgroup"]),
)
steps = st.one_of(
    st.tuples(st.just("want"), wishes()),
    st.tuples(st.just("want"), wishes()),
    st.tuples(st.just("crash"), st.sampled_from(NAMES)),
    st.tuples(st.just("behave"), st.tuples(st.sampled_from(NAMES), behaviours)),
    st.tuples(st.just("pass"), st.sampled_from([0.0, 0.1, 1.0, 15.0])),
)


@settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(
    wishes(), st.fixed_dictionaries(dict.fromkeys(NAMES, behaviours)), st.lists(steps, max_size=15), wishes()
)
def test_any_sequence_ends_at_the_newest_configuration(first, initial, sequence, last):
    async def main():
        theatre = Theatre.open(supervisor_spec(max_processes=len(NAMES)), **initial)
        theatre.reconciler.take(spec_of(first))
        for action, argument in sequence:
            match action:
                case "want":
                    theatre.reconciler.take(spec_of(argument))
                case "crash" if argument in theatre.stage.host.live:
                    theatre.stage.host.run_of(argument).end(ExitStatus(code=1))
                case "behave":
                    theatre.stage.host.behaviours[argument[0]] = argument[1]
                case "pass":
                    await asyncio.sleep(argument)
        applied = theatre.reconciler.take(spec_of(last))
        theatre.stage.host.behaviours.clear()  # from here on nothing fails any more
        with contextlib.suppress(OperationError):  # a failure from before, which is tried again
            await asyncio.wait_for(applied.settled(), 1000)
        await asyncio.sleep(1000)
        assert theatre.problems == []
        assert theatre.running() == wanted(spec_of(last))
        assert set(theatre.stage.services.runners) == set(last)
        assert theatre.reconciler.take(spec_of(last)).work == ()
        await asyncio.sleep(100)
        assert theatre.running() == wanted(spec_of(last))
        assert theatre.problems == []

    run_virtual(main())


def theatre_of(*specs: ServiceSpec, **behaviours: Behaviour) -> Theatre:
    return Theatre.open(supervisor_spec(*specs, max_processes=len(NAMES)), **behaviours)


def ports_of(theatre: Theatre) -> dict[str, int | None]:
    return {name: runner.port for name, runner in theatre.stage.services.runners.items()}


def auto_and_written(*specs: ServiceSpec) -> SupervisorSpec:
    return supervisor_spec(*specs, max_processes=len(NAMES), port_range=PortRange(8000, 8009))


def test_who_was_given_a_port_that_is_written_for_another_moves_before_that_one_starts():
    async def main():
        theatre = theatre_of(web=Behaviour(stop_seconds=5))
        await theatre.reconciler.take(auto_and_written(service("web", tcp_port=AUTO))).settled()
        web = service("web", tcp_port=AUTO)
        taken = theatre.reconciler.take(auto_and_written(web, service("db", tcp_port=8000)))
        detail = "its port 8000 is given to 'db'"
        assert taken.plan.changes == (
            Change("web", ChangeKind.RESTART, (), detail),
            Change("db", ChangeKind.ADDED),
        )
        await asyncio.sleep(1)
        assert theatre.states() == {"web": "stopping", "db": "waiting"}
        await taken.settled()
        assert theatre.states() == {"web": "running", "db": "running"}
        assert ports_of(theatre) == {"web": 8001, "db": 8000}
        assert theatre.problems == []
        assert "failed" not in theatre.stage.path("db")
        assert theatre.reconciler.take(auto_and_written(web, service("db", tcp_port=8000))).work == ()

    run_virtual(main())


def test_who_waits_for_its_next_run_gives_a_written_port_away():
    async def main():
        web = service("web", tcp_port=AUTO, restart=RestartPolicy(initial_delay_seconds=50))
        theatre = theatre_of()
        await theatre.reconciler.take(auto_and_written(web)).settled()
        theatre.stage.host.run_of("web").end()
        await theatre.stage.until("web", State.RESTARTING)
        db = service("db", sockets=(SocketSpec("http", SocketKind.TCP, "127.0.0.1:8000"),))
        await theatre.reconciler.take(auto_and_written(web, db)).settled()
        assert theatre.states() == {"web": "restarting", "db": "running"}
        await theatre.stage.until("web", State.RUNNING)
        assert ports_of(theatre)["web"] == 8001

    run_virtual(main())


def test_who_is_stopped_or_removed_with_a_given_port_is_waited_for():
    async def main():
        theatre = theatre_of(web=Behaviour(stop_seconds=5))
        await theatre.reconciler.take(auto_and_written(service("web", tcp_port=AUTO))).settled()
        await theatre.reconciler.take(auto_and_written(service("db", tcp_port=8000))).settled()
        assert theatre.states() == {"db": "running"}
        assert "failed" not in theatre.stage.path("db")

    run_virtual(main())


def test_who_is_disabled_takes_no_port_away():
    async def main():
        theatre = theatre_of()
        await theatre.reconciler.take(auto_and_written(service("web", tcp_port=AUTO))).settled()
        db = service("db", tcp_port=8000, enabled=False)
        await theatre.reconciler.take(auto_and_written(service("web", tcp_port=AUTO), db)).settled()
        assert len(theatre.stage.host.runs) == 1
        with pytest.raises(OperationError, match="take tcp_port 8000: 'web' has it"):
            await theatre.stage.operations.start(["db"])

    run_virtual(main())


def test_a_slow_end_holds_up_nobody_who_does_not_need_its_place():
    async def main():
        old = service("old", tcp_port=1)
        theatre = theatre_of(old, old=Behaviour(stop_seconds=8))
        await theatre.stage.operations.start(["old"])
        taken = theatre.reconciler.take(supervisor_spec(service("same_port", tcp_port=1), service("other")))
        await asyncio.sleep(1)
        assert theatre.states() == {"old": "stopping", "same_port": "waiting", "other": "running"}
        await taken.settled()
        assert theatre.states() == {"same_port": "running", "other": "running"}
        assert theatre.problems == []

    run_virtual(main())


def test_one_more_than_there_is_room_for_waits_for_the_one_that_leaves():
    async def main():
        theatre = theatre_of(*map(service, NAMES), a=Behaviour(stop_seconds=8))
        await theatre.stage.operations.start(NAMES)
        names = [*NAMES[1:], "f"]
        await theatre.reconciler.take(supervisor_spec(*map(service, names), max_processes=5)).settled()
        assert sorted(theatre.running()) == names

    run_virtual(main())


def test_what_comes_back_while_it_stops_runs_by_the_newest_configuration():
    async def main():
        theatre = theatre_of(service("web", umask=1, config_hash="1"), web=Behaviour(stop_seconds=5))
        await theatre.stage.operations.start(["web"])
        removal = theatre.reconciler.take(supervisor_spec())
        await asyncio.sleep(1)
        theatre.reconciler.take(supervisor_spec(service("web", umask=2, config_hash="2")))
        await asyncio.sleep(1)
        await theatre.reconciler.take(supervisor_spec(service("web", umask=3, config_hash="3"))).settled()
        assert theatre.running() == {"web": "3"}
        assert len(theatre.stage.host.runs) == 2
        with contextlib.suppress(OperationError):  # overtaken
            await removal.settled()

    run_virtual(main())


def test_what_cannot_start_is_tried_again_until_it_can_or_is_not_wanted():
    async def main():
        theatre = theatre_of(web=Behaviour(launch_error="no"), db=Behaviour(launch_error="no"))
        specs = [service("web", "db"), service("db")]
        applied = theatre.reconciler.take(supervisor_spec(*specs))
        with contextlib.suppress(OperationError):
            await applied.settled()
        await asyncio.sleep(20)
        assert theatre.states() == {"db": "failed", "web": "waiting"}
        theatre.stage.host.behaviours["db"] = Behaviour()
        await asyncio.sleep(60)
        assert theatre.states() == {"db": "running", "web": "failed"}
        await theatre.stage.operations.stop(["web"])
        theatre.stage.host.behaviours["web"] = Behaviour()
        await asyncio.sleep(600)
        assert theatre.states()["web"] == "failed"  # whoever stopped it does not want it up

    run_virtual(main())


def test_a_list_that_changes_ten_times_a_second_has_converged_soon_after_the_last_change():
    async def main():
        theatre = theatre_of(slow=Behaviour(stop_seconds=9))
        for turn in range(600):
            names = [NAMES[(turn + step) % len(NAMES)] for step in range(3)]
            specs = [service(name, umask=turn % 3, config_hash=str(turn % 3)) for name in names]
            slow = [service("slow")] if turn < 550 and turn % 2 else []
            applied = theatre.reconciler.take(supervisor_spec(*specs, *slow))
            await asyncio.sleep(0.1)
        await asyncio.sleep(1.9)
        assert theatre.running() == {each.name: each.config_hash for each in specs}
        await applied.settled()
        assert theatre.problems == []

    run_virtual(main())


def test_a_service_that_stays_after_all_keeps_nobody_from_a_port_it_does_not_have():
    async def main():
        def spec(*ports: int) -> SupervisorSpec:
            names = zip("de", ports, strict=False)
            return supervisor_spec(
                *(service(name, tcp_port=port, config_hash=f"{port}") for name, port in names)
            )

        theatre = theatre_of()
        await theatre.reconciler.take(spec(5)).settled()
        for overtaken in (spec(), spec(4), spec()):
            theatre.reconciler.take(overtaken)
        await asyncio.wait_for(theatre.reconciler.take(spec(5, 4)).settled(), 60)
        assert theatre.running() == {"d": "5", "e": "4"}
        assert theatre.problems == []

    run_virtual(main())


def test_a_change_that_holds_at_once_does_not_end_the_attempts():
    async def main():
        theatre = theatre_of(web=Behaviour(launch_error="no"))
        with contextlib.suppress(OperationError):
            await theatre.reconciler.take(supervisor_spec(service("web"))).settled()
        await asyncio.sleep(0.1)
        theatre.reconciler.take(supervisor_spec(service("web", "db"), service("db")))
        theatre.stage.host.behaviours.clear()
        await asyncio.sleep(100)
        assert theatre.states() == {"db": "running", "web": "running"}

    run_virtual(main())


def test_what_is_disabled_in_the_end_does_not_run_whatever_was_wanted_in_the_same_moment():
    async def main():
        def spec(port: int, enabled: bool) -> SupervisorSpec:
            d = service("d", tcp_port=port, config_hash=str(port), enabled=enabled)
            return supervisor_spec(service("a"), d)

        theatre = theatre_of()
        theatre.reconciler.take(spec(4, True))
        await asyncio.sleep(0)
        for each in (spec(5, False), spec(4, True), supervisor_spec(), supervisor_spec(), spec(4, False)):
            theatre.reconciler.take(each)
        await asyncio.sleep(100)
        assert list(theatre.running()) == ["a"]

    run_virtual(main())
