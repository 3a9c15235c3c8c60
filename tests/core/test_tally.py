from __future__ import annotations

from typing import Any

from blackhole_cg.core.facts import EventRecord
from blackhole_cg.core.tally import Tally


def record(
    before: str | None, after: str | None, reason: str, kind: str = "state", **changes: Any
) -> EventRecord:
    fields = {"at_wall": "", "service": "web", "run_id": 1, "detail": ""} | changes
    return EventRecord(kind=kind, from_state=before, to_state=after, reason=reason, **fields)


def tally_of(*records: EventRecord) -> Tally:
    tally = Tally()
    for each in records:
        tally.note(each)
    return tally


A_LIFE = (
    record("stopped", "waiting", "operator"),
    record("waiting", "starting", "operator"),
    record("starting", "running", "operator"),
    record("running", "restarting", "oom"),
    record("restarting", "waiting", "oom"),
    record("waiting", "starting", "oom"),
    record("starting", "running", "oom"),
    record("running", "stopping", "rule"),
    record("stopping", "restarting", "rule"),
)


def test_a_run_is_counted_once_when_it_ends_by_the_reason_of_its_end() -> None:
    counts = tally_of(*A_LIFE).of("web")
    assert counts.exits == {"oom": 1, "rule": 1}
    assert (counts.restarts, counts.oom_kills) == (2, 1)


def test_a_reset_takes_nothing_back() -> None:
    reset = record("restarting", "restarting", "operator", "reset")
    assert tally_of(*A_LIFE, reset).of("web").restarts == 2


def test_a_start_that_is_refused_and_a_change_of_health_end_no_run() -> None:
    counts = tally_of(
        record("waiting", "failed", "start_failed"),
        record("healthy", "unhealthy", "probe_failed", "health"),
    ).of("web")
    assert counts.exits == {}
    assert counts.events == {("state", "start_failed"): 1, ("health", "probe_failed"): 1}


def test_services_are_counted_apart_and_begin_at_zero() -> None:
    tally = tally_of(*A_LIFE, record("running", "restarting", "oom", service="db"))
    assert (tally.of("db").restarts, tally.of("web").restarts, tally.of("new").restarts) == (1, 2, 0)
    tally.forget("web")
    assert (tally.of("db").restarts, tally.of("web").restarts) == (1, 0)
