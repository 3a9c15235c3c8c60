"""The probes of one service, run after run: asks them, and feeds what follows to the state machine."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from blackhole_cg.core.events import Broken, HealthReported
from blackhole_cg.core.probing import Died
from blackhole_cg.core.spec import ServiceSpec
from blackhole_cg.core.words import Health, Reason
from blackhole_cg.observe.probes.ask import Asker
from blackhole_cg.observe.probes.exec import CommandRunner
from blackhole_cg.observe.probes.schedule import Outcome, ProbeFacts, Prober
from blackhole_cg.runner.clock import Clock


class HealthWatch:
    """Watches at most one run at a time; what was learnt of the last one is kept until the next.

    Args:
        commands: runs the commands of exec probes.
        clock: time and dice.
        post: takes what follows, for the state machine.
    """

    def __init__(
        self, commands: CommandRunner, clock: Clock, post: Callable[[HealthReported | Broken], None]
    ) -> None:
        self._commands = commands
        self._clock = clock
        self._post = post
        self._prober: Prober | None = None

    def begin(self, spec: ServiceSpec, run_id: int, *, has_started: bool) -> None:
        """Ask the probes of a run from now on; `has_started` for one that was taken over healthy."""
        self.end()
        self._prober = None
        if not spec.probes:
            return
        outcome = Outcome(partial(self._on_health, run_id), partial(self._on_dead, run_id))
        asker = Asker(spec, self._commands)
        self._prober = Prober(spec.name, spec.probes, asker, self._clock, outcome)
        self._prober.start(has_started=has_started)

    def end(self) -> None:
        """Ask no more."""
        if self._prober is not None:
            self._prober.close()

    def facts(self) -> tuple[ProbeFacts, ...]:
        """What is known of each probe."""
        return self._prober.facts() if self._prober else ()

    @property
    def last_failure(self) -> str | None:
        """What a probe that fails was answered last."""
        failed = [facts for facts in self.facts() if facts.ok is False]
        return f"{failed[-1].kind} probe: {failed[-1].last_message}" if failed else None

    def _on_health(self, run_id: int, health: Health, message: str) -> None:
        self._post(HealthReported(run_id, health, message))

    def _on_dead(self, run_id: int, died: Died) -> None:
        self._post(Broken(run_id, Reason.PROBE_FAILED, died.message, died.grace_seconds))
