"""From the probe sections of a service to the probes that are asked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from blackhole_cg.core.config.probe_models import (
    PORT_PLACEHOLDER,
    Connected,
    FatalProbe,
    HealthCheck,
    Probe,
    Question,
)
from blackhole_cg.core.config.service_kinds import split_command
from blackhole_cg.core.config.service_models import Service
from blackhole_cg.core.ports import UNKNOWN_PORT
from blackhole_cg.core.probe_spec import (
    Address,
    ExecTarget,
    GrpcTarget,
    HttpTarget,
    ProbeSpec,
    ProbesSpec,
    Target,
    TcpTarget,
)
from blackhole_cg.core.words import AUTO, MAX

START_PERIOD_SECONDS: Final = 0.5
"""How often a health_check asks until the first success: whoever depends on the service waits for it."""

_NOWHERE: Final = Address()


@dataclass(frozen=True, slots=True)
class Texts:
    """The name of a service, and how its placeholders and its relative paths are filled in."""

    name: str
    fill: Callable[[str], str]
    locate: Callable[[str], str]


def resolve_probes(service: Service, texts: Texts) -> ProbesSpec:
    """The probes of a service whose defaults are filled in."""
    if service.health_check is not None:
        return _short_form(service.health_check, service, texts)
    return ProbesSpec(
        _probe(service.startup_probe, service, texts),
        _probe(service.readiness_probe, service, texts),
        _probe(service.liveness_probe, service, texts),
    )


def _short_form(check: HealthCheck, service: Service, texts: Texts) -> ProbesSpec:
    """A startup probe bounded by time, and then a liveness probe."""
    target = _target(check, service, texts)
    startup = ProbeSpec(
        target,
        period_seconds=min(check.interval, START_PERIOD_SECONDS),
        timeout_seconds=check.timeout,
        failure_threshold=MAX,
        give_up_after_seconds=check.start_timeout,
    )
    liveness = ProbeSpec(
        target,
        initial_delay_seconds=check.interval,
        period_seconds=check.interval,
        timeout_seconds=check.timeout,
        failure_threshold=check.retries,
    )
    return ProbesSpec(startup=startup, liveness=liveness)


def _probe(probe: Probe | None, service: Service, texts: Texts) -> ProbeSpec | None:
    if probe is None:
        return None
    return ProbeSpec(
        _target(probe, service, texts),
        probe.initial_delay,
        probe.period,
        probe.timeout,
        probe.success_threshold,
        probe.failure_threshold,
        probe.termination_grace_period if isinstance(probe, FatalProbe) else None,
    )


def _target(question: Question, service: Service, texts: Texts) -> Target:
    """Total, even over a question that asks nothing: what is wrong with it is said elsewhere."""
    if question.http is not None:
        http = question.http
        return HttpTarget(
            _address(http, service, texts),
            texts.fill(http.path),
            http.scheme,
            tuple((name, texts.fill(value)) for name, value in http.headers.items()),
            None if http.body is None else texts.fill(http.body),
        )
    if question.grpc is not None:
        asked = question.grpc.service
        about = texts.name if asked is None else texts.fill(asked)
        return GrpcTarget(_address(question.grpc, service, texts), about)
    if question.exec is not None:
        words = [texts.fill(word) for word in split_command(question.exec.command or ())]
        if words and "/" in words[0]:
            words[0] = texts.locate(words[0])
        return ExecTarget(tuple(words))
    return TcpTarget(_address(question.tcp, service, texts) if question.tcp is not None else _NOWHERE)


def _address(connected: Connected, service: Service, texts: Texts) -> Address:
    if connected.unix_socket is not None:
        return Address(unix_socket=texts.locate(texts.fill(connected.unix_socket)))
    port = service.tcp_port if connected.port in (None, PORT_PLACEHOLDER) else connected.port
    if port is None:
        return Address(unix_socket=service.unix_socket)
    return Address(connected.host, UNKNOWN_PORT if port == AUTO else int(port))
