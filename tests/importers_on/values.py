"""What the value of a setting has to be in its new place: both sides are brought to one form and compared."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

Form = Callable[[str], object]

_SECONDS = {
    "us": 1e-6,
    "ms": 1e-3,
    "": 1,
    "s": 1,
    "sec": 1,
    "m": 60,
    "min": 60,
    "h": 3600,
    "hour": 3600,
    "d": 86400,
}
_UNITS = {letter: 1024**power for power, letter in enumerate("bkmgt")}


def _text(value: str) -> object:
    return value


def _seconds(value: str) -> object:
    parts = re.findall(r"([\d.]+)\s*([a-z]*)", value)
    return round(sum(float(number) * _SECONDS[unit.rstrip("s") or unit] for number, unit in parts), 3)


def _started(value: str) -> object:
    return max(_seconds(value), 1)  # type: ignore[type-var]


def _signal(value: str) -> object:
    return value.upper().removeprefix("SIG")


def _mask(value: str) -> object:
    return int(value, 8) & 0o777


def _account(value: str) -> object:
    return re.split(r":", value)[0]


def _directory(value: str) -> object:
    return value.removeprefix("-")


def _bytes(value: str) -> object:
    found = re.fullmatch(r"([\d.]+)\s*([bkmgt]?)i?b?", value.lower())
    return float(found[1]) * _UNITS[found[2] or "b"] if found else value.replace("infinity", "max")


def _count(value: str) -> object:
    return value.partition(":")[0].replace("infinity", "max").replace("-1", "max")


def _policy(value: str) -> object:
    word = value.lower().partition(":")[0].replace("-", "_")
    same = {
        "true": "always",
        "unless_stopped": "always",
        "unexpected": "on_failure",
        "false": "never",
        "no": "never",
    }
    return same.get(word, word)


def _cpus(value: str) -> object:
    return float(value) * 100


def _percent(value: str) -> object:
    return float(value.rstrip("%"))


def _yes(value: str) -> object:
    return value.lower() in ("yes", "true", "on", "1")


VALUES: Mapping[str, Mapping[str, tuple[str, Form, Form]]] = {
    "supervisord": {
        "directory": ("data_dir", _text, _text),
        "user": ("user", _account, _text),
        "umask": ("umask", _mask, _mask),
        "autorestart": ("restart.policy", _policy, _text),
        "startretries": ("restart.max_restarts", _text, _text),
        "startsecs": ("restart.reset_after", _started, _seconds),
        "stopsignal": ("stop.signal", _signal, _signal),
        "stopwaitsecs": ("stop.timeout", _seconds, _seconds),
        "stdout_logfile_maxbytes": ("logs.max_size", _bytes, _bytes),
    },
    "procfile": {},
    "compose": {
        "working_dir": ("data_dir", _text, _text),
        "user": ("user", _account, _text),
        "restart": ("restart.policy", _policy, _text),
        "stop_signal": ("stop.signal", _signal, _signal),
        "stop_grace_period": ("stop.timeout", _seconds, _seconds),
        "healthcheck.interval": ("health_check.interval", _seconds, _seconds),
        "healthcheck.timeout": ("health_check.timeout", _seconds, _seconds),
        "healthcheck.retries": ("health_check.retries", _text, _text),
        "mem_limit": ("resources.memory_max", _bytes, _bytes),
        "cpus": ("resources.cpu_percent", _cpus, _percent),
        "pids_limit": ("resources.pids_max", _count, _text),
        "deploy.resources.limits.memory": ("resources.memory_max", _bytes, _bytes),
        "deploy.resources.limits.cpus": ("resources.cpu_percent", _cpus, _percent),
        "deploy.resources.reservations.memory": ("resources.memory_low", _bytes, _bytes),
    },
    "systemd": {
        "User": ("user", _text, _text),
        "Group": ("group", _text, _text),
        "WorkingDirectory": ("data_dir", _directory, _text),
        "UMask": ("umask", _mask, _mask),
        "EnvironmentFile": ("env_file", _directory, _text),
        "OOMScoreAdjust": ("oom_score_adj", _text, _text),
        "Restart": ("restart.policy", _policy, _text),
        "RestartSec": ("restart.initial_delay", _seconds, _seconds),
        "StartLimitBurst": ("restart.max_restarts", _text, _text),
        "TimeoutStartSec": ("start_timeout", _seconds, _seconds),
        "TimeoutStopSec": ("stop.timeout", _seconds, _seconds),
        "KillSignal": ("stop.signal", _signal, _signal),
        "WatchdogSec": ("watchdog", _seconds, _seconds),
        "NoNewPrivileges": ("security.no_new_privileges", _yes, _yes),
        "CPUQuota": ("resources.cpu_percent", _percent, _percent),
        "MemoryMax": ("resources.memory_max", _bytes, _bytes),
        "MemoryHigh": ("resources.memory_high", _bytes, _bytes),
        "TasksMax": ("resources.pids_max", _count, _text),
        "LimitNOFILE": ("resources.open_files", _count, _text),
        "LimitNPROC": ("resources.processes", _count, _text),
        "LimitCORE": ("resources.rlimits.core", _count, _text),
        "LimitMEMLOCK": ("resources.rlimits.memlock", _count, _text),
    },
}
"""Kind -> setting -> where its value is, and the form of the old and of the new one."""
