from __future__ import annotations

from dataclasses import fields
from functools import cache
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blackhole_cg.core import events as ev
from blackhole_cg.core.diagram import render_states
from blackhole_cg.core.facts import ExitStatus
from blackhole_cg.core.handlers import Context
from blackhole_cg.core.machine import IGNORED, TRANSITIONS, step
from blackhole_cg.core.spec import RestartPolicy
from blackhole_cg.core.status import ServiceStatus
from blackhole_cg.core.words import LIVE_STATES, Desired, Health, Reason, RestartWhen, ServiceType, State
from tests.support.builders import service

SPEC = service()


def drive(*events: ev.Event, spec=SPEC, status: ServiceStatus | None = None, now: float = 0.0):
    """Feed events one after the other; return the last status and the last effects."""
    status, effects = status or ServiceStatus(), ()
    for event in events:
        status, effects = step(status, event, Context(spec, now))
    return status, effects


RUNNING = (ev.StartRequested(), ev.DependenciesMet(), ev.SpawnSucceeded(1, 42))


def test_every_pair_of_state_and_event_is_answered_exactly_once():
    pairs = {(state, event) for state in State for event in ev.EVENTS}
    assert TRANSITIONS.keys() | IGNORED.keys() == pairs
    assert not TRANSITIONS.keys() & IGNORED.keys()
    assert all(reason for reason in IGNORED.values())


def test_a_start_waits_for_its_dependencies_then_spawns_then_runs():
    status, effects = drive(ev.StartRequested())
    assert (status.state, status.desired) == (State.WAITING, Desired.UP)
    assert ev.CheckDependencies() in effects
    status, effects = drive(ev.DependenciesMet(), status=status)
    assert status.state is State.STARTING
    assert ev.Spawn(1) in effects
    status, _ = drive(ev.SpawnSucceeded(1, 42), status=status, now=7.0)
    assert (status.state, status.pid, status.started_at) == (State.RUNNING, 42, 7.0)


def test_a_stop_signals_and_then_kills():
    status, effects = drive(*RUNNING, ev.StopRequested())
    assert (status.state, status.desired) == (State.STOPPING, Desired.DOWN)
    assert effects[1:] == (ev.SignalMain(), ev.ArmTimer(ev.Timer.STOP, 10.0, 1))
    status, effects = drive(ev.StopTimedOut(1), status=status)
    assert (status.state, effects) == (State.STOPPING, (ev.KillRun(),))
    status, effects = drive(ev.RunEnded(1, ExitStatus(signal=9)), status=status)
    assert status.state is State.STOPPED
    assert status.last_exit is not None
    assert status.last_exit.reason is Reason.OPERATOR


def test_a_crash_restarts_after_a_delay_and_an_operator_stop_never_does():
    status, effects = drive(*RUNNING, ev.RunEnded(1, ExitStatus(signal=9)))
    assert (status.state, status.cause, status.restarts) == (State.RESTARTING, Reason.SIGNALLED, 1)
    assert ev.ArmTimer(ev.Timer.BACKOFF, 1.0, 1) in effects
    status, _ = drive(ev.BackoffElapsed(1), ev.DependenciesMet(), status=status)
    assert (status.state, status.run_id) == (State.STARTING, 2)
    status, _ = drive(*RUNNING, ev.StopRequested(), ev.RunEnded(1, ExitStatus(code=1)))
    assert status.state is State.STOPPED


def test_a_restart_is_a_stop_while_desired_stays_up():
    status, _ = drive(*RUNNING, ev.RestartRequested())
    assert (status.state, status.desired) == (State.STOPPING, Desired.UP)
    status, effects = drive(ev.RunEnded(1, ExitStatus(code=0)), status=status)
    assert (status.state, status.restarts) == (State.WAITING, 0)
    assert ev.CheckDependencies() in effects


def test_what_the_main_process_leaves_behind_is_killed_before_the_policy_decides():
    status, effects = drive(*RUNNING, ev.MainExited(1, ExitStatus(code=1)))
    assert (status.state, status.desired, status.pid) == (State.STOPPING, Desired.UP, None)
    assert ev.KillRun() in effects
    status, _ = drive(ev.RunEnded(1, ExitStatus(code=1)), status=status)
    assert status.state is State.RESTARTING
    assert status.last_exit is not None
    assert status.last_exit.reason is Reason.EXITED


def test_what_the_main_process_leaves_behind_at_a_stop_is_asked_first():
    _, effects = drive(*RUNNING, ev.StopRequested(), ev.MainExited(1, ExitStatus(code=0)))
    assert effects == (ev.SignalRest(),)


