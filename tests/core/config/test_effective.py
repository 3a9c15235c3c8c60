"""What `config show` prints: every default filled in, no secret."""

from __future__ import annotations

import json
from typing import Any

import yaml

from blackhole_cg.core.config import render_yaml, resolve, show_config
from tests.core.config.files import CONTEXT, load

SECRET = "hunter2"


def shown(text: str, environ: dict[str, str] | None = None, **files: str | bytes) -> dict[str, Any]:
    return show_config(load(text, environ, **files), CONTEXT)


def test_every_default_is_filled_in() -> None:
    web = shown("services: {web: }")["services"]["web"]
    assert web["binary_path"] == "/opt/blackhole/services/web/web"
    assert web["data_dir"] == "/var/lib/blackhole/web"
    assert web["log_level"] == "info"
    assert web["umask"] == "022"
    assert web["resources"]["memory_max"] == "512M"
    assert web["resources"]["memory_mb"] is None
    assert web["resources"]["cpu_percent"] == 10
    assert web["restart"] == {
        **{"policy": "always", "max_restarts": 5, "initial_delay": "1s", "max_delay": "1m"},
        **{"backoff_factor": 2, "restart_window": "1h", "jitter": 0.1, "reset_after": "1m"},
    }
    assert web["stop"] == {"signal": "TERM", "timeout": "10s"}
    assert web["logs"] == {"max_size": "50M", "max_files": 5}


def test_auto_restart_off_is_visible() -> None:
    data = shown("runtime: {orchestrator: {auto_restart: off}}\nservices: {web: {restart: {policy: always}}}")
    assert data["services"]["web"]["restart"]["policy"] == "never"


def test_services_of_included_files_are_part_of_it() -> None:
    data = shown("include: a.yaml\nservices: {web: }", a__yaml="services: {api: }")
    assert list(data["services"]) == ["web", "api"]
    assert "include" not in data


def test_no_value_from_the_environment_is_shown() -> None:
    text = """\
        runtime:
          orchestrator:
            services_dir: /opt/${S}
            log_level: ${LEVEL}
            resource_limits: {default_memory_mb: "${MB}"}
            restart_policy: {max_attempts: "${N}"}
        services:
          web:
            args: [--token, "${S}"]
            environment: {TOKEN: "${S}", PLAIN: text, MIXED: "a ${S} b", LITERAL: "$${S} $$ $5"}
            config: {nested: [{jwt: "${S}"}], number: "${N}"}
            tcp_port: ${PORT}
            data_dir: data/${S}
            resources: {processes: "${N}"}
          api: {command: "api ${S}", resources: {memory_max: "${SIZE}"}}
          job: {command: [job, "${S}"], user: "${S}", log_level: debug, restart: {max_restarts: 3}}
        """
    environ = {"S": SECRET, "LEVEL": "warning", "MB": "777", "N": "1234", "PORT": "4711", "SIZE": "99M"}
    data = shown(text, environ)
    for rendered in (render_yaml(data), json.dumps(data)):
        assert not any(value in rendered for value in (SECRET, "777", "1234", "4711", "99M", "warning"))
    web, api, job = (data["services"][name] for name in ("web", "api", "job"))
    assert web["args"] == ["--token", "${S}"]
    assert web["environment"] == {
        "TOKEN": "${S}",
        "PLAIN": "text",
        "MIXED": "a ${S} b",
        "LITERAL": "$${S} $ $5",
    }
    assert web["config"] == {"nested": [{"jwt": "${S}"}], "number": "${N}"}
    assert (web["tcp_port"], web["data_dir"]) == ("${PORT}", "data/${S}")
    assert (web["binary_path"], web["log_level"], web["restart"]["max_restarts"]) == ("***", "***", "***")
    assert (web["resources"]["memory_max"], web["resources"]["memory_high"]) == ("***", "***")
    assert (web["resources"]["processes"], web["resources"]["pids_max"]) == ("${N}", "***")
    assert (api["resources"]["memory_max"], api["resources"]["memory_high"]) == ("${SIZE}", "***")
    assert (job["command"], job["user"]) == (["job", "${S}"], "${S}")
    assert (job["log_level"], job["restart"]["max_restarts"]) == ("debug", 3)


def test_values_of_an_env_file_are_not_shown() -> None:
    data = shown("services: {web: {env_file: web.env}}", web__env=f"TOKEN={SECRET}\n")
    assert SECRET not in json.dumps(data)
    assert data["services"]["web"]["env_file"] == "/etc/bh/web.env"


def test_what_is_shown_loads_again_with_the_same_environment() -> None:
    text = """\
        services:
          web:
            command: [web, "${S}", "$${S}", "5", "1e5", "null", "<<", "a: b", "022"]
            config:
              "<<": {x: "${S}"}
              number: ${N}
              text: "5"
              exponent: "1e5"
              "no": ["~", ~]
            umask: 077
        """
    environ = {"S": SECRET, "N": "5"}
    loaded = load(text, environ)
    data = show_config(loaded, CONTEXT)
    again = load(render_yaml(data), environ)
    assert resolve(again, CONTEXT) == resolve(loaded, CONTEXT)
    assert (
        yaml.safe_load(render_yaml(data))["services"]["web"]["command"] == data["services"]["web"]["command"]
    )
