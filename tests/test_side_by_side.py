"""Sharing out tests: each runs exactly once, in whichever run, with its fixtures torn down."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests import side_by_side
from tests.everything import Counts, judge
from tests.support.waiting import eventually

MODULE = """
import pytest
from pathlib import Path

@pytest.fixture(scope="module")
def whole():
    yield
    Path(__file__).with_suffix(".down").touch(exist_ok=False)

@pytest.mark.parametrize("number", range(5))
def test_it(whole, number):
    assert not Path(__file__).with_suffix(".down").exists()
    with Path(__file__).with_suffix(".ran").open("a") as file:
        file.write(f"{number}\\n")
"""


@pytest.fixture
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """A tree of test modules in three packages, in which the runs are started."""
    monkeypatch.setattr(side_by_side, "ROOT", tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[1]))
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    made = [
        tmp_path / package / f"test_{package}_{name}.py" for package in ("one", "system") for name in "abcd"
    ]
    for path in made:
        path.parent.mkdir(exist_ok=True)
        path.write_text(MODULE)
    return made


def outcome(directory: Path, *arguments: str) -> Counts:
    directory.mkdir()
    with side_by_side.running(directory, 3, arguments) as runs:
        return sum((judge(run.report, run.finish()) for run in runs), Counts())


def test_every_test_runs_once(modules: list[Path], tmp_path: Path) -> None:
    assert outcome(tmp_path / "work") == Counts(passed=len(modules) * 5)
    for module in modules:
        assert module.with_suffix(".ran").read_text().split() == list("01234")
        assert module.with_suffix(".down").exists()


def test_every_failure_is_counted(modules: list[Path], tmp_path: Path) -> None:
    for module in modules[:2]:
        module.write_text("def test_it(): assert False")
    assert outcome(tmp_path / "work").failed == 2


def test_a_run_that_dies_is_a_failure(modules: list[Path], tmp_path: Path) -> None:
    modules[0].write_text("import os\ndef test_it(): os._exit(7)")
    counts = outcome(tmp_path / "work")
    assert counts.failed == 1
    assert "ended with 7 and left no report" in counts.note


def test_a_module_that_cannot_be_imported_is_a_failure(modules: list[Path], tmp_path: Path) -> None:
    modules[0].write_text("import nothing_of_this_name")
    assert outcome(tmp_path / "work").failed


def test_broken_off_it_tears_down_what_is_under_way(modules: list[Path], tmp_path: Path) -> None:
    for module in modules:
        module.write_text(f"{MODULE}\n    import time\n    time.sleep(1000)\n")
    (tmp_path / "work").mkdir()
    with side_by_side.running(tmp_path / "work", 1, ()) as runs:
        eventually(lambda: list(tmp_path.rglob("*.ran")), "a test has begun")
    assert runs[0].process.returncode == pytest.ExitCode.INTERRUPTED
    assert len(list(tmp_path.rglob("*.down"))) == 1


def test_what_is_compiled_is_kept_where_the_environment_forbids_it_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    environment = side_by_side.compiled_once(tmp_path)
    assert "PYTHONDONTWRITEBYTECODE" not in environment
    assert environment["PYTHONPYCACHEPREFIX"] == str(tmp_path / "pycache")
