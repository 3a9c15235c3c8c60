"""What no single value shows: rules between keys and between services, as a list of small checks."""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Iterable, Iterator
from typing import Final

from blackhole_cg.core import graph
from blackhole_cg.core.config import placeholders
from blackhole_cg.core.config.kinds import suggest
from blackhole_cg.core.config.loaded import LoadedConfig
from blackhole_cg.core.config.messages import Finding
from blackhole_cg.core.config.monitor_checks import check_monitor
from blackhole_cg.core.config.probe_checks import check_probes, probe_texts
from blackhole_cg.core.config.resource_models import MIB
from blackhole_cg.core.config.rollout_checks import check_rollout, check_surge
from blackhole_cg.core.config.service_kinds import split_command
from blackhole_cg.core.config.service_models import Service
from blackhole_cg.core.config.socket_checks import check_addresses, check_sockets, socket_texts
from blackhole_cg.core.config.tree import KeyPath, Mapping
from blackhole_cg.core.units import shorten
from blackhole_cg.core.words import Condition, RestartWhen, ServiceType

_ORCHESTRATOR: Final[KeyPath] = ("runtime", "orchestrator")
_DELAYS_CROSSED: Final = "the first wait is longer than the longest one (accepted: up to the longest one)"


_Rule = Callable[[LoadedConfig], Iterator[Finding]]


def check(loaded: LoadedConfig) -> Iterator[Finding]:
    """Every broken rule; one that was concluded from a refused value is kept back."""
    for rule in _RULES:
        for finding in rule(loaded):
            if all(loaded.is_sound(path) for path in (finding.path, *finding.looks_at)):
                yield finding


def _each(rule: Callable[[KeyPath, Service], Iterable[Finding]]) -> _Rule:
    def check_services(loaded: LoadedConfig) -> Iterator[Finding]:
        for name, service in loaded.config.services.items():
            yield from rule(("services", name), service)

    return check_services


def _dependencies(loaded: LoadedConfig) -> Iterator[Finding]:
    surge = loaded.surge
    services = {name: each for name, each in loaded.config.services.items() if name not in surge}
    section = loaded.root.entries.get("services")
    written = section.entries.keys() - surge if isinstance(section, Mapping) else frozenset()
    for name, service in loaded.config.services.items():
        for other, dependency in service.depends_on.items():
            path = ("services", name, "depends_on", other)
            if other not in services:
                if other not in written:
                    yield Finding(path, _unknown_service(other, services), at_key=True)
            elif other == name:
                yield Finding(path, "the service depends on itself", at_key=True)
            else:
                yield from _dependency(path, service, dependency.condition, services[other])


def _unknown_service(other: str, services: Iterable[str]) -> str:
    names = sorted(services)
    hint = suggest(other, names).strip()
    accepted = f"accepted: {shorten(', '.join(names), 200)}"
    return f"there is no service '{shorten(other)}' ({hint or accepted})"


def _dependency(path: KeyPath, service: Service, condition: Condition, needed: Service) -> Iterator[Finding]:
    other = ("services", path[-1])
    if service.enabled and not needed.enabled:
        looks_at = ((*path[:2], "enabled"), (*other, "enabled"))
        yield Finding(path, f"'{path[-1]}' is disabled, so it is never started", True, looks_at)
    if condition is Condition.COMPLETED and needed.type is not ServiceType.ONESHOT:
        message = f"'{path[-1]}' is not a oneshot, so it never completes (accepted: started, healthy)"
        yield Finding((*path, "condition"), message, looks_at=((*other, "type"),))
    if condition is Condition.HEALTHY and not can_be_healthy(needed):
        message = (
            f"'{path[-1]}' has no probes and is not of type notify, so nobody can tell (accepted: started)"
        )
        if needed.type is ServiceType.ONESHOT:
            message = f"'{path[-1]}' is a oneshot (accepted: completed)"
        yield Finding((*path, "condition"), message, looks_at=(other,))


