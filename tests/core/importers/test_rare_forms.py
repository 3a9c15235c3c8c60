"""Forms that files of public projects have, and that the everyday examples do not: see tests/importers_on."""

from __future__ import annotations

from typing import Any

import pytest

from blackhole_cg.core.importers import IMPORTERS, Draft, Source, render
from blackhole_cg.errors import ConfigError


def imported(kind: str, text: str, name: str = "web.service") -> Draft:
    return IMPORTERS[kind]([Source(name, text, "/srv/app")])


def noted(draft: Draft) -> dict[str, int]:
    return {note.setting: note.line for note in draft.notes}


def program(lines: str) -> Draft:
    return imported("supervisord", f"[program:web]\ncommand=a\n{lines}\n")


def unit(lines: str, command: str = "/a") -> Draft:
    return imported("systemd", f"[Service]\nExecStart={command}\n{lines}\n")


def container(lines: str) -> Draft:
    indented = "".join(f"    {line}\n" for line in lines.splitlines())
    return imported("compose", f"services:\n  web:\n    command: run\n{indented}")


def web(draft: Draft) -> dict[str, Any]:
    return draft.services["web"]


# ---- supervisord ----


def test_a_program_that_is_not_restarted_has_no_use_for_counts() -> None:
    draft = program("autorestart=false\nstartsecs=0\nstartretries=3")
    assert web(draft)["restart"] == {"policy": "never"}
    assert noted(draft) == {"startsecs": 4, "startretries": 5}


@pytest.mark.parametrize(
    "setting",
    [
        "autostart",
        "autorestart",
        "startsecs",
        "stopsignal",
        "stopwaitsecs",
        "umask",
        "numprocs",
        "stopasgroup",
    ],
)
def test_a_variable_that_would_have_to_be_understood_is_listed(setting: str) -> None:
    draft = program(f"{setting}=%(ENV_it)s")
    assert web(draft) == web(program(""))
    assert noted(draft) == {setting: 3}


@pytest.mark.parametrize("name", ["%(program_name)s", "%(program_name)s_%(process_num)02d"])
def test_a_usual_name_of_a_process_is_nothing_to_say(name: str) -> None:
    assert noted(program(f"process_name={name}")) == {}


def test_a_name_of_its_own_for_a_process_is_listed() -> None:
    assert noted(program("process_name=other")) == {"process_name": 3}


def test_a_file_without_programs_says_so() -> None:
    draft = imported("supervisord", "[supervisord]\nnodaemon=true\n")
    assert noted(draft) == {"[supervisord] nodaemon": 2, "[program:x]": 0}


# ---- Procfile ----


def test_a_comment_at_the_end_of_a_line_is_the_shells_to_remove() -> None:
    assert web(imported("procfile", "web: a b # why\n"))["command"] == ["/bin/sh", "-c", "a b # why"]
    assert web(imported("procfile", "web: a b#c '# d'\n"))["command"] == ["a", "b#c", "# d"]


def test_a_port_that_the_line_sets_is_kept() -> None:
    service = web(imported("procfile", "web: PORT=3000 a\n"))
    assert (service["environment"], service["tcp_port"]) == ({"PORT": "3000"}, 3000)


# ---- Compose ----


def test_a_colon_in_a_variable_does_not_begin_the_group() -> None:
    service = web(container('user: "${U:-root}:${G:-root}"'))
    assert (service["user"], service["group"]) == ("${U:-root}", "${G:-root}")


@pytest.mark.parametrize(
    ("ports", "wanted"),
    [
        ("['${P:-1}:${P:-1}/udp']", None),
        ("['53:53/udp', '8080:80/tcp']", 80),
        ("['1-2:1-2', '3:3']", 3),
        ("['${A}-${B}:${A}-${B}']", None),
        ("[{target: 53, protocol: udp}, {target: 54, protocol: tcp}]", 54),
        ("[{published: 1}]", None),
    ],
)
def test_the_port_of_a_service_is_one_of_tcp(ports: str, wanted: int | None) -> None:
    assert web(container(f"ports: {ports}")).get("tcp_port") == wanted


def test_what_has_no_place_within_a_setting_is_listed() -> None:
    text = (
        "name: mine\nservices:\n  web:\n    command: a\n    env_file: [{path: x, "
        "required: false, format: raw}]\n"
        "    healthcheck: {test: x, start_interval: 1s}\n"
        "    depends_on: {db: {condition: service_started, restart: true, required: false}}\n"
        "  db: {command: b}\n"
    )
    draft = imported("compose", text)
    assert web(draft)["depends_on"] == {"db": {"condition": "started"}}
    assert noted(draft) == {
        "name": 1,
        "web.env_file.required": 5,
        "web.env_file.format": 5,
        "web.healthcheck.start_interval": 6,
        "web.healthcheck": 6,
        "web.depends_on.db.restart": 7,
        "web.depends_on.db.required": 7,
    }


