"""What to ask a service, how often, and what came back: the values that every layer says about probes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import ClassVar, Final

from blackhole_cg.core.facts import ExitStatus
from blackhole_cg.core.words import Max


class ProbeKind(StrEnum):
    """What the answers are for."""

    STARTUP = "startup"  # whether it has started; the others wait for that
    READINESS = "readiness"  # whether it can do its work; only its health follows from that
    LIVENESS = "liveness"  # whether it must be restarted


@dataclass(frozen=True, slots=True)
class Address:
    """Where to connect: a unix socket, or a numeric host and a port."""

    host: str = "127.0.0.1"
    port: int = 0
    unix_socket: str | None = None

    def __str__(self) -> str:
        if self.unix_socket is not None:
            return f"unix:{self.unix_socket}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class HttpTarget:
    """A GET request; a status of 200 to 399 is a success, if the body contains `body`."""

    type: ClassVar[str] = "http"
    address: Address
    path: str = "/"
    scheme: str = "http"  # https does not verify the certificate
    headers: tuple[tuple[str, str], ...] = ()
    body: str | None = None


@dataclass(frozen=True, slots=True)
class TcpTarget:
    """A connection that is accepted is a success."""

    type: ClassVar[str] = "tcp"
    address: Address


@dataclass(frozen=True, slots=True)
class GrpcTarget:
    """A Check of grpc.health.v1; SERVING is a success. An empty `service` asks about the whole server."""

    type: ClassVar[str] = "grpc"
    address: Address
    service: str = ""


@dataclass(frozen=True, slots=True)
class ExecTarget:
    """A command; exit 0 is a success."""

    type: ClassVar[str] = "exec"
    argv: tuple[str, ...]


Target = HttpTarget | TcpTarget | GrpcTarget | ExecTarget


@dataclass(frozen=True, slots=True)
class ProbeSpec:
    """One probe, with the fields and the meaning that Kubernetes gives them."""

    target: Target
    initial_delay_seconds: float = 0.0  # liveness and readiness: from the success of the startup probe
    period_seconds: float = 10.0  # from one question to the next
    timeout_seconds: float = 1.0
    success_threshold: int = 1  # in a row
    failure_threshold: int | Max = 3  # in a row
    grace_seconds: float | None = None  # to stop in, when this probe ends the run; None: as at any stop
    give_up_after_seconds: float | None = None  # startup: past it, the next failure is final


@dataclass(frozen=True, slots=True)
class ProbesSpec:
    """The probes of one service."""

    startup: ProbeSpec | None = None
    readiness: ProbeSpec | None = None
    liveness: ProbeSpec | None = None

    def __bool__(self) -> bool:
        return any(self.items())

    def items(self) -> Iterator[tuple[ProbeKind, ProbeSpec]]:
        """The probes there are."""
        for kind in ProbeKind:
            probe = self.get(kind)
            if probe is not None:
                yield kind, probe

    def get(self, kind: ProbeKind) -> ProbeSpec | None:
        """The probe of one kind."""
        match kind:
            case ProbeKind.STARTUP:
                return self.startup
            case ProbeKind.READINESS:
                return self.readiness
            case ProbeKind.LIVENESS:
                return self.liveness


NO_PROBES: Final = ProbesSpec()


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of asking once."""

    ok: bool
    message: str
    latency_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class CommandResult:
    """What came of a command. `status` None: it was killed, because its time was over."""

    status: ExitStatus | None
    output: str  # the beginning of stdout and stderr
