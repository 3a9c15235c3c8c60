"""A resolved configuration as text and back."""

from __future__ import annotations

import json

import pytest

from blackhole_cg.core.config import Context, load_config, resolve
from blackhole_cg.core.spec_text import parse_spec, render_spec
from tests.core.config.files import MemoryReader
from tests.support.builders import service, supervisor_spec

ALL = """
runtime: {orchestrator: {isolation: best_effort, metrics: {listen: 127.0.0.1:9464}}}
services:
  db: {command: [/bin/db], type: notify, watchdog: 10s, tcp_port: 5432}
  web:
    command: [/bin/web, --port, "{tcp_port}"]
    tcp_port: 8080
    depends_on: {db: {condition: healthy}}
    resources: {memory_mb: 100, io_max: {"8:0": {rbps: 1M}}, open_files: 100, cpu_percent: 50, pids_max: max}
    health_check: {http: {path: /status, headers: {A: b}}}
    readiness_probe: {exec: {command: [/bin/true]}}
    liveness_probe: {tcp: {port: 1}}
    monitor:
      rules: [{metric: memory_percent, above: 90, for: 30s, action: restart}]
    security: {capabilities: [NET_RAW]}
    config: {key: value}
"""


def test_every_part_comes_back():
    text = ALL.replace("    health_check: {http: {path: /status, headers: {A: b}}}\n", "")
    for each in (text, ALL.split("    readiness_probe", maxsplit=1)[0]):
        loaded = load_config("/f.yaml", MemoryReader({"/f.yaml": each.encode()}), {})
        spec = resolve(loaded, Context("/"))
        assert parse_spec(render_spec(spec)) == spec


def test_what_another_version_wrote_is_read_as_far_as_it_is_known():
    spec = supervisor_spec(service("web"))
    data = json.loads(render_spec(spec))
    data["services"]["web"]["later"] = 1
    del data["services"]["web"]["umask"]
    assert parse_spec(json.dumps(data)) == spec


@pytest.mark.parametrize("text", ["", "[]", "{}", "3", '{"services": {"web": {}}, "runtime": {}}'])
def test_anything_else_is_refused(text):
    with pytest.raises((ValueError, KeyError, TypeError, AttributeError)):
        parse_spec(text)
