"""Probes in the configuration: what they are resolved to, and what is wrong with some of them."""

from __future__ import annotations

from textwrap import indent

import pytest

from blackhole_cg.core.probe_spec import (
    NO_PROBES,
    Address,
    ExecTarget,
    GrpcTarget,
    HttpTarget,
    ProbeSpec,
    ProbesSpec,
    Target,
    TcpTarget,
)
from tests.core.config.files import MAIN, lines_of, service

HERE = Address("127.0.0.1", 80)


def probes(keys: str) -> ProbesSpec:
    """Of a service with these keys, one a line."""
    return service("services:\n  web:\n" + indent(keys, "    ")).probes


def target(question: str, keys: str = "tcp_port: 80") -> Target:
    found = probes(f"{keys}\nliveness_probe: {{{question}}}\n").liveness
    assert found is not None
    return found.target


def wrong(keys: str) -> list[str]:
    """What is said of them, without the file and the service."""
    lines = lines_of({MAIN: "services:\n  web:\n" + indent(keys, "    ")})
    return [line.partition("services.web.")[2] for line in lines]


def test_without_any_there_are_none() -> None:
    assert probes("tcp_port: 80") == NO_PROBES
    assert not NO_PROBES


def test_probes_have_the_defaults_of_kubernetes() -> None:
    keys = "tcp_port: 80\nstartup_probe: {tcp: {}}\nreadiness_probe: {tcp: {}}\nliveness_probe: {tcp: {}}"
    expected = ProbeSpec(TcpTarget(HERE), 0.0, 10.0, 1.0, 1, 3, None)
    assert probes(keys) == ProbesSpec(expected, expected, expected)


def test_every_field_is_kept() -> None:
    keys = """\
tcp_port: 80
startup_probe: {tcp: {}, period: 100ms, failure_threshold: 30, termination_grace_period: 0s}
readiness_probe: {tcp: {}, initial_delay: 1s, period: 2s, timeout: 3s, success_threshold: 4,
                  failure_threshold: 5}
"""
    assert probes(keys) == ProbesSpec(
        ProbeSpec(TcpTarget(HERE), period_seconds=0.1, failure_threshold=30, grace_seconds=0.0),
        ProbeSpec(TcpTarget(HERE), 1.0, 2.0, 3.0, 4, 5),
    )


def test_the_short_form_waits_for_a_start_and_then_watches() -> None:
    found = probes("tcp_port: 80\nhealth_check: {tcp: {}}")
    assert found == ProbesSpec(
        startup=ProbeSpec(TcpTarget(HERE), 0.0, 0.5, 3.0, 1, "max", None, give_up_after_seconds=60.0),
        liveness=ProbeSpec(TcpTarget(HERE), 5.0, 5.0, 3.0, 1, 3),
    )
    own = probes(
        "health_check: {tcp: {port: 1}, interval: 200ms, timeout: 1s, retries: 1, start_timeout: 2s}"
    )
    assert own.startup is not None and own.liveness is not None
    assert (own.startup.period_seconds, own.startup.give_up_after_seconds) == (0.2, 2.0)
    assert (own.liveness.period_seconds, own.liveness.failure_threshold) == (0.2, 1)


@pytest.mark.parametrize(
    ("question", "expected"),
    [
        ("http: {}", HttpTarget(HERE)),
        ("http: {port: 8080, host: '::1', scheme: https}", HttpTarget(Address("::1", 8080), scheme="https")),
        ("tcp: {host: localhost}", TcpTarget(HERE)),
        ("tcp: {port: '{tcp_port}'}", TcpTarget(HERE)),
        ("tcp: {unix_socket: run/s}", TcpTarget(Address(unix_socket="/etc/bh/run/s"))),
        ("tcp: {unix_socket: '{data_dir}/s'}", TcpTarget(Address(unix_socket="/var/lib/blackhole/web/s"))),
        ("grpc: {}", GrpcTarget(HERE, "web")),
        ("grpc: {service: ''}", GrpcTarget(HERE, "")),
        ("grpc: {service: 'x.{name}'}", GrpcTarget(HERE, "x.web")),
        ("exec: {command: \"./ask '{tcp_port}' x\"}", ExecTarget(("/etc/bh/ask", "80", "x"))),
        ("exec: {command: [ask, 'a b', '{name}']}", ExecTarget(("ask", "a b", "web"))),
    ],
)
def test_targets(question: str, expected: Target) -> None:
    assert target(question) == expected


def test_placeholders_in_an_http_request() -> None:
    http = "http: {path: '/{name}?p={tcp_port}&{x}', headers: {Host: '{name}.a', X: 1}, body: 'I am {name}'}"
    assert target(http) == HttpTarget(
        HERE, "/web?p=80&{x}", headers=(("Host", "web.a"), ("X", "1")), body="I am web"
    )


