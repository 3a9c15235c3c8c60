"""The command line in a process of its own, as a user has it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.control.fake_operations import Served

ROOT = Path(__file__).parents[2]
COMMAND = [sys.executable, "-m", "blackhole_cg.cli.main"]

Cli = Callable[..., "subprocess.CompletedProcess[bytes]"]


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    with Served(tmp_path) as served:
        yield served


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """What a command sees: the runtime directory, and nothing that changes how it prints."""
    base = {name: value for name, value in os.environ.items() if name not in {"NO_COLOR", "COLUMNS"}}
    return {**base, "BLACKHOLE_CG_RUNTIME_DIR": str(tmp_path), "TZ": "UTC", "TERM": "xterm"}


@pytest.fixture
def cli(environment: dict[str, str]) -> Cli:
    """Runs a command to its end."""

    def run(*arguments: str, **changes: str) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            [*COMMAND, *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            cwd=ROOT,
            env={**environment, **changes},
            timeout=180,
            check=False,
        )

    return run
