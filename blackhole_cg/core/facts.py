"""What is known about a host, a limit, a run: the values that the kernel edge hands to everyone else."""

from __future__ import annotations

import signal
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class LimitState:
    """One limit of one service: what was asked for, what the kernel holds, whether it is in force."""

    requested: int | str | bool | None
    effective: int | str | bool | None = None
    enforced: bool = False
    reason: str | None = None  # why it is not enforced, or by which mechanism it is

    def to_json(self) -> dict[str, Any]:
        """The object the API and `status --json` show."""
        return {
            "requested": self.requested,
            "effective": self.effective,
            "enforced": self.enforced,
            "reason": self.reason,
        }


@dataclass(frozen=True, slots=True)
class LimitProblem:
    """A limit of a service that cannot be enforced here, and why."""

    service: str
    limit: str  # the limit's name, or what cannot be done at all
    requested: int | str | bool | None
    reason: str

    def __str__(self) -> str:
        value = "" if self.requested is None else f" {self.requested}"
        return f"{self.service}: {self.limit}{value}: {self.reason}"


@dataclass(frozen=True, slots=True)
class HostFacts:
    """What this host can do for us; every absent ability comes with its reason."""

    boot_id: str
    kernel: str
    page_size_bytes: int
    cgroup_mount: str | None  # where cgroup v2 is mounted
    cgroup_root: str | None  # directory below which the service cgroups are made; None: none can be
    cgroup_problem: str | None  # why there is no cgroup_root
    controllers: Mapping[str, str | None]  # controller -> None when usable, else why not
    cgroup_kill: bool = True  # cgroup.kill exists (kernel 5.14)
    cpus: int | None = None
    memory_bytes: int | None = None

    def to_json(self) -> dict[str, Any]:
        """The object `GET /v1/host` shows."""
        return {
            "boot_id": self.boot_id,
            "kernel": self.kernel,
            "cgroup_mount": self.cgroup_mount,
            "cgroup_root": self.cgroup_root,
            "cgroup_problem": self.cgroup_problem,
            "controllers": {
                name: {"available": reason is None, "reason": reason}
                for name, reason in self.controllers.items()
            },
            "cpus": self.cpus,
            "memory_bytes": self.memory_bytes,
        }


@dataclass(frozen=True, slots=True)
class ExitStatus:
    """How a main process ended: exactly one of code and signal is set, or neither when unknown."""

    code: int | None = None
    signal: int | None = None
    oom_killed: bool = False

    def __str__(self) -> str:
        if self.oom_killed:
            return "killed by the kernel: out of memory"
        if self.signal is not None:
            return f"killed by {signal_name(self.signal)}"
        return f"exit {self.code}" if self.code is not None else "exit status unknown"


@dataclass(frozen=True, slots=True)
class Usage:
    """What a run uses now; None is unknown."""

    cpu_seconds: float | None = None
    memory_bytes: int | None = None
    pids: int | None = None


@dataclass(frozen=True, slots=True)
class ServiceInfo:
    """Everything a person or a program is told about a service; the contract's one shape."""

    name: str
    state: str
    desired: str
    health: str
    enabled: bool
    pid: int | None
    run_id: int
    restarts: int
    uptime_seconds: float | None
    started_wall: str | None
    cgroup: str | None
    adopted: bool
    outdated: bool
    tcp_port: int | None
    unix_socket: str | None
    instance_of: str | None
    sockets: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # name -> kind, address, held
    limits: Mapping[str, LimitState] = field(default_factory=dict)
    usage: Mapping[str, float | int | None] = field(default_factory=dict)
    last_exit: Mapping[str, Any] | None = None
    last_error: str | None = None
    status_text: str | None = None  # what the service itself says of its state
    logs: Mapping[str, int] = field(default_factory=dict)
    next_restart_in_seconds: float | None = None

    def to_json(self) -> dict[str, Any]:
        """The object the API and `status --json` show."""
        values = {name: getattr(self, name) for name in self.__slots__}
        values["limits"] = {name: limit.to_json() for name, limit in self.limits.items()}
        return values


@dataclass(frozen=True, slots=True)
class EventRecord:
    """One thing that happened, as it is stored and shown. `id` is 0 until it is stored."""

    at_wall: str  # UTC, ISO 8601 with microseconds and "Z"
    service: str
    run_id: int
    kind: str  # "state" for a transition; other kinds name what happened
    from_state: str | None
    to_state: str | None
    reason: str
    detail: str
    id: int = 0

    def to_json(self) -> dict[str, Any]:
        """The contract's Event object."""
        return {
            "id": self.id,
            "at_wall": self.at_wall,
            "service": self.service,
            "run_id": self.run_id,
            "kind": self.kind,
            "from": self.from_state,
            "to": self.to_state,
            "reason": self.reason,
            "detail": self.detail,
        }


def signal_name(number: int) -> str:
    """SIGTERM for 15; SIGRTMIN+3 and such where the number has no name of its own."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"SIGRTMIN+{number - signal.SIGRTMIN}" if number > signal.SIGRTMIN else f"signal {number}"
