"""Random wishes, crashes and failures on a fake host: what must hold, holds at every step."""

from __future__ import annotations

import asyncio
import contextlib

from hypothesis import given, settings
from hypothesis import strategies as st

from blackhole_cg.core.facts import ExitStatus
from blackhole_cg.core.spec import RestartPolicy, ServiceSpec
from blackhole_cg.core.topology import is_met
from blackhole_cg.core.words import LIVE_STATES, Condition, Desired, RestartWhen, ServiceType, State
from blackhole_cg.errors import OperationError
from tests.support.builders import service
from tests.support.fake_host import Behaviour
from tests.support.stage import Stage
from tests.support.virtual_loop import run_virtual

NAMES = ["a", "b", "c", "d", "e"]

behaviours = st.builds(
    Behaviour,
    exec_seconds=st.sampled_from([0.0, 0.5]),
    exit_after_seconds=st.sampled_from([None, None, 0.2, 90.0]),
    exit_status=st.sampled_from([ExitStatus(code=0), ExitStatus(code=1), ExitStatus(signal=9)]),
    stop_seconds=st.sampled_from([0.0, 1.0, None]),
    leftovers=st.booleans(),
    spawn_error=st.sampled_from([None, None, None, "set RLIMIT_NOFILE"]),
    launch_error=st.sampled_from([None, None, None, "create cgroup"]),
)


@st.composite
def any_service(draw: st.DrawFn, index: int) -> ServiceSpec:
    needs = draw(st.lists(st.sampled_from(NAMES[:index]), unique=True)) if index else []
    return service(
        NAMES[index],
        depends_on={name: draw(st.sampled_from(Condition)) for name in needs},
        type=draw(st.sampled_from(ServiceType)),
        required=draw(st.booleans()),
        restart=RestartPolicy(when=draw(st.sampled_from(RestartWhen)), max_restarts=2),
    )


names = st.lists(st.sampled_from(NAMES), min_size=1, unique=True)
actions = st.one_of(
    st.tuples(st.sampled_from(["start", "stop", "restart", "reset"]), names),
    st.tuples(st.just("crash"), st.sampled_from(NAMES)),
    st.tuples(st.just("behave"), st.tuples(st.sampled_from(NAMES), behaviours)),
    st.tuples(st.just("pass"), st.sampled_from([0.0, 0.1, 1.0, 15.0])),
)


def watch_launches(stage: Stage) -> None:
    """Fail at the first launch that nobody wants or that comes before its dependencies."""

    def check(spec: ServiceSpec) -> None:
        assert stage.status(spec.name).desired is Desired.UP
        for dependency, condition in spec.depends_on.items():
            assert is_met(condition, stage.services.runners[dependency].spec, stage.status(dependency)), (
                f"{spec.name} before {dependency}"
            )
        assert len(stage.host.live) < stage_limit

    stage_limit = 4
    stage.host.on_launch = check


async def act(stage: Stage, action: str, argument: object) -> None:
    match action:
        case "start" | "stop" | "restart":
            with contextlib.suppress(OperationError):
                await getattr(stage.operations, action)(argument)
        case "reset":
            stage.services.reset(argument)
        case "crash" if argument in stage.host.live:
            stage.host.run_of(argument).end(ExitStatus(code=1))
        case "behave":
            stage.host.behaviours[argument[0]] = argument[1]


@settings(max_examples=150, deadline=None)
@given(
    st.tuples(*(any_service(index) for index in range(len(NAMES)))),
    st.fixed_dictionaries(dict.fromkeys(NAMES, behaviours)),
    st.lists(actions, max_size=25),
)
def test_invariants_hold_through_any_sequence(specs, initial, sequence):
    async def main():
        stage = Stage(*specs, behaviours=initial, max_processes=4)
        watch_launches(stage)
        wishes: list[asyncio.Task] = []
        for action, argument in sequence:
            if action == "pass":
                await asyncio.sleep(argument)
            else:
                wishes.append(asyncio.create_task(act(stage, action, argument)))
                await asyncio.sleep(0)
            for name, runner in stage.services.runners.items():
                assert (runner.status.state in LIVE_STATES) >= (name in stage.host.live)
        await asyncio.wait_for(stage.operations.stop(NAMES), 500)
        await asyncio.wait_for(asyncio.gather(*wishes), 500)
        await asyncio.wait_for(stage.operations.stop(NAMES), 500)
        await asyncio.sleep(1000)
        assert not stage.host.live
        assert all(run.closed for run in stage.host.runs)
        down = {State.STOPPED, State.FAILED, State.COMPLETED}
        assert set(stage.states().values()) <= down
        check_records(stage)

    run_virtual(main())


def check_records(stage: Stage) -> None:
    """The recorded path of each service is unbroken: every edge begins where the last one ended."""
    for name in NAMES:
        state = "stopped"
        for record in stage.records:
            if record.service == name and record.kind == "state":
                assert record.from_state == state
                state = record.to_state
        assert state == stage.status(name).state