def test_a_wanted_start_that_cannot_spawn_fails_at_once():
    status, _ = drive(ev.StartRequested(), ev.DependenciesMet(), ev.SpawnFailed(1, "cannot start 'web': x"))
    assert (status.state, status.cause) == (State.FAILED, Reason.START_FAILED)
    assert status.last_error == "cannot start 'web': x"


RESTARTED = (*RUNNING, ev.RestartRequested(), ev.RunEnded(1, ExitStatus(signal=15)), ev.DependenciesMet())


def test_a_wanted_restart_that_cannot_spawn_now_goes_on_by_the_policy():
    no_memory = ev.SpawnFailed(2, "cannot start 'web': no memory", passing=True)
    status, effects = drive(*RESTARTED, no_memory)
    assert (status.state, status.desired, status.cause) == (State.RESTARTING, Desired.UP, Reason.START_FAILED)
    assert status.last_error == "cannot start 'web': no memory"
    assert ev.ArmTimer(ev.Timer.BACKOFF, 1.0, 2) in effects
    assert status.holds_sockets
    status, _ = drive(
        ev.BackoffElapsed(2), ev.DependenciesMet(), ev.SpawnFailed(3, "cannot start 'web': x"), status=status
    )
    assert (status.state, status.history.attempt) == (State.RESTARTING, 2)
    status, _ = drive(ev.BackoffElapsed(3), ev.DependenciesMet(), ev.SpawnSucceeded(4, 42), status=status)
    assert (status.state, status.replaces) == (State.RUNNING, False)


@pytest.mark.parametrize("passing", [False, True])
def test_a_wanted_restart_that_cannot_spawn_fails_where_trying_again_is_no_use_or_not_wanted(passing):
    spec = service(restart=RestartPolicy(when=RestartWhen.NEVER if passing else RestartWhen.ALWAYS))
    status, _ = drive(*RESTARTED, ev.SpawnFailed(2, "cannot start 'web': x", passing), spec=spec)
    assert (status.state, status.cause) == (State.FAILED, Reason.START_FAILED)


def test_a_start_after_a_stop_replaces_nothing():
    status, _ = drive(
        *RUNNING,
        ev.StopRequested(),
        ev.RunEnded(1, ExitStatus(signal=15)),
        ev.StartRequested(),
        ev.DependenciesMet(),
        ev.SpawnFailed(2, "cannot start 'web': no memory", passing=True),
    )
    assert status.state is State.FAILED


def test_a_restart_that_cannot_spawn_goes_on_by_the_policy():
    status, _ = drive(
        *RUNNING,
        ev.RunEnded(1, ExitStatus(code=1)),
        ev.BackoffElapsed(1),
        ev.DependenciesMet(),
        ev.SpawnFailed(2, "cannot start 'web': no memory"),
    )
    assert (status.state, status.history.attempt) == (State.RESTARTING, 2)
    assert status.detail.startswith("cannot start 'web': no memory; restart 2 of 5 in")


def test_failed_stays_failed_until_reset_or_a_manual_start():
    spec = service(restart=RestartPolicy(max_restarts=0))
    failed, _ = drive(*RUNNING, ev.RunEnded(1, ExitStatus(code=1)), spec=spec)
    assert failed.state is State.FAILED
    for event in (ev.DependenciesMet(), ev.BackoffElapsed(1), ev.StopRequested()):
        assert drive(event, spec=spec, status=failed)[0].state is State.FAILED
    assert drive(ev.ResetRequested(), spec=spec, status=failed)[0].state is State.STOPPED
    started, _ = drive(ev.StartRequested(), spec=spec, status=failed)
    assert (started.state, started.history.attempt, started.last_error) == (State.WAITING, 0, None)


def test_a_stop_overtaken_by_a_start_runs_again_without_backoff():
    status, _ = drive(*RUNNING, ev.StopRequested(), ev.StartRequested(), ev.RunEnded(1, ExitStatus(code=0)))
    assert (status.state, status.desired) == (State.WAITING, Desired.UP)


def test_a_restart_overtaken_by_a_stop_ends_stopped():
    status, _ = drive(*RUNNING, ev.RestartRequested(), ev.StopRequested(), ev.RunEnded(1, ExitStatus(code=0)))
    assert (status.state, status.desired) == (State.STOPPED, Desired.DOWN)


