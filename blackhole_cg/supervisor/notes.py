"""What is stored of services beside their changes of state: each a kind of event of its own."""

from __future__ import annotations

import logging
from collections.abc import Callable, Container, Sequence

from blackhole_cg.core.facts import EventRecord, LimitProblem
from blackhole_cg.core.words import Reason
from blackhole_cg.observe.event_store import EventStore
from blackhole_cg.runner.clock import Clock, wall_text

_log = logging.getLogger(__name__)


class Notes:
    """Writes such events; `run_id_of` says which run of a service they belong to."""

    def __init__(self, events: EventStore, clock: Clock, run_id_of: Callable[[str], int]) -> None:
        self._events = events
        self._clock = clock
        self._run_id_of = run_id_of

    def log(self, service: str, detail: str) -> None:
        """Lines begin to be lost, or are stored again."""
        self._note(service, "log", detail)

    def rule(self, service: str, detail: str) -> None:
        """A rule was broken."""
        self._note(service, "rule", detail, Reason.RULE)

    def config(self, service: str, detail: str) -> None:
        """A reload has changed the service."""
        self._note(service, "config", detail)

    def rollout(self, service: str, detail: str, failed: bool) -> None:
        """A rolling change has come to the service."""
        self._note(service, "rollout", detail, Reason.START_FAILED if failed else Reason.OPERATOR)

    def instances(self, detail: str) -> None:
        """Something is wrong with the provider of instances; it is about no service in particular."""
        self._note_general("instances", detail)

    def runtime(self, detail: str) -> None:
        """Something has happened to the runtime directory."""
        self._note_general("runtime", detail)

    def limits(self, problems: Sequence[LimitProblem], known: Container[str] = ()) -> None:
        """An event for each limit that is not enforced; in the log, one warning for each reason.

        Services whose run began under an earlier supervisor have the events already: they are the `known`.
        """
        for problem in (problem for problem in problems if problem.service not in known):
            limit = str(problem).removeprefix(f"{problem.service}: ")
            self._note(problem.service, "limit", f"not enforced: {limit}")
        for reason in dict.fromkeys(problem.reason for problem in problems):
            same = [problem for problem in problems if problem.reason == reason]
            limits = ", ".join(dict.fromkeys(problem.limit for problem in same))
            services = ", ".join(dict.fromkeys(problem.service for problem in same))
            _log.warning("not enforced: %s (%s) of %s", limits, reason, services)

    def _note_general(self, kind: str, detail: str) -> None:
        at_wall = wall_text(self._clock.wall())
        self._events.append(EventRecord(at_wall, "", 0, kind, None, None, Reason.UNKNOWN, detail))

    def _note(self, service: str, kind: str, detail: str, reason: Reason = Reason.UNKNOWN) -> None:
        at_wall, run_id = wall_text(self._clock.wall()), self._run_id_of(service)
        self._events.append(EventRecord(at_wall, service, run_id, kind, None, None, reason, detail))
