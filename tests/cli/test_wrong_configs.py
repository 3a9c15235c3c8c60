"""Wrong configurations, as a user meets them: exit code 78, one line for each error, never a traceback."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from blackhole_cg.cli.main import cli

SERVICE = "services:\n  web:\n    command: [/bin/sleep, infinity]\n"


def web(text: str) -> str:
    """A configuration in which only this key of one service can be wrong."""
    return SERVICE + "".join(f"    {line}\n" for line in text.splitlines())


def bomb() -> str:
    lines = ["a: &a [x, x, x, x, x, x, x, x, x]"]
    lines += [f"{b}: &{b} [{', '.join(['*' + a] * 9)}]" for a, b in zip("abcdefgh", "bcdefghi", strict=True)]
    return "\n".join(lines) + "\n" + SERVICE


# (name, text, what its errors say, in order)
WRONG = [
    ("a type", web("enabled: perhaps"), ["services.web.enabled: "]),
    ("a list for a mapping", web("environment: [A, B]"), ["services.web.environment: "]),
    ("a range", web("resources: {io_weight: 0}"), ["services.web.resources.io_weight: "]),
    ("a port out of range", web("tcp_port: 70000"), ["services.web.tcp_port: "]),
    ("a negative duration", web("stop: {timeout: -1s}"), ["services.web.stop.timeout: "]),
    ("a bad unit", web("resources: {memory_max: 12Q}"), ["services.web.resources.memory_max: "]),
    ("a bad duration", web("restart: {initial_delay: 5 parsecs}"), ["services.web.restart.initial_delay: "]),
    ("an unknown word", web("restart: {policy: sometimes}"), ["services.web.restart.policy: "]),
    ("an unknown signal", web("stop: {signal: SIGNOPE}"), ["services.web.stop.signal: "]),
    ("an unknown capability", web("security: {capabilities: [FLY]}"), ["services.web.security.capabilities"]),
    ("an unknown rlimit", web("resources: {rlimits: {nope: 1}}"), ["services.web.resources.rlimits.nope: "]),
    ("an unknown key", web("comand: x"), ["services.web.comand: unknown key (did you mean 'command'?)"]),
    ("an unknown section", SERVICE + "servcies: {}\n", ["servcies: unknown key (did you mean 'services'?)"]),
    ("a key that has no behaviour yet", web("gpu: 1"), ["services.web.gpu: unknown key"]),
    ("a duplicate key", web("umask: '022'\numask: '077'"), ["services.web.umask: "]),
    ("a duplicate service", SERVICE + "  web: {command: [/bin/true]}\n", ["services.web: is given twice"]),
    ("a cycle", web("depends_on: [db]") + "  db: {command: [/bin/true], depends_on: [web]}\n", ["web -> db -> web"]),
    ("a dependency on itself", web("depends_on: [web]"), ["services.web.depends_on"]),
    ("an unknown dependency", web("depends_on: [wbe]"), ["there is no service 'wbe' (did you mean 'web'?)"]),
    ("completed of no oneshot", web("") + "  b: {command: [/bin/true], depends_on: {web: {condition: completed}}}\n",
     ["services.b.depends_on.web"]),
    ("a missing binary", "services: {web: {command: [/no/such/binary]}}\n", ["'/no/such/binary' does not exist"]),
    ("no default binary", "services: {web: {}}\n", ["/opt/blackhole/services/web/web"]),
    ("a binary that is a directory", "services: {web: {command: [/bin]}}\n", ["is a directory"]),
    ("a binary without permission", "services: {web: {command: [/etc/passwd]}}\n", ["is not executable"]),
    ("an unset variable", web("environment: {A: '${SURELY_NOT_SET}'}"), ["SURELY_NOT_SET is not set"]),
    ("an unknown user", web("user: nobody-at-all"), ["there is no user 'nobody-at-all' on this host"]),
    ("two limits for one thing", web("resources: {memory_mb: 1, memory_max: 1M}"), ["services.web.resources"]),
    ("high above max", web("resources: {memory_max: 1M, memory_high: 2M}"), ["services.web.resources.memory_high"]),
    ("two services on a port", web("tcp_port: 80") + "  b: {command: [/bin/true], tcp_port: 80}\n", ["tcp_port"]),
    ("two services on a socket", web("unix_socket: /s") + "  b: {command: [/bin/true], unix_socket: /s}\n",
     ["unix_socket"]),
    ("a bad service name", "services: {'../evil': {command: [/bin/true]}}\n", ["../evil"]),
    ("an unclosed quote", web("").replace("[/bin/sleep, infinity]", "\"/bin/sleep 'x\""), ["services.web.command"]),
    ("an empty file", "", [""]),
    ("only a comment", "# nothing\n", [""]),
    ("a list", "- a\n- b\n", [""]),
    ("broken YAML", "services: {web: [\n", [""]),
    ("a Python tag", "services: !!python/object/apply:os.system [id]\n", [""]),
    ("aliases that explode", bomb(), [""]),
    ("deep nesting", "[" * 100_000, [""]),
    ("several at once", web("tcp_port: x\nuser: nobody-at-all\nnope: 1"),
     ["services.web.tcp_port: ", "there is no user", "services.web.nope: unknown key"]),
]  # fmt: skip
BYTES = {
    "binary garbage": bytes(range(256)) * 40,
    "UTF-16": "services: {}".encode("utf-16"),
    "10 MB of nesting": b"[" * 10_000_000,
}


def check(path: Path) -> list[str]:
    """The lines of an unsuccessful check: those about errors, and no others."""
    result = CliRunner().invoke(cli, ["check", "--config", str(path)])
    assert result.exit_code == 78, result.output
    assert result.stdout == ""
    *errors, summary = result.stderr.splitlines()
    assert re.fullmatch(r"blackhole-cg: the configuration is invalid: \d+ errors?", summary)
    assert int(summary.split()[-2]) == len(errors), "one line for each error"
    for line in errors:
        assert re.match(rf"{re.escape(str(path))}(:\d+:\d+)?: \S", line), line
        assert "Traceback" not in line and "pydantic" not in line
    return errors


@pytest.mark.parametrize(("text", "expected"), [pytest.param(t, e, id=name) for name, t, e in WRONG])
def test_each_error_is_one_line_with_its_place(tmp_path, text, expected):
    path = tmp_path / "blackhole.yaml"
    path.write_text(text)
    errors = check(path)
    for part in expected:
        assert any(part in line for line in errors), errors
    if len(expected) > 1:
        assert len(errors) == len(expected)


@pytest.mark.parametrize("name", BYTES)
def test_what_is_not_even_text(tmp_path, name):
    path = tmp_path / "blackhole.yaml"
    path.write_bytes(BYTES[name])
    assert len(check(path)) == 1


def test_what_is_no_file(tmp_path):
    (line,) = check(tmp_path)
    assert "directory" in line.lower()
    (line,) = check(tmp_path / "missing.yaml")
    assert line.endswith("No such file or directory")