@pytest.mark.parametrize(
    "stale", [ev.RunEnded(0, ExitStatus(code=0)), ev.StopTimedOut(0), ev.BackoffElapsed(0)]
)
def test_events_of_another_run_change_nothing(stale):
    for events in (RUNNING, (*RUNNING, ev.StopRequested()), (*RUNNING, ev.RunEnded(1, ExitStatus(code=1)))):
        status, _ = drive(*events)
        assert step(status, stale, Context(SPEC, 0.0)) == (status, ())


def test_an_oom_kill_is_told_apart_from_other_kills():
    status, _ = drive(*RUNNING, ev.RunEnded(1, ExitStatus(signal=9, oom_killed=True)))
    assert status.last_exit is not None
    assert (status.cause, status.last_exit.reason) == (Reason.OOM, Reason.OOM)


@cache
def any_event(run_id: int) -> st.SearchStrategy[ev.Event]:
    run_ids = st.sampled_from([max(run_id - 1, 0), run_id])
    exits = st.builds(ExitStatus, code=st.sampled_from([None, 0, 1]), signal=st.sampled_from([None, 9, 15]))
    values = {
        "run_id": run_ids,
        "status": exits,
        "pid": st.just(7),
        "message": st.just("x"),
        "detail": st.just("y"),
        "health": st.sampled_from(Health),
        "grace_seconds": st.sampled_from([None, 1.0]),
        "passing": st.booleans(),
    }
    reasons = st.sampled_from([Reason.OPERATOR, Reason.SHUTDOWN, Reason.START_FAILED])

    def build(kind: type[ev.Event]) -> st.SearchStrategy[ev.Event]:
        given_values = {f.name: values[f.name] for f in fields(kind) if f.name in values}
        if kind is ev.StopRequested:
            given_values["reason"] = reasons
        if kind is ev.Broken:
            given_values["reason"] = st.sampled_from([Reason.PROBE_FAILED, Reason.RULE, Reason.WATCHDOG])
        return st.builds(kind, **given_values)

    return st.one_of([build(kind) for kind in ev.EVENTS])


@given(st.data(), st.sampled_from(RestartWhen), st.sampled_from(ServiceType))
def test_any_sequence_of_events_keeps_the_invariants(data, when, kind):
    spec = service(type=kind, restart=RestartPolicy(when=when, max_restarts=2))
    status, now, live = ServiceStatus(), 0.0, False
    for _ in range(data.draw(st.integers(0, 40))):
        event = data.draw(any_event(status.run_id))
        before = status
        status, effects = step(before, event, Context(spec, now))
        now += data.draw(st.sampled_from([0.0, 1.0, 100.0]))
        transition = TRANSITIONS.get((before.state, type(event)))
        assert status.state is before.state or (transition and status.state in transition.targets)
        spawns = [effect for effect in effects if isinstance(effect, ev.Spawn)]
        assert not (spawns and live), "a second run would be live"
        assert not (spawns and before.desired is Desired.DOWN), "a start nobody wants"
        live = status.state in LIVE_STATES
        if before.state in LIVE_STATES and not live:
            assert isinstance(event, ev.RunEnded | ev.SpawnFailed | ev.NeverBegan), "a run was forgotten"
        if status.state is State.RESTARTING:
            assert status.desired is Desired.UP
        stored = [effect for effect in effects if isinstance(effect, ev.Announce)]
        assert (status.state is before.state) or stored[0].kind == "state"
        assert all(each.detail and each.reason in Reason for each in stored)
        assert status.health is Health.UNKNOWN or live, "health is said of a run"


def test_the_documented_states_are_those_of_the_tables():
    document = Path(__file__).parents[2] / "docs" / "states.md"
    assert document.read_text() == render_states(), "python -m blackhole_cg.core.diagram > docs/states.md"


NOTIFY = service(type=ServiceType.NOTIFY, start_timeout_seconds=5.0)


def test_a_service_that_notifies_runs_when_it_says_so():
    status, effects = drive(*RUNNING, spec=NOTIFY, now=1.0)
    assert (status.state, status.pid, status.started_at) == (State.STARTING, 42, 1.0)
    assert effects == (ev.ArmTimer(ev.Timer.START, 5.0, 1),)
    status, _ = drive(ev.Ready(1, "serving"), spec=NOTIFY, status=status)
    assert (status.state, status.detail) == (State.RUNNING, "pid 42 is ready: serving")
    again, effects = drive(ev.StartTimedOut(1), spec=NOTIFY, status=status)
    assert again == status


