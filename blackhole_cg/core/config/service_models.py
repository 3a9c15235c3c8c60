"""The sections of one service."""

from __future__ import annotations

from typing import Annotated, Any, Final

from pydantic import BeforeValidator, Field, GetJsonSchemaHandler
from pydantic_core import CoreSchema

from blackhole_cg.core.config.kinds import (
    Anything,
    Choice,
    Duration,
    Flag,
    JsonSchema,
    Number,
    Size,
    Whole,
    Words,
    describe,
)
from blackhole_cg.core.config.monitor_models import Monitor
from blackhole_cg.core.config.port_kinds import TcpPort
from blackhole_cg.core.config.probe_models import HealthCheck, LivenessProbe, ReadinessProbe, StartupProbe
from blackhole_cg.core.config.resource_models import Resources
from blackhole_cg.core.config.rollout_kinds import Share
from blackhole_cg.core.config.section import Section, key, optional_section, section
from blackhole_cg.core.config.service_kinds import Capability, Command, Mask, SignalName
from blackhole_cg.core.config.socket_models import Socket, SocketName
from blackhole_cg.core.names import SERVICE_NAME_FORMS, SERVICE_NAME_PATTERN
from blackhole_cg.core.words import Auto, Condition, Max, Priority, RestartWhen, ServiceType

DEFAULT_COMMAND: Final = (
    "`BINARY_PATH --service NAME --log-level LEVEL [--config FILE] [--socket PATH] [--port PORT]`"
)
LOG_LEVELS: Final = ("debug", "info", "warn", "warning", "error", "critical")

ServiceName = Annotated[str, Words("a service name", SERVICE_NAME_PATTERN, SERVICE_NAME_FORMS)]
VariableName = Annotated[
    str,
    Words(
        "a variable name", "[A-Za-z_][A-Za-z0-9_.-]*", "letters, digits and '_', not beginning with a digit"
    ),
]
AnyText = Words(pattern=".*", allowed="text")
Path = Words("a path", allowed="a path, absolute or relative to this file")
Account = Words("an account", r"[^\s:/]+", "a name or a number")
Attempts = Whole(0, 1_000_000)
Sha256 = Words("a SHA-256", "[0-9a-fA-F]{64}", "64 hexadecimal digits, as sha256sum prints them")


class Dependency(Section):
    """What a dependency must have reached."""

    condition: Annotated[Condition, Choice(Condition)] = key(
        Condition.STARTED,
        "started; healthy: as its probes say; completed: a oneshot that ended well.",
    )


def _names_to_mapping(value: Any) -> Any:
    """A list of names says: each must be started."""
    if value is None:
        return {}
    if not isinstance(value, list | tuple):
        if isinstance(value, dict):
            return value
        raise ValueError(
            f"{describe(value)} is not a list of services "
            "(accepted: a list of names, or a mapping of names to {condition: started | healthy | completed})"
        )
    names: dict[str, Any] = {}
    for index, name in enumerate(value):
        if not isinstance(name, str):
            what = "empty" if name is None else describe(name)
            raise ValueError(f"item {index + 1} is {what}, not the name of a service (accepted: names)")
        if name in names:
            raise ValueError(f"{describe(name)} is listed twice (accepted: each name once)")
        names[name] = {}
    return names


class _ListOrMapping:
    """Adds the list form to the JSON Schema."""

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchema:
        names = {"type": "array", "items": {"type": "string"}, "uniqueItems": True}
        return {"anyOf": [names, handler(schema)]}


Dependencies = Annotated[
    dict[ServiceName, Dependency],
    BeforeValidator(_names_to_mapping),
    _ListOrMapping(),
]


