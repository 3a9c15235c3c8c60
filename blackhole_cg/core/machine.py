"""The state machine of one service: facts in, new status and orders out.

Two rules. Everything that may change a service's state is in TRANSITIONS, keyed by the names of state and
event; a pair that changes nothing is in IGNORED with the reason. And nothing here acts: `step` returns
effects, which the runner performs.

Desired and state are separate: desired is what was wished for, state is where the service is. A restart is a
stop while desired stays up. Events that belong to a run carry its `run_id` and are dropped when it is not the
current one, so that a timer or an exit of an earlier run can never touch a later one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

from blackhole_cg.core import handlers as do
from blackhole_cg.core.events import (
    Adopted,
    Announce,
    BackoffElapsed,
    Broken,
    DependenciesMet,
    EndsItself,
    Event,
    HealthReported,
    KillRequested,
    MainChanged,
    MainExited,
    NeverBegan,
    Ready,
    ResetRequested,
    RestartRequested,
    RunEnded,
    SpawnFailed,
    SpawnSucceeded,
    StartRefused,
    StartRequested,
    StartTimedOut,
    StopRequested,
    StopTimedOut,
)
from blackhole_cg.core.handlers import Context, Step
from blackhole_cg.core.status import ServiceStatus
from blackhole_cg.core.words import LIVE_STATES, Health, Reason, State


@dataclass(frozen=True, slots=True)
class Transition:
    """A handler and every state it may lead to."""

    handler: Callable[..., Step]
    targets: tuple[State, ...]


_S = State
_POLICY = (_S.RESTARTING, _S.FAILED, _S.COMPLETED)
_END = (_S.STOPPED, _S.WAITING, *_POLICY)

TRANSITIONS: Final[dict[tuple[State, type[Event]], Transition]] = {
    (_S.STOPPED, StartRequested): Transition(do.start, (_S.WAITING,)),
    (_S.STOPPED, RestartRequested): Transition(do.start, (_S.WAITING,)),
    (_S.STOPPED, ResetRequested): Transition(do.reset, (_S.STOPPED,)),
    (_S.STOPPED, StopRequested): Transition(do.stay_down, (_S.STOPPED,)),
    (_S.STOPPED, Adopted): Transition(do.adopted, (_S.RUNNING, _S.STOPPING)),
    (_S.WAITING, StartRequested): Transition(do.want_up, (_S.WAITING,)),
    (_S.WAITING, RestartRequested): Transition(do.want_up, (_S.WAITING,)),
    (_S.WAITING, StopRequested): Transition(do.cancel_start, (_S.STOPPED,)),
    (_S.WAITING, ResetRequested): Transition(do.reset, (_S.WAITING,)),
    (_S.WAITING, DependenciesMet): Transition(do.spawn, (_S.STARTING,)),
    (_S.WAITING, StartRefused): Transition(do.refuse, (_S.FAILED, _S.RESTARTING)),
    (_S.STARTING, StartRequested): Transition(do.want_up, (_S.STARTING,)),
    (_S.STARTING, StopRequested): Transition(do.stop, (_S.STOPPING,)),
    (_S.STARTING, RestartRequested): Transition(do.stop, (_S.STOPPING,)),
    (_S.STARTING, ResetRequested): Transition(do.reset, (_S.STARTING,)),
    (_S.STARTING, KillRequested): Transition(do.kill, (_S.STARTING,)),
    (_S.STARTING, SpawnSucceeded): Transition(do.spawned, (_S.STARTING, _S.RUNNING)),
    (_S.STARTING, NeverBegan): Transition(do.begin_again, (_S.WAITING,)),
    (_S.STARTING, Ready): Transition(do.ready, (_S.RUNNING,)),
    (_S.STARTING, MainChanged): Transition(do.main_changed, (_S.STARTING,)),
    (_S.STARTING, EndsItself): Transition(do.ends_itself, (_S.STOPPING,)),
    (_S.STARTING, StartTimedOut): Transition(do.start_timed_out, (_S.STOPPING,)),
    (_S.STARTING, Broken): Transition(do.broken, (_S.STOPPING,)),
    (_S.STARTING, MainExited): Transition(do.clear_leftovers, (_S.STOPPING,)),
    (_S.STARTING, RunEnded): Transition(do.run_ended, _POLICY),
    (_S.STARTING, SpawnFailed): Transition(do.spawn_failed, (_S.FAILED, _S.RESTARTING)),
    (_S.RUNNING, StopRequested): Transition(do.stop, (_S.STOPPING,)),
    (_S.RUNNING, RestartRequested): Transition(do.stop, (_S.STOPPING,)),
    (_S.RUNNING, ResetRequested): Transition(do.reset, (_S.RUNNING,)),
    (_S.RUNNING, KillRequested): Transition(do.kill, (_S.RUNNING,)),
    (_S.RUNNING, HealthReported): Transition(do.note_health, (_S.RUNNING,)),
    (_S.RUNNING, MainChanged): Transition(do.main_changed, (_S.RUNNING,)),
    (_S.RUNNING, EndsItself): Transition(do.ends_itself, (_S.STOPPING,)),
    (_S.RUNNING, Broken): Transition(do.broken, (_S.STOPPING,)),
    (_S.RUNNING, MainExited): Transition(do.clear_leftovers, (_S.STOPPING,)),
    (_S.RUNNING, RunEnded): Transition(do.run_ended, _POLICY),
    (_S.STOPPING, StartRequested): Transition(do.start_after_stop, (_S.STOPPING,)),
    (_S.STOPPING, RestartRequested): Transition(do.start_after_stop, (_S.STOPPING,)),
    (_S.STOPPING, StopRequested): Transition(do.stop_instead, (_S.STOPPING,)),
    (_S.STOPPING, ResetRequested): Transition(do.reset, (_S.STOPPING,)),
    (_S.STOPPING, KillRequested): Transition(do.kill, (_S.STOPPING,)),
    (_S.STOPPING, SpawnFailed): Transition(do.spawn_failed_while_stopping, _END),
    (_S.STOPPING, MainChanged): Transition(do.main_changed, (_S.STOPPING,)),
    (_S.STOPPING, MainExited): Transition(do.main_stopped, (_S.STOPPING,)),
    (_S.STOPPING, StopTimedOut): Transition(do.kill, (_S.STOPPING,)),
    (_S.STOPPING, RunEnded): Transition(do.run_ended, _END),
    (_S.RESTARTING, StartRequested): Transition(do.start, (_S.WAITING,)),
    (_S.RESTARTING, RestartRequested): Transition(do.start, (_S.WAITING,)),
    (_S.RESTARTING, StopRequested): Transition(do.cancel_start, (_S.STOPPED,)),
    (_S.RESTARTING, ResetRequested): Transition(do.reset, (_S.RESTARTING,)),
    (_S.RESTARTING, BackoffElapsed): Transition(do.retry, (_S.WAITING,)),
    (_S.FAILED, StartRequested): Transition(do.start, (_S.WAITING,)),
    (_S.FAILED, RestartRequested): Transition(do.start, (_S.WAITING,)),
    (_S.FAILED, StopRequested): Transition(do.stay_down, (_S.FAILED,)),
    (_S.FAILED, ResetRequested): Transition(do.reset_to_stopped, (_S.STOPPED,)),
    (_S.COMPLETED, StartRequested): Transition(do.start, (_S.WAITING,)),
    (_S.COMPLETED, RestartRequested): Transition(do.start, (_S.WAITING,)),
    (_S.COMPLETED, StopRequested): Transition(do.stay_down, (_S.COMPLETED,)),
    (_S.COMPLETED, ResetRequested): Transition(do.reset_to_stopped, (_S.STOPPED,)),
}

_NO_RUN = "no run is live, so the event belongs to none"
_WAITS_NOT = "the service is not waiting to start"
_RUNS = "it already runs, which is what was asked for"

IGNORED: Final[dict[tuple[State, type[Event]], str]] = {
    **{
        (state, event): _NO_RUN
        for state in (_S.STOPPED, _S.WAITING, _S.RESTARTING, _S.FAILED, _S.COMPLETED)
        for event in (
            KillRequested,
            SpawnSucceeded,
            SpawnFailed,
            MainExited,
            RunEnded,
            StopTimedOut,
            Ready,
            MainChanged,
            EndsItself,
            StartTimedOut,
            HealthReported,
            Broken,
            NeverBegan,
        )
    },
    **{
        (state, event): _WAITS_NOT
        for state in State
        if state is not _S.WAITING
        for event in (DependenciesMet, StartRefused)
    },
    **{
        (state, BackoffElapsed): "a newer wish overtook the delay"
        for state in State
        if state is not _S.RESTARTING
    },
    **{
        (state, Adopted): "a run is taken over before anything else happens"
        for state in State
        if state is not _S.STOPPED
    },
    (_S.RUNNING, StartRequested): _RUNS,
    (_S.STARTING, HealthReported): "probes begin when the run has started",
    (_S.STARTING, StopTimedOut): "no stop is under way",
    (_S.RUNNING, SpawnSucceeded): "reported once a run",
    (_S.RUNNING, SpawnFailed): "the run has begun",
    (_S.RUNNING, NeverBegan): "the run has begun",
    (_S.RUNNING, StopTimedOut): "no stop is under way",
    (_S.RUNNING, Ready): _RUNS,
    (_S.RUNNING, StartTimedOut): "it has started",
    (_S.STOPPING, SpawnSucceeded): "the stop is already under way",
    (_S.STOPPING, NeverBegan): "the run is ended like any other",
    **{
        (_S.STOPPING, event): "the run is ending already"
        for event in (Ready, EndsItself, StartTimedOut, HealthReported, Broken)
    },
}


def step(status: ServiceStatus, event: Event, context: Context) -> Step:
    """Answer one event: the new status and what is to be done, in order.

    An event that is listed as ignored, or belongs to another run, returns the status unchanged.
    """
    run_id = getattr(event, "run_id", status.run_id)
    transition = TRANSITIONS.get((status.state, type(event)))
    if transition is None or run_id != status.run_id:
        return status, ()
    after, effects = transition.handler(status, event, context)
    if after.state not in LIVE_STATES and after.health is not Health.UNKNOWN:
        after = replace(after, health=Health.UNKNOWN)  # what was said was said of the run
    return after, (*_announcements(status, after, event), *effects)


def _announcements(before: ServiceStatus, after: ServiceStatus, event: Event) -> tuple[Announce, ...]:
    """What is stored of a step: a change of state, or else of desired, or a reset."""
    reason = getattr(event, "reason", Reason.OPERATOR)
    if before.state is not after.state:
        return (Announce("state", before.state, after.state, after.cause, after.detail, after.run_id),)
    if before.desired is not after.desired:
        return (
            Announce(
                "desired", before.desired, after.desired, reason, f"wanted {after.desired}", after.run_id
            ),
        )
    if isinstance(event, HealthReported):
        reason = Reason.PROBE_FAILED if event.health is Health.UNHEALTHY else Reason.UNKNOWN
        return (Announce("health", before.health, after.health, reason, event.detail, after.run_id),)
    if isinstance(event, ResetRequested):
        return (Announce("reset", before.state, after.state, reason, "reset requested", after.run_id),)
    return ()
