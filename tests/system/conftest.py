"""Fixtures of the tests that run the whole program."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.live import Live


@pytest.fixture
def supervise(tmp_path: Path) -> Iterator[Callable[..., Live]]:
    """Makes supervisors that are ended with the test, whatever happens in it."""
    made: list[Live] = []

    def make(config: object, *options: str, start: bool = True) -> Live:
        directory = tmp_path / f"supervisor-{len(made)}"
        directory.mkdir()
        live = Live(directory, config, *options)
        made.append(live)
        return live.start().ready() if start else live

    yield make
    for live in made:
        live.close()