def test_a_service_that_has_only_a_socket_is_asked_there() -> None:
    assert target("tcp: {}", "unix_socket: s") == TcpTarget(Address(unix_socket="/etc/bh/s"))
    both = "unix_socket: s\ntcp_port: 80"
    assert target("tcp: {}", both) == TcpTarget(HERE)
    assert target("tcp: {unix_socket: '{unix_socket}'}", both) == TcpTarget(Address(unix_socket="/etc/bh/s"))


def test_probes_are_not_what_a_run_is_started_with() -> None:
    plain = service("services: {web: {tcp_port: 80}}")
    asked = service("services: {web: {tcp_port: 80, health_check: {tcp: {}}}}")
    assert plain.config_hash == asked.config_hash


@pytest.mark.parametrize(
    ("keys", "lines"),
    [
        (
            "health_check: {}",
            ["health_check: does not say what to ask (accepted: exactly one of http, tcp, grpc, exec)"],
        ),
        (
            "tcp_port: 80\nliveness_probe: {tcp: {}, http: {}}",
            ["liveness_probe.tcp: there is http already (accepted: exactly one of http, tcp, grpc, exec)"],
        ),
        (
            "health_check: {tcp: {port: 1}}\nreadiness_probe: {tcp: {port: 1}}",
            ["readiness_probe: health_check is its short form (keep one of health_check and the probes)"],
        ),
        (
            "health_check: {tcp: {}}",
            [
                "health_check.tcp: there is nothing to connect to "
                "(set port or unix_socket here, or tcp_port of the service)"
            ],
        ),
        (
            "health_check: {tcp: {port: 1, unix_socket: s}}",
            [
                "health_check.tcp.unix_socket: port says where to connect already "
                "(keep one of port and unix_socket)"
            ],
        ),
        (
            "health_check: {http: {unix_socket: s, scheme: https}}",
            ["health_check.http.scheme: a unix socket is asked without TLS (accepted: http)"],
        ),
        ("health_check: {exec: {}}", ["health_check.exec: has no command (accepted: exec: {command: ...})"]),
        (
            "startup_probe:\n"
            "  http: {port: '{tcp_port}', path: '/{config_path}', headers: {A: '{unix_socket}'}}",
            [
                "startup_probe.http.port: uses {tcp_port}, and the service has no tcp_port",
                "startup_probe.http.path: uses {config_path}, and the service has no config",
                "startup_probe.http.headers.A: uses {unix_socket}, and the service has no unix_socket",
            ],
        ),
        (
            "health_check: {exec: {command: 'ask {tcp_port}'}, retries: 0, interval: 10ms}",
            [
                "health_check.exec.command: uses {tcp_port}, and the service has no tcp_port",
                "health_check.retries: '0' is out of range (accepted: 1 to 1000)",
                "health_check.interval: '10ms' is too short "
                "(accepted: 500ms, 1s, 5m, 1m30s, 1h, 1d or plain seconds; 100ms to 1d)",
            ],
        ),
        (
            "health_check: {tcp: {host: example.org, port: 1}}",
            [
                "health_check.tcp.host: 'example.org' is not a numeric address "
                "(accepted: a numeric IPv4 or IPv6 address, or localhost)"
            ],
        ),
        (
            "health_check: {tcp: {host: 'fe80::1%eth0', port: 1}}",
            [
                "health_check.tcp.host: 'fe80::1%eth0' is not a numeric address "
                "(accepted: a numeric IPv4 or IPv6 address, or localhost)"
            ],
        ),
        (
            "health_check: {http: {port: 1, path: healthz}}",
            [
                "health_check.http.path: 'healthz' is not a path "
                "(accepted: a path that begins with '/', without spaces)"
            ],
        ),
        (
            'health_check: {http: {port: 1, headers: {"A:": x, B: "a\\r\\nEvil: 1"}}}',
            [
                "health_check.http.headers.\"A:\": 'A:' is not a header (accepted: letters, digits and '-')",
                "health_check.http.headers.B: 'a\\r\\nEvil: 1' is not the value of a header "
                "(accepted: text in one line)",
            ],
        ),
        (
            "liveness_probe: {tcp: {port: 1}, success_threshold: 2}\n"
            "readiness_probe: {tcp: {port: 1}, termination_grace_period: 1s}",
            [
                "liveness_probe.success_threshold: '2' is out of range (accepted: 1 to 1)",
                "readiness_probe.termination_grace_period: unknown key (accepted: http, tcp, grpc, exec, "
                "initial_delay, period, timeout, success_threshold, failure_threshold)",
            ],
        ),
        (
            "liveness_probe: {http: {port: 1, paht: /}}",
            ["liveness_probe.http.paht: unknown key (did you mean 'path'?)"],
        ),
    ],
)
def test_what_is_wrong_is_said(keys: str, lines: list[str]) -> None:
    assert wrong(keys) == lines
