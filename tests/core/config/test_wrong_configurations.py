"""Every wrong configuration is answered with exactly these lines, and quickly."""

from __future__ import annotations

import errno
import time

import pytest

from tests.core.config.files import MAIN, Files, lines_of
from tests.core.config.wrong_configurations import WRONG


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_said(name: str) -> None:
    text, lines = WRONG[name]
    started = time.process_time()
    assert lines_of({MAIN: text}) == lines
    assert time.process_time() - started < 5


def test_the_table_is_a_good_sample() -> None:
    assert len(WRONG) >= 30
    assert all(lines for _, lines in WRONG.values())
    assert not any(
        "pydantic" in line or "input_type" in line for _, lines in WRONG.values() for line in lines
    )


@pytest.mark.parametrize(
    ("files", "lines"),
    [
        ({}, ["blackhole.yaml: cannot read: No such file or directory"]),
        (
            {MAIN: OSError(errno.EINVAL, "it is a directory, not a file")},
            ["blackhole.yaml: cannot read: it is a directory, not a file"],
        ),
        (
            {MAIN: OSError(errno.EACCES, "Permission denied")},
            ["blackhole.yaml: cannot read: Permission denied"],
        ),
        (
            {MAIN: "include: [gone.yaml]\nservices: {web: {}}\n"},
            ["blackhole.yaml:1:11: include[0]: cannot read gone.yaml: No such file or directory"],
        ),
        (
            {MAIN: "include: a.yaml\nservices: {web: {}}\n", "a.yaml": "services: {api: {}, web: {}}\n"},
            ["a.yaml:1:21: services.web: is defined twice (first at blackhole.yaml:2:12)"],
        ),
        (
            {MAIN: "include: a.yaml", "a.yaml": "include: b.yaml", "b.yaml": "include: a.yaml"},
            [
                "b.yaml:1:10: include: the files include each other: "
                "blackhole.yaml -> a.yaml -> b.yaml -> a.yaml"
            ],
        ),
        (
            {MAIN: "include: '*.yaml'\nservices: {web: {}}\n"},
            ["blackhole.yaml:1:10: include: the files include each other: blackhole.yaml -> blackhole.yaml"],
        ),
        (
            {MAIN: "include: a.yaml\nservices: {web: {}}\n", "a.yaml": "runtime: {}\nservice: {}\n"},
            [
                "a.yaml:1:1: runtime: belongs in blackhole.yaml, not in an included file",
                "a.yaml:2:1: service: unknown key (did you mean 'services'?)",
            ],
        ),
        (
            {MAIN: "include: [a.yaml, [b]]\nservices: {web: {}}\n", "a.yaml": "services: 5\n"},
            [
                "blackhole.yaml:1:19: include[1]: a list is not a path (accepted: a path or a glob)",
                "a.yaml:1:1: services: '5' is not a mapping (accepted: a mapping)",
            ],
        ),
        (
            {MAIN: "include: a.yaml\nservices: {web: {}}\n", "a.yaml": "services: {api: {usr: x}}\nx: [\n"},
            ["a.yaml:3:1: is not valid YAML: a value was expected here (check the brackets)"],
        ),
        (
            {MAIN: "services: {web: {env_file: web.env}}\n", "web.env": "A=1\nnonsense\nB='x\n"},
            [
                "web.env:2:1: is not a variable (accepted: KEY=VALUE, KEY='VALUE', KEY=\"VALUE\", # comment)",
                "web.env:3:1: is not a variable (accepted: KEY=VALUE, KEY='VALUE', KEY=\"VALUE\", # comment)",
            ],
        ),
        (
            {MAIN: "services: {web: {env_file: web.env}}\n"},
            ["blackhole.yaml:1:28: services.web.env_file: cannot read web.env: No such file or directory"],
        ),
    ],
)
def test_files_that_cannot_be_read_or_joined(files: Files, lines: list[str]) -> None:
    assert lines_of(files) == lines


def test_included_files_may_hold_the_same_file_twice_without_a_loop() -> None:
    files = {
        MAIN: "include: [a.yaml, b.yaml]\n",
        "a.yaml": "include: c.yaml\n",
        "b.yaml": "include: c.yaml\n",
        "c.yaml": "services: {web: {}}\n",
    }
    assert lines_of(files) == []


def test_includes_end_at_a_depth() -> None:
    files = {MAIN: "include: 1.yaml\n", **{f"{n}.yaml": f"include: {n + 1}.yaml\n" for n in range(1, 40)}}
    assert lines_of(files) == [
        "16.yaml:1:10: include: too many files include each other (accepted: 16 levels, 1000 files)"
    ]


def test_a_secret_is_not_in_a_message() -> None:
    text = """\
        services:
          web:
            tcp_port: ${S}
            resources: {memory_max: "${S}", rlimits: {core: "${S}"}}
            stop: {signal: "${S}", timeout: "${S}"}
            type: ${S}
            command: "'${S}"
            env_file: ${S}
            config: ${S}
            restart: {policy: "${S}"}
            security: {capabilities: ["${S}"]}
            umask: ${S}
        """
    lines = lines_of({MAIN: text}, {"S": "on_failur3 hunter2"})
    assert len(lines) == 12
    assert not any("hunter2" in line or "did you mean" in line for line in lines)


def test_thousands_of_errors_end_at_a_thousand() -> None:
    lines = lines_of({MAIN: "services:\n" + "".join(f"  s{n}: {{bogus: 1}}\n" for n in range(3000))})
    assert len(lines) == 1001
    assert lines[-1] == "blackhole.yaml: more errors follow these 1000"
