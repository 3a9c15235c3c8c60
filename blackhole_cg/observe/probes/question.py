"""What all kinds of questions have in common: a time limit, and an answer in words whatever goes wrong."""

from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import Awaitable, Callable
from typing import Final

from blackhole_cg.core.probe_spec import Answer
from blackhole_cg.core.units import shorten

EXCERPT_CHARACTERS: Final = 200


class NotOk(Exception):
    """The service answered, and the answer is no; the text says what it was."""


async def put(label: str, question: Callable[[], Awaitable[str]], timeout_seconds: float) -> Answer:
    """Ask; never raises but when it is cancelled.

    Args:
        label: what is asked, as the message begins.
        question: returns what the answer was; raises NotOk or OSError.
        timeout_seconds: for the whole of it.
    """
    loop = asyncio.get_running_loop()
    began_at = loop.time()
    is_ok = False
    try:
        async with asyncio.timeout(timeout_seconds):
            text = await question()
        is_ok = True
    except NotOk as cause:
        text = str(cause)
    except OSError as cause:
        text = explain(cause) or f"no answer within {timeout_seconds:g}s"
    return Answer(is_ok, f"{label}: {text}", loop.time() - began_at)


def explain(cause: OSError) -> str:
    """The cause in the system's words; "" for a time limit of our own, which has no number."""
    if isinstance(cause, ssl.SSLError):
        return f"TLS failed: {(cause.reason or str(cause)).lower().replace('_', ' ')}"
    return os.strerror(cause.errno).lower() if cause.errno else str(cause)


def excerpt(data: bytes) -> str:
    """The beginning of what a service wrote, as one line."""
    text = data[: 4 * EXCERPT_CHARACTERS].decode("utf-8", "replace")
    return shorten(" ".join(text.split()), EXCERPT_CHARACTERS)
