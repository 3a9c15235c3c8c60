"""Asks the probes of one run on the event loop, and passes on what follows from the answers.

Decides nothing: `core.probing` does. Keeps what is known of each probe for whoever wants to see it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Protocol

from blackhole_cg.core.loglines import render_time
from blackhole_cg.core.probe_spec import Answer, ProbeKind, ProbesSpec, Target
from blackhole_cg.core.probing import Ask, Died, HealthChanged, Order, ask_due, begin, next_due, take_answer
from blackhole_cg.core.words import Health

_log = logging.getLogger(__name__)


class Clock(Protocol):
    """Time and dice, as the runner has them."""

    @property
    def now(self) -> Callable[[], float]:
        """Monotonic seconds."""

    @property
    def wall(self) -> Callable[[], datetime]:
        """For display only."""

    @property
    def jitter(self) -> Callable[[], float]:
        """A uniform draw from -1 to 1."""


@dataclass(frozen=True, slots=True)
class ProbeFacts:
    """What is known of one probe; None is not known yet."""

    kind: ProbeKind
    type: str
    ok: bool | None = None  # the last answer
    failures: int = 0  # in a row
    last_at_wall: str | None = None
    last_message: str | None = None
    latency_seconds: float | None = None

    def to_json(self) -> dict[str, Any]:
        """The object `health --json` shows."""
        return {name: getattr(self, name) for name in self.__slots__}


@dataclass(frozen=True, slots=True)
class Outcome:
    """Who is told what follows from the answers. After `on_dead` nothing more is told, or asked."""

    on_health: Callable[[Health, str], None]
    on_dead: Callable[[Died], None]


class Prober:
    """The probes of one run, from `start` to `close`.

    Args:
        name: the service's, for the log.
        spec: the probes.
        ask: asks one question; see `ask.Asker`.
        clock: time and dice.
        outcome: who is told.
    """

    def __init__(
        self,
        name: str,
        spec: ProbesSpec,
        ask: Callable[[Target, float], Awaitable[Answer]],
        clock: Clock,
        outcome: Outcome,
    ) -> None:
        self._name = name
        self._spec = spec
        self._ask = ask
        self._clock = clock
        self._outcome = outcome
        self._state = begin(ProbesSpec(), 0.0, 0.0)
        self._facts = {kind: ProbeFacts(kind, probe.target.type) for kind, probe in spec.items()}
        self._timer: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_open = False

    @property
    def health(self) -> Health:
        """What the probes say now."""
        return self._state.health

    def facts(self) -> tuple[ProbeFacts, ...]:
        """Every probe, in the order startup, readiness, liveness."""
        return tuple(self._facts.values())

    def start(self, *, has_started: bool = False) -> None:
        """Begin to ask; `has_started` for a run that was taken over after its start."""
        spread = (self._clock.jitter() + 1.0) / 2.0
        self._state = begin(self._spec, self._clock.now(), spread, has_started=has_started)
        self._is_open = True
        if self._state.health is not Health.UNKNOWN:
            self._outcome.on_health(self._state.health, "it had started before")
        self._ask_due()

    def close(self) -> None:
        """Ask no more, and let go of the questions that are not answered yet. May be called again."""
        self._is_open = False
        self._cancel_timer()
        for task in tuple(self._tasks):
            task.cancel()

    def _ask_due(self) -> None:
        if not self._is_open:
            return
        self._state, orders = ask_due(self._state, self._clock.now())
        for order in orders:
            self._perform(order)
        self._arm()

    def _arm(self) -> None:
        self._cancel_timer()
        due_at = next_due(self._state)
        if due_at is not None and self._is_open:
            delay_seconds = max(0.0, due_at - self._clock.now())
            self._timer = asyncio.get_running_loop().call_later(delay_seconds, self._ask_due)

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _perform(self, order: Order) -> None:
        match order:
            case Ask(kind):
                name = f"{kind} probe of {self._name}"
                task = asyncio.get_running_loop().create_task(self._ask_once(kind), name=name)
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
            case HealthChanged(health, message):
                self._outcome.on_health(health, message)
            case Died():
                self._outcome.on_dead(order)

    async def _ask_once(self, kind: ProbeKind) -> None:
        probe = self._spec.get(kind)
        assert probe is not None
        try:
            answer = await self._ask(probe.target, probe.timeout_seconds)
        except Exception as error:  # a bug of ours must not leave the probe unanswered for ever
            _log.exception("%s: %s probe: internal error", self._name, kind, extra={"service": self._name})
            answer = Answer(False, f"internal error: {error!r}")
        if self._is_open:
            self._take(kind, answer)

    def _take(self, kind: ProbeKind, answer: Answer) -> None:
        self._state, orders = take_answer(self._state, self._spec, kind, answer, self._clock.now())
        self._facts[kind] = replace(
            self._facts[kind],
            ok=answer.ok,
            failures=self._state.probes[kind].failures,
            last_at_wall=render_time(self._clock.wall()),
            last_message=answer.message,
            latency_seconds=answer.latency_seconds,
        )
        for order in orders:
            if self._is_open:  # whoever was told just now may have closed us
                self._perform(order)
        self._arm()
