"""What `run` says once everything is up: each service with its limits, and how to talk to the supervisor."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from blackhole_cg.cli.status_view import Info, limit_notes, short_value
from blackhole_cg.cli.terminal import Cell, Column, Screen, render_table

_UP: Final = frozenset({"running", "completed"})


def render_banner(services: Sequence[Info], runtime_dir: str | None, screen: Screen) -> list[str]:
    """The lines; the commands name `runtime_dir`, unless it is None: where clients look by themselves."""
    shown = [info for info in services if info["enabled"]]
    down = [info["name"] for info in shown if info["state"] not in _UP]
    lines = [f"running, but for {', '.join(down)}" if down else "all services running"]
    if shown:
        lines += ["", *render_table(_columns(shown), screen), *limit_notes(shown, screen)]
    where = f" --runtime-dir {runtime_dir}" if runtime_dir else ""
    hints = [("what they do", f"status{where}"), ("what happens", f"events --follow{where}")]
    if shown:
        hints.append(("what one writes", f"logs {shown[0]['name']} --follow{where}"))
    lines += ["", *(f"{title + ':':<18}blackhole-cg {command}" for title, command in hints)]
    return [*lines, f"{'stop everything:':<18}Ctrl-C"]


def _columns(services: Sequence[Info]) -> list[Column]:
    return [
        Column("NAME", [Cell(info["name"], ("bold",)) for info in services]),
        Column("STATE", [Cell(info["state"]) for info in services]),
        Column("PID", [Cell(_text(info["pid"])) for info in services], right=True),
        Column("CGROUP", [Cell(_text(info["cgroup"])) for info in services]),
        Column("LIMITS (requested/effective)", [Cell(_limits(info["limits"])) for info in services]),
    ]


def _text(value: object) -> str:
    return "-" if value is None else str(value)


def _limits(limits: Mapping[str, Mapping[str, Any]]) -> str:
    return ", ".join(
        f"{name} {short_value(name, limit['requested'])}/{short_value(name, limit['effective'])}"
        for name, limit in limits.items()
    )
