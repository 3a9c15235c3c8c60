"""Fixtures of the kernel tests; what a host cannot offer skips them with the reason."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kernel.machine import Machine, cgroup_obstacle, open_machine


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whatever uses a real machine needs what that needs."""
    for item in items:
        if {"machine", "real_base"} & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.needs_root)
            item.add_marker(pytest.mark.needs_cgroup)


@pytest.fixture
def real_base() -> Iterator[Path]:
    """A directory that every user can reach into, on a host where real cgroups can be made."""
    obstacle = cgroup_obstacle()
    if obstacle is not None:
        pytest.skip(f"no cgroups of our own here: {obstacle}")
    base = Path(tempfile.mkdtemp(prefix="bh-test-", dir="/tmp"))
    base.chmod(0o755)
    yield base
    shutil.rmtree(base)


@pytest.fixture
def machine(real_base: Path) -> Iterator[Machine]:
    """An open host with `isolation: best_effort` over a cgroup root of its own."""
    with open_machine(real_base) as opened:
        yield opened
