"""What a service writes, as lines, and a line as JSON.

Owns the format of NAME.log: one JSON object per line, keys in a fixed order, no spaces, ASCII only. The work
is done on whole blocks of lines by C code, since a service may write 100 MB a second. Knows nothing of files.

A line ends at "\\n" and at nothing else: a "\\r" before it belongs to the message, so that the bytes can be
restored.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from json.encoder import encode_basestring_ascii
from typing import Final

MAX_LINE_BYTES: Final = 16 * 1024
"""A longer line is stored in pieces of at most this many bytes."""

MAX_ENCODED_LINE_BYTES: Final = 6 * MAX_LINE_BYTES + 1024
"""No line of NAME.log is longer: a byte takes six at most, as \\uDCxx; keys and names fit in the rest."""

LINE_START: Final = b'{"time":"'
_END: Final = '"}\n'
_PARTIAL_END: Final = '","partial":true}\n'
_RUN_MARK: Final = b',"run_id":'  # in a message quotes are escaped
_NOT_PLAIN: Final = bytes(code for code in range(256) if not 32 <= code < 127 and code not in b"\t\n")


@dataclass(frozen=True, slots=True)
class Lines:
    """Consecutive lines of one stream: `block` has them with "\\n" between two, and none at the end.

    `partial`: each of them is a piece, and more of its line follows.
    """

    block: bytes
    partial: bool = False

    @property
    def line_count(self) -> int:
        """How many there are; an empty block is one empty line."""
        return self.block.count(b"\n") + 1


class LineSplitter:
    """Turns bytes, however they are chunked, into lines; keeps at most `max_line_bytes` meanwhile."""

    def __init__(self, max_line_bytes: int = MAX_LINE_BYTES) -> None:
        if max_line_bytes < 4:
            raise ValueError(f"cannot split lines at {max_line_bytes} bytes: a UTF-8 character takes up to 4")
        self._max_line_bytes = max_line_bytes
        self._rest = b""

    @property
    def waiting_bytes(self) -> int:
        """How many of the last bytes fed are in no line yet."""
        return len(self._rest)

    def feed(self, data: bytes) -> list[Lines]:
        """The lines that `data` completes, and the pieces of an over-long line that is still going on."""
        if self._rest:
            data = self._rest + data
        end = data.rfind(b"\n")
        self._rest = data[end + 1 :]
        found = self._split(data[:end]) if end >= 0 else []
        if len(self._rest) > self._max_line_bytes:
            pieces, self._rest = self._cut(self._rest)
            found.append(Lines(b"\n".join(pieces), partial=True))
        return found

    def flush(self) -> list[Lines]:
        """The unfinished last line, if there is one, as a line; afterwards the splitter is as new."""
        rest, self._rest = self._rest, b""
        return [Lines(rest)] if rest else []

    def _split(self, block: bytes) -> list[Lines]:
        if len(block) <= self._max_line_bytes:
            return [Lines(block)]
        lines = block.split(b"\n")
        if max(map(len, lines)) <= self._max_line_bytes:
            return [Lines(block)]
        found: list[Lines] = []
        whole: list[bytes] = []
        for line in lines:
            if len(line) <= self._max_line_bytes:
                whole.append(line)
                continue
            if whole:
                found.append(Lines(b"\n".join(whole)))
            pieces, last = self._cut(line)
            found.append(Lines(b"\n".join(pieces), partial=True))
            whole = [last]
        found.append(Lines(b"\n".join(whole)))
        return found

    def _cut(self, line: bytes) -> tuple[list[bytes], bytes]:
        """The pieces of an over-long line but the last, and the last: never empty, never too long."""
        pieces = []
        start = 0
        while len(line) - start > self._max_line_bytes:
            end = _character_start(line, start + self._max_line_bytes)
            pieces.append(line[start:end])
            start = end
        return pieces, line[start:]


def skip_lines(found: Iterable[Lines], count: int) -> Iterator[Lines]:
    """All but the first `count` lines."""
    for lines in found:
        if count == 0:
            yield lines
        elif count < lines.line_count:
            yield Lines(lines.block.split(b"\n", count)[count], lines.partial)
        count = max(0, count - lines.line_count)


def _character_start(line: bytes, position: int) -> int:
    """`position`, or up to 3 less where it would tear a UTF-8 character."""
    for back in range(4):
        byte = line[position - back]
        if byte & 0xC0 != 0x80:  # not a continuation byte: the character began here
            length = 4 if byte >= 0xF0 else 3 if byte >= 0xE0 else 2 if byte >= 0xC0 else 1
            return position - back if back < length else position
    return position


class LineEncoder:
    """Renders lines of one stream of one run as NAME.log has them."""

    def __init__(self, service: str, stream: str, run_id: int) -> None:
        names = f'"service":{encode_basestring_ascii(service)},"stream":{encode_basestring_ascii(stream)}'
        self._middle = f'",{names},"run_id":{run_id:d},"message":'

    def encode(self, lines: Lines, time: str) -> bytes:
        """One JSON line for each line, all stamped with `time`, a text of `render_time`."""
        start = f'{{"time":"{time}{self._middle}"'
        end = _PARTIAL_END if lines.partial else _END
        quoted = _quote_plain(lines.block) or _quote_any(lines.block)
        return b"".join(
            (start.encode("ascii"), quoted.replace(b"\n", (end + start).encode("ascii")), end.encode("ascii"))
        )


def _quote_plain(block: bytes) -> bytes:
    """The block with its lines JSON-escaped, three times as fast; empty if it is not that simple."""
    if len(block.translate(None, _NOT_PLAIN)) < len(block):
        return b""
    return block.replace(b"\\", rb"\\").replace(b'"', rb"\"").replace(b"\t", rb"\t")


def _quote_any(block: bytes) -> bytes:
    # A newline is never part of a longer UTF-8 sequence, valid or not: decoding first, splitting then, gives
    # the same messages as decoding each line. Quoted, they have no newline inside, so '"\n"' joins two.
    messages = block.decode("utf-8", "surrogateescape").split("\n")
    quoted = "\n".join(map(encode_basestring_ascii, messages))
    return quoted[1:-1].replace('"\n"', "\n").encode("ascii")


def restore_bytes(message: str) -> bytes:
    """The bytes the service wrote, from the decoded `message` of a log line."""
    return message.encode("utf-8", "surrogateescape")


def render_time(wall: datetime) -> str:
    """UTC in ISO 8601 with microseconds and "Z": always 27 characters, so that text order is time order."""
    return wall.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"


def stream_mark(stream: str) -> bytes:
    """Bytes that every log line of `stream` has and no other: in a message quotes are escaped."""
    return f'","stream":{encode_basestring_ascii(stream)},"run_id":'.encode("ascii")


def run_of(line: bytes) -> int:
    """The run that a log line is attributed to; 0 for what is no such line."""
    if not line.startswith(LINE_START):
        return 0
    digits = line.partition(_RUN_MARK)[2].partition(b",")[0]
    return int(digits) if digits.isdigit() else 0


def mend_torn(fragment: bytes) -> tuple[int, bytes]:
    """How to end a log line whose writing was interrupted: bytes of it to keep, and what to append.

    With its message begun it becomes a line marked partial; of the message, at most a torn escape is cut off.
    Anything else is only terminated: readers pass over it.
    """
    if fragment.startswith(LINE_START) and not _is_log_line(fragment):
        ending = _PARTIAL_END.encode("ascii")
        shortest = max(
            0, len(fragment) - len(ending)
        )  # the longest of what may have been torn: an escape, the end
        for keep in range(len(fragment), shortest, -1):
            if _is_log_line(fragment[:keep] + ending):
                return keep, ending
    return len(fragment), b"\n"


def _is_log_line(line: bytes) -> bool:
    try:
        return "message" in json.loads(line)
    except ValueError:
        return False
