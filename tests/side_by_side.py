"""Several runs of pytest beside each other, for tests that mostly wait: they share out the test modules.

Each collects everything, claims one module after the other by creating a file, and passes over those that
another has claimed. Nothing has to know how long a module takes, and each test runs in a plain pytest.

As a plugin (`-p tests.side_by_side`) this is one of those runs.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CLAIMS = "BLACKHOLE_CG_TEST_CLAIMS"
"""The directory of the claims."""
END_SECONDS = 120
"""What a test that is broken off may take to end what it has started."""
SLOW_FIRST = ("system", "observe", "supervisor")
"""Directories with the longest modules: one that begins last would be waited for."""


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The slow ones first."""
    ranks = {directory: rank for rank, directory in enumerate(reversed(SLOW_FIRST), 1)}
    items.sort(key=lambda item: -max(ranks.get(part, 0) for part in item.path.parts))


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop(session: pytest.Session) -> bool | None:
    """Claim and run, module by module. A shell's background job ignores SIGINT, and so would this."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if session.testsfailed or session.config.option.collectonly:
        return None  # pytest's own loop knows what to do then
    for module, items in groupby(session.items, key=lambda item: item.path):
        if _claim(module.relative_to(session.config.rootpath)):
            _run_module(session, list(items))
    return True


def _claim(module: Path) -> bool:
    try:
        (Path(os.environ[CLAIMS]) / "-".join(module.parts)).touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


def _run_module(session: pytest.Session, items: list[pytest.Item]) -> None:
    """Nothing follows the last one that is certain to be ours, so everything is torn down after it."""
    for item, following in zip(items, [*items[1:], None], strict=True):
        item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
        if session.shouldfail:
            raise session.Failed(session.shouldfail)
        if session.shouldstop:
            raise session.Interrupted(session.shouldstop)


@dataclass
class Run:
    """One run, under way; what it prints is kept, so that two do not mix."""

    report: Path
    output: Path
    process: subprocess.Popen[bytes]

    def finish(self) -> int:
        """Wait for it, and show what it printed; its exit code."""
        code = self.process.wait()
        print(self.output.read_text(errors="replace"), flush=True)
        return code


def compiled_once(directory: Path) -> Mapping[str, str]:
    """An environment in which no process compiles anew what another has compiled."""
    environment = dict(os.environ)
    if sys.dont_write_bytecode:
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        environment["PYTHONPYCACHEPREFIX"] = str(directory / "pycache")
    return environment


@contextlib.contextmanager
def running(directory: Path, count: int, arguments: Sequence[str]) -> Iterator[list[Run]]:
    """So many runs with these arguments; ended with the block."""
    claims = directory / "claims"
    claims.mkdir()
    environment = {**compiled_once(directory), CLAIMS: str(claims)}
    runs = []
    try:
        for number in range(1, count + 1):
            report, output = directory / f"host-{number}.xml", directory / f"host-{number}.log"
            command = [sys.executable, "-m", "pytest", "-p", "tests.side_by_side", "-p", "no:cacheprovider"]
            command += [f"--junitxml={report}", *arguments]
            with output.open("wb") as file:
                process = subprocess.Popen(
                    command,
                    cwd=ROOT,
                    env=environment,
                    stdin=subprocess.DEVNULL,
                    stdout=file,
                    stderr=subprocess.STDOUT,
                )
            runs.append(Run(report, output, process))
        yield runs
    finally:
        for run in runs:
            run.process.send_signal(signal.SIGINT)  # at which a test ends what it has started
        for run in runs:
            try:
                run.process.wait(END_SECONDS)
            except subprocess.TimeoutExpired:
                run.process.kill()
                run.process.wait()
