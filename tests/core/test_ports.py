"""Ports that are known only when a service starts: what a run is given then."""

from __future__ import annotations

from dataclasses import asdict

from hypothesis import given
from hypothesis import strategies as st

from blackhole_cg.core.config import resolve
from blackhole_cg.core.plan import ChangeKind, compare
from blackhole_cg.core.ports import with_port
from blackhole_cg.core.spec import PortRange, ServiceSpec
from tests.core.config.files import CONTEXT, load, service
from tests.support.builders import supervisor_spec

KEYS = """\
services:
  web:
    tcp_port: {port}
    command: [/bin/web, --port, "{{tcp_port}}", "{{other}}"]
    environment: {{URL: "http://127.0.0.1:{{tcp_port}}/{{name}}", PLAIN: text}}
    startup_probe: {{exec: {{command: "ask {{tcp_port}}"}}}}
    readiness_probe: {{http: {{path: "/up?port={{tcp_port}}", headers: {{Host: "a:{{tcp_port}}"}}}}}}
    liveness_probe: {{tcp: {{}}}}
"""


def web(port: object, keys: str = "") -> ServiceSpec:
    return service(KEYS.format(port=port) + keys)


@given(st.integers(1, 65535))
def test_a_port_that_is_filled_in_late_reads_as_one_that_was_written(port: int) -> None:
    late, written = asdict(with_port(web("auto"), port)), asdict(web(port))
    for each in (late, written):
        del each["tcp_port"], each["config_hash"]
    assert late == written


def test_without_a_command_it_is_an_option() -> None:
    spec = with_port(service("services: {web: {tcp_port: auto}}"), 30007)
    assert spec.argv[-2:] == ("--port", "30007")
    assert spec.environment["BLACKHOLE_PORT"] == "30007"


def test_a_probe_of_another_port_and_of_a_socket_stays_as_it_is() -> None:
    probes = "    health_check: {{{}}}\n"
    text = "services:\n  web:\n    tcp_port: auto\n"
    for question in ("tcp: {port: 7}", "tcp: {unix_socket: /s}"):
        spec = service(text + probes.format(question))
        assert with_port(spec, 30000).probes == spec.probes
    asked = with_port(service(text + probes.format("tcp: {port: '{tcp_port}', host: '::1'}")), 30000)
    assert str(asked.probes.liveness.target.address) == "[::1]:30000"


def test_text_of_a_user_that_looks_like_a_mark_is_left_alone() -> None:
    spec = web("auto", "    args: ['tcp_port', '\\0tcp_port\\0', '$${tcp_port}', '{port}']\n")
    assert with_port(spec, 30000).argv[-4:] == ("tcp_port", "\\0tcp_port\\0", "${tcp_port}", "{port}")


def test_the_hash_of_a_run_does_not_depend_on_its_port() -> None:
    spec = web("auto")
    assert with_port(spec, 30000).config_hash == spec.config_hash != web(30000).config_hash
    assert with_port(spec, None) is spec
    assert with_port(web(80), 30000) == web(80)


def test_the_range_is_written_or_has_a_default() -> None:
    assert resolve(load("services: {web: {}}"), CONTEXT).runtime.port_range == PortRange(30000, 31000)
    orchestrator = "runtime: {orchestrator: {ports: {range: 9000-9000}}}\n"
    found = resolve(load(orchestrator + "services: {web: {}}"), CONTEXT).runtime.port_range
    assert (str(found), len(found), 9000 in found, 9001 in found) == ("9000-9000", 1, True, False)


def test_another_range_holds_at_once_and_another_way_to_a_port_needs_a_new_run() -> None:
    fixed, auto = web(30000), web("auto")
    plan = compare(supervisor_spec(fixed), supervisor_spec(auto, port_range=PortRange(1, 2)))
    assert plan.runtime == ("ports.range",)
    assert plan.names(ChangeKind.RESTART) == ["web"]
    assert "tcp_port" in plan.changes[0].keys
