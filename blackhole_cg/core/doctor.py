"""What a host can do for a supervisor, judged: what works, what is missing, and what can be done about it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any, Final

from blackhole_cg.core.facts import HostFacts, LimitProblem
from blackhole_cg.core.units import format_size, shorten


class Verdict(StrEnum):
    """How good it is; only a problem keeps a service from its limits or a supervisor from its work."""

    OK = "ok"
    NOTE = "note"
    PROBLEM = "problem"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at."""

    topic: str
    verdict: Verdict
    text: str
    advice: str | None = None  # what can be done about it

    def to_json(self) -> dict[str, Any]:
        """The object that `doctor --json` shows."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Directory:
    """One that the supervisor writes to; `problem` is why it cannot, `free_bytes` None is unknown."""

    purpose: str
    path: str
    free_bytes: int | None = None
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class Survey:
    """What was found on a host."""

    facts: HostFacts
    uid: int
    scope_by: str | None = None  # who gives `run` a delegated cgroup of its own
    unit: bool = False  # systemd's unit is installed
    pressure: str | None = None  # why there is none
    io_weights: Mapping[str, str | None] = field(default_factory=dict)  # disk -> what heeds weights
    open_files: int = 0  # the hard limit
    pipe_bytes: int = 0  # the most that one pipe holds
    missing_capabilities: tuple[str, ...] = ()
    directories: tuple[Directory, ...] = ()
    supervisor: str | None = None  # who runs already


CAPABILITIES: Final = {
    "CAP_CHOWN": "give services with a user their files",
    "CAP_KILL": "end services of other users",
    "CAP_SETGID": "start services with a group",
    "CAP_SETUID": "start services with a user",
    "CAP_NET_ADMIN": "learn the exit codes of services that were taken over",
    "CAP_SYS_RESOURCE": "raise rlimits above the hard limits here",
}
"""What root is to be able to, and what it is good for."""

_CONTROLS: Final = {
    "cpu": "cpu_max and cpu_weight",
    "memory": "memory_max, memory_high and the like",
    "io": "io_max and io_weight",
    "pids": "pids_max",
    "cpuset": "cpuset_cpus",
}
_INSTEAD: Final = {
    "cpu": "cpu_max is kept by freezing for moments",
    "memory": "memory_max is kept by restarting what exceeds it",
}
_OPTIONAL: Final = frozenset({"cpuset"})
_LITTLE_ROOM_BYTES: Final = 100 << 20
_FILES_PER_SERVICE: Final = 8
_FEW_FILES: Final = 4096
_SMALL_PIPE: Final = 1 << 20


def examine(found: Survey) -> list[Finding]:
    """All that was found, judged, in the order in which it is to be mended."""
    return [
        *_kernel(found),
        *_place(found),
        *_controllers(found),
        *_weights(found),
        *_process(found),
        *_directories(found.directories),
        *_supervisor(found),
    ]


def examine_limits(problems: Iterable[LimitProblem], *, required: bool) -> list[Finding]:
    """Limits of a configuration that this host cannot enforce; with `isolation: required` it does not run."""
    verdict = Verdict.PROBLEM if required else Verdict.NOTE
    advice = "`isolation: best_effort` runs without" if required else None
    services: dict[tuple[str, str], list[str]] = {}
    for problem in problems:
        services.setdefault((problem.limit, problem.reason), []).append(problem.service)
    return [
        Finding("configuration", verdict, f"{limit} of {shorten(', '.join(names))}: {reason}", advice)
        for (limit, reason), names in services.items()
    ]


def _kernel(found: Survey) -> Iterator[Finding]:
    kernel = f"Linux {found.facts.kernel}"
    if found.facts.cgroup_kill:
        yield Finding("kernel", Verdict.OK, kernel)
    else:
        text = f"{kernel} has no cgroup.kill: what does not stop is frozen and killed one by one"
        yield Finding("kernel", Verdict.NOTE, text, "Linux 5.14 or later")
    if found.pressure is None:
        yield Finding("pressure", Verdict.OK, "pressure stall information is there for rules and samples")
    else:
        advice = "psi=1 on the kernel's command line"
        yield Finding("pressure", Verdict.NOTE, f"no rule on pressure can fire: {found.pressure}", advice)


def _place(found: Survey) -> Iterator[Finding]:
    facts = found.facts
    if facts.cgroup_root is None:
        advice = (
            "mount -t cgroup2 none /sys/fs/cgroup, or boot with systemd.unified_cgroup_hierarchy=1"
            if facts.cgroup_mount is None
            else "install the systemd unit, which has Delegate=yes, or name a directory with --cgroup-root"
        )
        yield Finding("cgroup v2", Verdict.PROBLEM, facts.cgroup_problem or "no place for cgroups", advice)
    elif found.scope_by:
        text = f"at {facts.cgroup_mount}; {found.scope_by} gives `run` a delegated scope"
        yield Finding("cgroup v2", Verdict.OK, text)
    else:
        text = f"at {facts.cgroup_mount}; services go below {facts.cgroup_root}"
        yield Finding("cgroup v2", Verdict.OK, text)


def _controllers(found: Survey) -> Iterator[Finding]:
    for name, reason in found.facts.controllers.items():
        limits = _CONTROLS.get(name, name)
        if reason is None:
            yield Finding(name, Verdict.OK, f"enforces {limits}")
            continue
        instead = f"; {_INSTEAD[name]}" if name in _INSTEAD else ""
        verdict = Verdict.NOTE if name in _OPTIONAL else Verdict.PROBLEM
        yield Finding(name, verdict, f"{limits} cannot be enforced: {reason}{instead}", _advice_for(reason))


def _advice_for(reason: str) -> str | None:
    if "v1" in reason:
        return "boot with systemd.unified_cgroup_hierarchy=1 or cgroup_no_v1=all"
    if "command line" in reason:
        return "take cgroup_disable= off the kernel's command line"
    return "Delegate=yes on the unit" if "delegated" in reason else None


def _weights(found: Survey) -> Iterator[Finding]:
    if found.facts.controllers.get("io") is not None:
        return
    for disk, mechanism in found.io_weights.items():
        if mechanism:
            yield Finding("io_weight", Verdict.OK, f"acts on {disk}, by {mechanism}")
        else:
            text = f"has no effect on {disk}: neither the BFQ scheduler nor io.cost is active there"
            advice = f"echo bfq > /sys/block/{disk}/queue/scheduler; io_max works without"
            yield Finding("io_weight", Verdict.NOTE, text, advice)


def _process(found: Survey) -> Iterator[Finding]:
    if found.uid != 0:
        text = "not root: services run as this user, without rlimits above its own"
        yield Finding("user", Verdict.NOTE, text)
    elif found.missing_capabilities:
        for name in found.missing_capabilities:
            yield Finding("user", Verdict.NOTE, f"root without {name}: cannot {CAPABILITIES[name]}")
    else:
        yield Finding("user", Verdict.OK, "root")
    services = found.open_files // _FILES_PER_SERVICE
    text = f"{found.open_files} open files at most, enough for about {services} services"
    if found.open_files < _FEW_FILES:
        yield Finding("open files", Verdict.NOTE, text, "LimitNOFILE=65536 on the unit")
    else:
        yield Finding("open files", Verdict.OK, text)
    text = f"holds {format_size(found.pipe_bytes)} of what a service writes while nobody supervises"
    if found.pipe_bytes < _SMALL_PIPE:
        yield Finding("output", Verdict.NOTE, text, "sysctl fs.pipe-max-size=1048576")
    else:
        yield Finding("output", Verdict.OK, text)


def _directories(directories: Iterable[Directory]) -> Iterator[Finding]:
    for each in directories:
        if each.problem is not None:
            yield Finding(each.purpose, Verdict.PROBLEM, f"{each.path}: {each.problem}")
        elif each.free_bytes is not None:
            little = each.free_bytes < _LITTLE_ROOM_BYTES
            verdict = Verdict.NOTE if little else Verdict.OK
            yield Finding(each.purpose, verdict, f"{each.path}: {format_size(each.free_bytes)} free")
        else:
            yield Finding(each.purpose, Verdict.OK, each.path)


def _supervisor(found: Survey) -> Iterator[Finding]:
    if found.supervisor is not None:
        yield Finding("supervisor", Verdict.OK, found.supervisor)
        return
    text = "none answers" + ("; its systemd unit is installed" if found.unit else "")
    yield Finding("supervisor", Verdict.OK, text)
