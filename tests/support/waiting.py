"""Waiting for what cannot be awaited: polls with a deadline, and says what it waited for."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def eventually(probe: Callable[[], T], what: str, timeout_seconds: float = 90.0) -> T:
    """The first true answer of `probe`; fails the test when there is none in time.

    It asks less often as it goes on: whoever is asked may share a slow machine with what is waited for.
    """
    deadline, pause_seconds = time.monotonic() + timeout_seconds, 0.01
    while True:
        answer = probe()
        if answer:
            return answer
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout_seconds:g}s: {what}; last answer: {answer!r}")
        time.sleep(pause_seconds)
        pause_seconds = min(pause_seconds * 1.2, 0.1)
