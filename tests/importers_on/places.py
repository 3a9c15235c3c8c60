"""Where a setting of another supervisor has its counterpart, and which are how it is here in any case."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

Holds = Callable[[str], bool]


def _any(value: str) -> bool:
    return True


def _one_of(*words: str) -> Holds:
    return lambda value: value.lower() in words


def _name_of_process(value: str) -> bool:
    """A name that says no more than the program's, with or without the number of the process."""
    return re.fullmatch(r"%\(program_name\)s([-_:.]?%\(process_num\)\d*[ds])?", value) is not None


_YES = _one_of("true", "yes", "on", "1")
_NO = _one_of("false", "no", "off", "0")

ALWAYS: Mapping[str, Mapping[str, Holds]] = {
    "supervisord": {
        "command": _any,  # compared word by word, as are the variables of an environment
        "environment": _any,
        "numprocs": str.isdecimal,  # counted
        "numprocs_start": _any,
        "process_name": _name_of_process,
        "redirect_stderr": _any,  # both streams are kept, told apart
        "killasgroup": _any,  # nothing of a service is left
        "stopasgroup": _NO,
        "autostart": _YES,
    },
    "procfile": {"command": _any},
    "compose": {
        "command": _any,
        "entrypoint": _any,
        "environment": _any,
        "healthcheck.disable": _any,  # a service without health_check
        "security_opt": lambda value: set(re.findall(r"[\w:-]+", value)) <= {"no-new-privileges:true"},
    },
    "systemd": {
        "ExecStart": _any,
        "Environment": _any,
        "Description": _any,
        "Documentation": _any,
        "DefaultDependencies": _any,
        "KillMode": _one_of("control-group", "mixed"),
        "SendSIGKILL": _YES,
        "StandardOutput": _one_of("journal", "inherit", "journal+console"),
        "StandardError": _one_of("journal", "inherit", "journal+console"),
        "Type": _one_of("simple", "exec", "idle"),
        "Restart": _one_of("no"),
    },
}
"""Kind -> setting -> whether this value is how it is here, or is checked otherwise."""

PLACES: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "supervisord": {
        "directory": ("data_dir",),
        "umask": ("umask",),
        "user": ("user",),
        "autostart": ("enabled",),
        "autorestart": ("restart.policy",),
        "startretries": ("restart.max_restarts",),
        "startsecs": ("restart.reset_after",),
        "stopsignal": ("stop.signal",),
        "stopwaitsecs": ("stop.timeout",),
        "stdout_logfile_maxbytes": ("logs.max_size",),
        "stdout_logfile_backups": ("logs.max_files",),
    },
    "procfile": {},
    "compose": {
        "env_file": ("env_file",),
        "working_dir": ("data_dir",),
        "user": ("user",),
        "restart": ("restart.policy",),
        "healthcheck": ("health_check",),
        "healthcheck.test": ("health_check.exec.command",),
        "healthcheck.interval": ("health_check.interval",),
        "healthcheck.timeout": ("health_check.timeout",),
        "healthcheck.retries": ("health_check.retries",),
        "healthcheck.start_period": ("health_check.start_timeout",),
        "stop_signal": ("stop.signal",),
        "stop_grace_period": ("stop.timeout",),
        "mem_limit": ("resources.memory_max",),
        "mem_reservation": ("resources.memory_low",),
        "cpus": ("resources.cpu_percent",),
        "cpu_shares": ("resources.cpu_weight",),
        "cpuset": ("resources.cpuset_cpus",),
        "pids_limit": ("resources.pids_max",),
        "ulimits.*": ("resources.rlimits.{1}", "resources.open_files", "resources.processes"),
        "oom_score_adj": ("oom_score_adj",),
        "deploy.resources.limits.cpus": ("resources.cpu_percent",),
        "deploy.resources.limits.memory": ("resources.memory_max",),
        "deploy.resources.limits.pids": ("resources.pids_max",),
        "deploy.resources.reservations.memory": ("resources.memory_low",),
        "cap_drop": ("security.capabilities",),
        "cap_add": ("security.capabilities",),
        "depends_on": ("depends_on",),
        "depends_on.*": ("depends_on.{1}",),
        "depends_on.*.condition": ("depends_on.{1}.condition",),
    },
    "systemd": {
        "Type": ("type",),
        "User": ("user",),
        "Group": ("group",),
        "WorkingDirectory": ("data_dir",),
        "UMask": ("umask",),
        "EnvironmentFile": ("env_file",),
        "OOMScoreAdjust": ("oom_score_adj",),
        "Restart": ("restart.policy",),
        "RestartSec": ("restart.initial_delay",),
        "StartLimitBurst": ("restart.max_restarts",),
        "StartLimitIntervalSec": ("restart.restart_window", "restart.max_restarts"),
        "StartLimitInterval": ("restart.restart_window", "restart.max_restarts"),
        "TimeoutStartSec": ("start_timeout",),
        "TimeoutStopSec": ("stop.timeout",),
        "KillSignal": ("stop.signal",),
        "WatchdogSec": ("watchdog",),
        "NoNewPrivileges": ("security.no_new_privileges",),
        "CapabilityBoundingSet": ("security.capabilities",),
        "AmbientCapabilities": ("security.capabilities",),
        "CPUQuota": ("resources.cpu_percent",),
        "CPUWeight": ("resources.cpu_weight",),
        "AllowedCPUs": ("resources.cpuset_cpus",),
        "MemoryMax": ("resources.memory_max",),
        "MemoryLimit": ("resources.memory_max",),
        "MemoryHigh": ("resources.memory_high",),
        "MemoryLow": ("resources.memory_low",),
        "MemorySwapMax": ("resources.memory_swap_max",),
        "TasksMax": ("resources.pids_max",),
        "IOWeight": ("resources.io_weight",),
        "IOReadBandwidthMax": ("resources.io_max",),
        "IOWriteBandwidthMax": ("resources.io_max",),
        "IOReadIOPSMax": ("resources.io_max",),
        "IOWriteIOPSMax": ("resources.io_max",),
        "LimitNOFILE": ("resources.open_files",),
        "LimitNPROC": ("resources.processes",),
        **{
            f"Limit{name.upper()}": (f"resources.rlimits.{name}",)
            for name in ("core", "memlock", "stack", "fsize", "data", "as", "rtprio", "sigpending")
        },
    },
}
"""Kind -> setting -> where it may be found in a service; {1} is the second part of the setting's name."""
