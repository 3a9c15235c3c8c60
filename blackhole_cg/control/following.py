"""Streams that go on over the end of a supervisor, from where the last one got to."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any, Final, TypeVar

from blackhole_cg.core.loglines import LINE_START, render_time
from blackhole_cg.errors import ControlError, NoSupervisorError

T = TypeVar("T")
JsonObject = dict[str, Any]

PATIENCE_SECONDS: Final = 10.0
"""How long a follower waits for the next supervisor."""

_PAUSE_SECONDS: Final = 0.1
_TIME_LENGTH: Final = len(render_time(datetime.fromtimestamp(0, UTC)))


def follow_events(
    read: Callable[[int | None, int | None], Iterator[JsonObject]],
    after: int | None,
    tail: int | None,
    has_left: Callable[[], bool],
) -> Iterator[JsonObject]:
    """Events, by their numbers. `read` begins after one, or with the newest so many. See `follow`."""
    seen: list[int] = []

    def begin(again: bool) -> Iterator[JsonObject]:
        for event in read(seen[0], None) if seen else read(after, tail):
            seen[:] = [event["id"]]
            yield event

    return follow(begin, has_left)


def follow_logs(
    read: Callable[[int | None, str | None], Iterator[bytes]],
    tail: int | None,
    since: str | None,
    has_left: Callable[[], bool],
) -> Iterator[bytes]:
    """The lines of a log. `read` begins with the newest so many, and those since a time. See `follow`."""
    cursor = LogCursor()

    def begin(again: bool) -> Iterator[bytes]:
        if again:
            cursor.begin_again()
        lines = read(None, cursor.since) if again else read(tail, since)
        return filter(cursor.is_new, lines)

    return follow(begin, has_left)


def follow_samples(read: Callable[[], Iterator[bytes]], has_left: Callable[[], bool]) -> Iterator[JsonObject]:
    """Samples. `read` begins with the newest of each service. See `follow`."""
    cursor = SampleCursor()

    def begin(again: bool) -> Iterator[JsonObject]:
        if again:
            cursor.begin_again()
        return filter(cursor.is_new, map(json.loads, read()))

    return follow(begin, has_left)


def follow(begin: Callable[[bool], Iterator[T]], has_left: Callable[[], bool]) -> Iterator[T]:
    """All items of a stream, and of those that go on with it, from the next supervisor.

    It is over where a stream ends and the socket goes: the supervisor has ended in order. One that ends
    while the socket stays, as in an upgrade, or that breaks off, because the supervisor was killed, is gone
    on with.

    Args:
        begin: opens the stream; told whether it is to go on where one before has ended.
        has_left: whether the socket has gone.

    Raises:
        ControlError: what the first stream raises; later, that nobody came within ten seconds.
    """
    deadline, is_broken = None, False
    while True:
        is_late = deadline is not None and time.monotonic() >= deadline
        try:
            yield from begin(deadline is not None)
            is_broken = False
        except NoSupervisorError as cause:
            if deadline is None:
                raise
            if isinstance(cause.__cause__, TimeoutError):  # somebody has the socket, and is slow to begin
                continue
            if is_late and (is_broken or not has_left()):  # not for one that was merely slow to answer
                why = f"the supervisor went away, and no other came within {PATIENCE_SECONDS:g} seconds"
                raise ControlError("broken_off", f"{why}: {cause}") from cause
        except ControlError as cause:
            if cause.kind != "broken_off":
                raise
            is_broken, deadline = True, time.monotonic() + PATIENCE_SECONDS
        else:
            deadline = time.monotonic() + PATIENCE_SECONDS
        if not is_broken and has_left():
            return
        time.sleep(_PAUSE_SECONDS)


class LogCursor:
    """Where the follower of a log is: the time of its last line, and how many lines it had of that time."""

    def __init__(self) -> None:
        self._time = render_time(datetime.now(UTC)).encode()
        self._count = 0  # of the lines with this time
        self._to_skip = 0

    @property
    def since(self) -> str:
        """What to ask for to go on: all lines of this time and later."""
        return self._time.decode()

    def begin_again(self) -> None:
        """The lines that follow are those since then: some come a second time."""
        self._to_skip = self._count

    def is_new(self, line: bytes) -> bool:
        """Whether this line, the next one, has not been here yet."""
        begin = len(LINE_START)
        stamp = line[begin : begin + _TIME_LENGTH] if line.startswith(LINE_START) else self._time
        if stamp != self._time:
            self._time, self._count, self._to_skip = stamp, 1, 0
            return True
        if self._to_skip:
            self._to_skip -= 1
            return False
        self._count += 1
        return True


class SampleCursor:
    """Where the follower of samples is: the newest one of each service."""

    def __init__(self) -> None:
        self._newest: dict[str, str] = {}
        self._goes_on = False

    def begin_again(self) -> None:
        """What follows begins with the newest sample of each service, which may be a known one."""
        self._goes_on = True

    def is_new(self, sample: JsonObject) -> bool:
        """Whether this is news of its service."""
        at_wall = sample.get("at_wall")
        if at_wall is None:
            return not self._goes_on
        if self._goes_on and at_wall <= self._newest.get(sample["service"], ""):
            return False
        self._newest[sample["service"]] = at_wall
        return True
