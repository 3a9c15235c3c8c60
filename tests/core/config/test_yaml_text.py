"""The tree of a YAML text: places, merges, aliases, and values as they were written."""

from __future__ import annotations

import pytest

from blackhole_cg.core.config.data import read_data
from blackhole_cg.core.config.kinds import to_json_value
from blackhole_cg.core.config.tree import locate, render_key
from blackhole_cg.core.config.yaml_text import MAX_ALIAS_NODES, parse_yaml
from blackhole_cg.errors import ConfigError
from tests.core.config.files import load, service

TEXT = """\
base: &base {user: ann, args: [x, y]}
services:
  web:
    <<: *base
    user: bob
    depends_on: [api, db]
"""


def test_every_key_and_value_has_its_place() -> None:
    root, diagnostics = parse_yaml(TEXT.encode(), "f.yaml")
    assert diagnostics == []
    places = {
        ("services", "web", "user"): "f.yaml:5:11",
        ("services", "web", "args"): "f.yaml:1:31",
        ("services", "web", "args", 1): "f.yaml:1:35",
        ("services", "web", "depends_on", 1): "f.yaml:6:23",
        ("services", "web", "depends_on", "db"): "f.yaml:6:23",
        ("services", "web", "missing"): "f.yaml:3:3",
        ("services", "nobody", "user"): "f.yaml:2:1",
        (): "f.yaml:1:1",
    }
    assert {path: str(locate(root, path)) for path in places} == places
    assert str(locate(root, ("services", "web", "user"), key=True)) == "f.yaml:5:5"
    assert render_key(("services", "web", "environment", "a.b", 2)) == 'services.web.environment."a.b"[2]'


def test_merges_add_what_is_not_given() -> None:
    text = "a: &a {x: 1, y: 1}\nb: &b {y: 2, z: 2}\nc: {<<: [*a, *b], x: 3}\n"
    root, _ = parse_yaml(text.encode(), "f.yaml")
    assert to_json_value(read_data(root, {}).data)["c"] == {"x": 3, "y": 1, "z": 2}


def test_anchors_and_merges_work_in_a_configuration() -> None:
    loaded = load("""\
        services:
          web: &common
            command: &run [web]
            resources: {memory_mb: 64}
          api:
            <<: *common
            tcp_port: 80
        """)
    assert loaded.config.services["api"].resources.memory_mb == 64
    assert loaded.config.services["api"].command == ("web",)


def test_aliases_may_stand_for_much_but_not_for_too_much() -> None:
    many = "a: &a [" + "x," * 999 + "]\nb: [" + "*a," * (MAX_ALIAS_NODES // 1000) + "]\n"
    parse_yaml(many.encode(), "f.yaml")
    with pytest.raises(ConfigError, match="stand for too much"):
        parse_yaml((many + "c: *a\n").encode(), "f.yaml")
    with pytest.raises(ConfigError, match="stand for too much"):
        parse_yaml(("a: &a " + "x" * 1_000_000 + "\nb: [" + "*a," * 1000 + "]\n").encode(), "f.yaml")


def test_environment_values_are_the_text_as_written() -> None:
    environment = service("""\
        services:
          web:
            environment:
              A: on
              B: 1.10
              C: 0755
              D: 12:30
              E: 2024-01-01
              F: ~
              G: null
              H:
              I: "quoted: yes"
              J: 1_000
              K: .inf
        """).environment
    assert {name: environment[name] for name in "ABCDEFGHIJK"} == {
        "A": "on",
        "B": "1.10",
        "C": "0755",
        "D": "12:30",
        "E": "2024-01-01",
        "F": "~",
        "G": "null",
        "H": "",
        "I": "quoted: yes",
        "J": "1_000",
        "K": ".inf",
    }


@pytest.mark.parametrize("word", ["true", "yes", "on", "True", "YES", '"yes"', "${FLAG}"])
def test_every_spelling_of_true(word: str) -> None:
    text = f"services:\n  web:\n    enabled: {word}\n"
    assert load(text, {"FLAG": "on"}).config.services["web"].enabled is True


def test_handed_config_is_typed_as_json_spells_it() -> None:
    loaded = load(
        """\
        services:
          web:
            config:
              number: 5
              float: 1.5
              yes: true
              none: null
              text: on
              octal: 0755
              time: 12:30
              quoted: "5"
              huge: 1e999
              version: 1.2.3
              plain_variable: ${N}
              quoted_variable: "${N}"
              list: [1, {a: ~}]
        """,
        {"N": "7"},
    )
    assert loaded.config.services["web"].config == {
        "number": 5,
        "float": 1.5,
        "yes": True,
        "none": None,
        "text": "on",
        "octal": "0755",
        "time": "12:30",
        "quoted": "5",
        "huge": "1e999",
        "version": "1.2.3",
        "plain_variable": 7,
        "quoted_variable": "7",
        "list": [1, {"a": None}],
    }


def test_an_empty_section_means_its_defaults() -> None:
    assert load("runtime:\ncontrol:\nservices:\n  web:\n").config == load("services: {web: {}}").config


def test_a_variable_that_is_empty_leaves_an_optional_key_unset() -> None:
    config = load("services: {web: {user: '${U:-}', tcp_port: \"${P:-}\", args: ['${U:-}']}}").config
    web = config.services["web"]
    assert (web.user, web.tcp_port, web.args) == (None, None, ("",))
