"""The JSON Schema: complete for editors, and in step with what the loader accepts."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from typing import Any

import pytest

from blackhole_cg.core.config import json_schema
from blackhole_cg.core.config.schema import sections
from tests.core.config.files import load

SCHEMA = json_schema()
SECTIONS: dict[str, dict[str, Any]] = {**SCHEMA["$defs"], "Config": SCHEMA}
KEYS = [(name, key) for name, made in SECTIONS.items() for key in made["properties"]]


def test_it_is_plain_json_of_the_stated_dialect() -> None:
    assert json.loads(json.dumps(SCHEMA)) == SCHEMA
    assert SCHEMA["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert set(SECTIONS) == {model.__name__ for model in sections()}


@pytest.mark.parametrize(("section", "key"), KEYS)
def test_every_key_is_described(section: str, key: str) -> None:
    made = SECTIONS[section]["properties"][key]
    description = made.get("description", "")
    assert description.endswith("."), f"{section}.{key}: {description!r}"
    assert SECTIONS[section]["additionalProperties"] is False
    assert any(word in made for word in ("title", "$ref", "allOf", "anyOf"))  # allOf: pydantic before 2.8
    assert any(word in made for word in ("type", "anyOf", "enum", "$ref", "allOf")), made


def test_sizes_and_durations_take_text_or_a_number() -> None:
    for name, key in (("Stop", "timeout"), ("Logs", "max_size"), ("Resources", "memory_max")):
        kinds = {choice.get("type") for choice in SECTIONS[name]["properties"][key]["anyOf"]}
        assert "string" in kinds and kinds & {"integer", "number"}


def test_defaults_are_written_as_a_person_writes_them() -> None:
    defaults = {
        ("Stop", "signal"): "TERM",
        ("Stop", "timeout"): "10s",
        ("Logs", "max_size"): "50M",
        ("Service", "umask"): "022",
        ("Orchestrator", "isolation"): "required",
        ("ResourceDefaults", "default_cpu_percent"): 10,
    }
    for (name, key), default in defaults.items():
        assert SECTIONS[name]["properties"][key]["default"] == default


def test_every_default_fits_its_own_schema_and_is_accepted() -> None:
    for name, key in KEYS:
        made = SECTIONS[name]["properties"][key]
        default = made.get("default")
        if isinstance(default, str) and "pattern" in made:
            assert re.search(made["pattern"], default)
        if "enum" in made and default is not None:
            assert default in made["enum"]
    orchestrator = SECTIONS["Orchestrator"]["properties"]
    values = {key: made["default"] for key, made in orchestrator.items() if "default" in made}
    config = {"runtime": {"orchestrator": values}, "services": {"web": {}}}
    assert load(json.dumps(config)).config == load('{"services": {"web": {}}}').config


def test_units_are_stated() -> None:
    assert SECTIONS["Stop"]["properties"]["timeout"]["x-unit"] == "seconds"
    assert SECTIONS["Resources"]["properties"]["memory_max"]["x-unit"] == "bytes"
    assert SECTIONS["Resources"]["properties"]["cpu_percent"]["x-unit"] == "percent of one core"


def test_the_words_other_layers_read_cost_no_pydantic_and_no_yaml() -> None:
    code = (
        "import sys, blackhole_cg.core.spec, blackhole_cg.core.units, blackhole_cg.core.graph, "
        "blackhole_cg.core.facts; print(sorted({'pydantic', 'yaml'} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
