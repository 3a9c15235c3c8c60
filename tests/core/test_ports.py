"""Ports that are known only when a service starts: what a run is given then."""

from __future__ import annotations

from dataclasses import asdict

from hypothesis import given
from hypothesis import strategies as st

from blackhole_cg.core.config import resolve
from blackhole_cg.core.plan import ChangeKind, compare
from blackhole_cg.core.ports import PortHolder, PortTable, with_port
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


# ---- who has which ----


def table(low: int = 10, high: int = 12, *fixed: int) -> PortTable:
    return PortTable(PortRange(low, high), fixed)


def give(it: PortTable, service: str) -> int | None:
    """The first candidate, as when nobody else has any."""
    port = next(it.candidates(service), None)
    assert port is None or it.hold(service, port)
    return port


def test_the_lowest_free_port_is_given_first_and_one_that_is_written_never() -> None:
    it = table(10, 13, 11)
    assert [give(it, name) for name in ("a", "b", "c", "d")] == [10, 12, 13, None]
    assert it.shortage("d") == (
        "no port of runtime.orchestrator.ports.range 10-13 is left: 4 with services, 0 with other programs"
    )


def test_a_service_gets_the_port_that_it_had() -> None:
    it = table()
    give(it, "a"), give(it, "b")
    it.release("a"), it.release("b")
    assert give(it, "c") == 12, "one that nobody had comes first"
    assert (give(it, "b"), give(it, "a")) == (11, 10)


def test_a_port_that_another_had_is_given_when_there_is_no_other() -> None:
    it = table(10, 10)
    give(it, "a")
    it.release("a")
    assert give(it, "b") == 10
    assert give(it, "a") is None
    it.forget("b")
    assert give(it, "a") == 10


def test_another_range_takes_no_port_away() -> None:
    it = table()
    give(it, "a"), give(it, "b")
    it.reconfigure(PortRange(12, 13), [13])
    assert (it.held("a"), it.held("b")) == (10, 11)
    assert give(it, "a") == 12
    assert give(it, "b") is None
    assert it.held("b") == 11


def test_a_service_that_has_another_port_now_has_given_the_first_back() -> None:
    it = table()
    assert it.hold("a", 80) and it.hold("a", 81)
    assert (it.held("a"), it.holder(80), it.holder(81)) == (81, None, "a")
    assert not it.hold("b", 81)
    assert it.held("b") is None


NAMES = st.sampled_from("abcd")
PORTS = st.integers(8, 14)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("give"), NAMES, st.frozensets(PORTS)),
        st.tuples(st.just("hold"), NAMES, PORTS),
        st.tuples(st.sampled_from(["release", "forget"]), NAMES, st.none()),
        st.tuples(st.just("remember"), NAMES, PORTS),
        st.tuples(st.just("reconfigure"), st.frozensets(PORTS), st.tuples(PORTS, PORTS)),
    ),
    max_size=60,
)


@given(STEPS)
def test_no_port_is_ever_held_by_two_and_each_gets_its_own_again(steps: list[tuple]) -> None:
    it, ports, fixed = table(), PortRange(10, 12), frozenset[int]()
    model: dict[str, int] = {}
    last: dict[str, int] = {}
    for kind, who, what in steps:
        if kind == "give":
            taken = set(model.values()) - {model.get(who)}
            free = [port for port in range(ports.low, ports.high + 1) if port not in taken | fixed]
            candidates = list(it.candidates(who))
            assert sorted(candidates) == free, "every port that is free is tried, and each once"
            if last.get(who) in free:
                assert candidates[0] == last[who]
            port = next((port for port in candidates if port not in what), None)
            if port is not None:
                assert it.hold(who, port)
                model[who] = last[who] = port
        elif kind == "hold":
            is_free = all(other == who or port != what for other, port in model.items())
            assert it.hold(who, what) == is_free
            if is_free:
                model[who] = last[who] = what
        elif kind in ("release", "forget"):
            getattr(it, kind)(who)
            model.pop(who, None)
            if kind == "forget":
                last.pop(who, None)
        elif kind == "remember" and who not in model:
            it.remember(who, what)
            last[who] = what
        elif kind == "reconfigure":
            fixed, ports = who, PortRange(*sorted(what))
            it.reconfigure(ports, fixed)
        assert {name: it.held(name) for name in "abcd" if it.held(name) is not None} == model
        assert len(set(model.values())) == len(model)
        assert all(it.holder(port) == name for name, port in model.items())


def test_a_holder_is_told_as_far_as_it_is_known() -> None:
    assert str(PortHolder(7, "nginx", 0)) == "pid 7 (nginx)"
    assert str(PortHolder(7)) == "pid 7"
    assert str(PortHolder(uid=1000)) == "an unknown process of user 1000"
    assert str(PortHolder()) == "an unknown process"
    assert str(PortHolder(is_closing=True)) == "a connection that the kernel is still closing"
    assert str(PortHolder(problem="Permission denied")) == "Permission denied"
