"""Sizes and durations: text to bytes and seconds, and back. Knows no key and no file."""

from __future__ import annotations

import math
import re
from decimal import Decimal
from fractions import Fraction
from typing import Final

SIZE_FORMS: Final = "512M, 1GiB, 1.5G or plain bytes"
DURATION_FORMS: Final = "500ms, 1s, 5m, 1m30s, 1h, 1d or plain seconds"

MAX_SIZE_BYTES: Final = 2**63 - 1
"""The largest value a kernel limit file or an rlimit can hold."""

_SIZE_UNITS: Final = {"": 1, "k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40}
_SIZE: Final = re.compile(r"\s*([0-9]{1,20}(?:\.[0-9]{1,9})?)\s*([kmgt]?)(i?b)?\s*", re.IGNORECASE)

_DURATION_UNITS: Final = {
    "d": Fraction(86400),
    "h": Fraction(3600),
    "m": Fraction(60),
    "s": Fraction(1),
    "ms": Fraction(1, 1000),
}
_NUMBER: Final = r"[0-9]{1,15}(?:\.[0-9]{1,350})?"
_PLAIN_SECONDS: Final = re.compile(rf"\s*({_NUMBER})\s*")
_DURATION: Final = re.compile(
    r"\s*" + "".join(rf"(?:({_NUMBER})\s*{unit}(?![a-z])\s*)?" for unit in _DURATION_UNITS)
)


def parse_size(value: str | int | float) -> int:
    """Bytes of a size; a unit is a power of 1024, as the kernel reads it, with or without "iB" or "B".

    A fraction is rounded to the nearest byte.

    Raises:
        ValueError: not a size, negative, a fraction of a byte, or more than 2**63-1.
    """
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError(f"is not a size (accepted: {SIZE_FORMS})")
    if isinstance(value, str):
        size = _size_of_text(value)
    elif not math.isfinite(value) or value < 0 or value != int(value):
        raise ValueError(f"{value} is not a size (accepted: {SIZE_FORMS})")
    else:
        size = int(value)
    if size > MAX_SIZE_BYTES:
        raise ValueError(f"{shorten(str(value))} is too large (accepted: less than 8388608T)")
    return size


def _size_of_text(text: str) -> int:
    match = _SIZE.fullmatch(text)
    if match is None:
        raise ValueError(f"'{shorten(text)}' is not a size (accepted: {SIZE_FORMS})")
    number, unit, suffix = match.groups()
    if suffix and suffix.lower() == "ib" and not unit:
        raise ValueError(f"'{shorten(text)}' is not a size (accepted: {SIZE_FORMS})")
    if not unit and "." in number:
        raise ValueError(f"'{shorten(text)}' has a fraction of a byte (accepted: {SIZE_FORMS})")
    return round(Fraction(number) * _SIZE_UNITS[unit.lower()])


def parse_duration(value: str | int | float) -> float:
    """Seconds of a duration; a number without a unit is in seconds.

    Raises:
        ValueError: not a duration, negative, or not finite.
    """
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError(f"is not a duration (accepted: {DURATION_FORMS})")
    if isinstance(value, str):
        return _seconds_of_text(value)
    if not math.isfinite(value) or value < 0:
        raise ValueError(f"{value} is not a duration (accepted: {DURATION_FORMS})")
    return float(value)


def _seconds_of_text(text: str) -> float:
    if plain := _PLAIN_SECONDS.fullmatch(text):
        return float(plain[1])
    match = _DURATION.fullmatch(text)
    if match is None or not any(match.groups()):
        raise ValueError(f"'{shorten(text)}' is not a duration (accepted: {DURATION_FORMS})")
    numbers = zip(match.groups(), _DURATION_UNITS.values(), strict=True)
    # Fractions keep "1m30.1s" from collecting the rounding error of each part.
    return float(sum(Fraction(number) * unit for number, unit in numbers if number))


def render_size(size_bytes: int) -> str:
    """The size as exact configuration text: 512M, 1536K, 1000."""
    for unit in ("t", "g", "m", "k"):
        if size_bytes and size_bytes % _SIZE_UNITS[unit] == 0:
            return f"{size_bytes // _SIZE_UNITS[unit]}{unit.upper()}"
    return str(size_bytes)


def render_duration(seconds: float) -> str:
    """The duration as exact configuration text: 1m30s, 500ms, 0s."""
    milliseconds = round(seconds * 1000)
    if milliseconds / 1000 != seconds:
        return f"{Decimal(repr(seconds)):f}s"
    parts = []
    for unit, length in _DURATION_UNITS.items():
        count, milliseconds = divmod(milliseconds, int(length * 1000)) if unit != "ms" else (milliseconds, 0)
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts) or "0s"


def format_size(size_bytes: float) -> str:
    """The size for people, in about three digits: 61.4M, 512M, 900B."""
    size = float(size_bytes)
    for unit in "BKMGT":
        if size < 1000 or unit == "T":
            break
        size /= 1024
    return f"{_three_digits(size)}{unit}"


def format_duration(seconds: float) -> str:
    """The duration for people, in its two largest units: 850ms, 2.5s, 1m30s, 3d4h."""
    if seconds < 1:
        return f"{round(seconds * 1000)}ms"
    if seconds < 60:
        return f"{_three_digits(seconds)}s"
    whole = round(seconds)
    units = [(unit, int(length)) for unit, length in _DURATION_UNITS.items() if length >= 1]
    first = next(index for index, (_, length) in enumerate(units) if whole >= length)
    unit, length = units[first]
    text = f"{whole // length}{unit}"
    if first + 1 < len(units):
        smaller, smaller_length = units[first + 1]
        rest = whole % length // smaller_length
        text += f"{rest}{smaller}" if rest else ""
    return text


def _three_digits(value: float) -> str:
    text = f"{value:.0f}" if value >= 99.95 else f"{value:.1f}"
    return text.removesuffix(".0")


def shorten(text: str, length: int = 60) -> str:
    """The text for a message: control characters escaped, cut after `length` characters."""
    cut = text if len(text) <= length else text[: length - 1] + "…"
    return "".join(character if character.isprintable() else repr(character)[1:-1] for character in cut)
