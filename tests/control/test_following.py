"""Followers of streams that end and go on, without a supervisor."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blackhole_cg.control import following
from blackhole_cg.control.following import follow, follow_events, follow_logs, follow_samples
from blackhole_cg.errors import ControlError, NoSupervisorError

BREAK = ControlError("broken_off", "killed")
NOBODY = NoSupervisorError("/run/control.sock", "Connection refused")


class Streams:
    """One after the other: items, and in the end maybe an error; then the supervisor has left."""

    def __init__(self, *streams: list[object]) -> None:
        self.streams = list(streams)
        self.again: list[bool] = []

    def begin(self, again: bool) -> Iterator[object]:
        self.again.append(again)
        for item in self.streams.pop(0):
            if isinstance(item, Exception):
                raise item
            yield item

    def has_left(self) -> bool:
        return not self.streams

    def followed(self) -> list[object]:
        return list(follow(self.begin, self.has_left))


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "_PAUSE_SECONDS", 0.0)


def test_what_ends_breaks_or_is_not_there_yet_is_gone_on_with_until_the_socket_goes():
    streams = Streams([1, 2], [3, BREAK], [NOBODY], [NOBODY], [4])
    assert streams.followed() == [1, 2, 3, 4]
    assert streams.again == [False, True, True, True, True]


@pytest.mark.parametrize("error", [NOBODY, ControlError("unknown_service", "no such service")])
def test_what_cannot_begin_is_refused_at_once(error):
    with pytest.raises(ControlError) as refusal:
        Streams([error], [1]).followed()
    assert refusal.value is error


def test_a_supervisor_that_does_not_come_again_is_told_in_the_end(monkeypatch):
    monkeypatch.setattr(following, "PATIENCE_SECONDS", 0.05)
    monkeypatch.setattr(following, "_PAUSE_SECONDS", 0.01)

    def begin(again: bool) -> Iterator[int]:
        if again:
            raise NOBODY
        yield 1
        raise BREAK

    stream = follow(begin, lambda: True)
    assert next(stream) == 1
    with pytest.raises(
        ControlError, match=r"no other came within 0\.05 seconds: no supervisor answers on /run"
    ):
        next(stream)


def test_events_go_on_after_the_last_one_seen():
    asked = []
    streams = [[{"id": 7}, {"id": 8}], [], [{"id": 9}]]

    def read(after: int | None, tail: int | None) -> Iterator[dict]:
        asked.append((after, tail))
        return iter(streams.pop(0))

    assert list(follow_events(read, None, 2, lambda: not streams)) == [{"id": 7}, {"id": 8}, {"id": 9}]
    assert asked == [(None, 2), (8, None), (8, None)]


def log_line(second: int, text: str) -> bytes:
    stamp = f"2999-01-01T00:00:{second:02}.000000Z"
    return json.dumps({"time": stamp, "message": text}, separators=(",", ":")).encode() + b"\n"


@given(st.lists(st.integers(0, 3), max_size=12), st.lists(st.integers(0, 12), max_size=4))
def test_each_line_of_a_log_comes_once_wherever_it_is_cut(steps, cuts):
    """Many lines have the same time and the same text."""
    seconds = [sum(steps[: end + 1]) for end in range(len(steps))]
    lines = [log_line(second, "x") for second in seconds]
    assert all(one <= other for one, other in pairwise(lines))
    ends = [*sorted(min(cut, len(lines)) for cut in cuts), len(lines)]

    def read(tail: int | None, since: str | None) -> Iterator[bytes]:
        written = lines[: ends.pop(0)]
        begin = b'{"time":"' + (since or "").encode()
        return iter([line for line in written if line >= begin])

    assert list(follow_logs(read, None, None, lambda: not ends)) == lines


def test_samples_are_not_shown_twice():
    def sample(at_wall: str | None, name: str = "web") -> bytes:
        return json.dumps({"service": name, **({"at_wall": at_wall} if at_wall else {})}).encode()

    streams = [[sample("1"), sample(None, "db"), sample("2")], [sample("2"), sample(None, "db"), sample("3")]]
    found = list(follow_samples(lambda: iter(streams.pop(0)), lambda: not streams))
    assert [(each["service"], each.get("at_wall")) for each in found] == [
        ("web", "1"), ("db", None), ("web", "2"), ("web", "3"),
    ]  # fmt: skip
