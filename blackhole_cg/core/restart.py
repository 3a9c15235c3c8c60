"""Whether a run that ended is followed by another, and when.

Owns the restart policy's arithmetic: sliding window, exponential backoff, jitter, circuit breaker.
Takes time and jitter as arguments, so that every decision can be repeated.
"""

from __future__ import annotations

import signal
from dataclasses import dataclass
from typing import Final

from blackhole_cg.core.facts import ExitStatus
from blackhole_cg.core.spec import RestartPolicy, ServiceSpec
from blackhole_cg.core.words import MAX, Reason, RestartWhen, ServiceType

CLEAN_SIGNALS: Final = frozenset({signal.SIGHUP, signal.SIGINT, signal.SIGTERM, signal.SIGPIPE})
"""Death by one of these is a polite end, not a failure. Source: systemd.service(5), SuccessExitStatus=."""


@dataclass(frozen=True, slots=True)
class RestartHistory:
    """What earlier restarts leave for the next decision.

    `restarted_at` holds monotonic seconds of automatic restarts, oldest first; `attempt` counts those
    in a row without a healthy run between them, and is 0 for a run that somebody asked for.
    """

    restarted_at: tuple[float, ...] = ()
    attempt: int = 0


NO_HISTORY: Final = RestartHistory()


@dataclass(frozen=True, slots=True)
class RunEnd:
    """How a run ended that nobody asked to end.

    `forced` says why the supervisor ended it, so that its exit status proves nothing; `error` says why it
    never began.
    """

    status: ExitStatus
    uptime_seconds: float
    forced: str | None = None
    error: str | None = None

    def __str__(self) -> str:
        return self.error or self.forced or str(self.status)

    @property
    def clean(self) -> bool:
        """Whether the run ended in success."""
        return self.error is None and self.forced is None and is_clean(self.status)


@dataclass(frozen=True, slots=True)
class RestartAfter:
    """Start again after a delay."""

    delay_seconds: float
    history: RestartHistory
    detail: str


@dataclass(frozen=True, slots=True)
class GiveUp:
    """Do not start again: the run failed and the policy, or the circuit breaker, says stop."""

    detail: str


@dataclass(frozen=True, slots=True)
class Done:
    """Do not start again: the service has done what it was to do."""

    detail: str


RestartDecision = RestartAfter | GiveUp | Done


def is_clean(status: ExitStatus) -> bool:
    """Whether an exit counts as success."""
    return not status.oom_killed and (status.code == 0 or status.signal in CLEAN_SIGNALS)


def exit_reason(status: ExitStatus) -> Reason:
    """The word for an exit that nobody asked for."""
    if status.oom_killed:
        return Reason.OOM
    if status.signal is not None:
        return Reason.SIGNALLED
    return Reason.EXITED if status.code is not None else Reason.UNKNOWN


def backoff_delay_seconds(policy: RestartPolicy, attempt: int, jitter: float) -> float:
    """Delay before automatic restart number `attempt`, which counts from 0.

    Args:
        policy: gives first delay, factor, cap and the width of the jitter.
        attempt: restarts in a row before this one.
        jitter: a uniform draw from -1.0 to 1.0.
    """
    try:
        delay_seconds = policy.initial_delay_seconds * policy.backoff_factor**attempt
    except OverflowError:
        delay_seconds = policy.max_delay_seconds
    return min(delay_seconds, policy.max_delay_seconds) * (1.0 + policy.jitter * jitter)


def still_counting(
    policy: RestartPolicy, history: RestartHistory, uptime_seconds: float, now: float
) -> RestartHistory:
    """What of the history counts for a run that ends now, after being up for so long."""
    if uptime_seconds >= policy.reset_after_seconds:
        return NO_HISTORY
    recent = tuple(at for at in history.restarted_at if now - at < policy.window_seconds)
    return RestartHistory(recent, history.attempt)


def decide_restart(
    spec: ServiceSpec, history: RestartHistory, end: RunEnd, now: float, jitter: float
) -> RestartDecision:
    """Decide what follows a run that nobody asked to end.

    Args:
        spec: gives the policy, and the type: a oneshot that succeeds is done, whatever the policy.
        history: what earlier decisions left behind.
        end: how the run ended.
        now: monotonic seconds.
        jitter: a uniform draw from -1.0 to 1.0.
    """
    policy = spec.restart
    if end.clean and (spec.type is ServiceType.ONESHOT or policy.when is not RestartWhen.ALWAYS):
        return Done(str(end))
    if policy.when is RestartWhen.NEVER:
        return GiveUp(f"{end}; restart policy is never")
    history = still_counting(policy, history, end.uptime_seconds, now)
    recent = history.restarted_at
    if policy.max_restarts != MAX and len(recent) >= policy.max_restarts:
        window = f"{policy.window_seconds:g}s"
        return GiveUp(f"{end}; gave up after {len(recent)} restarts within {window}")
    delay_seconds = backoff_delay_seconds(policy, history.attempt, jitter)
    bound = "" if policy.max_restarts == MAX else f" of {policy.max_restarts}"
    return RestartAfter(
        delay_seconds,
        RestartHistory(_bounded((*recent, now), policy), history.attempt + 1),
        f"{end}; restart {len(recent) + 1}{bound} in {delay_seconds:.2f}s",
    )


def _bounded(restarted_at: tuple[float, ...], policy: RestartPolicy) -> tuple[float, ...]:
    """Keep no more times than the decision needs, so that an unlimited policy does not grow for ever."""
    keep = 1 if policy.max_restarts == MAX else policy.max_restarts
    return restarted_at[-keep:] if keep else ()
