"""ServiceInfo objects, as the API gives them, as text for people. Pure: values in, lines out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, TypeGuard

from blackhole_cg.cli.terminal import Cell, Column, Screen, printable, render_table
from blackhole_cg.cli.times import local_time
from blackhole_cg.core.facts import signal_name
from blackhole_cg.core.units import format_duration, format_size, render_size

Info = Mapping[str, Any]

NOTHING: Final = "-"
STATE_STYLES: Final = {
    "running": ("green",),
    "completed": ("green",),
    "starting": ("yellow",),
    "waiting": ("yellow",),
    "stopping": ("yellow",),
    "restarting": ("yellow", "bold"),
    "failed": ("red", "bold"),
    "stopped": ("dim",),
}
HEALTH_STYLES: Final = {"healthy": ("green",), "unhealthy": ("red", "bold")}
_LONGEST_SIZE: Final = 5  # "1536M"; longer ones are hard to compare
_SHOWN_BESIDE_USAGE: Final = ("cpu_max", "memory_max")
_SELDOM_OF_INTEREST: Final = ("memory_high", "memory_oom_group", "cpu_weight", "oom_score_adj")


def render_overview(services: Sequence[Info], screen: Screen) -> list[str]:
    """A table of all services, and below it what a reader should know: failures and limits not in force."""
    if not services:
        return ["no services are configured"]
    lines = render_table(_columns(services), screen)
    notes = [*_failure_notes(services, screen), *limit_notes(services, screen)]
    return [*lines, "", *notes] if notes else lines


def render_rollout(rollout: Info) -> str:
    """How far a rolling change is, or what became of it."""
    group, reason = printable(rollout["group"]), printable(rollout["reason"] or "")
    names = ", ".join(map(printable, rollout.get("surge", ())))
    surge = f", with {names} in addition" if names else ""
    if rollout["phase"] == "forward":
        return f"rollout of '{group}': {rollout['replaced']} of {rollout['total']} begun or done{surge}"
    if rollout["phase"] == "back":
        left = f"{rollout['replaced']} of {rollout['total']} left"
        return f"rollout of '{group}' goes back, {left}{surge}: {reason}"
    return f"rollout of '{group}' was taken back: {reason} (`blackhole-cg reload` tries again)"


def render_details(info: Info, screen: Screen) -> list[str]:
    """Everything about one service."""
    state = screen.paint(info["state"], *STATE_STYLES.get(info["state"], ()))
    health = screen.paint(info["health"], *HEALTH_STYLES.get(info["health"], ()))
    lines = [f"{screen.paint(info['name'], 'bold')}: {state}"]
    facts = [("health", health) if info["health"] != "unknown" else None, *_facts(info)]
    rows = [row for row in facts if row is not None]
    width = max(len(title) for title, _ in rows)
    lines += [f"  {screen.paint(title.ljust(width), 'dim')}  {text}" for title, text in rows]
    if info["limits"]:
        lines += ["", *render_table(_limit_columns(info["limits"]), screen)]
    return lines


# ---- the overview ----


def _columns(services: Sequence[Info]) -> list[Column]:
    return [
        Column("NAME", [Cell(info["name"], ("bold",)) for info in services], shrinks=True),
        Column("STATE", [Cell(info["state"], STATE_STYLES.get(info["state"], ())) for info in services]),
        Column("HEALTH", [health_cell(info) for info in services]),
        Column("PID", [_cell(info["pid"]) for info in services], right=True),
        Column("UPTIME", [Cell(_duration(info["uptime_seconds"])) for info in services], right=True),
        Column("RESTARTS", [_cell(info["restarts"]) for info in services], right=True),
        usage_column("CPU", services, "cpu_percent", "cpu_max"),
        usage_column("MEMORY", services, "memory_bytes", "memory_max"),
        Column("LIMITS", [Cell(_other_limits(info["limits"])) for info in services], optional=True),
    ]


def _cell(value: object) -> Cell:
    return Cell(NOTHING if value is None else str(value))


def health_cell(info: Info) -> Cell:
    """The health of a service; "-" where nobody asks for it."""
    health = info["health"]
    return Cell(NOTHING if health == "unknown" else health, HEALTH_STYLES.get(health, ()))


def _duration(seconds: float | None) -> str:
    return NOTHING if seconds is None else format_duration(seconds)


def usage_column(title: str, services: Sequence[Info], metric: str, limit_name: str) -> Column:
    """What is used and what is allowed, or on a narrow screen only what is used."""
    used = [_used(info, metric) for info in services]
    both = [Cell(text + _allowed(info, limit_name)) for text, info in zip(used, services, strict=True)]
    return Column(title, both, right=True, brief=[Cell(text) for text in used])


def _used(info: Info, metric: str) -> str:
    value = info["usage"].get(metric)
    if value is None:
        return NOTHING
    return percent(value) if metric == "cpu_percent" else format_size(value)


def _allowed(info: Info, limit_name: str) -> str:
    """ "/512M", or "/(512M)" when it is not in force; nothing where there is no limit or no process."""
    limit = info["limits"].get(limit_name)
    if limit is None or info["pid"] is None or str(limit["requested"]).startswith("max"):
        return ""
    allowed = short_value(limit_name, limit["requested"])
    return f"/{allowed}" if limit["enforced"] else f"/({allowed})"


def _other_limits(limits: Mapping[str, Info]) -> str:
    shown = (
        (name, limit)
        for name, limit in limits.items()
        if name not in _SHOWN_BESIDE_USAGE and name not in _SELDOM_OF_INTEREST
    )
    texts = ((name, short_value(name, limit["requested"]), limit["enforced"]) for name, limit in shown)
    return ", ".join(f"{name} {text}" if enforced else f"{name} ({text})" for name, text, enforced in texts)


def _failure_notes(services: Sequence[Info], screen: Screen) -> Iterable[str]:
    for info in services:
        error, delay = info["last_error"], info["next_restart_in_seconds"]
        if info["state"] == "failed":
            text = f"{info['name']}: failed: {printable(error or 'for no known reason')}"
            yield from (screen.paint(line, "red") for line in screen.wrap(text))
        elif delay is not None:
            cause = f": {printable(error)}" if error else ""
            text = f"{info['name']}: next start in {format_duration(delay)}{cause}"
            yield from (screen.paint(line, "yellow") for line in screen.wrap(text))


def limit_notes(services: Sequence[Info], screen: Screen) -> Iterable[str]:
    """One note for all services that lack the same limits for the same reasons."""
    groups: dict[str, list[str]] = {}
    for info in services:
        missing = {name: limit for name, limit in info["limits"].items() if not limit["enforced"]}
        if missing:
            reasons = _join_reasons(limit["reason"] for limit in missing.values() if limit["reason"])
            why = f" ({printable(reasons)})" if reasons else ""
            groups.setdefault(", ".join(missing) + why, []).append(info["name"])
    for text, names in groups.items():
        for line in screen.wrap(f"{', '.join(names)}: not enforced: {text}"):
            yield screen.paint(line, "yellow")


def _join_reasons(reasons: Iterable[str]) -> str:
    """ "cpu, memory: bound to v1" for "cpu: bound to v1" and "memory: bound to v1"."""
    subjects: dict[str, list[str]] = {}
    for reason in dict.fromkeys(reasons):
        subject, colon, cause = reason.partition(": ")
        subjects.setdefault(cause if colon else reason, []).extend([subject] if colon else [])
    parts = (f"{', '.join(names)}: {cause}" if names else cause for cause, names in subjects.items())
    return "; ".join(parts)


# ---- one service ----


def _facts(info: Info) -> Iterable[tuple[str, str] | None]:
    yield "desired", info["desired"] + ("" if info["enabled"] else " (not enabled)")
    yield "main process", _process(info)
    yield "started", _started(info)
    if info.get("status_text"):  # a supervisor that has not been restarted since an upgrade has none
        yield "says", printable(info["status_text"])
    yield "restarts", str(info["restarts"])
    if info["next_restart_in_seconds"] is not None:
        yield "next start", f"in {format_duration(info['next_restart_in_seconds'])}"
    if info["last_exit"] is not None:
        yield "last exit", _last_exit(info["last_exit"])
    if info["last_error"]:
        yield "last error", printable(info["last_error"])
    yield "cgroup", info["cgroup"] or NOTHING
    yield "usage", _all_usage(info)
    yield (
        "logs",
        f"{info['logs'].get('lines_total', 0)} lines, {info['logs'].get('dropped_total', 0)} dropped",
    )
    for name, held in info.get("sockets", {}).items():
        state = "held" if held["held"] else "not bound"
        yield f"socket {name}", printable(f"{held['kind']} {held['address']} ({state})")
    for key, title in (("tcp_port", "TCP port"), ("unix_socket", "unix socket"), ("instance_of", "template")):
        if info[key] is not None:
            yield title, str(info[key])


def _process(info: Info) -> str:
    if info["pid"] is None:
        return NOTHING
    marks = [f"run {info['run_id']}"] + [mark for mark in ("adopted", "outdated") if info[mark]]
    return f"pid {info['pid']} ({', '.join(marks)})"


def _started(info: Info) -> str:
    if info["started_wall"] is None:
        return NOTHING
    ago = f" ({format_duration(info['uptime_seconds'])} ago)" if info["uptime_seconds"] is not None else ""
    return local_time(info["started_wall"]) + ago


def _last_exit(last: Info) -> str:
    if last["signal"] is not None:
        how = f"killed by {signal_name(last['signal'])}"
    else:
        how = "exit status unknown" if last["code"] is None else f"exit code {last['code']}"
    at = f", {local_time(last['at_wall'])}" if last["at_wall"] else ""
    return f"{how} ({last['reason']}, run {last['run_id']}){at}"


def _all_usage(info: Info) -> str:
    usage = info["usage"]
    parts = []
    if usage.get("cpu_percent") is not None:
        parts.append(f"CPU {percent(usage['cpu_percent'])}")
    if usage.get("memory_bytes") is not None:
        parts.append(f"memory {format_size(usage['memory_bytes'])}")
    if usage.get("pids") is not None:
        parts.append(f"pids {usage['pids']}")
    return ", ".join(parts) or NOTHING


def _limit_columns(limits: Mapping[str, Info]) -> list[Column]:
    return [
        Column("LIMIT", [Cell(name) for name in limits]),
        Column("REQUESTED", [Cell(_exact_value(name, limits[name]["requested"])) for name in limits]),
        Column("EFFECTIVE", [Cell(_exact_value(name, limits[name]["effective"])) for name in limits]),
        Column("ENFORCED", [_enforced_cell(limit) for limit in limits.values()], wraps=True),
    ]


def _enforced_cell(limit: Info) -> Cell:
    """Whether it is in force, and how or why not."""
    answer, style = ("yes", "green") if limit["enforced"] else ("no", "yellow")
    return Cell(f"{answer}: {printable(limit['reason'])}" if limit["reason"] else answer, (style,))


# ---- values ----


def percent(value: float) -> str:
    """A percentage in two or three digits: 4.2%, 12%, 180%."""
    return f"{value:.1f}%" if value < 9.95 else f"{value:.0f}%"


def _cpu_share(text: str) -> str | None:
    """ "200%" for cpu.max "200000 100000"; None when it is no such pair."""
    quota, _, period = text.partition(" ")
    if not (quota.isdigit() and period.isdigit() and int(period)):
        return None
    return f"{100 * int(quota) / int(period):g}%"


def short_value(name: str, value: object) -> str:
    """A limit in the unit that people use, in about three digits."""
    return format_size(value) if _is_size(value, name) else _exact_value(name, value)


def _exact_value(name: str, value: object) -> str:
    """A limit in the unit that people use, exact where that is short: 64M, 57.6M."""
    if value is None:
        return NOTHING
    if isinstance(value, bool):
        return "yes" if value else "no"
    if name == "cpu_max" and isinstance(value, str):
        return _cpu_share(value) or value
    if not _is_size(value, name):
        return str(value)
    exact = render_size(value)
    return exact if len(exact) <= _LONGEST_SIZE else format_size(value)


def _is_size(value: object, name: str) -> TypeGuard[int]:
    return name.startswith("memory_") and isinstance(value, int) and not isinstance(value, bool)
