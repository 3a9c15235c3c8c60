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

from blackhole_cg.core.events import (
    Adopted,
    Announce,
    ArmTimer,
    BackoffElapsed,
    CheckDependencies,
    DependenciesMet,
    Effect,
    Event,
    KillRequested,
    KillRun,
    MainExited,
    ResetRequested,
    RestartRequested,
    RunEnded,
    SignalMain,
    SignalRest,
    Spawn,
    SpawnFailed,
    SpawnSucceeded,
    StartRefused,
    StartRequested,
    StopRequested,
    StopTimedOut,
    Timer,
)
from blackhole_cg.core.facts import ExitStatus
from blackhole_cg.core.restart import (
    NO_HISTORY,
    Done,
    GiveUp,
    RestartAfter,
    RestartHistory,
    RunEnd,
    decide_restart,
    exit_reason,
)
from blackhole_cg.core.spec import ServiceSpec
from blackhole_cg.core.words import Desired, Reason, State

# ---- status -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class LastExit:
    """How the latest finished run ended. `at` is monotonic seconds."""

    run_id: int
    status: ExitStatus
    reason: Reason
    at: float


@dataclass(frozen=True, slots=True)
class ServiceStatus:
    """All that the machine knows of a service."""

    state: State = State.STOPPED
    desired: Desired = Desired.DOWN
    run_id: int = 0
    pid: int | None = None
    cause: Reason = Reason.OPERATOR  # why the service is where it is
    detail: str = ""
    ending: Reason | None = None  # why we are ending the current run; None: we are not
    history: RestartHistory = NO_HISTORY
    restarts: int = 0  # automatic restarts since the first start or the last reset
    started_at: float | None = None
    restart_at: float | None = None
    last_exit: LastExit | None = None
    last_error: str | None = None


@dataclass(frozen=True, slots=True)
class Context:
    """What a decision depends on beside the status. `jitter` is a uniform draw from -1.0 to 1.0."""

    spec: ServiceSpec
    now: float
    jitter: float = 0.0


Step = tuple[ServiceStatus, tuple[Effect, ...]]

# ---- handlers ---------------------------------------------------------------------------------------------


def _await_dependencies(status: ServiceStatus, reason: Reason, detail: str) -> Step:
    waiting = replace(
        status,
        state=State.WAITING,
        cause=reason,
        detail=detail,
        ending=None,
        pid=None,
        started_at=None,
        restart_at=None,
    )
    return waiting, (CheckDependencies(),)


def _start(status: ServiceStatus, event: StartRequested | RestartRequested, context: Context) -> Step:
    """A wish of a person closes the circuit breaker: whoever asks has a reason to expect success."""
    wanted = replace(status, desired=Desired.UP, history=NO_HISTORY, last_error=None)
    verb = "start" if isinstance(event, StartRequested) else "restart"
    return _await_dependencies(wanted, event.reason, f"{verb} requested")


def _want_up(status: ServiceStatus, event: StartRequested | RestartRequested, context: Context) -> Step:
    return replace(status, desired=Desired.UP), ()


def _start_after_stop(
    status: ServiceStatus, event: StartRequested | RestartRequested, context: Context
) -> Step:
    return replace(status, desired=Desired.UP, ending=event.reason, detail="start requested"), ()


def _stay_down(status: ServiceStatus, event: StopRequested, context: Context) -> Step:
    return replace(status, desired=Desired.DOWN), ()


def _cancel_start(status: ServiceStatus, event: StopRequested, context: Context) -> Step:
    down = replace(status, desired=Desired.DOWN, cause=event.reason, detail=event.detail, restart_at=None)
    return replace(down, state=State.STOPPED), ()


def _spawn(status: ServiceStatus, event: DependenciesMet, context: Context) -> Step:
    run_id = status.run_id + 1
    return replace(status, state=State.STARTING, run_id=run_id), (Spawn(run_id),)


def _refuse(status: ServiceStatus, event: StartRefused, context: Context) -> Step:
    return _could_not_start(status, event.message, context)


def _spawn_failed(status: ServiceStatus, event: SpawnFailed, context: Context) -> Step:
    return _could_not_start(status, event.message, context)


def _could_not_start(status: ServiceStatus, message: str, context: Context) -> Step:
    """A start that somebody asked for fails at once and says so; a restart goes on by the policy."""
    failed = replace(status, last_error=message, cause=Reason.START_FAILED, detail=message)
    if status.history.attempt == 0:
        return replace(failed, state=State.FAILED, pid=None), ()
    return _follow_policy(failed, RunEnd(ExitStatus(), 0.0, error=message), context)


def _spawned(status: ServiceStatus, event: SpawnSucceeded, context: Context) -> Step:
    detail = f"pid {event.pid}"
    running = replace(status, state=State.RUNNING, pid=event.pid, started_at=context.now, detail=detail)
    return replace(running, last_error=None), ()


def _adopted(status: ServiceStatus, event: Adopted, context: Context) -> Step:
    """A run goes on; whatever else was remembered of the service is in the status already."""
    running = replace(status, state=State.RUNNING, desired=Desired.UP, pid=event.pid, ending=None)
    return replace(running, started_at=event.started_at, detail=f"pid {event.pid} taken over"), ()


