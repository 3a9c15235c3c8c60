"""From a loaded configuration to the specs that every other layer reads."""

from __future__ import annotations

import hashlib
import json
import math
import posixpath
from dataclasses import is_dataclass, replace
from typing import Any, Final

from blackhole_cg.core.config import placeholders
from blackhole_cg.core.config.checks import can_be_healthy
from blackhole_cg.core.config.effective import absolute_path, fill_defaults
from blackhole_cg.core.config.loaded import LoadedConfig
from blackhole_cg.core.config.models import Config, Orchestrator
from blackhole_cg.core.config.resolve_monitor import resolve_monitor
from blackhole_cg.core.config.resolve_probes import Texts, resolve_probes
from blackhole_cg.core.config.resolve_sockets import resolve_sockets
from blackhole_cg.core.config.resource_models import Resources, Rlimits
from blackhole_cg.core.config.service_kinds import split_command
from blackhole_cg.core.config.service_models import Service
from blackhole_cg.core.ports import PORT_MARK
from blackhole_cg.core.reading import Context
from blackhole_cg.core.spec import (
    DiscoverySpec,
    IoMax,
    LogPolicy,
    ResourceLimits,
    RestartPolicy,
    RolloutSpec,
    RuntimeSpec,
    SecuritySpec,
    ServiceSpec,
    StopPolicy,
    SupervisorSpec,
)
from blackhole_cg.core.words import AUTO, MAX, Max, ServiceType

STANDARD_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

GOMEMLIMIT_PERCENT: Final = 95
"""Of the lower of memory_high and memory_max: Go collects before the kernel slows the service down."""

UNPROBED_READY_SECONDS: Final = 2.0
"""What a new run has to last before another instance is replaced, where nobody can tell whether it is up."""

_TOLD: Final = {
    "BLACKHOLE_CONFIG": "config_path",
    "BLACKHOLE_SOCKET": "unix_socket",
    "BLACKHOLE_PORT": "tcp_port",
}
_ATOMS: Final = frozenset({str, int, float, bool, type(None)})
_GO_LIMIT: Final = "GOMEMLIMIT"
_LEVEL_NAMES: Final = {"warn": "warning"}
# Where a field of the neutral form is not called what the file calls it.
_FIELDS: Final = {
    "command": "argv",
    "args": "argv",
    "binary_path": "argv",
    "resources": "limits",
    "config": "handed_config",
    "health_check": "probes",
    "startup_probe": "probes",
    "readiness_probe": "probes",
    "liveness_probe": "probes",
}
_NOT_HASHED: Final = frozenset(
    {
        "name",
        "enabled",
        "required",
        "start_timeout_seconds",
        "watchdog_seconds",  # it is in the environment, as is the socket
        "notify_socket",
        "depends_on",
        "restart",
        "monitor",
        "stop",
        "logs",
        "probes",
        "instance_of",
        "rollout",
        "discovered",
        "hidden",
        "config_hash",
    }
)


def resolve(loaded: LoadedConfig, context: Context) -> SupervisorSpec:
    """The specs of the configuration, with defaults, placeholders and paths resolved."""
    config = fill_defaults(loaded, context)
    services = {
        name: _Resolver(loaded, context, name, service).spec() for name, service in config.services.items()
    }
    additional = loaded.surge
    surge = {name: services.pop(name) for name in list(services) if name in additional}
    env_files = [service.env_file for service in config.services.values() if service.env_file is not None]
    sources = [absolute_path(path, "", context) for path in (*loaded.sources, *env_files)]
    globs = [absolute_path(pattern, "", context) for pattern in loaded.globs]
    return SupervisorSpec(
        _runtime(config),
        services,
        tuple(dict.fromkeys(sources)),
        loaded.notes,
        tuple(dict.fromkeys(globs)),
        surge,
    )


def _runtime(config: Config) -> RuntimeSpec:
    orchestrator = config.runtime.orchestrator
    return RuntimeSpec(
        log_level=_LEVEL_NAMES.get(orchestrator.log_level, orchestrator.log_level),
        shutdown_timeout_seconds=orchestrator.shutdown_timeout,
        max_processes=orchestrator.max_processes,
        isolation=orchestrator.isolation,
        memory_overcommit=orchestrator.memory_overcommit,
        control_group=config.control.group,
        metrics_listen=orchestrator.metrics.listen,
        discovery=_discovery(orchestrator),
        port_range=orchestrator.ports.range,
        watch=orchestrator.watch,
    )


def _discovery(orchestrator: Orchestrator) -> DiscoverySpec | None:
    if not orchestrator.discover:
        return None
    return DiscoverySpec(orchestrator.services_dir, orchestrator.discover_interval)


