"""The causal timeline of a service as text. Pure: events and what the supervisor knows in, lines out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from blackhole_cg.cli.status_view import HEALTH_STYLES, NOTHING, STATE_STYLES
from blackhole_cg.cli.terminal import Screen, printable
from blackhole_cg.cli.times import local_time
from blackhole_cg.core.units import format_duration

Event = Mapping[str, Any]

REASONS: Final = {
    "exited": "its main process exited",
    "signalled": "its main process was killed",
    "oom": "it ran out of memory",
    "probe_failed": "a probe failed",
    "rule": "a rule was broken",
    "watchdog": "it did not feed its watchdog",
    "shutdown": "the supervisor ends",
    "start_failed": "it could not be started",
}
"""Reasons in words; of what a person asked for, the detail says it all."""

_KINDS: Final = {
    "rule": "rule",
    "config": "reload",
    "rollout": "rollout",
    "limit": "limit",
    "log": "log",
    "reset": "reset",
}
_UNTIL: Final = {
    "started": "until it has started",
    "healthy": "until it is healthy",
    "completed": "until it is completed",
}
_WHAT_WIDTH: Final = 11
_TIME_WIDTH: Final = 19


@dataclass(frozen=True, slots=True)
class Chapter:
    """What belongs to one run: from what led to its start to what its end led to.

    `run_id` is 0 before the first run, and None of a start that has not come to a run.
    """

    run_id: int | None
    events: tuple[Event, ...]


def chapters(events: Iterable[Event]) -> list[Chapter]:
    """Stored events of one service, oldest first, by the run they led to or came of."""
    found: list[list[Event]] = []
    for event in events:
        if not found or event["to"] == "waiting" or _is_late_start(event, found[-1]):
            found.append([])
        found[-1].append(event)
    return [Chapter(_run_id(each), tuple(each)) for each in found]


def _is_late_start(event: Event, chapter: Sequence[Event]) -> bool:
    """A start whose beginning is not stored any more."""
    return bool(event["to"] == "starting" and chapter[0]["to"] != "waiting")


def _run_id(chapter: Sequence[Event]) -> int | None:
    """Events carry the number of the last run that began, so those of a start that is to come an old one."""
    began = [event for event in chapter if event["to"] in ("starting", "running")]
    if began or chapter[0]["to"] != "waiting":
        newest: int = (began or chapter)[-1]["run_id"]
        return newest
    return None


def render_why(
    now: Mapping[str, Any], shown: Sequence[Chapter], screen: Screen, earlier: int = 0
) -> list[str]:
    """The runs that are shown, oldest first, then where the service is and what comes next.

    Args:
        now: what the API says of it now.
        shown: the runs to tell of.
        screen: how to write.
        earlier: how many runs are stored and not shown.
    """
    name = now["service"]["name"]
    lines = (
        [f"earlier: `blackhole-cg events {name}`, or of one run `why {name} --run N`", ""] if earlier else []
    )
    for number, chapter in enumerate(shown):
        lines += _render_chapter(chapter, screen, is_last=number == len(shown) - 1)
        lines.append("")
    lines += _wrap(screen, "now", _now(now))
    for text in (*_waiting(now["waits_for"]), *_next(now)):
        lines += _wrap(screen, *text)
    return lines


# ---- what happened ----


def _render_chapter(chapter: Chapter, screen: Screen, *, is_last: bool) -> Iterator[str]:
    yield screen.paint(_title(chapter, is_last), "bold")
    reason = detail = ""
    for event in chapter.events:
        told = event["reason"] == reason or event["kind"] == "rule"
        words = "" if told else REASONS.get(event["reason"], "")
        said = "" if event["detail"] == detail else event["detail"]
        reason, detail = event["reason"], event["detail"] or detail
        yield from _render_event(event, _join(words, said), screen)


def _title(chapter: Chapter, is_last: bool) -> str:
    if chapter.run_id:
        return f"run {chapter.run_id}"
    if chapter.run_id == 0:
        return "before the first run"
    return "the next run" if is_last else "a start that came to no run"


def _join(words: str, detail: str) -> str:
    """ "a probe failed: GET /: 500", without saying anything twice."""
    if not words or not detail:
        return words or detail
    return detail if detail.startswith(words) else f"{words}: {detail}"


def _render_event(event: Event, text: str, screen: Screen) -> Iterator[str]:
    what, styles = _what(event)
    if event["kind"] == "desired":
        text = ""
    first, *rest = _fold(screen, printable(text), 2 + _TIME_WIDTH + 2 + _WHAT_WIDTH + 1)
    when = screen.paint(local_time(event["at_wall"]), "dim")
    yield f"  {when}  {screen.paint(what, *styles)}{' ' * (_WHAT_WIDTH - len(what))} {first}".rstrip()
    yield from rest


def _what(event: Event) -> tuple[str, tuple[str, ...]]:
    """The one word for an event, and its style."""
    kind: str = event["kind"]
    after: str | None = event["to"]
    if after is not None:
        return after, STATE_STYLES.get(after) or HEALTH_STYLES.get(after, ())
    if kind == "desired":
        return event["detail"], ()
    return _KINDS.get(kind, kind), ("yellow",) if kind in ("rule", "log") else ()


def _fold(screen: Screen, text: str, indent: int) -> list[str]:
    """Lines that fit beside what stands in the first `indent` columns; all but the first are indented."""
    if screen.width is None:
        return [text]
    narrower = Screen(screen.colour, max(screen.width - indent, 20))
    first, *rest = narrower.wrap(text, "") or [""]
    return [first, *(" " * indent + line for line in rest)]


# ---- where it is, and what comes next ----


def _wrap(screen: Screen, title: str, text: str) -> list[str]:
    indent = len(title) + 2
    first, *rest = _fold(screen, printable(text), indent)
    return [f"{screen.paint(title, 'bold')}: {first}", *rest]


def _now(now: Mapping[str, Any]) -> str:
    info, problem = now["service"], now["problem"]
    parts = [info["state"]]
    if info["uptime_seconds"] is not None:
        parts[0] += f" for {format_duration(info['uptime_seconds'])}"
    if info["health"] != "unknown":
        parts.append(info["health"])
    text = ", ".join(parts)
    if problem and info["health"] == "unhealthy":
        text += f" ({problem})"
    if info["state"] in ("failed", "restarting") and info["last_error"]:
        text += f" ({info['last_error']})"
    return text if info["desired"] == "up" or info["state"] == "stopped" else f"{text}; wanted down"


def _waiting(waits_for: Sequence[Mapping[str, Any]], depth: int = 0) -> Iterator[tuple[str, str]]:
    """What it waits for, and below each what that waits for."""
    for each in waits_for:
        health = "" if each["health"] == "unknown" else f", {each['health']}"
        problem = f" ({each['problem']})" if each["problem"] else ""
        text = f"{each['state']}{health}{problem}, {_UNTIL[each['condition']]}"
        yield f"{'  ' * depth}waiting for '{each['service']}'", text
        yield from _waiting(each["waits_for"], depth + 1)


def _next(now: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    info = now["service"]
    name, up = info["name"], info["desired"] == "up"
    match info["state"]:
        case "restarting":
            seconds = info["next_restart_in_seconds"]
            yield "next", f"it starts again in {NOTHING if seconds is None else format_duration(seconds)}"
        case "waiting" if now["waits_for"]:
            yield "next", "it starts as soon as that is so"
        case "waiting":
            yield "next", "it starts in its turn"
        case "starting":
            yield "next", "it runs as soon as it has started"
        case "stopping":
            yield "next", "its end; then its restart policy decides" if up else "its end, and nothing more"
        case "failed":
            again = f"`blackhole-cg reset {name}` and `blackhole-cg start {name}` try again"
            yield "next", f"nothing, it gave up; {again}"
        case "stopped" | "completed" as state:
            yield "next", f"nothing, it is {state}; `blackhole-cg start {name}` starts it"
        case "running":
            yield "next", _if_it_ends(now["restart"])


def _if_it_ends(restart: Mapping[str, Any]) -> str:
    """What the restart policy will say."""
    if restart["type"] == "oneshot" and restart["policy"] == "never":
        return "it is completed when it exits with 0, and has failed otherwise"
    if restart["policy"] == "never":
        return "nothing is due; if it ends, it stays down (restart policy never)"
    when = "ends" if restart["policy"] == "always" and restart["type"] != "oneshot" else "fails"
    if restart["max_restarts"] == "max":
        return f"nothing is due; if it {when}, it is restarted"
    window = format_duration(restart["window_seconds"])
    used = f"{restart['recent']} of {restart['max_restarts']} restarts within {window} used"
    if restart["recent"] >= restart["max_restarts"]:
        return f"nothing is due; if it {when} now, it gives up ({used})"
    return f"nothing is due; if it {when}, it is restarted ({used})"