class Restart(Section):
    """When and how the service is started again after it ended."""

    policy: Annotated[RestartWhen | None, Choice(RestartWhen)] = key(
        None, "After which exits it is restarted.", inherits="always; never for a oneshot"
    )
    max_restarts: Annotated[int | Max | None, Attempts] = key(
        None,
        "Restarts within restart_window before it is failed.",
        inherits="runtime.orchestrator.restart_policy.max_attempts",
    )
    initial_delay: Annotated[float | None, Duration()] = key(
        None, "Wait before the first restart.", inherits="runtime.orchestrator.restart_policy.initial_delay"
    )
    max_delay: Annotated[float | None, Duration()] = key(
        None, "Longest wait between restarts.", inherits="runtime.orchestrator.restart_policy.max_backoff"
    )
    backoff_factor: Annotated[float | None, Number(1, 100)] = key(
        None,
        "What each wait is multiplied by for the next one.",
        inherits="runtime.orchestrator.restart_policy.backoff_multiplier",
    )
    restart_window: Annotated[float | None, Duration(low=0.001)] = key(
        None,
        "Sliding window in which restarts are counted.",
        inherits="runtime.orchestrator.restart_policy.window",
    )
    jitter: Annotated[float | None, Number(0, 1)] = key(
        None,
        "Random part of each wait; 0.1 is plus or minus ten percent.",
        inherits="runtime.orchestrator.restart_policy.jitter",
    )
    reset_after: Annotated[float | None, Duration()] = key(
        None,
        "A run that lasted this long clears the count and the wait.",
        inherits="runtime.orchestrator.restart_policy.reset_after",
    )


class Stop(Section):
    """How the service is asked to end."""

    signal: Annotated[int, SignalName()] = key(15, "Signal sent to the main process.")
    timeout: Annotated[float, Duration()] = key(10.0, "Time to end in; then everything left is killed.")


class Security(Section):
    """What the service may do."""

    no_new_privileges: Annotated[bool, Flag()] = key(
        True, "No program it executes can gain privileges (setuid files have no effect)."
    )
    capabilities: tuple[Annotated[str, Capability()], ...] | None = key(
        None, "The only capabilities it keeps; [] keeps none.", inherits="those of the supervisor"
    )


class ServiceLogs(Section):
    """When the log file of the service is rotated."""

    max_size: Annotated[int | None, Size(1024)] = key(
        None, "Size at which it is rotated.", inherits="runtime.orchestrator.logs.max_size"
    )
    max_files: Annotated[int | None, Whole(1, 1000)] = key(
        None, "Files kept, the current one included.", inherits="runtime.orchestrator.logs.max_files"
    )


class Rollout(Section):
    """How many of its group are replaced at once."""

    max_unavailable: Annotated[int | str | None, Share()] = key(
        None,
        "Of the instances wanted up, how many may be down at once while they are replaced; "
        "a percentage of `instances` is rounded down.",
        inherits="0 with max_surge, else 1",
    )
    max_surge: Annotated[int | str, Share()] = key(
        0,
        "With `instances`: how many there may be in addition while they are replaced, no more than these "
        "themselves; a percentage of them is rounded up.",
    )
    min_ready: Annotated[float | None, Duration()] = key(
        None,
        "How long a new run has to stay up before it counts.",
        inherits="0s with probes or type notify, which tell when it is up; else 2s",
    )