def _stop(status: ServiceStatus, event: StopRequested | RestartRequested, context: Context) -> Step:
    desired = Desired.UP if isinstance(event, RestartRequested) else Desired.DOWN
    detail = "restart requested" if isinstance(event, RestartRequested) else event.detail
    stopping = replace(
        status, state=State.STOPPING, desired=desired, cause=event.reason, ending=event.reason, detail=detail
    )
    return stopping, (SignalMain(), ArmTimer(Timer.STOP, context.spec.stop.timeout_seconds, status.run_id))


def _stop_instead(status: ServiceStatus, event: StopRequested, context: Context) -> Step:
    return replace(
        status, desired=Desired.DOWN, cause=event.reason, ending=event.reason, detail=event.detail
    ), ()


def _clear_leftovers(status: ServiceStatus, event: MainExited, context: Context) -> Step:
    """The run is over with its main process; what it left behind would run unsupervised."""
    reason = exit_reason(event.status)
    detail = f"main process ended ({event.status}); killing what it left behind"
    stopping = replace(status, state=State.STOPPING, pid=None, cause=reason, detail=detail)
    return stopping, (KillRun(),)


def _main_stopped(status: ServiceStatus, event: MainExited, context: Context) -> Step:
    return replace(status, pid=None), (SignalRest(),)


def _kill(status: ServiceStatus, event: StopTimedOut | KillRequested, context: Context) -> Step:
    return status, (KillRun(),)


def _run_ended(status: ServiceStatus, event: RunEnded, context: Context) -> Step:
    reason = status.ending or exit_reason(event.status)
    over = replace(
        status,
        pid=None,
        last_exit=LastExit(status.run_id, event.status, reason, context.now),
        cause=reason,
        detail=str(event.status),
    )
    return _after_run(over, event.status, context)


def _spawn_failed_while_stopping(status: ServiceStatus, event: SpawnFailed, context: Context) -> Step:
    return _after_run(replace(status, last_error=event.message, detail=event.message), ExitStatus(), context)


def _after_run(status: ServiceStatus, exit_status: ExitStatus, context: Context) -> Step:
    if status.desired is Desired.DOWN:
        return replace(status, state=State.STOPPED, ending=None, started_at=None), ()
    if status.ending is Reason.OPERATOR:
        fresh = replace(status, history=NO_HISTORY)
        return _await_dependencies(fresh, Reason.OPERATOR, "restart requested")
    uptime_seconds = context.now - status.started_at if status.started_at is not None else 0.0
    end = RunEnd(exit_status, uptime_seconds, forced=status.ending is not None)
    return _follow_policy(status, end, context)


def _follow_policy(status: ServiceStatus, end: RunEnd, context: Context) -> Step:
    decision = decide_restart(context.spec, status.history, end, context.now, context.jitter)
    over = replace(status, pid=None, ending=None, started_at=None, detail=decision.detail)
    match decision:
        case RestartAfter():
            restarting = replace(
                over,
                state=State.RESTARTING,
                history=decision.history,
                restarts=over.restarts + 1,
                restart_at=context.now + decision.delay_seconds,
            )
            return restarting, (ArmTimer(Timer.BACKOFF, decision.delay_seconds, status.run_id),)
        case GiveUp():
            return replace(over, state=State.FAILED, last_error=decision.detail), ()
        case Done():
            return replace(over, state=State.COMPLETED), ()


def _retry(status: ServiceStatus, event: BackoffElapsed, context: Context) -> Step:
    return _await_dependencies(status, status.cause, "backoff elapsed")


def _reset(status: ServiceStatus, event: ResetRequested, context: Context) -> Step:
    return replace(status, history=NO_HISTORY, restarts=0, last_error=None), ()


def _reset_to_stopped(status: ServiceStatus, event: ResetRequested, context: Context) -> Step:
    cleared, _ = _reset(status, event, context)
    return replace(
        cleared, state=State.STOPPED, desired=Desired.DOWN, cause=Reason.OPERATOR, detail="reset requested"
    ), ()


# ---- tables -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Transition:
    """A handler and every state it may lead to."""

    handler: Callable[..., Step]
    targets: tuple[State, ...]


_S = State
_POLICY = (_S.RESTARTING, _S.FAILED, _S.COMPLETED)
_END = (_S.STOPPED, _S.WAITING, *_POLICY)

