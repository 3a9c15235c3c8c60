"""The words of the state machine: events are facts that go in, effects are orders that come out.

An event that belongs to a run carries its `run_id`.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final, get_args

from blackhole_cg.core.facts import ExitStatus
from blackhole_cg.core.words import Health, Reason

# ---- events: facts in -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class StartRequested:
    """Somebody wants the service up."""

    reason: Reason = Reason.OPERATOR


@dataclass(frozen=True, slots=True)
class StopRequested:
    """Somebody wants the service down."""

    reason: Reason = Reason.OPERATOR
    detail: str = "stop requested"


@dataclass(frozen=True, slots=True)
class RestartRequested:
    """Somebody wants a new run."""

    reason: Reason = Reason.OPERATOR


@dataclass(frozen=True, slots=True)
class ResetRequested:
    """Somebody wants the failure and the restart history forgotten."""


@dataclass(frozen=True, slots=True)
class KillRequested:
    """There is no more time for a polite end."""


@dataclass(frozen=True, slots=True)
class DependenciesMet:
    """Everything the service depends on has reached its condition."""


@dataclass(frozen=True, slots=True)
class StartRefused:
    """The service may not start now, whatever it depends on."""

    message: str


@dataclass(frozen=True, slots=True)
class SpawnSucceeded:
    """The main process has reached exec."""

    run_id: int
    pid: int


@dataclass(frozen=True, slots=True)
class SpawnFailed:
    """A step before exec failed; nothing of the run is left. `passing`: the cause may be gone in a moment."""

    run_id: int
    message: str
    passing: bool = False


@dataclass(frozen=True, slots=True)
class NeverBegan:
    """The supervisor ended before it let the run begin; nothing of the run is left."""

    run_id: int


@dataclass(frozen=True, slots=True)
class MainExited:
    """The main process has ended and others of its run live on."""

    run_id: int
    status: ExitStatus


@dataclass(frozen=True, slots=True)
class RunEnded:
    """No process of the run is left, and its cgroup is gone."""

    run_id: int
    status: ExitStatus


@dataclass(frozen=True, slots=True)
class StopTimedOut:
    """The run has had its time to end politely."""

    run_id: int


@dataclass(frozen=True, slots=True)
class BackoffElapsed:
    """The delay before an automatic restart is over."""

    run_id: int


@dataclass(frozen=True, slots=True)
class Ready:
    """The run says that it has started: what a service of type notify is waited for."""

    run_id: int
    detail: str = ""


@dataclass(frozen=True, slots=True)
class MainChanged:
    """The run goes on with another main process."""

    run_id: int
    pid: int


@dataclass(frozen=True, slots=True)
class EndsItself:
    """The run says that it is on its way to its end, which nobody here asked it for."""

    run_id: int


@dataclass(frozen=True, slots=True)
class StartTimedOut:
    """The run has had its time to say that it has started."""

    run_id: int


@dataclass(frozen=True, slots=True)
class HealthReported:
    """What the probes say of the run is something else than before."""

    run_id: int
    health: Health
    detail: str


@dataclass(frozen=True, slots=True)
class Broken:
    """The run lives and is no good: it is to be ended, and its policy decides what follows.

    `grace_seconds` is how long its stop may take; None: as long as any stop.
    """

    run_id: int
    reason: Reason
    detail: str
    grace_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Adopted:
    """A run that an earlier supervisor began is ours now. `started_at` is monotonic seconds."""

    run_id: int
    pid: int
    started_at: float


Event = (
    StartRequested
    | StopRequested
    | RestartRequested
    | ResetRequested
    | KillRequested
    | DependenciesMet
    | StartRefused
    | SpawnSucceeded
    | SpawnFailed
    | NeverBegan
    | MainExited
    | RunEnded
    | StopTimedOut
    | BackoffElapsed
    | Ready
    | MainChanged
    | EndsItself
    | StartTimedOut
    | HealthReported
    | Broken
    | Adopted
)
EVENTS: Final[tuple[type[Event], ...]] = get_args(Event)

# ---- effects: orders out ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class CheckDependencies:
    """Find out whether the service may start, and answer with DependenciesMet or StartRefused."""


@dataclass(frozen=True, slots=True)
class Spawn:
    """Begin run `run_id`."""

    run_id: int


@dataclass(frozen=True, slots=True)
class SignalMain:
    """Ask the main process to end, by the service's stop signal."""


@dataclass(frozen=True, slots=True)
class SignalRest:
    """Ask what the main process left behind to end, by the service's stop signal."""


@dataclass(frozen=True, slots=True)
class KillRun:
    """Kill every process of the run."""


class Timer(StrEnum):
    """The timers a service can have, one of each at most."""

    START = "start"
    STOP = "stop"
    BACKOFF = "backoff"


@dataclass(frozen=True, slots=True)
class ArmTimer:
    """Send StartTimedOut, StopTimedOut or BackoffElapsed for `run_id` after `delay_seconds`."""

    timer: Timer
    delay_seconds: float
    run_id: int


@dataclass(frozen=True, slots=True)
class Announce:
    """Store what happened. `kind` is "state", "desired", "health" or "reset"."""

    kind: str
    before: str
    after: str
    reason: Reason
    detail: str
    run_id: int


Effect = CheckDependencies | Spawn | SignalMain | SignalRest | KillRun | ArmTimer | Announce
