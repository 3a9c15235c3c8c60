"""What is remembered of services between two supervisors, as plain values and as JSON.

A status is only good within the boot it was written in: its times are those of the monotonic clock.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

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


@dataclass(frozen=True, slots=True)
class Memory:
    """What an earlier supervisor left: the status of each service, and the runs it had not ended."""

    boot_id: str = ""
    statuses: Mapping[str, ServiceStatus] = field(default_factory=dict)
    runs: Mapping[str, RunRecord] = field(default_factory=dict)
    ports: Mapping[str, int] = field(default_factory=dict)  # what each service was given last


def render_status(status: ServiceStatus) -> str:
    """A status as JSON text."""
    return _render(status)


def parse_status(text: str) -> ServiceStatus:
    """The status in such a text. Raises ValueError, KeyError or TypeError where it is none."""
    data = _known(ServiceStatus, json.loads(text))
    data["state"], data["desired"] = State(data["state"]), Desired(data["desired"])
    data["cause"] = Reason(data["cause"])
    data["health"] = Health(data.get("health", Health.UNKNOWN))
    data["ending"] = Reason(data["ending"]) if data["ending"] is not None else None
    history = data["history"]
    data["history"] = RestartHistory(tuple(history["restarted_at"]), history["attempt"])
    if data["last_exit"] is not None:
        data["last_exit"] = _parse_last_exit(data["last_exit"])
    return ServiceStatus(**data)


def render_run(run: RunRecord) -> str:
    """A run as JSON text."""
    return _render(run)


def parse_run(text: str) -> RunRecord:
    """The run in such a text. Raises ValueError, KeyError or TypeError where it is none."""
    data = _known(RunRecord, json.loads(text))
    data["limits"] = {name: LimitState(**state) for name, state in data["limits"].items()}
    return RunRecord(**data)


def _render(value: ServiceStatus | RunRecord) -> str:
    """This is on the path of every change of state, where dataclasses.asdict, which copies, is too slow."""
    return json.dumps(value, default=_fields)


def _fields(value: Any) -> dict[str, Any]:
    return {name: getattr(value, name) for name in value.__slots__}


def _parse_last_exit(data: dict[str, Any]) -> LastExit:
    return LastExit(data["run_id"], ExitStatus(**data["status"]), Reason(data["reason"]), data["at"])


def _known(kind: type[Any], data: Any) -> dict[str, Any]:
    """The fields that this version has; a newer one may have written more."""
    if not isinstance(data, dict):
        raise TypeError(f"not an object: {data!r}")
    names = {each.name for each in fields(kind)}
    return {name: value for name, value in data.items() if name in names}