def test_a_service_that_does_not_say_so_in_time_is_ended_and_goes_on_by_its_policy():
    status, effects = drive(*RUNNING, ev.StartTimedOut(1), spec=NOTIFY)
    assert (status.state, status.cause) == (State.STOPPING, Reason.START_FAILED)
    assert ev.SignalMain() in effects
    status, _ = drive(ev.RunEnded(1, ExitStatus(signal=15)), spec=NOTIFY, status=status)
    assert status.state is State.RESTARTING
    assert status.detail == "not ready within 5s; restart 1 of 5 in 1.00s"
    assert status.last_exit is not None
    assert status.last_exit.reason is Reason.START_FAILED


def test_a_service_that_ends_before_it_is_ready_goes_on_by_its_policy():
    status, _ = drive(*RUNNING, ev.RunEnded(1, ExitStatus(code=3)), spec=NOTIFY)
    assert (status.state, status.cause) == (State.RESTARTING, Reason.EXITED)


def test_a_run_goes_on_with_another_main_process():
    status, effects = drive(*RUNNING, ev.MainChanged(1, 77))
    assert (status.state, status.pid, effects) == (State.RUNNING, 77, ())


@pytest.mark.parametrize(
    ("exit_status", "state"), [(ExitStatus(code=0), State.COMPLETED), (ExitStatus(code=1), State.RESTARTING)]
)
def test_a_run_that_says_that_it_stops_has_as_long_as_for_a_stop_and_is_judged_by_its_end(exit_status, state):
    spec = service(restart=RestartPolicy(when=RestartWhen.ON_FAILURE))
    status, effects = drive(*RUNNING, ev.EndsItself(1), spec=spec)
    assert (status.state, status.desired, status.cause) == (State.STOPPING, Desired.UP, Reason.EXITED)
    assert effects[1:] == (ev.ArmTimer(ev.Timer.STOP, 10.0, 1),), "and it is not signalled"
    assert drive(ev.StopTimedOut(1), spec=spec, status=status)[1] == (ev.KillRun(),)
    status, _ = drive(ev.RunEnded(1, exit_status), spec=spec, status=status)
    assert (status.state, status.cause) == (state, Reason.EXITED)


def test_health_is_announced_and_ends_with_the_run():
    status, effects = drive(*RUNNING, ev.HealthReported(1, Health.UNHEALTHY, "no answer"))
    assert (status.state, status.health) == (State.RUNNING, Health.UNHEALTHY)
    assert effects == (ev.Announce("health", "unknown", "unhealthy", Reason.PROBE_FAILED, "no answer", 1),)
    status, _ = drive(ev.RunEnded(1, ExitStatus(code=1)), status=status)
    assert status.health is Health.UNKNOWN


@pytest.mark.parametrize("exit_status", [ExitStatus(code=0), ExitStatus(signal=15)])
def test_a_broken_run_is_ended_and_counts_as_a_failure_however_politely_it_ends(exit_status):
    spec = service(restart=RestartPolicy(when=RestartWhen.ON_FAILURE, max_restarts=1))
    status, effects = drive(*RUNNING, ev.Broken(1, Reason.RULE, "memory_percent 93 above 90", 3.0), spec=spec)
    assert (status.state, status.desired) == (State.STOPPING, Desired.UP)
    assert effects[1:] == (ev.SignalMain(), ev.ArmTimer(ev.Timer.STOP, 3.0, 1))
    status, _ = drive(ev.RunEnded(1, exit_status), spec=spec, status=status)
    assert (status.state, status.cause) == (State.RESTARTING, Reason.RULE)
    assert status.detail.startswith("memory_percent 93 above 90; restart 1 of 1")
    again = (ev.BackoffElapsed(1), ev.DependenciesMet(), ev.SpawnSucceeded(2, 43))
    status, _ = drive(*again, ev.Broken(2, Reason.RULE, "again"), spec=spec, status=status)
    status, _ = drive(ev.RunEnded(2, exit_status), spec=spec, status=status)
    assert (status.state, status.last_error) == (State.FAILED, "again; gave up after 1 restarts within 3600s")


def test_a_stop_overtakes_the_restart_of_a_broken_run():
    status, _ = drive(*RUNNING, ev.Broken(1, Reason.PROBE_FAILED, "no answer"), ev.StopRequested())
    status, _ = drive(ev.RunEnded(1, ExitStatus(signal=15)), status=status)
    assert (status.state, status.cause) == (State.STOPPED, Reason.OPERATOR)
