"""Whatever the loader is given, it answers with a configuration or with a ConfigError."""

from __future__ import annotations

import json

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from blackhole_cg.core.config import json_schema, load_config, render_yaml, resolve, show_config
from blackhole_cg.core.config.data import read_data
from blackhole_cg.core.config.loader import inspect_config
from blackhole_cg.core.config.tree import Mapping, Position, Scalar, Sequence, locate
from blackhole_cg.core.config.variables import escape
from blackhole_cg.errors import ConfigError
from tests.core.config.files import CONTEXT, MAIN, MemoryReader

_KEYS = sorted(
    {key for model in json_schema()["$defs"].values() for key in model["properties"]}
    | {"services", "runtime", "include", "web", "job", "/dev/sda", "<<", "A"}
)
_WORDS = [
    *("", "~", "max", "yes", "off", "0", "1", "-1", "1.5", "0755", "12:30", "512M", "10s", "1e400", "9" * 40),
    *("always", "on_failure", "never", "oneshot", "started", "completed", "debug", "TERM", "NET_RAW", "022"),
    *(
        "web",
        "job",
        "${A}",
        "${A",
        "${NOPE}",
        "$$",
        "{tcp_port}",
        "<<",
        "a b 'c",
        "a/b",
        "/bin/true",
        "0-3",
        "\x00",
        "é",
    ),
]
_texts = st.one_of(st.sampled_from(_WORDS), st.text(max_size=8))
_trees = st.recursive(
    st.one_of(_texts, st.none(), st.booleans(), st.integers(), st.floats()),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.sampled_from(_KEYS), inner, max_size=5)
    ),
    max_leaves=25,
)
_services = st.dictionaries(st.sampled_from(["web", "job", "Bad", "x"]), _trees, max_size=4)
_documents = st.one_of(_trees, st.fixed_dictionaries({"services": _services}))
_environ = {"A": "value"}


def answer(data: bytes) -> None:
    """Load, and go all the way when that works; anything but a ConfigError fails the test."""
    reader = MemoryReader({MAIN: data})
    try:
        loaded = load_config(MAIN, reader, _environ)
    except ConfigError as error:
        assert error.diagnostics
        assert all("\n" not in str(diagnostic) for diagnostic in error.diagnostics)
        partial, diagnostics = inspect_config(MAIN, reader, _environ)
        assert diagnostics
        if partial is not None:
            resolve(partial, CONTEXT)  # even what is left of a broken one must not fail
        return
    spec = resolve(loaded, CONTEXT)
    assert all(service.argv and service.config_hash for service in spec.services.values())
    json.dumps(show_config(loaded, CONTEXT))


@given(st.binary(max_size=400))
def test_any_bytes(data: bytes) -> None:
    answer(data)


@given(st.text(st.characters(codec="utf-8"), max_size=400))
def test_any_text(text: str) -> None:
    answer(text.encode())


@given(st.text("{}[]:,-?&*!|>'\"%@#~<$ \n\tab01", max_size=200))
def test_any_yaml_punctuation(text: str) -> None:
    answer(text.encode())


@settings(suppress_health_check=[HealthCheck.too_slow], max_examples=300, deadline=None)
@given(_documents)
def test_any_structure(document: object) -> None:
    # JSON is YAML, and gives exact control over the structure.
    answer(_json(document))