def can_be_healthy(service: Service) -> bool:
    """Whether there is a way to tell that it is up."""
    if service.type is ServiceType.ONESHOT:
        return False
    probes = (service.health_check, service.startup_probe, service.readiness_probe, service.liveness_probe)
    return service.type is ServiceType.NOTIFY or any(probe is not None for probe in probes)


def _cycles(loaded: LoadedConfig) -> Iterator[Finding]:
    services = loaded.config.services
    dependencies = {
        name: [other for other in service.depends_on if other != name] for name, service in services.items()
    }
    while loop := graph.find_cycle(dependencies):
        message = f"the services wait for each other: {graph.render_cycle(loop)}"
        looks_at = tuple(("services", name, "depends_on") for name in loop)
        yield Finding(("services", loop[0], "depends_on", loop[1]), message, True, looks_at)
        for name in loop:
            dependencies.pop(name, None)


def _ports(loaded: LoadedConfig) -> Iterator[Finding]:
    def fixed(name: str, service: Service) -> int | None:
        return service.tcp_port if isinstance(service.tcp_port, int) else None

    return _collisions(loaded, "tcp_port", fixed)


def _metrics_port(loaded: LoadedConfig) -> Iterator[Finding]:
    metrics = (*_ORCHESTRATOR, "metrics", "listen")
    address = loaded.config.runtime.orchestrator.metrics.listen
    for name, service in loaded.config.services.items():
        if address is not None and service.enabled and service.tcp_port == address.port:
            message = f"the supervisor's metrics have the same port ({loaded.position(metrics)})"
            yield Finding(("services", name, "tcp_port"), message, looks_at=(("services", name, "enabled"),))


def _sockets(loaded: LoadedConfig) -> Iterator[Finding]:
    def absolute(name: str, service: Service) -> str | None:
        path = service.unix_socket
        return path and posixpath.normpath(posixpath.join(loaded.directory_of(name), path))

    return _collisions(loaded, "unix_socket", absolute)


def _collisions(
    loaded: LoadedConfig, key: str, value_of: Callable[[str, Service], str | int | None]
) -> Iterator[Finding]:
    owners: dict[str | int, str] = {}
    for name, service in loaded.config.services.items():
        value = value_of(name, service)
        if value is None or not service.enabled:
            continue
        owner = owners.setdefault(value, name)
        if owner != name:
            place = loaded.position(("services", owner, key))
            message = f"service '{owner}' has the same {key} ({place})"
            looks_at = tuple(("services", other, "enabled") for other in (owner, name))
            yield Finding(("services", name, key), message, looks_at=looks_at)


def _memory(path: KeyPath, service: Service) -> Iterator[Finding]:
    resources = service.resources
    limit, name = resources.memory_max, "memory_max"
    if resources.memory_mb is not None:
        if limit is not None:
            message = "memory_mb sets the same limit (keep one of memory_mb and memory_max)"
            looks_at = ((*path, "resources", "memory_mb"),)
            yield Finding((*path, "resources", "memory_max"), message, looks_at=looks_at)
            return
        name = "memory_mb"
        limit = resources.memory_mb * MIB if isinstance(resources.memory_mb, int) else "max"
    for key, value in (("memory_high", resources.memory_high), ("memory_low", resources.memory_low)):
        if isinstance(value, int) and isinstance(limit, int) and value > limit:
            message = f"is more than {name} (accepted: less than that limit)"
            looks_at = ((*path, "resources", name),)
            yield Finding((*path, "resources", key), message, looks_at=looks_at)


def _io_max(path: KeyPath, service: Service) -> Iterator[Finding]:
    for device, limits in service.resources.io_max.items():
        if all(value is None for value in (limits.rbps, limits.wbps, limits.riops, limits.wiops)):
            message = "bounds nothing (accepted: one or more of rbps, wbps, riops, wiops)"
            yield Finding((*path, "resources", "io_max", device), message, at_key=True)


