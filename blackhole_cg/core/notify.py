"""What a service says of itself by sd_notify(3): one datagram as a message, and the watchdog it feeds.

`now` is monotonic seconds. What cannot be read in a message is left out, and never an error: newer programs
say more than we know.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

from blackhole_cg.core.probing import LATE_SECONDS

MAX_MESSAGE_BYTES: Final = 4096
"""A longer datagram is dropped as a whole: what was cut off could have been half a word."""

_MAX_DIGITS: Final = 18  # of microseconds: thirty thousand years


class Phase(StrEnum):
    """Where the service says it is."""

    READY = "READY"
    RELOADING = "RELOADING"
    STOPPING = "STOPPING"


@dataclass(frozen=True, slots=True)
class Message:
    """What one datagram says; None and False where it says nothing about it."""

    phase: Phase | None = None
    status: str | None = None
    alive: bool = False  # WATCHDOG=1
    broken: bool = False  # WATCHDOG=trigger
    watchdog_seconds: float | None = None  # the new period; 0.0 is off
    extend_seconds: float | None = None
    main_pid: int | None = None


def parse_message(datagram: bytes) -> Message:
    """The message in a datagram: lines of KEY=VALUE, where the last one of a key holds.

    Source: sd_notify(3). Like systemd, takes nothing from a datagram with a zero byte inside.
    """
    text = datagram.removesuffix(b"\0")
    if b"\0" in text:
        return Message()
    lines = [line.partition("=") for line in text.decode(errors="replace").split("\n")]
    said = {key: value for key, _, value in lines}
    phases = [Phase(key) for key, _, value in lines if key in Phase.__members__ and value == "1"]
    return Message(
        phase=phases[-1] if phases else None,
        status=_printable(said.get("STATUS")),
        alive=said.get("WATCHDOG") == "1",
        broken=said.get("WATCHDOG") == "trigger",
        watchdog_seconds=_seconds(said.get("WATCHDOG_USEC")),
        extend_seconds=_seconds(said.get("EXTEND_TIMEOUT_USEC")),
        main_pid=_whole(said.get("MAINPID")) or None,
    )


def _printable(text: str | None) -> str | None:
    """It is shown on terminals, where a control character would do things."""
    return text and "".join(
        letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text
    )


def _seconds(usec: str | None) -> float | None:
    number = _whole(usec)
    return None if number is None else number / 1e6


def _whole(text: str | None) -> int | None:
    """A number of plain digits; int() alone would take "1_0", " 1" and digits of any script."""
    if text is None or len(text) > _MAX_DIGITS or not (text.isascii() and text.isdigit()):
        return None
    return int(text)


@dataclass(frozen=True, slots=True)
class Watchdog:
    """How long a run may be silent. `due_at` None: nobody waits for a sign of life yet."""

    period_seconds: float
    due_at: float | None = None
    is_repeat: bool = False  # the last silence was not counted


def fed(watchdog: Watchdog, now: float) -> Watchdog:
    """The watchdog after a sign of life."""
    return Watchdog(watchdog.period_seconds, now + watchdog.period_seconds)


def judge_silence(watchdog: Watchdog, now: float) -> Watchdog | None:
    """The watchdog when its time may be up; None when the run has been silent for too long.

    Where we were held up ourselves (stopped, starved, on a paused machine) the run gets its time once more,
    but never twice in a row, or a busy host would hide a dead service for ever.
    """
    if watchdog.due_at is None or now < watchdog.due_at:
        return watchdog
    if now - watchdog.due_at > LATE_SECONDS and not watchdog.is_repeat:
        return replace(fed(watchdog, now), is_repeat=True)
    return None
