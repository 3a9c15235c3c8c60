"""The probes of one run: which is due when, what the answers add up to, and what follows from that.

Three orders come out: ask a probe now; the health has changed; the run has died and is to be restarted. The
startup probe is alone until it has succeeded, and readiness and liveness count their delays from then.

`now` is monotonic seconds. A probe that fails while this process itself was held up (stopped, starved, on a
paused machine) proves nothing about the service: see `LATE_SECONDS`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from blackhole_cg.core.probe_spec import Answer, ProbeKind, ProbeSpec, ProbesSpec
from blackhole_cg.core.words import MAX, Health

LATE_SECONDS: Final = 1.0
"""How late our own timers may be. A failure measured across a longer gap is dropped, and the question asked
again at once; but never two in a row, or a busy host would hide a dead service for ever."""


@dataclass(frozen=True, slots=True)
class ProbeState:
    """Where one probe is. Exactly one of `due_at` and `asked_at` is set while it is enabled."""

    due_at: float | None = None
    asked_at: float | None = None
    successes: int = 0  # in a row
    failures: int = 0  # in a row
    passing: bool | None = None  # what the thresholds say; None: nothing yet
    is_repeat: bool = False  # the last failure was dropped


@dataclass(frozen=True, slots=True)
class ProbingState:
    """Where the probes of a run are. `spread` is from 0 to 1: where in its first period a probe begins."""

    probes: Mapping[ProbeKind, ProbeState] = field(default_factory=dict)
    health: Health = Health.UNKNOWN
    began_at: float = 0.0
    spread: float = 0.0
    dead: bool = False


@dataclass(frozen=True, slots=True)
class Ask:
    """Ask this probe's question now, and answer with `take_answer`."""

    kind: ProbeKind


@dataclass(frozen=True, slots=True)
class HealthChanged:
    """The health of the service is another one."""

    health: Health
    message: str


@dataclass(frozen=True, slots=True)
class Died:
    """The run has failed. `grace_seconds` is how long its stop may take; None: as long as any stop."""

    kind: ProbeKind
    message: str
    grace_seconds: float | None


_AFTER_START: Final = (ProbeKind.READINESS, ProbeKind.LIVENESS)
_WORDS: Final = {None: Health.UNKNOWN, True: Health.HEALTHY, False: Health.UNHEALTHY}

Order = Ask | HealthChanged | Died
Step = tuple[ProbingState, tuple[Order, ...]]


def begin(spec: ProbesSpec, now: float, spread: float, *, has_started: bool = False) -> ProbingState:
    """The state at the beginning of a run.

    Args:
        spec: the probes.
        now: monotonic seconds.
        spread: a uniform draw from 0 to 1, so that the probes of many services do not all fall together.
        has_started: the run was taken over and its startup probe has succeeded before.
    """
    probes = dict.fromkeys((kind for kind, _ in spec.items()), ProbeState())
    state = ProbingState(probes, began_at=now, spread=spread)
    if spec.startup is not None and not has_started:
        return _enable(state, spec, now, (ProbeKind.STARTUP,))
    if spec.startup is not None:
        state = _with(state, ProbeKind.STARTUP, ProbeState(passing=True))
    state = _enable(state, spec, now, _AFTER_START, spread_all=has_started)
    return replace(state, health=_health(state))


def next_due(state: ProbingState) -> float | None:
    """When the next question is due; None while all that may be asked have been."""
    due = [probe.due_at for probe in state.probes.values() if probe.due_at is not None]
    return min(due, default=None)


def ask_due(state: ProbingState, now: float) -> Step:
    """Ask everything that is due."""
    orders: list[Order] = []
    for kind, probe in state.probes.items():
        if probe.due_at is None or probe.due_at > now:
            continue
        late_seconds = now - probe.due_at
        if late_seconds > LATE_SECONDS:  # the time that we slept through is none the service had
            state = replace(state, began_at=state.began_at + late_seconds)
        state = _with(state, kind, replace(probe, due_at=None, asked_at=now))
        orders.append(Ask(kind))
    return state, tuple(orders)


