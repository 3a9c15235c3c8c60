"""The program that was verified is the one that runs: real files, real processes."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from blackhole_cg.core.config.resolve import STANDARD_PATH
from blackhole_cg.core.facts import ExitStatus
from blackhole_cg.kernel.preexec import Descriptors, Preparation, Step, preexec_steps
from tests.kernel.machine import Machine, Traces, in_time, open_machine

OTHER = "0" * 64


def sum_of(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def program(tmp_path: Path) -> Path:
    """A binary of our own."""
    copy = Path(shutil.copy("/bin/echo", tmp_path / "echo"))
    copy.chmod(0o755)
    return copy


@pytest.fixture
def script(tmp_path: Path) -> Path:
    path = tmp_path / "script"
    path.write_text('#!/bin/sh\necho "$0 $1"\n')
    path.chmod(0o755)
    return path


def test_a_binary_with_the_right_sum_runs(machine: Machine, program: Path) -> None:
    spec = machine.spec(str(program), "here", binary_sha256=sum_of(program))
    assert in_time(machine.output(spec)) == (ExitStatus(code=0), "here\n")


def test_a_script_with_the_right_sum_runs_by_its_descriptor(machine: Machine, script: Path) -> None:
    spec = machine.spec(str(script), "here", binary_sha256=sum_of(script))
    status, text = in_time(machine.output(spec))
    assert status == ExitStatus(code=0)
    assert text.startswith("/dev/fd/") and text.endswith(" here\n")


def test_a_program_on_the_path_is_verified_too(machine: Machine) -> None:
    found = Path(shutil.which("echo", path=STANDARD_PATH) or "")
    spec = machine.spec("echo", "here", binary_sha256=sum_of(found))
    assert in_time(machine.output(spec))[1] == "here\n"


def test_another_program_does_not_run_and_the_error_names_both_sums(
    machine: Machine, script: Path, tmp_path: Path
) -> None:
    script.write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\n")
    spec = machine.spec(str(script), binary_sha256=OTHER)
    before = Traces.take(machine.root)
    assert in_time(machine.failure(spec)) == (
        f"cannot start '{spec.name}': verify the SHA-256 of {script}: "
        f"it is {sum_of(script)}, and binary_sha256 is {OTHER}"
    )
    assert not (tmp_path / "ran").exists()
    assert Traces.take(machine.root) == before


@pytest.mark.parametrize(
    ("make", "cause"),
    [
        (lambda path: None, "No such file or directory"),
        (lambda path: path.mkdir(), "it is not a file"),
        (os.mkfifo, "it is not a file"),
        (lambda path: path.symlink_to(path), "Too many levels of symbolic links"),
    ],
)
def test_what_cannot_be_verified_does_not_run(machine: Machine, tmp_path: Path, make, cause: str) -> None:
    path = tmp_path / "program"
    make(path)
    spec = machine.spec(str(path), binary_sha256=OTHER)
    said = f"cannot start '{spec.name}': verify the SHA-256 of {path}: {cause}"
    assert in_time(machine.failure(spec)) == said


def test_a_file_that_is_not_executable_does_not_run(machine: Machine, program: Path) -> None:
    program.chmod(0o644)
    spec = machine.spec(str(program), binary_sha256=sum_of(program))
    assert (
        in_time(machine.failure(spec)) == f"cannot start '{spec.name}': execute {program}: Permission denied"
    )


@pytest.fixture
def exchanging(real_base: Path, tmp_path: Path, program: Path) -> Iterator[Machine]:
    """A machine on which somebody exchanges the file once it has been verified."""

    def steps(prepared: Preparation, descriptors: Descriptors) -> tuple[Step, ...]:
        def exchange() -> None:
            evil = tmp_path / "evil"
            evil.write_text("#!/bin/sh\necho evil\n")
            evil.chmod(0o755)
            evil.replace(program)

        table = preexec_steps(prepared, descriptors)
        at = next(index for index, step in enumerate(table) if step.phrase.startswith("verify"))
        return (*table[: at + 1], Step("exchange it", exchange), *table[at + 1 :])

    with open_machine(real_base, make_steps=steps) as machine:
        yield machine


def test_a_file_that_is_exchanged_after_it_was_verified_is_not_what_runs(
    exchanging: Machine, program: Path
) -> None:
    spec = exchanging.spec(str(program), "good", binary_sha256=sum_of(program))
    assert in_time(exchanging.output(spec)) == (ExitStatus(code=0), "good\n")
    assert program.read_text().startswith("#!")


def test_a_user_who_may_not_read_the_program_can_be_given_it(machine: Machine, program: Path) -> None:
    place = machine.base / "echo"
    shutil.copy(program, place)
    place.chmod(0o711)
    spec = machine.spec(str(place), "here", user="nobody", binary_sha256=sum_of(program))
    assert in_time(machine.output(spec)) == (ExitStatus(code=0), "here\n")
