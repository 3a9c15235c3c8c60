"""Rules between the keys of probes, and between probes and their service."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from blackhole_cg.core.config.messages import Finding
from blackhole_cg.core.config.probe_models import PORT_PLACEHOLDER, TARGETS, Connected, HttpGet, Question
from blackhole_cg.core.config.service_kinds import split_command
from blackhole_cg.core.config.service_models import Service
from blackhole_cg.core.config.tree import KeyPath

SHORT_FORM: Final = "health_check"
PROBES: Final = ("startup_probe", "readiness_probe", "liveness_probe")


def questions(path: KeyPath, service: Service) -> Iterator[tuple[KeyPath, Question]]:
    """Every probe that is written, the short form among them."""
    for name in (SHORT_FORM, *PROBES):
        question = getattr(service, name)
        if question is not None:
            yield (*path, name), question


def check_probes(path: KeyPath, service: Service) -> Iterator[Finding]:
    """What is wrong with the probes of a service."""
    if service.health_check is not None:
        for name in PROBES:
            if getattr(service, name) is not None:
                message = "health_check is its short form (keep one of health_check and the probes)"
                yield Finding((*path, name), message, True, looks_at=((*path, SHORT_FORM),))
    for place, question in questions(path, service):
        yield from _target(place, question)
        for name in TARGETS:
            connected = getattr(question, name)
            if isinstance(connected, Connected):
                yield from _connection(path, (*place, name), service, connected)


def probe_texts(path: KeyPath, service: Service) -> Iterator[tuple[KeyPath, str]]:
    """Every text of the probes in which placeholders are replaced."""
    for place, question in questions(path, service):
        if question.exec is not None and question.exec.command is not None:
            for word in split_command(question.exec.command):
                yield (*place, "exec", "command"), word
        if question.grpc is not None and question.grpc.service is not None:
            yield (*place, "grpc", "service"), question.grpc.service
        if question.http is not None:
            yield from _http_texts((*place, "http"), question.http)
        for name in TARGETS:
            connected = getattr(question, name)
            if isinstance(connected, Connected):
                if connected.port == PORT_PLACEHOLDER:
                    yield (*place, name, "port"), PORT_PLACEHOLDER
                if connected.unix_socket is not None:
                    yield (*place, name, "unix_socket"), connected.unix_socket


def _http_texts(place: KeyPath, http: HttpGet) -> Iterator[tuple[KeyPath, str]]:
    yield (*place, "path"), http.path
    if http.body is not None:
        yield (*place, "body"), http.body
    for name, value in http.headers.items():
        yield (*place, "headers", name), value


def _target(place: KeyPath, question: Question) -> Iterator[Finding]:
    accepted = f"accepted: exactly one of {', '.join(TARGETS)}"
    given = [name for name in TARGETS if getattr(question, name) is not None]
    if not given:
        looks_at = tuple((*place, name) for name in TARGETS)
        yield Finding(place, f"does not say what to ask ({accepted})", True, looks_at=looks_at)
    for name in given[1:]:
        message = f"there is {given[0]} already ({accepted})"
        yield Finding((*place, name), message, True, looks_at=((*place, given[0]),))
    if question.exec is not None and question.exec.command is None:
        yield Finding((*place, "exec"), "has no command (accepted: exec: {command: ...})", True)


def _connection(path: KeyPath, place: KeyPath, service: Service, connected: Connected) -> Iterator[Finding]:
    if connected.unix_socket is not None:
        if connected.port is not None:
            message = "port says where to connect already (keep one of port and unix_socket)"
            yield Finding((*place, "unix_socket"), message, looks_at=((*place, "port"),))
        if isinstance(connected, HttpGet) and connected.scheme == "https":
            message = "a unix socket is asked without TLS (accepted: http)"
            yield Finding((*place, "scheme"), message, looks_at=((*place, "unix_socket"),))
    elif connected.port is None and service.tcp_port is None and service.unix_socket is None:
        message = "there is nothing to connect to (set port or unix_socket here, or tcp_port of the service)"
        looks_at = ((*path, "tcp_port"), (*path, "unix_socket"), (*place, "port"), (*place, "unix_socket"))
        yield Finding(place, message, True, looks_at=looks_at)
