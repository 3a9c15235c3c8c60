"""The causal timeline as text, from stored events and the supervisor's answer alone."""

from __future__ import annotations

from typing import Any

import pytest

from blackhole_cg.cli.terminal import Screen
from blackhole_cg.cli.why_view import chapters, render_why
from tests.control.fake_operations import make_event, make_info, make_why

WIDE = Screen()


def story(*events: tuple[Any, ...]) -> list[dict[str, Any]]:
    """Events from (run_id, kind or state, reason, detail)."""
    made = []
    for number, (run_id, what, reason, detail) in enumerate(events):
        is_kind = what in ("desired", "rule", "config", "limit", "log", "reset")
        health = what in ("healthy", "unhealthy")
        changes = {"kind": what if is_kind else "health" if health else "state"}
        states = {"from_state": None if is_kind else "x", "to_state": None if is_kind else what}
        made.append(make_event(number, run_id=run_id, reason=reason, detail=detail, **changes, **states))
    return [event.to_json() for event in made]


TWO_RUNS = story(
    (0, "limit", "unknown", "not enforced: io_weight 100: no device"),
    (0, "waiting", "operator", "start requested"),
    (1, "starting", "operator", "start requested"),
    (1, "running", "operator", "pid 7"),
    (1, "unhealthy", "probe_failed", "readiness probe: GET /: 500"),
    (1, "rule", "rule", "memory: memory_percent 93.1 above 90 for 31s; action: restart"),
    (1, "stopping", "rule", "rule memory: memory_percent 93.1 above 90 for 31s"),
    (1, "restarting", "rule", "rule memory: memory_percent 93.1 above 90 for 31s; restart 1 of 5 in 1.08s"),
    (1, "waiting", "rule", "backoff elapsed"),
    (2, "starting", "rule", "backoff elapsed"),
    (2, "running", "rule", "pid 9"),
    (2, "desired", "operator", "wanted down"),
)


def why(events: list[dict[str, Any]], screen: Screen = WIDE, **now: Any) -> list[str]:
    return render_why(make_why(**now), chapters(events), screen)


def present(state: str, **info: Any) -> list[str]:
    """What is said of a service in this state."""
    now = {key: info.pop(key) for key in ("restart", "waits_for", "problem") if key in info}
    return render_why(
        make_why(info=make_info("web", state=state, uptime_seconds=None, **info), **now), [], WIDE
    )


def test_a_run_begins_with_what_led_to_it_and_ends_with_what_it_led_to():
    assert [(each.run_id, len(each.events)) for each in chapters(TWO_RUNS)] == [(0, 1), (1, 7), (2, 4)]
    assert why(TWO_RUNS)[3:] == [
        "run 1",
        "  2030-01-31 12:00:01  waiting     start requested",
        "  2030-01-31 12:00:02  starting",
        "  2030-01-31 12:00:03  running     pid 7",
        "  2030-01-31 12:00:04  unhealthy   a probe failed: readiness probe: GET /: 500",
        "  2030-01-31 12:00:05  rule        memory: memory_percent 93.1 above 90 for 31s; action: restart",
        "  2030-01-31 12:00:06  stopping    rule memory: memory_percent 93.1 above 90 for 31s",
        "  2030-01-31 12:00:07  restarting  rule memory: memory_percent 93.1 above 90 for 31s; "
        "restart 1 of 5 in 1.08s",
        "",
        "run 2",
        "  2030-01-31 12:00:08  waiting     a rule was broken: backoff elapsed",
        "  2030-01-31 12:00:09  starting",
        "  2030-01-31 12:00:10  running     pid 9",
        "  2030-01-31 12:00:11  wanted down",
        "",
        "now: running for 1m30s",
        "next: nothing is due; if it ends, it is restarted (1 of 5 restarts within 1h used)",
    ]