TRANSITIONS: Final[dict[tuple[State, type[Event]], Transition]] = {
    (_S.STOPPED, StartRequested): Transition(_start, (_S.WAITING,)),
    (_S.STOPPED, RestartRequested): Transition(_start, (_S.WAITING,)),
    (_S.STOPPED, ResetRequested): Transition(_reset, (_S.STOPPED,)),
    (_S.STOPPED, StopRequested): Transition(_stay_down, (_S.STOPPED,)),
    (_S.STOPPED, Adopted): Transition(_adopted, (_S.RUNNING,)),
    (_S.WAITING, StartRequested): Transition(_want_up, (_S.WAITING,)),
    (_S.WAITING, RestartRequested): Transition(_want_up, (_S.WAITING,)),
    (_S.WAITING, StopRequested): Transition(_cancel_start, (_S.STOPPED,)),
    (_S.WAITING, ResetRequested): Transition(_reset, (_S.WAITING,)),
    (_S.WAITING, DependenciesMet): Transition(_spawn, (_S.STARTING,)),
    (_S.WAITING, StartRefused): Transition(_refuse, (_S.FAILED, _S.RESTARTING)),
    (_S.STARTING, StartRequested): Transition(_want_up, (_S.STARTING,)),
    (_S.STARTING, StopRequested): Transition(_stop, (_S.STOPPING,)),
    (_S.STARTING, RestartRequested): Transition(_stop, (_S.STOPPING,)),
    (_S.STARTING, ResetRequested): Transition(_reset, (_S.STARTING,)),
    (_S.STARTING, KillRequested): Transition(_kill, (_S.STARTING,)),
    (_S.STARTING, SpawnSucceeded): Transition(_spawned, (_S.RUNNING,)),
    (_S.STARTING, SpawnFailed): Transition(_spawn_failed, (_S.FAILED, _S.RESTARTING)),
    (_S.RUNNING, StopRequested): Transition(_stop, (_S.STOPPING,)),
    (_S.RUNNING, RestartRequested): Transition(_stop, (_S.STOPPING,)),
    (_S.RUNNING, ResetRequested): Transition(_reset, (_S.RUNNING,)),
    (_S.RUNNING, KillRequested): Transition(_kill, (_S.RUNNING,)),
    (_S.RUNNING, MainExited): Transition(_clear_leftovers, (_S.STOPPING,)),
    (_S.RUNNING, RunEnded): Transition(_run_ended, _POLICY),
    (_S.STOPPING, StartRequested): Transition(_start_after_stop, (_S.STOPPING,)),
    (_S.STOPPING, RestartRequested): Transition(_start_after_stop, (_S.STOPPING,)),
    (_S.STOPPING, StopRequested): Transition(_stop_instead, (_S.STOPPING,)),
    (_S.STOPPING, ResetRequested): Transition(_reset, (_S.STOPPING,)),
    (_S.STOPPING, KillRequested): Transition(_kill, (_S.STOPPING,)),
    (_S.STOPPING, SpawnFailed): Transition(_spawn_failed_while_stopping, _END),
    (_S.STOPPING, MainExited): Transition(_main_stopped, (_S.STOPPING,)),
    (_S.STOPPING, StopTimedOut): Transition(_kill, (_S.STOPPING,)),
    (_S.STOPPING, RunEnded): Transition(_run_ended, _END),
    (_S.RESTARTING, StartRequested): Transition(_start, (_S.WAITING,)),
    (_S.RESTARTING, RestartRequested): Transition(_start, (_S.WAITING,)),
    (_S.RESTARTING, StopRequested): Transition(_cancel_start, (_S.STOPPED,)),
    (_S.RESTARTING, ResetRequested): Transition(_reset, (_S.RESTARTING,)),
    (_S.RESTARTING, BackoffElapsed): Transition(_retry, (_S.WAITING,)),
    (_S.FAILED, StartRequested): Transition(_start, (_S.WAITING,)),
    (_S.FAILED, RestartRequested): Transition(_start, (_S.WAITING,)),
    (_S.FAILED, StopRequested): Transition(_stay_down, (_S.FAILED,)),
    (_S.FAILED, ResetRequested): Transition(_reset_to_stopped, (_S.STOPPED,)),
    (_S.COMPLETED, StartRequested): Transition(_start, (_S.WAITING,)),
    (_S.COMPLETED, RestartRequested): Transition(_start, (_S.WAITING,)),
    (_S.COMPLETED, StopRequested): Transition(_stay_down, (_S.COMPLETED,)),
    (_S.COMPLETED, ResetRequested): Transition(_reset_to_stopped, (_S.STOPPED,)),
}

_NO_RUN = "no run is live, so the event belongs to none"
_WAITS_NOT = "the service is not waiting to start"
_RUNS = "it already runs, which is what was asked for"

IGNORED: Final[dict[tuple[State, type[Event]], str]] = {
    **{
        (state, event): _NO_RUN
        for state in (_S.STOPPED, _S.WAITING, _S.RESTARTING, _S.FAILED, _S.COMPLETED)
        for event in (KillRequested, SpawnSucceeded, SpawnFailed, MainExited, RunEnded, StopTimedOut)
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
    (_S.STARTING, MainExited): "exits are reported after the outcome of the spawn",
    (_S.STARTING, RunEnded): "exits are reported after the outcome of the spawn",
    (_S.STARTING, StopTimedOut): "no stop is under way",
    (_S.RUNNING, SpawnSucceeded): "reported once a run",
    (_S.RUNNING, SpawnFailed): "the run has begun",
    (_S.RUNNING, StopTimedOut): "no stop is under way",
    (_S.STOPPING, SpawnSucceeded): "the stop is already under way",
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
    if isinstance(event, ResetRequested):
        return (Announce("reset", before.state, after.state, reason, "reset requested", after.run_id),)
    return ()