class _Resolver:
    """One service with all defaults filled in, on its way to a spec."""

    def __init__(self, loaded: LoadedConfig, context: Context, name: str, service: Service) -> None:
        self._loaded = loaded
        self._context = context
        self._name = name
        self._service = service
        has_config = service.config is not None
        self._config_path = (
            posixpath.join(context.runtime_dir, "config", f"{name}.json") if has_config else None
        )
        is_notify = service.type is ServiceType.NOTIFY
        self._notify_socket = posixpath.join(context.runtime_dir, "notify", name) if is_notify else None
        facts = {
            "name": name,
            "tcp_port": PORT_MARK if service.tcp_port == AUTO else service.tcp_port,
            "unix_socket": service.unix_socket,
            "data_dir": service.data_dir,
            "log_level": service.log_level,
            "config_path": self._config_path,
        }
        self._values = {word: str(fact) for word, fact in facts.items() if fact is not None}

    def spec(self) -> ServiceSpec:
        service, origin = self._service, self._loaded.origins.get(self._name)
        texts = Texts(self._name, self._fill, self._locate)
        spec = ServiceSpec(
            name=self._name,
            argv=self._argv(),
            data_dir=self._values["data_dir"],
            environment=self._environment(),
            enabled=service.enabled,
            required=service.required,
            start_timeout_seconds=service.start_timeout,
            type=service.type,
            watchdog_seconds=service.watchdog,
            notify_socket=self._notify_socket,
            user=service.user,
            group=service.group,
            umask=service.umask,
            log_level=self._values["log_level"],
            unix_socket=service.unix_socket,
            tcp_port=service.tcp_port,
            sockets=resolve_sockets(service, texts),
            depends_on={name: needed.condition for name, needed in service.depends_on.items()},
            limits=_limits(service.resources),
            oom_score_adj=service.oom_score_adj or 0,
            restart=_restart(service),
            monitor=resolve_monitor(service.monitor),
            stop=StopPolicy(service.stop.signal, service.stop.timeout),
            security=SecuritySpec(service.security.no_new_privileges, service.security.capabilities),
            logs=_logs(service),
            probes=resolve_probes(service, texts),
            handed_config=None if service.config is None else json.dumps(service.config),
            config_path=self._config_path,
            binary_sha256=service.binary_sha256 and service.binary_sha256.lower(),
            instance_of=origin.template if origin else None,
            rollout=_rollout(service),
            discovered=self._name in self._loaded.discovered,
            hidden=self._hidden(),
        )
        return replace(spec, config_hash=_hash(spec, _go_memory_limit(service.resources)))

    def _hidden(self) -> tuple[str, ...]:
        """The fields that may hold what came from the environment."""
        mine = ("services", self._name)
        keys = {str(path[2]) for path in self._loaded.secrets if path[:2] == mine and len(path) > 2}
        keys |= {
            str(path[2]) for path in self._loaded.secrets if path[:1] == ("templates",) and len(path) > 2
        }
        return tuple(sorted({_FIELDS.get(key, key) for key in keys}))

    def _fill(self, text: str) -> str:
        return placeholders.fill(text, self._values)

    def _locate(self, path: str) -> str:
        return absolute_path(path, self._loaded.directory_of(self._name), self._context)

    def _argv(self) -> tuple[str, ...]:
        service = self._service
        if service.command is None:
            level = self._values["log_level"]
            words = [service.binary_path or "", "--service", self._name, "--log-level", level]
            for option, fact in (
                ("--config", "config_path"),
                ("--socket", "unix_socket"),
                ("--port", "tcp_port"),
            ):
                words += [option, self._values[fact]] if fact in self._values else []
        else:
            words = [self._fill(word) for word in split_command(service.command)]
            if "/" in words[0]:
                words[0] = self._locate(words[0])
        return (*words, *map(self._fill, service.args))

    def _environment(self) -> dict[str, str]:
        go_limit = _go_memory_limit(self._service.resources)
        return {
            "PATH": STANDARD_PATH,
            "HOME": self._values["data_dir"],
            "TEMP": "/tmp",
            "TMP": "/tmp",
            "LANG": "C.UTF-8",
            "BLACKHOLE_SERVICE": self._name,
            "BLACKHOLE_DATA_DIR": self._values["data_dir"],
            "BLACKHOLE_LOG_LEVEL": self._values["log_level"],
            **{name: self._values[fact] for name, fact in _TOLD.items() if fact in self._values},
            **({} if go_limit is None else {_GO_LIMIT: go_limit}),
            **self._notify_environment(),
            **self._loaded.env_files.get(self._name, {}),
            **{name: self._fill(text) for name, text in self._service.environment.items()},
        }

    def _notify_environment(self) -> dict[str, str]:
        """Without WATCHDOG_PID, which is not known yet. Source: sd_watchdog_enabled(3)."""
        told = {} if self._notify_socket is None else {"NOTIFY_SOCKET": self._notify_socket}
        if self._service.watchdog is not None:
            told["WATCHDOG_USEC"] = str(round(self._service.watchdog * 1e6))
        return told


