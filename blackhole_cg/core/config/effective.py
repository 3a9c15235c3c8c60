"""The configuration with every default filled in, and how it is shown without its secrets."""

from __future__ import annotations

import posixpath
from collections.abc import Callable
from typing import Any, Final

import yaml

from blackhole_cg.core.config.kinds import Text, to_json_value
from blackhole_cg.core.config.loaded import LoadedConfig
from blackhole_cg.core.config.models import Config, Orchestrator
from blackhole_cg.core.config.resource_models import MIB, Resources
from blackhole_cg.core.config.service_models import Restart, Rollout, Service, ServiceLogs
from blackhole_cg.core.config.tree import KeyPath
from blackhole_cg.core.config.variables import escape
from blackhole_cg.core.reading import Context
from blackhole_cg.core.words import MAX, Max, Priority, RestartWhen, ServiceType

HIDDEN: Final = "***"

MEMORY_HIGH_PERCENT: Final = 90
"""memory.high as a part of memory.max, when it is not set: reclaim begins before the kernel kills."""

_PAGE_BYTES: Final = 4096
_ORCHESTRATOR: Final[KeyPath] = ("runtime", "orchestrator")
_OWN_MEMORY: Final[tuple[KeyPath, ...]] = (("resources", "memory_max"), ("resources", "memory_mb"))
_DEFAULT_MEMORY: Final[KeyPath] = (*_ORCHESTRATOR, "resource_limits", "default_memory_mb")

_INHERITED: Final[dict[KeyPath, KeyPath]] = {
    ("log_level",): ("log_level",),
    ("binary_path",): ("services_dir",),
    ("resources", "cpu_percent"): ("resource_limits", "default_cpu_percent"),
    ("resources", "io_weight"): ("resource_limits", "default_io_weight"),
    ("restart", "policy"): ("auto_restart",),
    ("restart", "max_restarts"): ("restart_policy", "max_attempts"),
    ("restart", "initial_delay"): ("restart_policy", "initial_delay"),
    ("restart", "max_delay"): ("restart_policy", "max_backoff"),
    ("restart", "backoff_factor"): ("restart_policy", "backoff_multiplier"),
    ("restart", "restart_window"): ("restart_policy", "window"),
    ("restart", "jitter"): ("restart_policy", "jitter"),
    ("restart", "reset_after"): ("restart_policy", "reset_after"),
    ("logs", "max_size"): ("logs", "max_size"),
    ("logs", "max_files"): ("logs", "max_files"),
}
"""Key of a service -> key of the orchestrator whose value stands in for it."""


def fill_defaults(loaded: LoadedConfig, context: Context) -> Config:
    """The configuration as it takes effect: nothing is left to a default, every path is absolute."""
    config = loaded.config
    orchestrator = config.runtime.orchestrator
    main_dir = posixpath.dirname(loaded.sources[0])
    services_dir = absolute_path(orchestrator.services_dir, main_dir, context)
    orchestrator = orchestrator.model_copy(update={"services_dir": services_dir})
    services = {
        name: _fill_service(name, service, orchestrator, loaded.directory_of(name), context)
        for name, service in config.services.items()
    }
    runtime = config.runtime.model_copy(update={"orchestrator": orchestrator})
    own = {"include": (), "templates": {}, "instances": (), "runtime": runtime, "services": services}
    return config.model_copy(update=own)


def absolute_path(path: str, directory: str, context: Context) -> str:
    """A path written in a file of `directory`; ".." is kept, because a link may stand before it."""
    return posixpath.join(context.working_dir, directory, path.removeprefix("./"))


def _fill_service(
    name: str, service: Service, orchestrator: Orchestrator, directory: str, context: Context
) -> Service:
    def located(path: str | None) -> str | None:
        return None if path is None else absolute_path(path, directory, context)

    default_binary = posixpath.join(orchestrator.services_dir, name, name)
    default_program = None if service.command is not None else default_binary
    return service.model_copy(
        update={
            "log_level": service.log_level or orchestrator.log_level,
            "binary_path": located(service.binary_path) or default_program,
            "data_dir": located(service.data_dir) or posixpath.join(context.data_root, name),
            "env_file": located(service.env_file),
            "unix_socket": located(service.unix_socket),
            "sockets": {
                key: socket.model_copy(update={"unix": _located_socket(socket.unix, located)})
                for key, socket in service.sockets.items()
            },
            "oom_score_adj": _or(service.oom_score_adj, _OOM_SCORES[service.priority]),
            "resources": _fill_resources(service.resources, service.priority, orchestrator),
            "restart": _fill_restart(service, orchestrator),
            "logs": _fill_logs(service.logs, orchestrator),
            "rollout": _fill_rollout(service.rollout),
        }
    )


def _located_socket(path: str | None, located: Callable[[str | None], str | None]) -> str | None:
    """One that begins with a placeholder begins with a path that is absolute."""
    return path if path is not None and path.startswith("{") else located(path)


_CPU_WEIGHTS: Final = {Priority.CRITICAL: 400, Priority.BACKGROUND: 25}  # normal: the kernel's 100
_IO_FACTORS: Final = {Priority.CRITICAL: 4.0, Priority.NORMAL: 1.0, Priority.BACKGROUND: 0.25}
_OOM_SCORES: Final = {Priority.CRITICAL: -500, Priority.NORMAL: 0, Priority.BACKGROUND: 500}


