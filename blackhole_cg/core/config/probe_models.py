"""The sections of a service that say how it is asked for its health."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from typing import Annotated, Any, Final

from pydantic import Field

from blackhole_cg.core.config.kinds import Choice, Duration, JsonSchema, Kind, Whole, Words, describe
from blackhole_cg.core.config.section import Section, key, optional_section
from blackhole_cg.core.config.service_kinds import Command

SCHEMES: Final = ("http", "https")
TARGETS: Final = ("http", "tcp", "grpc", "exec")
PORT_PLACEHOLDER: Final = "{tcp_port}"

_Text = Words(pattern=".*", allowed="text")
_Path = Words("a path", allowed="a path, absolute or relative to this file")
_HttpPath = Words("a path", "/[^\\s#]*", "a path that begins with '/', without spaces")
_HeaderName = Words("a header", "[A-Za-z0-9!#$%&'*+.^_`|~-]+", "letters, digits and '-'")
_HeaderValue = Words("the value of a header", "[^\\r\\n]*", "text in one line")
_Threshold = Whole(1, 1000)
_Period = Duration(low=0.1, high=86400.0)


@dataclass(frozen=True)
class NumericHost(Kind):
    """An address, because looking up a name would take a thread."""

    def read(self, value: Any) -> str:
        text = "127.0.0.1" if value == "localhost" else value
        try:
            if not isinstance(text, str) or "%" in text:
                raise ValueError
            return str(ipaddress.ip_address(text))
        except ValueError:
            raise ValueError(f"{describe(value)} is not a numeric address") from None

    def accepted(self) -> str:
        return "a numeric IPv4 or IPv6 address, or localhost"

    def schema(self) -> JsonSchema:
        return {"type": "string", "pattern": "^([0-9.]+|[0-9a-fA-F:.]+|localhost)$"}


@dataclass(frozen=True)
class Port(Kind):
    """A port, or the placeholder for the service's own."""

    def read(self, value: Any) -> int | str:
        return PORT_PLACEHOLDER if value == PORT_PLACEHOLDER else Whole(1, 65535).read(value)

    def accepted(self) -> str:
        return f"1 to 65535, {PORT_PLACEHOLDER}"

    def schema(self) -> JsonSchema:
        number = Whole(1, 65535).schema()
        return {"anyOf": [number, {"type": "string", "pattern": r"^([0-9]+|\{tcp_port\})$"}]}


class Connected(Section):
    """Where to connect to; by default where the service listens."""

    port: Annotated[int | str | None, Port()] = key(None, "Port.", inherits="the service's tcp_port")
    host: Annotated[str, NumericHost()] = key("127.0.0.1", "Address; a name would have to be looked up.")
    unix_socket: Annotated[str | None, _Path] = key(
        None, "Socket, instead of host and port.", inherits="the service's unix_socket, if it has no tcp_port"
    )


class HttpGet(Connected):
    """A GET request over a connection of its own; a status of 200 to 399 is a success."""

    path: Annotated[str, _HttpPath] = key("/", "Path, with a query if need be.")
    scheme: Annotated[str, Choice(SCHEMES)] = key("http", "https accepts any certificate.")
    headers: dict[Annotated[str, _HeaderName], Annotated[str, _HeaderValue]] = Field(
        default_factory=dict, description="Headers of the request; Host may be one."
    )
    body: Annotated[str | None, _Text] = key(None, "Text that the first 64 KiB of the body must contain.")


class TcpConnect(Connected):
    """A connection; that it is accepted is a success."""


class GrpcCheck(Connected):
    """A Check of grpc.health.v1.Health, without TLS; SERVING is a success."""

    service: Annotated[str | None, _Text] = key(
        None, 'Name that is asked about; "" is the whole server.', inherits="the name of the service"
    )


class ExecCommand(Section):
    """A command that runs as the service's user, in its data_dir; exit 0 is a success."""

    command: Annotated[str | tuple[str, ...] | None, Command()] = key(
        None, "Command line: a list, or one text split like a shell does, never run by a shell."
    )


class Question(Section):
    """What is asked: exactly one of http, tcp, grpc and exec."""

    http: HttpGet | None = optional_section("A GET request.")
    tcp: TcpConnect | None = optional_section("A connection; `{}` for the defaults.")
    grpc: GrpcCheck | None = optional_section("A gRPC health check; `{}` for the defaults.")
    exec: ExecCommand | None = optional_section("A command.")


class HealthCheck(Question):
    """The short form: the service is healthy once it answers, and is restarted when it answers no more."""

    interval: Annotated[float, _Period] = key(
        5.0, "From one question to the next; until the first success it is half a second, if this is longer."
    )
    timeout: Annotated[float, _Period] = key(3.0, "Time for an answer.")
    retries: Annotated[int, _Threshold] = key(3, "Failures in a row after which the run has failed.")
    start_timeout: Annotated[float, Duration(low=0.1)] = key(
        60.0, "Time for the first success; past it the run has failed."
    )


class Probe(Question):
    """A probe as in Kubernetes."""

    initial_delay: Annotated[float, Duration()] = key(
        0.0, "Wait before the first question: from the start, or from the success of the startup probe."
    )
    period: Annotated[float, _Period] = key(10.0, "From one question to the next.")
    timeout: Annotated[float, _Period] = key(1.0, "Time for an answer.")
    success_threshold: Annotated[int, _Threshold] = key(1, "Successes in a row before it counts as passed.")
    failure_threshold: Annotated[int, _Threshold] = key(3, "Failures in a row before it counts as failed.")


class ReadinessProbe(Probe):
    """Whether the service can do its work; decides its health, and nothing else."""


class FatalProbe(Probe):
    """A probe that can end a run."""

    success_threshold: Annotated[int, Whole(1, 1)] = key(1, "Always 1.")
    termination_grace_period: Annotated[float | None, Duration()] = key(
        None, "Time to stop in after this probe has failed.", inherits="stop.timeout"
    )


class StartupProbe(FatalProbe):
    """Whether the service has started; until then nothing else is asked. Failing ends the run."""


class LivenessProbe(FatalProbe):
    """Whether the service still works. Failing ends the run."""
