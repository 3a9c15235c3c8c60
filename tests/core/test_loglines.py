"""Splitting any bytes into lines, and getting exactly those bytes back from the JSON."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blackhole_cg.core.loglines import (
    MAX_ENCODED_LINE_BYTES,
    MAX_LINE_BYTES,
    LineEncoder,
    Lines,
    LineSplitter,
    mend_torn,
    render_time,
    restore_bytes,
    skip_lines,
    stream_mark,
)

TIME = "2025-11-21T04:02:00.000001Z"

# Mostly bytes that mean something: newlines, escapes, whole and torn UTF-8.
PARTS = st.one_of(
    st.sampled_from([b"\n", b"\r\n", b'"', b"\\", b"\t", b"\0", b"\x1b[31m", b"\x7f", b"\xff"]),
    st.text().map(lambda text: text.encode("utf-8", "surrogatepass")),
    st.binary(max_size=12),
    st.sampled_from(["é", "€", "😀"]).map(str.encode),
)
OUTPUT = st.lists(PARTS, max_size=40).map(b"".join)


def split(chunks: list[bytes], max_line_bytes: int) -> list[tuple[bytes, bool]]:
    splitter = LineSplitter(max_line_bytes)
    groups = [group for chunk in chunks for group in splitter.feed(chunk)] + splitter.flush()
    assert splitter.flush() == []
    assert all(len(group.block.split(b"\n")) == group.line_count for group in groups)
    return [(line, group.partial) for group in groups for line in group.block.split(b"\n")]


def chunked(data: bytes, cuts: list[int]) -> list[bytes]:
    edges = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    return [data[begin:end] for begin, end in pairwise(edges)]


@given(OUTPUT, st.lists(st.integers(0, 200), max_size=10), st.integers(4, 40))
def test_lines_do_not_depend_on_the_chunks(data: bytes, cuts: list[int], max_line_bytes: int) -> None:
    lines = split(chunked(data, cuts), max_line_bytes)
    assert lines == split([data], max_line_bytes)
    assert lines == split([bytes([byte]) for byte in data], max_line_bytes)
    assert all(len(line) <= max_line_bytes for line, _ in lines)
    assert all(line for line, partial in lines if partial)


@given(OUTPUT, st.integers(0, 60), st.integers(4, 40))
def test_skipping_leaves_out_just_the_first_lines(data: bytes, count: int, max_line_bytes: int) -> None:
    groups = LineSplitter(max_line_bytes).feed(data)
    rest = [(line, group.partial) for group in skip_lines(groups, count) for line in group.block.split(b"\n")]
    assert rest == [(line, group.partial) for group in groups for line in group.block.split(b"\n")][count:]


@given(OUTPUT, st.integers(4, 40))
def test_what_is_in_no_line_yet_is_counted(data: bytes, max_line_bytes: int) -> None:
    splitter = LineSplitter(max_line_bytes)
    splitter.feed(data)
    waiting = splitter.waiting_bytes
    assert waiting == sum(len(lines.block) for lines in splitter.flush())
    assert splitter.waiting_bytes == 0


@given(OUTPUT, st.lists(st.integers(0, 200), max_size=10), st.integers(4, 40))
def test_json_lines_restore_every_byte(data: bytes, cuts: list[int], max_line_bytes: int) -> None:
    splitter = LineSplitter(max_line_bytes)
    encoder = LineEncoder("web", "stdout", 7)
    groups = [group for chunk in chunked(data, cuts) for group in splitter.feed(chunk)] + splitter.flush()
    text = b"".join(encoder.encode(group, TIME) for group in groups)
    assert text.isascii()
    rows = [json.loads(row) for row in text.splitlines()]
    assert len(rows) == sum(group.line_count for group in groups)
    restored = b"".join(
        restore_bytes(row["message"]) + (b"" if row.get("partial") else b"\n") for row in rows
    )
    assert restored == (data if data.endswith(b"\n") or not data else data + b"\n")
    for row in rows:
        assert list(row)[:5] == ["time", "service", "stream", "run_id", "message"]
        assert (row["time"], row["service"], row["stream"], row["run_id"]) == (TIME, "web", "stdout", 7)
        assert row.get("partial") in (None, True)


@given(OUTPUT)
def test_the_encoding_is_that_of_the_json_module(data: bytes) -> None:
    block = Lines(data)
    expected = [
        json.dumps(line.decode("utf-8", "surrogateescape"), ensure_ascii=True) for line in data.split(b"\n")
    ]
    rows = LineEncoder("a", "stderr", 1).encode(block, TIME).decode("ascii").splitlines()
    head = f'{{"time":"{TIME}","service":"a","stream":"stderr","run_id":1,"message":'
    assert rows == [f"{head}{message}}}" for message in expected]


@given(st.text(alphabet="é€😀a", min_size=1, max_size=80), st.integers(4, 12))
def test_no_character_is_torn_at_the_cap(text: str, max_line_bytes: int) -> None:
    pieces = [piece for piece, _ in split([text.encode()], max_line_bytes)]
    assert "".join(piece.decode("utf-8") for piece in pieces) == text


def test_a_line_at_the_cap_is_whole_and_one_byte_more_is_not() -> None:
    cap = MAX_LINE_BYTES
    assert split([b"x" * cap + b"\n"], cap) == [(b"x" * cap, False)]
    assert split([b"x" * cap, b"\n"], cap) == [(b"x" * cap, False)]
    assert split([b"x" * cap, b"y\n"], cap) == [(b"x" * cap, True), (b"y", False)]
    assert split([b"a\n" + b"x" * (2 * cap) + b"\nb"], cap) == [
        (b"a", False),
        (b"x" * cap, True),
        (b"x" * cap, False),
        (b"b", False),
    ]


def test_what_is_kept_between_chunks_is_bounded() -> None:
    splitter = LineSplitter()
    for _ in range(100):
        assert all(group.partial for group in splitter.feed(b"\xff" * 65536))
    (last,) = splitter.flush()
    assert 0 < len(last.block) <= MAX_LINE_BYTES


def test_an_absurd_cap_is_refused() -> None:
    with pytest.raises(ValueError, match="UTF-8"):
        LineSplitter(3)


def test_a_carriage_return_and_empty_lines_are_kept() -> None:
    assert split([b"one\r\n\n\ntwo"], 100) == [(b"one\r", False), (b"", False), (b"", False), (b"two", False)]


def test_no_line_is_longer_than_promised() -> None:
    worst = LineEncoder("s" * 63, "stdout", 2**63).encode(Lines(b"\xff" * MAX_LINE_BYTES, partial=True), TIME)
    assert len(worst) <= MAX_ENCODED_LINE_BYTES


def test_the_stream_mark_cannot_be_forged_by_a_message() -> None:
    forged = LineEncoder("a", "stderr", 1).encode(Lines(b'","stream":"stdout","run_id":'), TIME)
    assert stream_mark("stdout") not in forged
    assert stream_mark("stderr") in forged


def test_time_has_one_width_and_is_utc() -> None:
    assert render_time(datetime(2025, 1, 2, 3, 4, 5, tzinfo=UTC)) == "2025-01-02T03:04:05.000000Z"
    east = timezone(timedelta(hours=2))
    assert render_time(datetime(2025, 1, 2, 3, 4, 5, 6, tzinfo=east)) == "2025-01-02T01:04:05.000006Z"


@pytest.mark.parametrize("partial", [False, True])
def test_a_line_torn_anywhere_is_mended(partial: bool) -> None:
    message = 'a "b" \\ ü😀\x01 end\\'
    line = LineEncoder("web", "stdout", 3).encode(Lines(message.encode(), partial), TIME)[:-1]
    begun = line.index(b'"message":"') + len(b'"message":"')
    for length in range(1, len(line) + 1):
        keep, ending = mend_torn(line[:length])
        assert length - 17 <= keep <= length
        mended = line[:keep] + ending
        assert mended.endswith(b"\n")
        if length < begun:
            assert mended == line[:length] + b"\n"
            continue
        row = json.loads(mended)
        kept = row["message"].encode("utf-16", "surrogatepass").decode("utf-16", "ignore")
        assert message.startswith(kept)
        assert row.get("partial") is (None if length == len(line) and not partial else True)


def test_foreign_text_is_only_terminated() -> None:
    assert mend_torn(b"hello") == (5, b"\n")