def _default_io_weight(priority: Priority, common: int) -> int:
    return min(10000, max(1, round(common * _IO_FACTORS[priority])))


def _or(value: Any, default: Any) -> Any:
    return default if value is None else value


def _fill_resources(resources: Resources, priority: Priority, orchestrator: Orchestrator) -> Resources:
    defaults = orchestrator.resource_limits
    memory_mb = _or(resources.memory_mb, defaults.default_memory_mb)
    memory_max = _or(resources.memory_max, memory_mb if memory_mb == MAX else memory_mb * MIB)
    return resources.model_copy(
        update={
            "cpu_percent": _or(resources.cpu_percent, defaults.default_cpu_percent),
            "memory_mb": None,
            "memory_max": memory_max,
            "memory_high": _or(resources.memory_high, _default_memory_high(memory_max)),
            "cpu_weight": _or(resources.cpu_weight, _CPU_WEIGHTS.get(priority)),
            "io_weight": _or(resources.io_weight, _default_io_weight(priority, defaults.default_io_weight)),
            "pids_max": _or(resources.pids_max, resources.processes),
        }
    )


def _default_memory_high(memory_max: int | Max) -> int | None:
    """Whole pages, because the kernel counts in pages and rounds down."""
    if isinstance(memory_max, str):
        return None
    return memory_max * MEMORY_HIGH_PERCENT // 100 // _PAGE_BYTES * _PAGE_BYTES


def _fill_restart(service: Service, orchestrator: Orchestrator) -> Restart:
    own, default = service.restart, orchestrator.restart_policy
    usual = RestartWhen.NEVER if service.type is ServiceType.ONESHOT else RestartWhen.ALWAYS
    return Restart(
        policy=_or(own.policy, usual) if orchestrator.auto_restart else RestartWhen.NEVER,
        max_restarts=_or(own.max_restarts, default.max_attempts),
        initial_delay=_or(own.initial_delay, default.initial_delay),
        max_delay=_or(own.max_delay, default.max_backoff),
        backoff_factor=_or(own.backoff_factor, default.backoff_multiplier),
        restart_window=_or(own.restart_window, default.window),
        jitter=_or(own.jitter, default.jitter),
        reset_after=_or(own.reset_after, default.reset_after),
    )


def _fill_rollout(own: Rollout) -> Rollout:
    usual = 1 if own.max_surge == 0 else 0
    return own.model_copy(update={"max_unavailable": _or(own.max_unavailable, usual)})


def _fill_logs(own: ServiceLogs, orchestrator: Orchestrator) -> ServiceLogs:
    default = orchestrator.logs
    return ServiceLogs(
        max_size=_or(own.max_size, default.max_size), max_files=_or(own.max_files, default.max_files)
    )


def show_config(loaded: LoadedConfig, context: Context) -> dict[str, Any]:
    """The effective configuration as plain data that is itself a configuration.

    A value that came from the environment is shown as the `${VAR}` text it was written as; a value that
    was derived from one is shown as ***.
    """
    data = fill_defaults(loaded, context).model_dump(mode="python", by_alias=True)
    for name in ("include", "templates", "instances"):  # they are services by now
        del data[name]
    for name in loaded.surge:
        data["services"].pop(name, None)
    shown = _Redaction(loaded).show(data, ())
    assert isinstance(shown, dict)
    return shown


class _Redaction:
    """Replaces secrets in the effective configuration."""

    def __init__(self, loaded: LoadedConfig) -> None:
        self._loaded = loaded
        self._secrets = loaded.secrets

    def show(self, value: Any, path: KeyPath) -> Any:
        if value is not None and path in self._secrets:
            return self._secrets[path]
        if isinstance(value, dict):
            return {name: self.show(item, (*path, name)) for name, item in value.items()}
        if isinstance(value, list | tuple):
            return [self.show(item, (*path, index)) for index, item in enumerate(value)]
        if value is not None and self._is_derived_from_secret(path):
            return HIDDEN
        return escape(value) if isinstance(value, str) else value

    def _is_derived_from_secret(self, path: KeyPath) -> bool:
        if len(path) < 3 or path[0] != "services" or self._loaded.has_written(path):
            return False
        service, key = path[:2], path[2:]
        return any(origin in self._secrets for origin in _origins(service, key))


def _origins(service: KeyPath, key: KeyPath) -> list[KeyPath]:
    """The keys a filled-in value of a service may come from."""
    if key in (("resources", "memory_max"), ("resources", "memory_high")):
        return [*((*service, *own) for own in _OWN_MEMORY), _DEFAULT_MEMORY]
    if key == ("resources", "pids_max"):
        return [(*service, "resources", "processes")]
    return [(*_ORCHESTRATOR, *_INHERITED[key])] if key in _INHERITED else []


_SafeDumper: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)


class _Dumper(_SafeDumper):  # type: ignore[misc]
    """Quotes every text that would be read back as something else."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _represent_text(dumper: _Dumper, text: str) -> Any:
    is_ambiguous = not isinstance(to_json_value(Text.of(text, plain=True, shown=text)), str)
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="'" if is_ambiguous else None)


_Dumper.add_representer(str, _represent_text)


def render_yaml(data: dict[str, Any]) -> str:
    """Shown configuration as YAML, in its own order."""
    return yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=110)