def test_starts_that_came_to_no_run_and_runs_whose_beginning_is_lost_are_told_apart():
    events = story(
        (4, "running", "operator", "pid 7"),
        (4, "stopped", "operator", "stop requested"),
        (4, "waiting", "operator", "start requested"),
        (4, "failed", "start_failed", "cannot start 'web': 50 services are running"),
        (5, "starting", "operator", "start requested"),
        (5, "stopped", "operator", "stop requested"),
        (5, "running", "operator", "pid 7 taken over"),
        (5, "waiting", "operator", "start requested"),
    )
    assert [each.run_id for each in chapters(events)] == [4, 5, None]
    titles = [line for line in why(events) if line and not line.startswith(("  ", "now", "next"))]
    assert titles == ["run 4", "run 5", "the next run"]
    refused = chapters(events[:4])
    assert [each.run_id for each in refused] == [4, None]


def test_no_events_are_no_error():
    assert chapters([]) == []
    assert why([])[0] == "now: running for 1m30s"


def test_lines_fit_and_hold_no_control_characters():
    events = story((1, "rule", "rule", "x " * 80 + "\x1b[2J"), (1, "log", "unknown", "word " * 40))
    lines = why(events, Screen(width=60), problem="answer " * 30, info=make_info("web", health="unhealthy"))
    assert max(map(len, lines)) <= 60
    assert "\\x1b[2J" in " ".join(lines)
    assert "\x1b" not in "".join(lines)


def test_waiting_names_each_dependency_its_state_and_what_that_waits_for():
    store = {
        "service": "store", "condition": "healthy", "state": "running", "health": "unhealthy",
        "problem": "readiness probe: GET /: 500", "waits_for": [],
    }  # fmt: skip
    database = {
        "service": "db", "condition": "started", "state": "waiting", "health": "unknown",
        "problem": None, "waits_for": [store],
    }  # fmt: skip
    assert present("waiting", waits_for=[database]) == [
        "now: waiting",
        "waiting for 'db': waiting, until it has started",
        "  waiting for 'store': running, unhealthy (readiness probe: GET /: 500), until it is healthy",
        "next: it starts as soon as that is so",
    ]


@pytest.mark.parametrize(
    ("state", "changes", "now", "next_"),
    [
        ("restarting", {"next_restart_in_seconds": 2.5, "last_error": "no such file"},
         "restarting (no such file)", "it starts again in 2.5s"),
        ("failed", {"last_error": "exit 3; gave up after 5 restarts within 1h"},
         "failed (exit 3; gave up after 5 restarts within 1h)",
         "nothing, it gave up; `blackhole-cg reset web` and `blackhole-cg start web` try again"),
        ("stopped", {"desired": "down"}, "stopped",
         "nothing, it is stopped; `blackhole-cg start web` starts it"),
        ("completed", {}, "completed", "nothing, it is completed; `blackhole-cg start web` starts it"),
        ("waiting", {}, "waiting", "it starts in its turn"),
        ("starting", {}, "starting", "it runs as soon as it has started"),
        ("stopping", {}, "stopping", "its end; then its restart policy decides"),
        ("stopping", {"desired": "down"}, "stopping; wanted down", "its end, and nothing more"),
    ],
)  # fmt: skip
def test_every_state_says_what_comes_next(state: str, changes: dict[str, Any], now: str, next_: str):
    assert present(state, **changes) == [f"now: {now}", f"next: {next_}"]


@pytest.mark.parametrize(
    ("restart", "said"),
    [
        ({"recent": 5}, "nothing is due; if it ends now, it gives up (5 of 5 restarts within 1h used)"),
        (
            {"policy": "on_failure"},
            "nothing is due; if it fails, it is restarted (1 of 5 restarts within 1h used)",
        ),
        ({"max_restarts": "max"}, "nothing is due; if it ends, it is restarted"),
        ({"policy": "never"}, "nothing is due; if it ends, it stays down (restart policy never)"),
        (
            {"policy": "never", "type": "oneshot"},
            "it is completed when it exits with 0, and has failed otherwise",
        ),
    ],
)
def test_a_running_service_says_what_its_policy_will_do(restart: dict[str, Any], said: str):
    assert present("running", restart={**make_why()["restart"], **restart})[-1] == f"next: {said}"
