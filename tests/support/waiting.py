"""Waiting for what cannot be awaited: polls with a deadline, and says what it waited for."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def eventually(probe: Callable[[], T], what: str, timeout_seconds: float = 30.0) -> T:
    """The first true answer of `probe`; fails the test when there is none in time."""
    deadline = time.monotonic() + timeout_seconds
    while True:
        answer = probe()
        if answer:
            return answer
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout_seconds:g}s: {what}; last answer: {answer!r}")
        time.sleep(0.02)