def _go_memory_limit(resources: Resources) -> str | None:
    """Bytes. Source: package runtime of Go, "Environment Variables"."""
    bounds = [bound for bound in (resources.memory_high, resources.memory_max) if isinstance(bound, int)]
    return str(min(bounds) * GOMEMLIMIT_PERCENT // 100) if bounds else None


def _limits(resources: Resources) -> ResourceLimits:
    return ResourceLimits(
        cpu_percent=resources.cpu_percent,
        cpu_weight=resources.cpu_weight,
        cpuset_cpus=resources.cpuset_cpus,
        memory_max_bytes=resources.memory_max,
        memory_high_bytes=resources.memory_high,
        memory_low_bytes=resources.memory_low,
        memory_swap_max_bytes=resources.memory_swap_max,
        memory_oom_group=resources.memory_oom_group,
        io_weight=resources.io_weight,
        io_max=tuple(
            IoMax(device, bound.rbps or MAX, bound.wbps or MAX, bound.riops or MAX, bound.wiops or MAX)
            for device, bound in resources.io_max.items()
        ),
        pids_max=resources.pids_max,
        rlimits=_rlimits(resources),
    )


def _rlimits(resources: Resources) -> dict[str, int | Max]:
    written = resources.rlimits
    values = {
        "nofile": resources.open_files,
        "nproc": resources.processes,
        **{field.alias or name: getattr(written, name) for name, field in Rlimits.model_fields.items()},
    }
    return {name: _whole(value) for name, value in values.items() if value is not None}


def _whole(value: float | Max) -> int | Max:
    return value if isinstance(value, str) else math.ceil(value)


def _restart(service: Service) -> RestartPolicy:
    """The policy of a service whose defaults are filled in."""
    policy = service.restart
    assert policy.policy is not None and policy.max_restarts is not None
    return RestartPolicy(
        when=policy.policy,
        max_restarts=policy.max_restarts,
        window_seconds=_filled(policy.restart_window),
        initial_delay_seconds=_filled(policy.initial_delay),
        max_delay_seconds=_filled(policy.max_delay),
        backoff_factor=_filled(policy.backoff_factor),
        jitter=_filled(policy.jitter),
        reset_after_seconds=_filled(policy.reset_after),
    )


def _filled(value: float | None) -> float:
    assert value is not None
    return value


def _rollout(service: Service) -> RolloutSpec:
    min_ready = service.rollout.min_ready
    if min_ready is None:
        min_ready = 0.0 if can_be_healthy(service) else UNPROBED_READY_SECONDS
    assert service.rollout.max_unavailable is not None  # the defaults are filled in
    return RolloutSpec(service.rollout.max_unavailable, min_ready, service.rollout.max_surge)


def _logs(service: Service) -> LogPolicy:
    assert service.logs.max_size is not None and service.logs.max_files is not None
    return LogPolicy(service.logs.max_size, service.logs.max_files)


def _hash(spec: ServiceSpec, go_limit: str | None) -> str:
    """Of what a run is started with and cannot be changed while it lives.

    Of the limits these are the rlimits; and what is told to Go follows from the others.
    """
    hashed = [name for name in spec.__dataclass_fields__ if name not in _NOT_HASHED]
    facts = {name: _plain(getattr(spec, name)) for name in hashed}
    facts["limits"] = facts["limits"]["rlimits"]
    environment = facts["environment"]
    if go_limit is not None and environment.get(_GO_LIMIT) == go_limit:
        facts["environment"] = {name: text for name, text in environment.items() if name != _GO_LIMIT}
    return hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()


def _plain(value: Any) -> Any:
    """As asdict, without its deep copies: these took most of the time of a large configuration."""
    if type(value) in _ATOMS:
        return value
    if is_dataclass(value):
        return {name: _plain(getattr(value, name)) for name in value.__dataclass_fields__}
    if isinstance(value, dict):
        return {name: _plain(each) for name, each in value.items()}
    return [_plain(each) for each in value] if isinstance(value, tuple | list) else value
