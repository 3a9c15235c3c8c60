"""Sizes and durations: what is read, what is refused and how, and round trips."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blackhole_cg.core import units


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0", 0),
        ("1000", 1000),
        ("512B", 512),
        ("1k", 1024),
        ("1K", 1024),
        ("512M", 512 * 2**20),
        ("512MB", 512 * 2**20),
        ("512 MiB", 512 * 2**20),
        ("1GiB", 2**30),
        ("1.5G", 3 * 2**29),
        ("2T", 2**41),
        ("0.3K", 307),
        (4096, 4096),
        (4096.0, 4096),
    ],
)
def test_sizes_are_powers_of_1024(text: str | int | float, expected: int) -> None:
    assert units.parse_size(text) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("12Q", "'12Q' is not a size (accepted: 512M, 1GiB, 1.5G or plain bytes)"),
        ("", "'' is not a size (accepted: 512M, 1GiB, 1.5G or plain bytes)"),
        ("-1M", "'-1M' is not a size (accepted: 512M, 1GiB, 1.5G or plain bytes)"),
        ("1e3", "'1e3' is not a size (accepted: 512M, 1GiB, 1.5G or plain bytes)"),
        ("5iB", "'5iB' is not a size (accepted: 512M, 1GiB, 1.5G or plain bytes)"),
        ("1.5", "'1.5' has a fraction of a byte (accepted: 512M, 1GiB, 1.5G or plain bytes)"),
        ("8388608T", "8388608T is too large (accepted: less than 8388608T)"),
        ("٣M", "'٣M' is not a size (accepted: 512M, 1GiB, 1.5G or plain bytes)"),
        (-1, "-1 is not a size (accepted: 512M, 1GiB, 1.5G or plain bytes)"),
        (float("nan"), "nan is not a size (accepted: 512M, 1GiB, 1.5G or plain bytes)"),
        (True, "is not a size (accepted: 512M, 1GiB, 1.5G or plain bytes)"),
    ],
)
def test_a_bad_size_says_what_is_accepted(text: str | int | float, message: str) -> None:
    with pytest.raises(ValueError) as caught:
        units.parse_size(text)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0", 0.0),
        ("0s", 0.0),
        ("1s", 1.0),
        ("500ms", 0.5),
        ("5m", 300.0),
        ("1h", 3600.0),
        ("1d", 86400.0),
        ("1m30s", 90.0),
        ("1d 2h 3m 4s 5ms", 93784.005),
        ("1.5h", 5400.0),
        ("2.5", 2.5),
        (3, 3.0),
        (0.25, 0.25),
    ],
)
def test_durations(text: str | int | float, expected: float) -> None:
    assert units.parse_duration(text) == expected


@pytest.mark.parametrize(
    "text", ["", "s", "5x", "-1s", "1s1m", "1e3", "inf", "nan", "1m2m", "5 minutes", "1mms"]
)
def test_a_bad_duration_says_what_is_accepted(text: str) -> None:
    with pytest.raises(ValueError) as caught:
        units.parse_duration(text)
    accepted = "500ms, 1s, 5m, 1m30s, 1h, 1d or plain seconds"
    assert str(caught.value) == f"'{text}' is not a duration (accepted: {accepted})"


@pytest.mark.parametrize("value", [float("inf"), float("nan"), -0.5, True])
def test_a_number_that_is_no_duration(value: float) -> None:
    with pytest.raises(ValueError, match="is not a duration"):
        units.parse_duration(value)


@given(st.integers(0, units.MAX_SIZE_BYTES))
def test_rendered_sizes_read_back_exactly(size_bytes: int) -> None:
    assert units.parse_size(units.render_size(size_bytes)) == size_bytes


@given(st.one_of(st.floats(0, 1e12), st.integers(0, 10**12).map(lambda ms: ms / 1000)))
def test_rendered_durations_read_back_exactly(seconds: float) -> None:
    assert units.parse_duration(units.render_duration(seconds)) == seconds


@given(st.text(max_size=40))
def test_any_text_is_a_value_or_a_value_error(text: str) -> None:
    for parse in (units.parse_size, units.parse_duration):
        try:
            assert parse(text) >= 0
        except ValueError as error:
            assert "accepted" in str(error)


@pytest.mark.parametrize(
    ("size_bytes", "text"),
    [(0, "0B"), (900, "900B"), (1000, "1K"), (64_400_000, "61.4M"), (512 * 2**20, "512M"), (2**50, "1024T")],
)
def test_sizes_for_people(size_bytes: int, text: str) -> None:
    assert units.format_size(size_bytes) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0ms"),
        (0.85, "850ms"),
        (2.5, "2.5s"),
        (59.99, "60s"),
        (90, "1m30s"),
        (3600, "1h"),
        (273_600, "3d4h"),
    ],
)
def test_durations_for_people(seconds: float, text: str) -> None:
    assert units.format_duration(seconds) == text


def test_text_for_a_message_is_short_and_printable() -> None:
    assert units.shorten("a\nb\x00") == "a\\nb\\x00"
    assert units.shorten("x" * 100) == "x" * 59 + "…"