_sizes = st.sampled_from(["1M", "64MiB", "1.5G", 2**30, "max"])
_printable = st.one_of(
    st.sampled_from(_WORDS).filter(lambda word: word != "\x00"),
    st.text(st.characters(codec="utf-8", exclude_categories=["Cc"]), max_size=4),
)
_spans = st.sampled_from(["1s", "1500ms", 2, "1m30s", "0.25"])
_resources = {
    "cpu_percent": st.sampled_from([1, 12.5, "200", "max"]),
    "cpu_weight": st.integers(1, 10_000),
    "cpuset_cpus": st.sampled_from(["0", "0-3,6"]),
    "memory_max": _sizes,
    "memory_swap_max": _sizes,
    "memory_oom_group": st.sampled_from([True, "no"]),
    "io_max": st.just({"/dev/sda": {"rbps": "1M", "wiops": "max"}, "8:0": {"riops": 7}}),
    "processes": st.sampled_from([100, "max"]),
    "rlimits": st.just({"as": "1G", "core": 0, "cpu": "1m", "stack": "max", "nice": 20}),
}
_rules = st.fixed_dictionaries(
    {
        "name": st.sampled_from(["a", "b: c", "5"]),
        "metric": st.sampled_from(["memory_bytes", "cpu_percent"]),
        "above": st.sampled_from(["20% of host", "1000", 7]),
    },
    optional={
        "until": st.just("0"),
        "for": _spans,
        "action": st.sampled_from(["log", "restart", "freeze"]),
        "cooldown": _spans,
    },
)
_service = st.fixed_dictionaries(
    {},
    optional={
        "enabled": st.booleans(),
        "required": st.booleans(),
        "type": st.sampled_from(["simple", "oneshot"]),
        "command": st.sampled_from(["a 'b c' {name}", ["./run", "", "$${A} ${A}", "{data_dir}"], "${A}"]),
        "args": st.lists(
            st.sampled_from(["", "5", "on", "~", "a: b", "$${x}", "$$", "é\n", "1e5", "{name}"])
        ),
        "data_dir": st.sampled_from(["/data", "../data"]),
        "environment": st.dictionaries(
            st.sampled_from("ABC"), st.sampled_from(["", "on", "${A}", "$${A}", "{name}"])
        ),
        "user": st.sampled_from(["root", "0"]),
        "resources": st.fixed_dictionaries({}, optional=_resources),
        "umask": st.sampled_from(["022", "0077"]),
        "restart": st.fixed_dictionaries(
            {},
            optional={
                "max_restarts": st.sampled_from([0, "max"]),
                "max_delay": _spans,
                "jitter": st.just(0.5),
            },
        ),
        "stop": st.fixed_dictionaries(
            {}, optional={"signal": st.sampled_from(["INT", "SIGUSR1"]), "timeout": _spans}
        ),
        "monitor": st.fixed_dictionaries(
            {},
            optional={
                "interval": _spans,
                "grace": _spans,
                "rules": st.lists(_rules, max_size=3, unique_by=lambda rule: rule["name"]),
            },
        ),
        "security": st.just({"capabilities": ["cap_chown"]}),
        "config": st.dictionaries(_printable, st.recursive(_printable.map(escape), st.lists), max_size=3),
        "tcp_port": st.integers(1, 65535),
        "health_check": st.sampled_from(
            [
                {"http": {"port": 8080, "headers": {"Host": "{name}"}, "body": "on"}, "interval": "1m"},
                {"exec": {"command": ["./ask", "$${A}", "{data_dir}"]}, "retries": 1},
            ]
        ),
    },
)
_probe = st.fixed_dictionaries(
    {"grpc": st.sampled_from([{"port": 1, "service": ""}, {"unix_socket": "../s"}])},
    optional={"period": _spans, "timeout": _spans, "initial_delay": _spans, "failure_threshold": st.just(9)},
)
_probed = st.fixed_dictionaries(
    {}, optional=dict.fromkeys(("startup_probe", "readiness_probe", "liveness_probe"), _probe)
)
_configurations = st.fixed_dictionaries(
    {"services": st.dictionaries(st.sampled_from(["web", "job"]), _service | _probed, min_size=1)},
    optional={
        "runtime": st.just(
            {"orchestrator": {"auto_restart": False, "resource_limits": {"default_memory_mb": "max"}}}
        ),
        "control": st.just({"group": "ops"}),
    },
)


@settings(suppress_health_check=[HealthCheck.too_slow], max_examples=300, deadline=None)
def _json(document: object) -> bytes:
    # Raw, because YAML does not know JSON's surrogate pairs.
    return json.dumps(document, ensure_ascii=False).encode("utf-8", "surrogatepass")


@given(_configurations)
def test_what_is_shown_is_a_configuration_of_the_same_effect(document: object) -> None:
    try:
        loaded = load_config(MAIN, MemoryReader({MAIN: _json(document)}), _environ)
    except ConfigError as error:
        # All values are sound; only rules between two keys can be broken.
        assert "same tcp_port" in str(error) or "longest" in str(error) or "NUL" in str(error)
        return
    shown = show_config(loaded, CONTEXT)
    again = load_config(MAIN, MemoryReader({MAIN: render_yaml(shown)}), _environ)
    before, after = resolve(loaded, CONTEXT), resolve(again, CONTEXT)
    assert before == after
    assert show_config(again, CONTEXT) == shown


_place = Position("x", 1, 1)
_nodes = st.recursive(
    st.builds(Scalar, st.just(_place), st.text(max_size=5), st.booleans()),
    lambda inner: st.one_of(
        st.builds(Sequence, st.just(_place), st.lists(inner, max_size=3)),
        st.dictionaries(st.text(max_size=3), inner, max_size=3).map(
            lambda entries: Mapping(_place, entries, dict.fromkeys(entries, _place))
        ),
    ),
)


@given(_nodes, st.lists(st.one_of(st.integers(0, 3), st.text(max_size=3)), max_size=4))
def test_every_path_has_a_place(node: Scalar | Sequence | Mapping, path: list[str | int]) -> None:
    assert locate(node, tuple(path)) == _place
    read_data(node, {})
