"""The whole configuration: runtime, control, include and services."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from blackhole_cg.core.config.instance_kinds import InstanceList, TemplateMap
from blackhole_cg.core.config.kinds import Choice, Duration, Flag, Number, Size, Whole
from blackhole_cg.core.config.port_kinds import Range
from blackhole_cg.core.config.resource_models import MIB, Percent, Weight
from blackhole_cg.core.config.runtime_kinds import LoopbackAddress
from blackhole_cg.core.config.section import Section, key, section
from blackhole_cg.core.config.service_models import (
    LOG_LEVELS,
    Account,
    Attempts,
    Path,
    Service,
    ServiceName,
)
from blackhole_cg.core.spec import PortRange, TcpAddress
from blackhole_cg.core.words import Isolation, Max, Overcommit


class RestartPolicy(Section):
    """The restart policy of services that do not set their own."""

    max_attempts: Annotated[int | Max, Attempts] = key(5, "Restarts within `window` before it is failed.")
    initial_delay: Annotated[float, Duration()] = key(1.0, "Wait before the first restart.")
    backoff_multiplier: Annotated[float, Number(1, 100)] = key(
        2.0, "What each wait is multiplied by for the next one."
    )
    max_backoff: Annotated[float, Duration()] = key(60.0, "Longest wait between restarts.")
    jitter: Annotated[float, Number(0, 1)] = key(
        0.1, "Random part of each wait; 0.1 is plus or minus ten percent."
    )
    window: Annotated[float, Duration(low=0.001)] = key(
        3600.0, "Sliding window in which restarts are counted."
    )
    reset_after: Annotated[float, Duration()] = key(
        60.0, "A run that lasted this long clears the count and the wait."
    )


class ResourceDefaults(Section):
    """The limits of services that do not set their own; "max" is unlimited."""

    default_cpu_percent: Annotated[float | Max, Percent] = key(10.0, "CPU bandwidth; 200 is two cores.")
    default_memory_mb: Annotated[int | Max, Whole(1, 2**43 - 1, "MiB")] = key(512, "Memory limit.")
    default_io_weight: Annotated[int, Weight] = key(100, "Share of disk time under contention.")


class Logs(Section):
    """When the log files of services are rotated."""

    max_size: Annotated[int, Size(1024)] = key(50 * MIB, "Size at which a log file is rotated.")
    max_files: Annotated[int, Whole(1, 1000)] = key(5, "Files kept per service, the current one included.")


class Metrics(Section):
    """Metrics for Prometheus; on the control socket they are in any case."""

    listen: Annotated[TcpAddress | None, LoopbackAddress()] = key(
        None, "Address on this host where `GET /metrics` answers everybody.", inherits="nowhere"
    )


class Ports(Section):
    """The ports of services with `tcp_port: auto`."""

    range: Annotated[PortRange, Range()] = key(
        PortRange(), "Ports they are given; one that a service has written is given to no other."
    )


class Orchestrator(Section):
    """How the supervisor itself works, and the defaults of every service."""

    services_dir: Annotated[str, Path] = key(
        "/opt/blackhole/services", "Where binaries are: `SERVICES_DIR/NAME/NAME`."
    )
    discover: Annotated[bool, Flag()] = key(
        True, "Make a service of each executable `SERVICES_DIR/NAME/NAME` that is not configured."
    )
    discover_interval: Annotated[float | None, Duration(low=1)] = key(
        None, "How often `services_dir` is looked at while running.", inherits="at a reload only"
    )
    log_level: Annotated[str, Choice(LOG_LEVELS)] = key(
        "info", "Log level of the supervisor, and of services that set none."
    )
    auto_restart: Annotated[bool, Flag()] = key(
        True, "false: no service is ever restarted on its own, whatever its policy says."
    )
    shutdown_timeout: Annotated[float, Duration()] = key(
        30.0, "Time for the whole ordered shutdown; past it everything left is killed."
    )
    max_processes: Annotated[int, Whole(1, 1_000_000)] = key(
        50, "Services running at once; one more start is refused."
    )
    memory_overcommit: Annotated[Overcommit, Choice(Overcommit)] = key(
        Overcommit.WARN,
        "A start that pushes the sum of memory limits over the memory there is: allow, warn or refuse.",
    )
    isolation: Annotated[Isolation, Choice(Isolation)] = key(
        Isolation.REQUIRED,
        "required: refuse to start when a limit cannot be enforced here; best_effort: warn and go on.",
    )
    watch: Annotated[bool, Flag()] = key(
        False, "true: reload by itself, as soon as files of the configuration changed, came or went."
    )
    restart_policy: RestartPolicy = section(RestartPolicy, "Restarts of services that set none.")
    resource_limits: ResourceDefaults = section(ResourceDefaults, "Limits of services that set none.")
    logs: Logs = section(Logs, "Rotation of log files.")
    metrics: Metrics = section(Metrics, "Where Prometheus finds its metrics.")
    ports: Ports = section(Ports, "Where the ports of services with `tcp_port: auto` come from.")


class Runtime(Section):
    """Settings that belong to no single service."""

    orchestrator: Orchestrator = section(Orchestrator, "The supervisor, and what holds for every service.")


class Control(Section):
    """The control socket; its owner may always use it."""

    group: Annotated[str | None, Account] = key(
        None, "Group whose members may use the control socket.", inherits="only the supervisor's own user"
    )


def _one_or_many(value: Any) -> Any:
    return () if value is None else (value,) if isinstance(value, str) else value


class Config(Section):
    """A configuration of blackhole-cg: blackhole.yaml."""

    include: Annotated[tuple[Annotated[str, Path], ...], BeforeValidator(_one_or_many)] = key(
        (), "Further files with services, templates and instances: paths and globs, relative to this file."
    )
    runtime: Runtime = section(Runtime, "What holds for the supervisor as a whole.")
    control: Control = section(Control, "Who may use the control socket.")
    templates: Annotated[dict[str, Any], TemplateMap()] = key(
        {}, "Services with placeholders, by name; nothing runs until there are instances of them."
    )
    instances: Annotated[tuple[Any, ...], InstanceList()] = key(
        (), "Services made from templates: each is named by its `id`."
    )
    services: Annotated[dict[ServiceName, Service], BeforeValidator(lambda value: value or {})] = Field(
        default_factory=dict, description="The services, by name."
    )
