"""Reads the query parameters of the control API. Pure: text and `now` in, values or BadQueryError out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from difflib import get_close_matches
from enum import StrEnum
from typing import Final, TypeVar

from blackhole_cg.core.units import DURATION_FORMS, parse_duration
from blackhole_cg.errors import ControlError

W = TypeVar("W", bound=StrEnum)

_MAX_COUNT: Final = 2**63 - 1  # what SQLite can compare with


class BadQueryError(ControlError):
    """A query parameter is unknown or its value cannot be read."""

    def __init__(self, message: str) -> None:
        super().__init__("bad_request", message)


def check_known(query: Mapping[str, str], accepted: Iterable[str]) -> None:
    """Refuse a parameter that the route does not take, so that a misspelt one is never ignored."""
    accepted = tuple(accepted)
    for name in query:
        if name in accepted:
            continue
        closest = get_close_matches(name, accepted, n=1)
        hint = f"did you mean '{closest[0]}'?" if closest else f"accepted: {', '.join(accepted) or 'none'}"
        raise BadQueryError(f"unknown parameter '{name}' ({hint})")


def parse_count(query: Mapping[str, str], name: str) -> int | None:
    """The value of a parameter that counts or numbers something; None when it is absent."""
    text = query.get(name)
    if text is None:
        return None
    if not (text.isascii() and text.isdigit()) or len(text) > 19 or int(text) > _MAX_COUNT:
        raise _bad(name, text, "a whole number, 0 or more")
    return int(text)


def parse_flag(query: Mapping[str, str], name: str) -> bool:
    """Whether a flag is set: `?follow` and `?follow=1` set it."""
    text = query.get(name, "0").lower()
    if text in {"", "1", "true", "yes"}:
        return True
    if text in {"0", "false", "no"}:
        return False
    raise _bad(name, text, "1, 0, true, false, yes, no, or no value at all")


def parse_word(query: Mapping[str, str], name: str, words: type[W]) -> W | None:
    """The word asked for, one of `words`; None when it is absent."""
    text = query.get(name)
    if text is None:
        return None
    try:
        return words(text)
    except ValueError:
        raise _bad(name, text, " or ".join(words)) from None


def parse_since(query: Mapping[str, str], name: str, now: datetime) -> datetime | None:
    """The moment a duration before `now`, or the moment named (UTC if it does not say); None if absent."""
    text = query.get(name)
    if text is None:
        return None
    try:
        return now - timedelta(seconds=parse_duration(text))
    except (ValueError, OverflowError):
        pass  # then it has to be a time
    try:
        moment = datetime.fromisoformat(text)
        return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        accepted = f"{DURATION_FORMS} ago, or a time such as 2030-01-31T12:00:00Z"
        raise _bad(name, text, accepted) from None


def _bad(name: str, text: str, accepted: str) -> BadQueryError:
    shown = text if len(text) <= 64 else text[:64] + "..."
    return BadQueryError(f"cannot read parameter {name}={shown!r} (accepted: {accepted})")
