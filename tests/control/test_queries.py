"""Query parameters of the control API."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from blackhole_cg.control.queries import (
    BadQueryError,
    check_known,
    parse_count,
    parse_flag,
    parse_since,
    parse_word,
)
from blackhole_cg.core.words import Stream

NOW = datetime(2030, 1, 31, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "since"),
    [
        ("90", NOW - timedelta(seconds=90)),
        ("5m", NOW - timedelta(minutes=5)),
        ("1h30m", NOW - timedelta(minutes=90)),
        ("2030-01-31T11:00:00Z", NOW - timedelta(hours=1)),
        ("2030-01-31T11:00:00", NOW - timedelta(hours=1)),
        ("2030-01-31T13:00:00+02:00", NOW - timedelta(hours=1)),
        ("20300131", NOW - timedelta(seconds=20300131)),
    ],
)
def test_since_is_a_duration_or_a_time(text: str, since: datetime) -> None:
    assert parse_since({"since": text}, "since", NOW) == since


@pytest.mark.parametrize(
    "text", ["", "yesterday", "-5m", "5 parsecs", "0001-01-01T00:00:00+23:00", "9" * 14, "1e5"]
)
def test_a_bad_since_says_what_is_accepted(text: str) -> None:
    with pytest.raises(BadQueryError, match=r"cannot read parameter since=.*accepted: .*5m"):
        parse_since({"since": text}, "since", NOW)


@pytest.mark.parametrize("text", ["", "-1", "1.5", "ten", "²", "9" * 30, str(2**63)])
def test_a_bad_count_says_what_is_accepted(text: str) -> None:
    with pytest.raises(BadQueryError, match=r"tail=.*accepted: a whole number"):
        parse_count({"tail": text}, "tail")


def test_counts() -> None:
    assert parse_count({"tail": "0"}, "tail") == 0
    assert parse_count({"tail": str(2**63 - 1)}, "tail") == 2**63 - 1
    assert parse_count({}, "tail") is None


def test_flags() -> None:
    assert [parse_flag({"follow": text}, "follow") for text in ("", "1", "true", "YES")] == [True] * 4
    assert [parse_flag({"follow": text}, "follow") for text in ("0", "false", "no")] == [False] * 3
    assert not parse_flag({}, "follow")
    with pytest.raises(BadQueryError, match="follow='maybe'"):
        parse_flag({"follow": "maybe"}, "follow")


def test_streams() -> None:
    assert parse_word({"stream": "stderr"}, "stream", Stream) is Stream.STDERR
    assert parse_word({}, "stream", Stream) is None
    with pytest.raises(BadQueryError, match=r"accepted: stdout or stderr"):
        parse_word({"stream": "stdin"}, "stream", Stream)


def test_an_unknown_parameter_is_refused_with_a_suggestion() -> None:
    check_known({"tail": "1"}, ("tail", "since"))
    with pytest.raises(BadQueryError, match=r"unknown parameter 'tial' .*did you mean 'tail'"):
        check_known({"tial": "1"}, ("tail", "since"))
    with pytest.raises(BadQueryError, match="accepted: none"):
        check_known({"x": "1"}, ())


def test_a_long_value_is_not_repeated_in_full() -> None:
    with pytest.raises(BadQueryError) as caught:
        parse_count({"tail": "x" * 5000}, "tail")
    assert len(str(caught.value)) < 200
