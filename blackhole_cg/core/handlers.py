"""What each event does to a service: the handlers that the tables of the state machine name.

Every handler takes a status, an event and the context, and returns the new status with what is to be done.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from blackhole_cg.core.events import (
    Adopted,
    ArmTimer,
    BackoffElapsed,
    Broken,
    CheckDependencies,
    DependenciesMet,
    Effect,
    EndsItself,
    HealthReported,
    KillRequested,
    KillRun,
    MainChanged,
    MainExited,
    NeverBegan,
    Ready,
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
    StartTimedOut,
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
    RunEnd,
    decide_restart,
    exit_reason,
)
from blackhole_cg.core.spec import ServiceSpec
from blackhole_cg.core.status import LastExit, ServiceStatus
from blackhole_cg.core.words import Desired, Reason, ServiceType, State


@dataclass(frozen=True, slots=True)
class Context:
    """What a decision depends on beside the status. `jitter` is a uniform draw from -1.0 to 1.0."""

    spec: ServiceSpec
    now: float
    jitter: float = 0.0


Step = tuple[ServiceStatus, tuple[Effect, ...]]


def await_dependencies(status: ServiceStatus, reason: Reason, detail: str) -> Step:
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


def start(status: ServiceStatus, event: StartRequested | RestartRequested, context: Context) -> Step:
    """A wish of a person closes the circuit breaker: whoever asks has a reason to expect success."""
    wanted = replace(status, desired=Desired.UP, history=NO_HISTORY, last_error=None, replaces=False)
    verb = "start" if isinstance(event, StartRequested) else "restart"
    return await_dependencies(wanted, event.reason, f"{verb} requested")


def want_up(status: ServiceStatus, event: StartRequested | RestartRequested, context: Context) -> Step:
    return replace(status, desired=Desired.UP), ()


def start_after_stop(
    status: ServiceStatus, event: StartRequested | RestartRequested, context: Context
) -> Step:
    return replace(status, desired=Desired.UP, ending=event.reason, detail="start requested"), ()


def stay_down(status: ServiceStatus, event: StopRequested, context: Context) -> Step:
    return replace(status, desired=Desired.DOWN), ()


def cancel_start(status: ServiceStatus, event: StopRequested, context: Context) -> Step:
    down = replace(status, desired=Desired.DOWN, cause=event.reason, detail=event.detail, restart_at=None)
    return replace(down, state=State.STOPPED, replaces=False), ()


def spawn(status: ServiceStatus, event: DependenciesMet, context: Context) -> Step:
    run_id = status.run_id + 1
    return replace(status, state=State.STARTING, run_id=run_id), (Spawn(run_id),)


def refuse(status: ServiceStatus, event: StartRefused, context: Context) -> Step:
    return could_not_start(status, event.message, context)


def spawn_failed(status: ServiceStatus, event: SpawnFailed, context: Context) -> Step:
    return could_not_start(status, event.message, context, passing=event.passing)


def could_not_start(status: ServiceStatus, message: str, context: Context, passing: bool = False) -> Step:
    """A start that somebody asked for fails at once and says so; a restart goes on by the policy.

    So does one that somebody asked for where the cause may pass: the service ran, and is missed.
    """
    failed = replace(status, last_error=message, cause=Reason.START_FAILED, detail=message)
    if status.history.attempt == 0 and not (status.replaces and passing):
        return replace(failed, state=State.FAILED, pid=None), ()
    return follow_policy(failed, RunEnd(ExitStatus(), 0.0, error=message), context)


def begin_again(status: ServiceStatus, event: NeverBegan, context: Context) -> Step:
    return await_dependencies(status, status.cause, "the supervisor ended before the run began")


def spawned(status: ServiceStatus, event: SpawnSucceeded, context: Context) -> Step:
    detail = f"pid {event.pid}"
    begun = replace(
        status, pid=event.pid, started_at=context.now, detail=detail, last_error=None, replaces=False
    )
    if context.spec.type is ServiceType.NOTIFY:
        timer = ArmTimer(Timer.START, context.spec.start_timeout_seconds, status.run_id)
        return replace(begun, detail=f"{detail}, not ready yet"), (timer,)
    return replace(begun, state=State.RUNNING), ()


def ready(status: ServiceStatus, event: Ready, context: Context) -> Step:
    detail = f"pid {status.pid} is ready" + (f": {event.detail}" if event.detail else "")
    return replace(status, state=State.RUNNING, detail=detail), ()


def main_changed(status: ServiceStatus, event: MainChanged, context: Context) -> Step:
    return replace(status, pid=event.pid), ()


def ends_itself(status: ServiceStatus, event: EndsItself, context: Context) -> Step:
    """It has as long as for a stop; its exit status decides what follows, as of any end of its own."""
    detail = "it says that it is stopping"
    stopping = replace(status, state=State.STOPPING, cause=Reason.EXITED, detail=detail)
    return stopping, (ArmTimer(Timer.STOP, context.spec.stop.timeout_seconds, status.run_id),)


def start_timed_out(status: ServiceStatus, event: StartTimedOut, context: Context) -> Step:
    detail = f"not ready within {context.spec.start_timeout_seconds:g}s"
    return broken(status, Broken(status.run_id, Reason.START_FAILED, detail), context)


def note_health(status: ServiceStatus, event: HealthReported, context: Context) -> Step:
    return replace(status, health=event.health), ()


def broken(status: ServiceStatus, event: Broken, context: Context) -> Step:
    """It ends as by a stop, but stays wanted; the end is a failure, whatever its exit status says."""
    grace_seconds = context.spec.stop.timeout_seconds if event.grace_seconds is None else event.grace_seconds
    stopping = replace(
        status, state=State.STOPPING, cause=event.reason, ending=event.reason, detail=event.detail
    )
    return stopping, (SignalMain(), ArmTimer(Timer.STOP, grace_seconds, status.run_id))


def adopted(status: ServiceStatus, event: Adopted, context: Context) -> Step:
    """A run goes on, or goes on being ended: in one step, or a crash amid two would forget the wish."""
    held = replace(status, pid=event.pid, started_at=event.started_at)
    if status.ending is None:
        detail = f"pid {event.pid} taken over"
        return replace(held, state=State.RUNNING, desired=Desired.UP, detail=detail), ()
    timer = ArmTimer(Timer.STOP, context.spec.stop.timeout_seconds, status.run_id)
    return replace(held, state=State.STOPPING), (SignalMain(), timer)


def stop(status: ServiceStatus, event: StopRequested | RestartRequested, context: Context) -> Step:
    desired = Desired.UP if isinstance(event, RestartRequested) else Desired.DOWN
    detail = "restart requested" if isinstance(event, RestartRequested) else event.detail
    stopping = replace(
        status, state=State.STOPPING, desired=desired, cause=event.reason, ending=event.reason, detail=detail
    )
    return stopping, (SignalMain(), ArmTimer(Timer.STOP, context.spec.stop.timeout_seconds, status.run_id))


def stop_instead(status: ServiceStatus, event: StopRequested, context: Context) -> Step:
    return replace(
        status, desired=Desired.DOWN, cause=event.reason, ending=event.reason, detail=event.detail
    ), ()


def clear_leftovers(status: ServiceStatus, event: MainExited, context: Context) -> Step:
    """The run is over with its main process; what it left behind would run unsupervised."""
    reason = exit_reason(event.status)
    detail = f"main process ended ({event.status}); killing what it left behind"
    stopping = replace(status, state=State.STOPPING, pid=None, cause=reason, detail=detail)
    return stopping, (KillRun(),)


def main_stopped(status: ServiceStatus, event: MainExited, context: Context) -> Step:
    return replace(status, pid=None), (SignalRest(),)


def kill(status: ServiceStatus, event: StopTimedOut | KillRequested, context: Context) -> Step:
    return status, (KillRun(),)


def run_ended(status: ServiceStatus, event: RunEnded, context: Context) -> Step:
    reason = status.ending or exit_reason(event.status)
    over = replace(
        status,
        pid=None,
        last_exit=LastExit(status.run_id, event.status, reason, context.now),
        cause=reason,
        detail=str(event.status),
    )
    return after_run(over, event.status, status.detail, context)


def spawn_failed_while_stopping(status: ServiceStatus, event: SpawnFailed, context: Context) -> Step:
    failed = replace(status, last_error=event.message, detail=event.message)
    return after_run(failed, ExitStatus(), event.message, context)


def after_run(status: ServiceStatus, exit_status: ExitStatus, why: str, context: Context) -> Step:
    """What follows a run; `why` is what it was ended for, if it was."""
    if status.desired is Desired.DOWN:
        return replace(status, state=State.STOPPED, ending=None, started_at=None, replaces=False), ()
    if status.ending is Reason.OPERATOR:
        had_begun = status.started_at is not None
        fresh = replace(status, history=NO_HISTORY, replaces=had_begun or status.replaces)
        return await_dependencies(fresh, Reason.OPERATOR, "restart requested")
    uptime_seconds = context.now - status.started_at if status.started_at is not None else 0.0
    end = RunEnd(exit_status, uptime_seconds, forced=why if status.ending is not None else None)
    return follow_policy(status, end, context)


def follow_policy(status: ServiceStatus, end: RunEnd, context: Context) -> Step:
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


def retry(status: ServiceStatus, event: BackoffElapsed, context: Context) -> Step:
    return await_dependencies(status, status.cause, "backoff elapsed")


def reset(status: ServiceStatus, event: ResetRequested, context: Context) -> Step:
    return replace(status, history=NO_HISTORY, restarts=0, last_error=None), ()


def reset_to_stopped(status: ServiceStatus, event: ResetRequested, context: Context) -> Step:
    cleared, _ = reset(status, event, context)
    return replace(
        cleared, state=State.STOPPED, desired=Desired.DOWN, cause=Reason.OPERATOR, detail="reset requested"
    ), ()