def _command(path: KeyPath, service: Service) -> Iterator[Finding]:
    if service.command is not None and service.binary_path is not None:
        message = "command says what is run already (keep one of command and binary_path)"
        yield Finding((*path, "binary_path"), message, looks_at=((*path, "command"),))


def _placeholders(path: KeyPath, service: Service) -> Iterator[Finding]:
    absent = {
        word: key
        for word, key in (("tcp_port", "tcp_port"), ("unix_socket", "unix_socket"), ("config_path", "config"))
        if getattr(service, key) is None
    }
    for place, text in _texts(path, service):
        for word in sorted(placeholders.used_in(text) & absent.keys()):
            message = f"uses {{{word}}}, and the service has no {absent[word]}"
            yield Finding(place, message, looks_at=((*path, absent[word]),))


def _texts(path: KeyPath, service: Service) -> Iterator[tuple[KeyPath, str]]:
    """Every text in which placeholders are replaced."""
    if isinstance(service.command, str):
        yield from (((*path, "command"), word) for word in split_command(service.command))
    for key, words in (("command", service.command), ("args", service.args)):
        if isinstance(words, tuple):
            yield from (((*path, key, index), word) for index, word in enumerate(words))
    for name, text in service.environment.items():
        yield (*path, "environment", name), text
    yield from socket_texts(path, service)
    yield from probe_texts(path, service)


def _oneshot_restart(path: KeyPath, service: Service) -> Iterator[Finding]:
    if service.type is ServiceType.ONESHOT and service.restart.policy is RestartWhen.ALWAYS:
        message = "a oneshot that ended well is not run again (accepted: on_failure, never)"
        yield Finding((*path, "restart", "policy"), message, looks_at=((*path, "type"),))


def _monitor(loaded: LoadedConfig) -> Iterator[Finding]:
    orchestrator = loaded.config.runtime.orchestrator
    for name, service in loaded.config.services.items():
        yield from check_monitor(("services", name), service, orchestrator)


def _delays(loaded: LoadedConfig) -> Iterator[Finding]:
    policy = (*_ORCHESTRATOR, "restart_policy")
    default = loaded.config.runtime.orchestrator.restart_policy
    first, longest = (*policy, "initial_delay"), (*policy, "max_backoff")
    if default.initial_delay > default.max_backoff:
        where = longest if loaded.has_written(longest) else first
        yield Finding(where, _DELAYS_CROSSED)
    for name, service in loaded.config.services.items():
        path = ("services", name, "restart")
        own_first, own_longest = service.restart.initial_delay, service.restart.max_delay
        if own_first is None and own_longest is None:
            continue
        delay = default.initial_delay if own_first is None else own_first
        bound = default.max_backoff if own_longest is None else own_longest
        if delay > bound:
            key = "initial_delay" if own_longest is None else "max_delay"
            yield Finding((*path, key), _DELAYS_CROSSED, looks_at=(path, first, longest))


def _watchdog(path: KeyPath, service: Service) -> Iterator[Finding]:
    if service.watchdog is not None and service.type is not ServiceType.NOTIFY:
        message = f"nobody listens to a service of type {service.type} (accepted: with type notify)"
        yield Finding((*path, "watchdog"), message, looks_at=((*path, "type"),))


def _instances(loaded: LoadedConfig) -> Iterator[Finding]:
    """What is left of these keys: the others have become services."""
    for name, service in loaded.config.services.items():
        if service.instances is not None:
            message = "has to be written out as a number, from 1 to 1000"
            if name in loaded.origins:
                message = "an instance of a template is one service (accepted: an entry of `instances` each)"
            yield Finding(("services", name, "instances"), message)


_RULES: tuple[_Rule, ...] = (
    _instances,
    _each(check_rollout),
    check_surge,
    _dependencies,
    _cycles,
    _ports,
    _metrics_port,
    _sockets,
    _each(check_sockets),
    check_addresses,
    _each(_memory),
    _each(_io_max),
    _each(_command),
    _each(_placeholders),
    _each(_oneshot_restart),
    _each(_watchdog),
    _each(check_probes),
    _delays,
    _monitor,
)