@pytest.mark.parametrize(
    ("lines", "setting"),
    [
        ("restart: ${R}", "restart"),
        ("restart: ${R:-always}", "restart"),
        ("cpus: ${C}", "cpus"),
        ("stop_grace_period: ${T:-1m}", "stop_grace_period"),
        ("working_dir: ${A:+/x}", "working_dir"),
        ("working_dir: ${A:-${B}}", "working_dir"),
    ],
)
def test_a_variable_that_cannot_be_carried_over_is_listed(lines: str, setting: str) -> None:
    draft = container(lines)
    assert noted(draft) == {f"web.{setting}": 4}
    assert web(draft)["command"] == ["run"]
    assert "None" not in render(draft, ["file"])


def test_of_a_health_check_only_what_cannot_be_carried_over_is_left_out() -> None:
    draft = container("healthcheck: {test: x, interval: '${I}', timeout: 2s}")
    assert (web(draft)["health_check"]["interval"], web(draft)["health_check"]["timeout"]) == ("30s", "2s")
    assert noted(draft) == {"web.healthcheck.interval": 4, "web.healthcheck": 4}


def test_of_limits_only_what_cannot_be_carried_over_is_left_out() -> None:
    draft = container("deploy: {resources: {limits: {cpus: '${C:-1}', memory: '${M:-1G}'}}}")
    assert web(draft)["resources"] == {"memory_max": "${M:-1G}"}
    assert noted(draft) == {"web.deploy.resources.limits.cpus": 4}


def test_a_default_that_is_not_for_empty_values_is_listed() -> None:
    draft = container("environment: {A: '${B-1}$$ $${C-1}', D: '${B-2}'}")
    assert web(draft)["environment"] == {"A": "${B:-1}$$ $${C-1}", "D": "${B:-2}"}
    assert noted(draft) == {"web.environment ${B-}": 4}


def test_of_an_environment_only_what_cannot_be_carried_over_is_left_out() -> None:
    draft = container("environment: ['A=${B:-${C}}', D=1]")
    assert web(draft)["environment"] == {"D": "1"}
    assert noted(draft) == {"web.environment A": 4}


# ---- systemd ----


WORDS = {
    r"/a '-p \\u' x": ["/a", r"-p \u", "x"],
    r"/a b\x20c d\se \u00e9 \101": ["/a", "b c", "d e", "é", "A"],
    r"""/a "x\ty" 'it\'s' k\q""": ["/a", "x\ty", "it's", r"k\q"],
    r"/a --e='x y'z \;": ["/a", "--e=x yz", ";"],
    "/a '' \"$$HOME\"": ["/a", "", "$HOME"],
}


@pytest.mark.parametrize("command", WORDS)
def test_words_are_read_as_systemd_reads_them(command: str) -> None:
    assert web(unit("", command))["command"] == WORDS[command]


def test_an_environment_is_read_as_systemd_reads_it() -> None:
    assert web(unit(r"Environment='A=x\ny' B=\x41"))["environment"] == {"A": "x\ny", "B": "A"}


def test_only_the_first_of_several_commands_in_a_line_is_the_service() -> None:
    draft = unit("Type=oneshot", "/a b ; /c d")
    assert web(draft)["command"] == ["/a", "b"]
    assert noted(draft) == {"ExecStart=/a b ; /c d": 2}


def test_a_start_limit_without_restarts_is_listed() -> None:
    draft = imported(
        "systemd", "[Unit]\nStartLimitBurst=3\n[Service]\nExecStart=/a\nStartLimitIntervalSec=0\n"
    )
    assert "max_restarts" not in web(draft)["restart"]
    assert noted(draft) == {"StartLimitBurst=3": 2, "StartLimitIntervalSec=0": 5}


def test_a_mask_has_nine_bits() -> None:
    assert web(unit("UMask=7027"))["umask"] == "0027"


def test_a_section_of_somebody_else_is_not_the_service() -> None:
    draft = unit("[X-Ours]\nUser=other\n[Install]\nAlias=x.service")
    assert "user" not in web(draft)
    assert noted(draft) == {"[X-Ours] User=other": 4, "Alias=x.service": 6}


def test_a_quote_that_is_never_closed_is_told() -> None:
    for lines, command in [("", "/a 'b"), ("Environment='A=1", "/a")]:
        with pytest.raises(ConfigError, match="quote that is never closed"):
            unit(lines, command)
