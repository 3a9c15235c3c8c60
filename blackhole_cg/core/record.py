"""What is remembered of services between two supervisors, as plain values and as JSON.

A status is only good within the boot it was written in: its times are those of the monotonic clock.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Final

from blackhole_cg.core.facts import ExitStatus, LimitState
from blackhole_cg.core.restart import RestartHistory
from blackhole_cg.core.status import LastExit, ServiceStatus
from blackhole_cg.core.words import Desired, Health, Reason, State


@dataclass(frozen=True, slots=True)
class RunRecord:
    """Who a run is. A number of a process may be used again; with boot and start time it is not."""

    service: str
    run_id: int
    boot_id: str
    pid: int
    started_ticks: int  # field 22 of /proc/PID/stat
    cgroup: str | None
    config_hash: str
    started_wall: str | None = None
    watchdog_seconds: float | None = None  # which the run may have changed
    limits: Mapping[str, LimitState] = field(default_factory=dict)
    tcp_port: int | None = None
    fifos: Mapping[str, str] = field(default_factory=dict)  # stream -> where the run writes it to


@dataclass(frozen=True, slots=True)
class Memory:
    """What an earlier supervisor left: the status of each service, and the runs it had not ended.

    `run_ids` has the last number given to a run of each service, whatever else was forgotten.
    """

    boot_id: str = ""
    statuses: Mapping[str, ServiceStatus] = field(default_factory=dict)
    runs: Mapping[str, RunRecord] = field(default_factory=dict)
    run_ids: Mapping[str, int] = field(default_factory=dict)
    ports: Mapping[str, int] = field(default_factory=dict)  # what each service was given last


def after_reboot(memory: Memory, boot_id: str) -> Memory:
    """What still holds when the host has been started again: wishes, ports, and the numbers of runs."""
    statuses = {
        name: ServiceStatus(desired=status.desired, run_id=status.run_id)
        for name, status in memory.statuses.items()
    }
    return Memory(boot_id, statuses, {}, memory.run_ids, memory.ports)


def render_status(status: ServiceStatus) -> str:
    """A status as JSON text."""
    return _render(status)


def parse_status(text: str) -> ServiceStatus:
    """The status in such a text, also of another version of this program.

    What is missing or has no meaning here is as if nothing were known of it; only the state, what is desired
    and the number of the run must be there. Raises ValueError, KeyError or TypeError where one is not.
    """
    data = _known(ServiceStatus, json.loads(text))
    data |= {
        "state": State(data["state"]),
        "desired": Desired(data["desired"]),
        "run_id": int(data["run_id"]),
    }
    for name, parse in _LENIENT.items():
        if data.get(name) is not None:
            try:
                data[name] = parse(data[name])
            except (ValueError, KeyError, TypeError):
                del data[name]
    return ServiceStatus(**data)


def render_run(run: RunRecord) -> str:
    """A run as JSON text."""
    return _render(run)


def parse_run(text: str) -> RunRecord:
    """The run in such a text. Raises ValueError, KeyError or TypeError where it is none."""
    data = _known(RunRecord, json.loads(text))
    limits = data.get("limits", {})
    data["limits"] = {name: LimitState(**_known(LimitState, state)) for name, state in limits.items()}
    return RunRecord(**data)


def _render(value: ServiceStatus | RunRecord) -> str:
    """This is on the path of every change of state, where dataclasses.asdict, which copies, is too slow."""
    return json.dumps(value, default=_fields)


def _fields(value: Any) -> dict[str, Any]:
    return {name: getattr(value, name) for name in value.__slots__}


def _parse_last_exit(data: dict[str, Any]) -> LastExit:
    status = ExitStatus(**_known(ExitStatus, data["status"]))
    return LastExit(data["run_id"], status, _parse_reason(data["reason"]), float(data["at"]))


def _parse_reason(word: str) -> Reason:
    """A word that only another version knows still says that there is a reason."""
    try:
        return Reason(word)
    except ValueError:
        return Reason.UNKNOWN


def _parse_history(data: dict[str, Any]) -> RestartHistory:
    return RestartHistory(tuple(map(float, data["restarted_at"])), int(data["attempt"]))


_LENIENT: Final[dict[str, Callable[[Any], Any]]] = {
    "cause": _parse_reason,
    "ending": _parse_reason,
    "health": Health,
    "history": _parse_history,
    "last_exit": _parse_last_exit,
    "pid": int,
    "restarts": int,
    "started_at": float,
    "restart_at": float,
    "replaces": bool,
}


def _known(kind: type[Any], data: Any) -> dict[str, Any]:
    """The fields that this version has; a newer one may have written more."""
    if not isinstance(data, dict):
        raise TypeError(f"not an object: {data!r}")
    names = {each.name for each in fields(kind)}
    return {name: value for name, value in data.items() if name in names}
