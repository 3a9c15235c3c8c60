"""The words of the contract that more than one layer says: states, reasons, conditions."""

from __future__ import annotations

from enum import StrEnum
from typing import Final, Literal

MAX: Final = "max"
"""Unlimited, in the kernel's own word."""

Max = Literal["max"]

AUTO: Final = "auto"
"""Any port of the range: which one is decided when the service starts."""

Auto = Literal["auto"]


class State(StrEnum):
    """Where a service is."""

    STOPPED = "stopped"
    WAITING = "waiting"
    STARTING = "starting"
    RUNNING = "running"
    STOPPING = "stopping"
    RESTARTING = "restarting"
    FAILED = "failed"
    COMPLETED = "completed"


LIVE_STATES: Final = frozenset({State.STARTING, State.RUNNING, State.STOPPING})
"""States in which a run exists: a process, a cgroup, descriptors."""


class Desired(StrEnum):
    """Where a service is wanted."""

    UP = "up"
    DOWN = "down"


class Health(StrEnum):
    """What the probes say; a service without probes stays unknown."""

    UNKNOWN = "unknown"
    HEALTHY = "healthy"
    UNHEALTHY = "unhealthy"


class Reason(StrEnum):
    """Why something happened: the one list for last_exit and for events."""

    EXITED = "exited"
    SIGNALLED = "signalled"
    OOM = "oom"
    PROBE_FAILED = "probe_failed"
    RULE = "rule"
    WATCHDOG = "watchdog"
    OPERATOR = "operator"
    SHUTDOWN = "shutdown"
    START_FAILED = "start_failed"
    UNKNOWN = "unknown"


class Condition(StrEnum):
    """What a dependency must have reached before its dependent starts."""

    STARTED = "started"
    HEALTHY = "healthy"
    COMPLETED = "completed"


class ServiceType(StrEnum):
    """How a service says that it has started."""

    SIMPLE = "simple"
    NOTIFY = "notify"
    ONESHOT = "oneshot"


class RestartWhen(StrEnum):
    """After which exits a service is restarted."""

    ALWAYS = "always"
    ON_FAILURE = "on_failure"
    NEVER = "never"


class Isolation(StrEnum):
    """What happens to a limit that this host cannot enforce."""

    REQUIRED = "required"
    BEST_EFFORT = "best_effort"


class Priority(StrEnum):
    """How much a service matters when CPU, disk or memory run short."""

    CRITICAL = "critical"
    NORMAL = "normal"
    BACKGROUND = "background"


class Overcommit(StrEnum):
    """What happens to a start that pushes the sum of memory limits over the memory there is."""

    ALLOW = "allow"
    WARN = "warn"
    REFUSE = "refuse"


class Dependents(StrEnum):
    """What a stop does about running services that need one it stops."""

    REFUSE = "refuse"
    STOP = "stop"
    LEAVE = "leave"


class Stream(StrEnum):
    """Which of a service's two outputs a line came from."""

    STDOUT = "stdout"
    STDERR = "stderr"