def take_answer(state: ProbingState, spec: ProbesSpec, kind: ProbeKind, answer: Answer, now: float) -> Step:
    """Count an answer, and say what follows; one that nobody waits for changes nothing."""
    probe, own = state.probes.get(kind), spec.get(kind)
    if state.dead or probe is None or own is None or probe.asked_at is None:
        return state, ()
    held_up_seconds = now - probe.asked_at - own.timeout_seconds
    if not answer.ok and held_up_seconds > LATE_SECONDS and not probe.is_repeat:
        state = replace(state, began_at=state.began_at + held_up_seconds)
        return _with(state, kind, replace(probe, due_at=now, asked_at=None, is_repeat=True)), ()
    probe = _counted(probe, own, answer.ok, now)
    state = _with(state, kind, probe)
    failure = "" if answer.ok else _failed(kind, probe, answer)
    if _is_final(state, kind, own, answer, now):
        return _die(state, kind, own, failure)
    if kind is ProbeKind.STARTUP and probe.passing:
        state = _with(state, kind, replace(probe, due_at=None))
        state = _enable(state, spec, now, _AFTER_START)
    return _note_health(state, failure or answer.message)


def _is_final(state: ProbingState, kind: ProbeKind, own: ProbeSpec, answer: Answer, now: float) -> bool:
    """Whether the run is over with this answer."""
    if answer.ok or kind is ProbeKind.READINESS:
        return False
    bound_seconds = own.give_up_after_seconds
    is_out_of_time = bound_seconds is not None and now - state.began_at >= bound_seconds
    return state.probes[kind].passing is False or is_out_of_time


def _enable(
    state: ProbingState,
    spec: ProbesSpec,
    now: float,
    kinds: tuple[ProbeKind, ...],
    *,
    spread_all: bool = False,
) -> ProbingState:
    """Give each of these probes its first due time.

    Whoever waits for a start is not kept waiting: only what nobody waits for begins at a random point of its
    first period.
    """
    for kind in kinds:
        own = spec.get(kind)
        if own is None:
            continue
        is_awaited = kind is not ProbeKind.LIVENESS or not (spec.startup or spec.readiness)
        spread_seconds = state.spread * own.period_seconds if spread_all or not is_awaited else 0.0
        due_at = now + own.initial_delay_seconds + spread_seconds
        state = _with(state, kind, ProbeState(due_at=due_at))
    return state


def _counted(probe: ProbeState, own: ProbeSpec, ok: bool, now: float) -> ProbeState:
    """The probe after one more answer; a question that took longer than the period is followed at once."""
    assert probe.asked_at is not None
    successes, failures = (probe.successes + 1, 0) if ok else (0, probe.failures + 1)
    passing = probe.passing
    if ok and successes >= own.success_threshold:
        passing = True
    elif not ok and own.failure_threshold != MAX and failures >= own.failure_threshold:
        passing = False
    due_at = max(now, probe.asked_at + own.period_seconds)
    return ProbeState(due_at, None, successes, failures, passing)


def _failed(kind: ProbeKind, probe: ProbeState, answer: Answer) -> str:
    times = "" if probe.failures == 1 else f" {probe.failures} times in a row"
    return f"{kind} probe failed{times}: {answer.message}"


def _die(state: ProbingState, kind: ProbeKind, own: ProbeSpec, message: str) -> Step:
    """Nothing is asked any more: the run is to end."""
    silent = {each: replace(probe, due_at=None, asked_at=None) for each, probe in state.probes.items()}
    changed = () if state.health is Health.UNHEALTHY else (HealthChanged(Health.UNHEALTHY, message),)
    dead = replace(state, probes=silent, health=Health.UNHEALTHY, dead=True)
    return dead, (*changed, Died(kind, message, own.grace_seconds))


def _note_health(state: ProbingState, message: str) -> Step:
    health = _health(state)
    if health is state.health:
        return state, ()
    return replace(state, health=health), (HealthChanged(health, message),)


def _health(state: ProbingState) -> Health:
    """Of a run that is not dead: what readiness says; without it, that the run has started, or else lives.

    That a run which was taken over had started says nothing about today, if there is a liveness probe to ask.
    """
    readiness, startup, liveness = (
        state.probes.get(kind) for kind in (ProbeKind.READINESS, ProbeKind.STARTUP, ProbeKind.LIVENESS)
    )
    if readiness is not None:
        return _WORDS[readiness.passing]
    if startup is not None and (startup.successes or liveness is None):
        return _WORDS[startup.passing]
    return Health.UNKNOWN if liveness is None else _WORDS[liveness.passing]


def _with(state: ProbingState, kind: ProbeKind, probe: ProbeState) -> ProbingState:
    return replace(state, probes={**state.probes, kind: probe})
