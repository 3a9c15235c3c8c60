"""What of a unit file has a counterpart here, and why the rest has none.

Source: systemd.exec(5), systemd.kill(5), systemd.resource-control(5), systemd.service(5).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from blackhole_cg.core.importers.draft import Carry, duration, literal, put, setter
from blackhole_cg.core.importers.spans import read_span
from blackhole_cg.core.importers.systemd_words import split

_RESTARTS: Final[Mapping[str, str]] = {
    "no": "never",
    "always": "always",
    "on-failure": "on_failure",
    "on-abnormal": "on_failure",
    "on-abort": "on_failure",
    "on-watchdog": "on_failure",
    "on-success": "never",
}
_EXACT_RESTARTS: Final = frozenset({"no", "always", "on-failure"})
_TYPES: Final = {
    "simple": "simple",
    "exec": "simple",
    "idle": "simple",
    "notify": "notify",
    "oneshot": "oneshot",
}


def _span(value: str) -> str:
    return duration(read_span(value))


def _type(service: dict[str, Any], value: str) -> str:
    if value in _TYPES:
        if _TYPES[value] != "simple":
            service["type"] = _TYPES[value]
        return ""
    if value == "notify-reload":
        service["type"] = "notify"
        return "it is not asked to reload"
    if value == "forking":
        return "a service has to stay in the foreground: look for its option that keeps it from forking"
    return "is not told apart from simple"


def _restart(service: dict[str, Any], value: str) -> str:
    put(service, "restart.policy", _RESTARTS.get(value, "on_failure"))
    return "" if value in _EXACT_RESTARTS else f"is taken for {_RESTARTS.get(value, 'on_failure')}"


def _burst(service: dict[str, Any], value: str) -> str:
    put(service, "restart.max_restarts", int(value))
    return ""


def _interval(service: dict[str, Any], value: str) -> str:
    if read_span(value) == 0:
        put(service, "restart.max_restarts", "max")
    else:
        put(service, "restart.restart_window", _span(value))
    return ""


def _timeout(path: str) -> Carry:
    def carry(service: dict[str, Any], value: str) -> str:
        seconds = read_span(value)
        if seconds in (0, float("inf")):
            return "a timeout has an end here"
        put(service, path, duration(seconds))
        return ""

    return carry


def _environment(service: dict[str, Any], value: str) -> str:
    for word in split(value):
        key, equals, text = word.partition("=")
        if not equals:
            raise ValueError(f"'{word}' is not KEY=value")
        service.setdefault("environment", {})[key] = literal(text)
    return ""


def _environment_file(service: dict[str, Any], value: str) -> str:
    if "env_file" in service:
        return "there is one env_file for a service"
    service["env_file"] = value.removeprefix("-")
    return "must exist" if value.startswith("-") else ""


def _directory(service: dict[str, Any], value: str) -> str:
    if value.startswith("~"):
        return "name the directory as data_dir"
    service["data_dir"] = value.removeprefix("-")
    return ""


def _percent(service: dict[str, Any], value: str) -> str:
    percent = float(value.removesuffix("%"))
    put(service, "resources.cpu_percent", int(percent) if percent == int(percent) else percent)
    return ""


def _limit(path: str) -> Carry:
    def carry(service: dict[str, Any], value: str) -> str:
        if value.endswith("%"):
            return "a share of the host's memory has to be written as a size"
        put(service, path, "max" if value == "infinity" else value)
        return ""

    return carry


def _count(path: str) -> Carry:
    def carry(service: dict[str, Any], value: str) -> str:
        if value.endswith("%"):
            return "a share has to be written as a number"
        put(service, path, "max" if value == "infinity" else int(value))
        return ""

    return carry


def _rlimit(path: str, *, is_count: bool) -> Carry:
    def carry(service: dict[str, Any], value: str) -> str:
        soft, _, hard = value.partition(":")
        if soft == "infinity":
            if path == "resources.open_files":
                return "write a number as open_files"
            put(service, path, "max")
        else:
            put(service, path, int(soft) if is_count else soft)
        return "soft and hard limit are the same here" if hard and hard != soft else ""

    return carry


def _io(word: str, *, is_size: bool) -> Carry:
    def carry(service: dict[str, Any], value: str) -> str:
        device, _, bound = value.rpartition(" ")
        if not device or bound == "infinity":
            return "has no counterpart here"
        bounds = service.setdefault("resources", {}).setdefault("io_max", {})
        bounds.setdefault(device.strip('" '), {})[word] = bound if is_size else int(bound)
        return ""

    return carry


def _mask(value: str) -> str:
    return f"{int(value, 8) & 0o777:04o}"  # umask(2) takes no more than nine bits


def _yes(path: str) -> Carry:
    return setter(path, lambda value: value.lower() in ("yes", "true", "on", "1"))


def _capabilities(service: dict[str, Any], value: str) -> str:
    if value.startswith("~"):
        return "name the capabilities it keeps as security.capabilities"
    names = [name.removeprefix("CAP_") for name in value.split()]
    known = service.get("security", {}).get("capabilities", [])
    put(service, "security.capabilities", list(dict.fromkeys([*known, *names])))
    return ""


WHYS: Final[Mapping[str, str]] = {
    "ExecStartPre": "make it a service of type oneshot that this one depends on: {condition: completed}",
    "ExecStartPost": "has no counterpart here",
    "ExecStop": "a service is stopped by a signal: see stop.signal",
    "ExecReload": "signal the service yourself; `restart` starts it anew",
    "PIDFile": "the main process is the one that was started",
    "StandardOutput": "output is kept in NAME.log of --log-dir, both streams, told apart",
    "StandardError": "output is kept in NAME.log of --log-dir, both streams, told apart",
    "SyslogIdentifier": "log lines carry the name of the service",
    "KillMode": "nothing of a service is left when it has been stopped",
    "SendSIGKILL": "nothing of a service is left when it has been stopped",
    "RemainAfterExit": "a oneshot that ended well is completed",
    "RuntimeDirectory": "make the directory yourself (tmpfiles.d)",
    "StateDirectory": "the data_dir is made and owned by the service's user",
    "Slice": "services are in cgroups below that of the supervisor",
}

_RLIMITS: Final = {
    "LimitNOFILE": ("resources.open_files", True),
    "LimitNPROC": ("resources.processes", True),
    "LimitCORE": ("resources.rlimits.core", False),
    "LimitMEMLOCK": ("resources.rlimits.memlock", False),
    "LimitSTACK": ("resources.rlimits.stack", False),
    "LimitFSIZE": ("resources.rlimits.fsize", False),
    "LimitDATA": ("resources.rlimits.data", False),
    "LimitAS": ("resources.rlimits.as", False),
    "LimitRTPRIO": ("resources.rlimits.rtprio", True),
    "LimitSIGPENDING": ("resources.rlimits.sigpending", True),
}

CARRIED: Final[Mapping[str, Carry]] = {
    "Type": _type,
    "User": setter("user"),
    "Group": setter("group"),
    "WorkingDirectory": _directory,
    "UMask": setter("umask", _mask),
    "Environment": _environment,
    "EnvironmentFile": _environment_file,
    "OOMScoreAdjust": setter("oom_score_adj", int),
    "Restart": _restart,
    "RestartSec": setter("restart.initial_delay", _span),
    "StartLimitBurst": _burst,
    "StartLimitIntervalSec": _interval,
    "StartLimitInterval": _interval,
    "TimeoutStartSec": _timeout("start_timeout"),
    "TimeoutStopSec": _timeout("stop.timeout"),
    "KillSignal": setter("stop.signal"),
    "WatchdogSec": setter("watchdog", _span),
    "NoNewPrivileges": _yes("security.no_new_privileges"),
    "CapabilityBoundingSet": _capabilities,
    "AmbientCapabilities": _capabilities,
    "CPUQuota": _percent,
    "CPUWeight": _count("resources.cpu_weight"),
    "AllowedCPUs": setter("resources.cpuset_cpus", lambda value: ",".join(value.replace(",", " ").split())),
    "MemoryMax": _limit("resources.memory_max"),
    "MemoryLimit": _limit("resources.memory_max"),
    "MemoryHigh": _limit("resources.memory_high"),
    "MemoryLow": _limit("resources.memory_low"),
    "MemorySwapMax": _limit("resources.memory_swap_max"),
    "TasksMax": _count("resources.pids_max"),
    "IOWeight": _count("resources.io_weight"),
    "IOReadBandwidthMax": _io("rbps", is_size=True),
    "IOWriteBandwidthMax": _io("wbps", is_size=True),
    "IOReadIOPSMax": _io("riops", is_size=False),
    "IOWriteIOPSMax": _io("wiops", is_size=False),
    **{key: _rlimit(path, is_count=is_count) for key, (path, is_count) in _RLIMITS.items()},
}
"""What has a counterpart: sets it, and returns what is different about it, if anything."""
