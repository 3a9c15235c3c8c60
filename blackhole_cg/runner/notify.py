"""What one service says of itself, run after run: feeds the state machine, and guards the watchdog."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

from blackhole_cg.core.events import Broken, EndsItself, Event, MainChanged, Ready
from blackhole_cg.core.notify import Message, Phase, Watchdog, fed, judge_silence, parse_message
from blackhole_cg.core.words import Reason
from blackhole_cg.runner.clock import Clock
from blackhole_cg.runner.host import Run


@dataclass(frozen=True, slots=True)
class Hearers:
    """Who is told what: the state machine; the timers of start and stop; whoever remembers the run."""

    post: Callable[[Event], None]
    extend: Callable[[float], None]  # by seconds from now
    remember: Callable[[], None]  # its main process or its watchdog is another one


class NotifyWatch:
    """Hears at most one run at a time; what the last one said is kept until the next.

    Args:
        clock: the time.
        hearers: who is told.
    """

    def __init__(self, clock: Clock, hearers: Hearers) -> None:
        self._clock = clock
        self._hearers = hearers
        self._text: str | None = None
        self._is_reloading = False
        self._watchdog: Watchdog | None = None
        self._is_guarding = False
        self._timer: asyncio.TimerHandle | None = None

    @property
    def status_text(self) -> str | None:
        """What the service says of its state; None when it says nothing."""
        if self._is_reloading:
            return f"reloading: {self._text}" if self._text else "reloading"
        return self._text or None

    @property
    def watchdog_seconds(self) -> float | None:
        """How long the run may be silent; None for as long as it likes."""
        return self._watchdog.period_seconds if self._watchdog else None

    def begin(self, watchdog_seconds: float | None) -> None:
        """Forget the last run: another one begins, which may be silent for so long once it is guarded."""
        self.end()
        self._text, self._is_reloading = None, False
        self._set_watchdog(watchdog_seconds)

    def hear(self, run: Run, run_id: int) -> None:
        """Hear the run from now on, what it has said already included."""
        run.listen(partial(self._take, run, run_id))

    def guard(self, run_id: int, *, at_once: bool) -> None:
        """From now on the run must give signs of life.

        at_once: as from now; otherwise from the first one on, for a run that may have nobody to talk to: a
        program that keeps its socket connected does not find ours again after a take-over.
        """
        self._is_guarding = True
        if self._watchdog is not None and at_once:
            self._watchdog = fed(self._watchdog, self._clock.now())
        self._arm(run_id)

    def end(self) -> None:
        """Wait for no signs of life any more."""
        self._is_guarding = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _take(self, run: Run, run_id: int, datagram: bytes) -> None:
        message = parse_message(datagram)
        if message.main_pid is not None and run.follow(message.main_pid):
            self._hearers.post(MainChanged(run_id, message.main_pid))
            self._hearers.remember()
        if message.extend_seconds is not None:
            self._hearers.extend(message.extend_seconds)
        if message.status is not None:
            self._text = message.status
        if message.phase is not None:
            self._enter(run_id, message.phase, message.status or "")
        self._feed(run_id, message)

    def _enter(self, run_id: int, phase: Phase, text: str) -> None:
        self._is_reloading = phase is Phase.RELOADING
        if phase is Phase.READY:
            self._hearers.post(Ready(run_id, text))
        elif phase is Phase.STOPPING:
            self._hearers.post(EndsItself(run_id))

    def _feed(self, run_id: int, message: Message) -> None:
        seconds = message.watchdog_seconds
        if seconds is not None and (seconds or None) != self.watchdog_seconds:
            self._set_watchdog(seconds)
            self._hearers.remember()
        if message.broken:
            self._hearers.post(
                Broken(run_id, Reason.WATCHDOG, "it says that it is broken (WATCHDOG=trigger)")
            )
        is_sign = message.alive or message.watchdog_seconds is not None
        if is_sign and self._is_guarding and self._watchdog is not None:
            self._watchdog = fed(self._watchdog, self._clock.now())
            if self._timer is None or message.watchdog_seconds is not None:
                self._arm(run_id)

    def _set_watchdog(self, period_seconds: float | None) -> None:
        self._watchdog = Watchdog(period_seconds) if period_seconds else None

    def _arm(self, run_id: int) -> None:
        """One timer at a time, which a sign of life does not touch: it looks again when it goes off."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._watchdog is not None and self._watchdog.due_at is not None:
            delay_seconds = max(0.0, self._watchdog.due_at - self._clock.now())
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(delay_seconds, self._judge, run_id)

    def _judge(self, run_id: int) -> None:
        self._timer = None
        if self._watchdog is None:
            return
        after = judge_silence(self._watchdog, self._clock.now())
        if after is None:
            period_seconds = self._watchdog.period_seconds
            self._watchdog = replace(self._watchdog, due_at=None)
            detail = f"no watchdog message for {period_seconds:g}s"
            self._hearers.post(Broken(run_id, Reason.WATCHDOG, detail))
            return
        self._watchdog = after
        self._arm(run_id)
