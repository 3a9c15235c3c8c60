"""From text to what is run: defaults, environment, variables, placeholders, secrets."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blackhole_cg.core.config import json_schema, render_yaml, show_config
from blackhole_cg.core.config.docs import render_docs
from blackhole_cg.core.words import Condition, RestartWhen, ServiceType
from blackhole_cg.errors import ConfigError
from tests.core.config.files import CONTEXT, MAIN, MemoryReader, lines_of, load, service

ROOT = Path(__file__).parents[3]
WEB = "services:\n  web:\n    command: [/bin/web]\n"


def test_the_default_command_line_names_service_and_log_level():
    spec = service("services: {web: {}}")
    assert spec.argv == ("/opt/blackhole/services/web/web", "--service", "web", "--log-level", "info")
    keys = "log_level: debug, tcp_port: 80, unix_socket: /s, config: {a: 1}, args: [-x, '{name}']"
    spec = service(f"services: {{web: {{{keys}}}}}")
    assert spec.argv[1:] == (
        *("--service", "web", "--log-level", "debug", "--config", "/run/bh/config/web.json"),
        *("--socket", "/s", "--port", "80", "-x", "web"),
    )


def test_the_environment_is_clean_and_complete():
    spec = service(WEB + "    tcp_port: 80\n    environment: {A: '1'}\n", {"SECRET_OF_THE_SUPERVISOR": "x"})
    assert dict(spec.environment) == {
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "HOME": "/var/lib/blackhole/web",
        "TEMP": "/tmp",
        "TMP": "/tmp",
        "LANG": "C.UTF-8",
        "BLACKHOLE_SERVICE": "web",
        "BLACKHOLE_DATA_DIR": "/var/lib/blackhole/web",
        "BLACKHOLE_LOG_LEVEL": "info",
        "BLACKHOLE_PORT": "80",
        "GOMEMLIMIT": spec.environment["GOMEMLIMIT"],
        "A": "1",
    }
    assert 0.8 * 2**29 < int(spec.environment["GOMEMLIMIT"]) < spec.limits.memory_high_bytes < 2**29


def test_environment_overrides_env_file_and_keeps_words_as_written():
    text = WEB + "    env_file: web.env\n    environment: {A: new, T: 12:30, N: 0755, V: 1.10, O: on}\n"
    spec = service(text, web__env="# comment\nA=old\nB='two words'\nexport C=3\n")
    expected = {"A": "new", "B": "two words", "C": "3", "T": "12:30", "N": "0755", "V": "1.10", "O": "on"}
    assert {key: spec.environment[key] for key in expected} == expected


def test_limits_defaults_and_what_follows_from_them():
    limits = service(WEB).limits
    assert (limits.cpu_percent, limits.memory_max_bytes, limits.io_weight) == (10, 512 * 2**20, 100)
    limits = service(
        WEB + "    resources: {memory_max: 1GiB, processes: 9, open_files: 5, cpu_percent: max}\n"
    ).limits
    assert limits.memory_high_bytes == pytest.approx(0.9 * 2**30, abs=4096)
    assert limits.memory_oom_group is True
    assert (limits.pids_max, limits.rlimits) == (9, {"nofile": 5, "nproc": 9})
    assert limits.cpu_percent == "max"


def test_a_services_restart_policy_is_its_own_then_the_orchestrators_then_the_softwares():
    text = (
        "runtime: {orchestrator: {restart_policy: {max_attempts: 9, initial_delay: 3s, window: 10m}}}\n"
        + WEB
        + "    restart: {policy: on_failure, initial_delay: 500ms}\n"
    )
    policy = service(text).restart
    assert (policy.when, policy.max_restarts, policy.initial_delay_seconds) == (
        RestartWhen.ON_FAILURE,
        9,
        0.5,
    )
    assert (policy.window_seconds, policy.max_delay_seconds, policy.jitter) == (600, 60, 0.1)
    assert service("services: {m: {type: oneshot}}").restart.when is RestartWhen.NEVER
    off = "runtime: {orchestrator: {auto_restart: false}}\n" + WEB + "    restart: {policy: always}\n"
    assert service(off).restart.when is RestartWhen.NEVER


def test_dependencies_in_both_forms():
    text = (
        "services:\n  a: {command: [x]}\n  m: {command: [x], type: oneshot}\n"
        "  b: {command: [x], depends_on: [a]}\n"
        "  c: {command: [x], depends_on: {a: {condition: started}, m: {condition: completed}}}\n"
    )
    services = load(text).config.services
    assert list(services) == ["a", "m", "b", "c"]
    from blackhole_cg.core.config import resolve

    spec = resolve(load(text), CONTEXT).services
    assert spec["m"].type is ServiceType.ONESHOT
    assert spec["b"].depends_on == {"a": Condition.STARTED}
    assert spec["c"].depends_on == {"a": Condition.STARTED, "m": Condition.COMPLETED}


def test_variables_defaults_and_dollars():
    text = WEB + "    environment: {A: '${X}', B: '${Y:-none}', C: '$$HOME', D: '$HOME', E: 'a${X}b${X}c'}\n"
    environment = service(text, {"X": "1"}).environment
    assert [environment[key] for key in "ABCDE"] == ["1", "none", "$HOME", "$HOME", "a1b1c"]


def test_only_the_placeholders_own_words_are_replaced():
    words = "'{name}', '{data_dir}', '{other}', '{ name }', '{}', '{{name}}'"
    spec = service(f"services: {{web: {{command: [/bin/web, {words}]}}}}")
    assert spec.argv[1:] == ("web", "/var/lib/blackhole/web", "{other}", "{ name }", "{}", "{web}")


def test_a_command_text_is_split_like_a_shell_does_and_never_run_by_one():
    spec = service("services: {web: {command: \"/bin/echo 'a b' $HOME `id` | cat\"}}")
    assert spec.argv == ("/bin/echo", "a b", "$HOME", "`id`", "|", "cat")


def test_secrets_from_the_environment_are_never_shown():
    secret = "hunter2-very-secret"
    text = (
        WEB
        + "    environment: {PASSWORD: '${SECRET}', URL: 'postgres://u:${SECRET}@h'}\n"
        + "    config: {jwt: '${SECRET}', deep: [{k: '${SECRET}'}]}\n"
        + "    user: '${SECRET}'\n"
    )
    loaded = load(text, {"SECRET": secret})
    shown = show_config(loaded, CONTEXT)
    assert secret not in json.dumps(shown) + render_yaml(shown)
    assert shown["services"]["web"]["environment"]["PASSWORD"] == "${SECRET}"
    wrong = text.replace("[/bin/web]", "7").replace("config:", "confg:") + "    tcp_port: '${SECRET}'\n"
    lines = lines_of({MAIN: wrong}, {"SECRET": secret})
    assert len(lines) >= 2
    assert secret not in "\n".join(lines)


def test_includes_are_read_beside_the_file_that_names_them_and_clashes_name_both_places():
    main = "include: [more/*.yaml]\n" + WEB
    files = {
        MAIN: main,
        "more/a.yaml": "services: {a: {command: [./a]}}",
        "more/b.yaml": "services: {web: {}}",
    }
    (line,) = lines_of(files)
    assert "services.web" in line and MAIN in line and "more/b.yaml" in line
    del files["more/b.yaml"]
    assert lines_of(files) == []


def test_an_include_that_comes_back_is_told():
    lines = lines_of({MAIN: "include: [a.yaml]\n" + WEB, "a.yaml": f"include: [{MAIN}]\n"})
    assert len(lines) == 1 and "include" in lines[0]


def test_the_hash_changes_with_what_a_run_depends_on_and_with_nothing_else():
    base = service(WEB).config_hash
    assert service(WEB).config_hash == base
    assert service(WEB + "    environment: {A: '1'}\n").config_hash != base
    assert service(WEB + "    resources: {open_files: 70}\n").config_hash != base
    assert service(WEB + "    resources: {memory_mb: 7}\n").config_hash == base


yaml_like = st.text(alphabet="abw{}[]:,-&*#!|>'\"$ \n\t012%@?~", max_size=200)


@given(st.one_of(st.binary(max_size=300), yaml_like.map(str.encode), st.text(max_size=200).map(str.encode)))
def test_whatever_the_file_holds_it_is_a_configuration_or_a_config_error(data):
    from blackhole_cg.core.config import load_config

    try:
        load_config(MAIN, MemoryReader({MAIN: data}), {})
    except ConfigError as error:
        assert error.diagnostics
        assert all(str(each).startswith(MAIN) and "\n" not in str(each) for each in error.diagnostics)


@given(yaml_like)
def test_whatever_a_service_is_said_to_be_it_is_one_or_an_error(text):
    lines = lines_of({MAIN: WEB + "".join(f"    {line}\n" for line in text.splitlines())})
    assert all(line.startswith(MAIN) for line in lines)


def test_the_documented_configuration_is_that_of_the_models():
    document = (ROOT / "docs" / "configuration.md").read_text()
    assert document == render_docs(), "python -m blackhole_cg.core.config.docs > docs/configuration.md"


def test_the_schema_describes_every_key():
    schema = json_schema()
    orchestrator = json.dumps(schema)
    for key in ("shutdown_timeout", "cpu_percent", "no_new_privileges", "restart_window"):
        assert f'"{key}"' in orchestrator

    def described(node: object) -> None:
        if isinstance(node, dict):
            for name, field in node.get("properties", {}).items():
                assert field.get("description") or "$ref" in json.dumps(field), name
            for value in node.values():
                described(value)

    described(schema)