class Service(Section):
    """One service: what is run, as whom, within which limits, and what happens when it ends."""

    enabled: Annotated[bool, Flag()] = key(True, "Whether it is started with the others.")
    required: Annotated[bool, Flag()] = key(
        True, "false: when it cannot start, it is reported and retried, and the others start all the same."
    )
    instances: Annotated[int | None, Whole(1, 1000)] = key(
        None,
        "How many of it there are: NAME-1 to NAME-N, each a service of its own with its number in {index}.",
        inherits="one, called NAME",
    )
    rollout: Rollout = section(Rollout, "How instances are replaced when they need a new run.")
    type: Annotated[ServiceType, Choice(ServiceType)] = key(
        ServiceType.SIMPLE,
        "simple is up once executed; notify once it says so (READY=1 to NOTIFY_SOCKET, as with systemd); "
        "oneshot does its work and ends.",
    )
    start_timeout: Annotated[float, Duration(low=0.001)] = key(
        90.0, "Time to be ready (type notify) and healthy (with probes), before the start has failed."
    )
    watchdog: Annotated[float | None, Duration(low=0.001)] = key(
        None,
        "Longest time between two WATCHDOG=1 to NOTIFY_SOCKET; past it the run is ended as broken. "
        "Only for type notify.",
        inherits="no watchdog",
    )
    command: Annotated[str | tuple[str, ...] | None, Command()] = key(
        None,
        "Command line: a list, or one text split like a shell does, never run by a shell.",
        inherits=DEFAULT_COMMAND,
    )
    binary_path: Annotated[str | None, Path] = key(
        None, "Program that is run without `command`.", inherits="`SERVICES_DIR/NAME/NAME`"
    )
    binary_sha256: Annotated[str | None, Sha256] = key(
        None, "SHA-256 of the program, verified before every start on the open file that is executed."
    )
    args: tuple[Annotated[str, AnyText], ...] = key((), "Arguments added at the end of the command line.")
    data_dir: Annotated[str | None, Path] = key(
        None,
        "Working directory and HOME; created, and owned by `user`.",
        inherits="`/var/lib/blackhole/NAME`, or below the user's data directory when not root",
    )
    environment: dict[VariableName, Annotated[str, AnyText]] = Field(
        default_factory=dict,
        description="Variables added to a clean environment; text is kept as written. "
        "The base is PATH, HOME, TEMP, TMP, LANG, BLACKHOLE_* and GOMEMLIMIT.",
    )
    env_file: Annotated[str | None, Path] = key(
        None, "File of KEY=VALUE lines added before `environment`, which wins."
    )
    user: Annotated[str | None, Account] = key(None, "User it runs as.", inherits="that of the supervisor")
    group: Annotated[str | None, Account] = key(None, "Group it runs as.", inherits="that of the user")
    log_level: Annotated[str | None, Choice(LOG_LEVELS)] = key(
        None, "Log level the service is told.", inherits="runtime.orchestrator.log_level"
    )
    unix_socket: Annotated[str | None, Path] = key(None, "Socket it listens on; it is told the path.")
    tcp_port: Annotated[int | Auto | None, TcpPort()] = key(
        None, "Port it listens on; it is told the number. auto: one of runtime.orchestrator.ports.range."
    )
    sockets: dict[SocketName, Socket] = Field(
        default_factory=dict,
        description="Sockets that the supervisor binds and holds; each run gets them, in this order, from "
        "descriptor 3 on (LISTEN_FDS).",
    )
    depends_on: Dependencies = Field(
        default_factory=dict,
        description="Services that come first: a list of names, or a mapping of names to a condition.",
    )
    resources: Resources = section(Resources, "Limits of the service.")
    priority: Annotated[Priority, Choice(Priority)] = key(
        Priority.NORMAL,
        "Sets the defaults of cpu_weight (400, 100, 25), io_weight (four times or a quarter of the common "
        "default) and oom_score_adj (-500, 0, 500).",
    )
    umask: Annotated[int, Mask()] = key(0o022, "File mode creation mask, in octal.")
    oom_score_adj: Annotated[int | None, Whole(-1000, 1000)] = key(
        None,
        "How readily the kernel kills it when the host is out of memory; -1000 is never.",
        inherits="by `priority`: -500, 0 or 500",
    )
    health_check: HealthCheck | None = optional_section("How its health is asked for: the short form.")
    startup_probe: StartupProbe | None = optional_section("How it is asked whether it has started.")
    readiness_probe: ReadinessProbe | None = optional_section("How it is asked whether it can do its work.")
    liveness_probe: LivenessProbe | None = optional_section("How it is asked whether it still works.")
    restart: Restart = section(Restart, "Restarts after an exit.")
    monitor: Monitor = section(Monitor, "How it is watched, and what happens when it goes out of bounds.")
    stop: Stop = section(Stop, "How it is stopped.")
    security: Security = section(Security, "Privileges.")
    logs: ServiceLogs = section(ServiceLogs, "Its log file.")
    config: Annotated[dict[str, Any] | None, Anything()] = key(
        None, "Handed to the service as a JSON file, named by BLACKHOLE_CONFIG and {config_path}."
    )
