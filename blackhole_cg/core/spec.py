"""What is to run, after defaults, variables and placeholders: the neutral form every layer reads.

Owns the frozen types that configuration text is turned into. Knows nothing of YAML or of the kernel.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from blackhole_cg.core.monitor_spec import MonitorSpec
from blackhole_cg.core.probe_spec import NO_PROBES, ProbesSpec
from blackhole_cg.core.socket_spec import SocketSpec
from blackhole_cg.core.words import Auto, Condition, Isolation, Max, Overcommit, RestartWhen, ServiceType


@dataclass(frozen=True, slots=True)
class IoMax:
    """Bounds for one block device: a path such as /dev/sda, or MAJOR:MINOR."""

    device: str
    read_bytes_per_second: int | Max = "max"
    write_bytes_per_second: int | Max = "max"
    read_operations_per_second: int | Max = "max"
    write_operations_per_second: int | Max = "max"


@dataclass(frozen=True, slots=True)
class ResourceLimits:
    """The limits of one service; None is "not set", "max" is the kernel's "unlimited"."""

    cpu_percent: float | Max | None = None  # of one core: 200 is two cores
    cpu_weight: int | None = None  # 1 to 10000
    cpuset_cpus: str | None = None  # a kernel list: "0-3,6"
    memory_max_bytes: int | Max | None = None
    memory_high_bytes: int | Max | None = None
    memory_low_bytes: int | Max | None = None
    memory_swap_max_bytes: int | Max | None = None
    memory_oom_group: bool | None = None
    io_weight: int | None = None  # 1 to 10000
    io_max: tuple[IoMax, ...] = ()
    pids_max: int | Max | None = None
    rlimits: Mapping[str, int | Max] = field(default_factory=dict)  # "nofile" -> 10000; bytes or counts


@dataclass(frozen=True, slots=True)
class RestartPolicy:
    """When and how a service that ended is started again."""

    when: RestartWhen = RestartWhen.ALWAYS
    max_restarts: int | Max = 5  # automatic restarts allowed within `window_seconds`
    window_seconds: float = 3600.0
    initial_delay_seconds: float = 1.0
    max_delay_seconds: float = 60.0
    backoff_factor: float = 2.0
    jitter: float = 0.1  # 0.1 is plus or minus ten percent
    reset_after_seconds: float = 60.0  # a run that lasted this long clears the history


@dataclass(frozen=True, slots=True)
class StopPolicy:
    """How a run is asked to end, and how long it may take before it is killed."""

    signal: int = 15
    timeout_seconds: float = 10.0


@dataclass(frozen=True, slots=True)
class RolloutSpec:
    """How instances of one group are replaced by others. A share is a number, or a text such as "25%"."""

    max_unavailable: int | str = 1  # of those that are wanted up
    min_ready_seconds: float = 0.0  # a new run has to stay up that long
    max_surge: int | str = 0  # beside those that there are


@dataclass(frozen=True, slots=True)
class SecuritySpec:
    """What a run may do. `capabilities` None leaves them as they are; an empty tuple drops all."""

    no_new_privileges: bool = True
    capabilities: tuple[str, ...] | None = None  # names without "CAP_", upper case: "NET_BIND_SERVICE"


@dataclass(frozen=True, slots=True)
class LogPolicy:
    """When a service's log file is rotated and how many files are kept, the current one included."""

    max_bytes: int = 50 * 1024 * 1024
    max_files: int = 5


@dataclass(frozen=True, slots=True)
class ServiceSpec:
    """One service, ready to be started.

    `environment` is complete but for nothing: what the service sees is exactly this mapping.
    `handed_config` is the JSON text for the file named by `config_path` (None: no file).
    """

    name: str
    argv: tuple[str, ...]
    data_dir: str
    environment: Mapping[str, str]
    enabled: bool = True
    required: bool = True
    type: ServiceType = ServiceType.SIMPLE
    start_timeout_seconds: float = 90.0  # to be ready and healthy, where there is a way to tell
    watchdog_seconds: float | None = None  # how long a run of type notify may be silent
    notify_socket: str | None = None  # where a run of type notify says that it is ready
    user: str | None = None
    group: str | None = None
    umask: int = 0o022
    log_level: str = "info"
    unix_socket: str | None = None
    tcp_port: int | Auto | None = None  # auto: `core.ports.with_port` fills it in at the start of a run
    sockets: tuple[SocketSpec, ...] = ()  # bound by the supervisor, handed to every run
    depends_on: Mapping[str, Condition] = field(default_factory=dict)
    limits: ResourceLimits = ResourceLimits()
    oom_score_adj: int = 0
    restart: RestartPolicy = RestartPolicy()
    monitor: MonitorSpec = field(default_factory=MonitorSpec)
    stop: StopPolicy = StopPolicy()
    security: SecuritySpec = SecuritySpec()
    logs: LogPolicy = LogPolicy()
    probes: ProbesSpec = NO_PROBES
    handed_config: str | None = None
    config_path: str | None = None
    binary_sha256: str | None = None  # of the program: 64 hexadecimal digits, lower case
    instance_of: str | None = None  # the template, or the service with `instances`, it was made from
    rollout: RolloutSpec = RolloutSpec()
    discovered: bool = False  # it is in no file; its program was found
    hidden: tuple[str, ...] = ()  # the fields that a variable went into, which may be secret
    config_hash: str = ""  # of everything above that a run depends on and that cannot be changed under it


@dataclass(frozen=True, slots=True)
class TcpAddress:
    """A numeric address and a port."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class DiscoverySpec:
    """Where programs are looked for that make services of their own."""

    directory: str
    interval_seconds: float | None = None  # None: only when the configuration is read


@dataclass(frozen=True, slots=True)
class PortRange:
    """Ports from `low` to `high`, both of them among them."""

    low: int = 30000
    high: int = 31000

    def __str__(self) -> str:
        return f"{self.low}-{self.high}"

    def __len__(self) -> int:
        return self.high - self.low + 1

    def __contains__(self, port: int) -> bool:
        return self.low <= port <= self.high


@dataclass(frozen=True, slots=True)
class RuntimeSpec:
    """What holds for the supervisor as a whole."""

    log_level: str = "info"
    shutdown_timeout_seconds: float = 30.0
    max_processes: int = 50
    isolation: Isolation = Isolation.REQUIRED
    control_group: str | None = None  # a group whose members may use the control socket
    memory_overcommit: Overcommit = Overcommit.WARN
    metrics_listen: TcpAddress | None = None  # on the loopback interface
    discovery: DiscoverySpec | None = None
    port_range: PortRange = PortRange()  # where the ports of services with `tcp_port: auto` come from
    watch: bool = False  # reload when the files change


@dataclass(frozen=True, slots=True)
class SupervisorSpec:
    """A whole configuration, resolved: the runtime and the services in file order.

    `notes` are sentences for a person: what was seen and is not wrong enough to refuse the configuration.
    `surge` has the additional instances that there may be while a group is replaced, and only then.
    """

    runtime: RuntimeSpec
    services: Mapping[str, ServiceSpec]
    sources: tuple[str, ...] = ()  # the files it came from
    notes: tuple[str, ...] = ()
    globs: tuple[str, ...] = ()  # where files were looked for
    surge: Mapping[str, ServiceSpec] = field(default_factory=dict)
