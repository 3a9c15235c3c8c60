"""Lines of services and of the supervisor on the terminal of `run`.

A convenience, not a record: what a stalled or closed terminal does not take is dropped and counted, since the
supervisor must not wait for it. The log files have everything.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import re
import select
import stat
from collections.abc import Iterable
from typing import Final

from blackhole_cg.core.loglines import Lines
from blackhole_cg.core.words import Stream

BUFFER_BYTES: Final = 256 * 1024
"""Kept for a reader that is slow; beyond it whole blocks of lines are dropped."""

_WRITE_BYTES: Final = 64 * 1024
_MAX_ALIGNED_NAME: Final = 24  # longer names stick out rather than push everyone's lines to the right
_PALETTE: Final = (36, 33, 32, 35, 34, 96, 93, 92, 95, 94)
_RED: Final = 31
_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT})  # of a file: it may pass

_COLOUR_SEQUENCE: Final = re.compile(r"\x1b\[[0-9;:]*m")
_UNSAFE: Final = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f"  # C0 but tab and newline, DEL, C1
    "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"  # change the order of what is shown
    "\u2028\u2029]"  # break lines in some terminals
)


def render_safe(block: bytes) -> str:
    """Text that moves no cursor: colours are taken out, other control characters made visible."""
    text = block.decode("utf-8", "backslashreplace")
    if _UNSAFE.search(text) is None:
        return text
    text = _COLOUR_SEQUENCE.sub("", text).replace("\r\n", "\n").removesuffix("\r")
    return _UNSAFE.sub(_render_escape, text)


def _render_escape(match: re.Match[str]) -> str:
    code = ord(match[0])
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


class Console:
    """Writes `name | message` to a descriptor; never blocks and never raises.

    Args:
        descriptor: where to write, usually 1; it stays the caller's, and so do its flags.
        colour: whether names are coloured.
        names: services whose names are aligned from the start.
    """

    def __init__(self, descriptor: int, *, colour: bool = False, names: Iterable[str] = ()) -> None:
        self.hidden_total = 0  # lines refused because the reader was slow
        self._colour = colour
        self._width = 0
        self._prefixes: dict[tuple[str, Stream], str] = {}
        self._colours: dict[str, int] = {}
        self._buffer = bytearray()
        self._buffered = 0  # lines the buffer stands for; those of a marker are the ones it tells of
        self._hidden = 0  # lines dropped since the last marker
        self._waiting_in: asyncio.AbstractEventLoop | None = None
        self._descriptor, self._may_block = _open_sink(descriptor)
        for name in names:
            self._admit(name)

    def show(self, service: str, stream: Stream, lines: Lines) -> None:
        """Lines of a service."""
        if not self._has_room(lines.line_count):
            return
        prefix = self._prefixes.get((service, stream)) or self._make_prefix(service, stream)
        self._add(prefix + render_safe(lines.block).replace("\n", "\n" + prefix) + "\n")

    def note(self, text: str) -> None:
        """Lines of the supervisor's own, without a prefix."""
        if self._has_room(text.count("\n") + 1):
            self._add(render_safe(text.encode("utf-8", "backslashreplace")) + "\n")

    def close(self) -> None:
        """Write what can be written without waiting, and let go of the descriptor."""
        self._flush()
        self._give_up()

    def _has_room(self, line_count: int) -> bool:
        """Whether a block may be added; counts it as hidden if not, as all are until the marker."""
        if self._hidden and self._waiting_in is None:
            self._flush()  # nothing will tell when there is room: look
        if self._descriptor < 0:
            return False
        if not self._hidden and len(self._buffer) < BUFFER_BYTES:
            return True
        self._hidden += line_count
        self.hidden_total += line_count
        return False

    def _admit(self, name: str) -> None:
        self._colours.setdefault(name, _PALETTE[len(self._colours) % len(_PALETTE)])
        width = min(max(self._width, len(name)), _MAX_ALIGNED_NAME)
        if width != self._width:
            self._width = width
            self._prefixes.clear()

    def _make_prefix(self, service: str, stream: Stream) -> str:
        self._admit(service)
        name, bar = service.ljust(self._width), "|"
        if self._colour:
            name = f"\x1b[{self._colours[service]}m{name}\x1b[0m"
            bar = f"\x1b[{_RED}m|\x1b[0m" if stream is Stream.STDERR else bar
        prefix = f"{name} {bar} "
        self._prefixes[service, stream] = prefix
        return prefix

    def _add(self, text: str) -> None:
        self._buffer += text.encode("utf-8")
        self._buffered += text.count("\n")
        if self._waiting_in is None:
            self._flush()

    def _flush(self) -> None:
        """Write until the buffer is empty or the reader is not ready."""
        while self._descriptor >= 0:
            if not self._buffer:
                self._buffered, self._hidden = self._hidden, 0
                if not self._buffered:
                    break
                self._buffer += f"... {self._buffered} lines not shown, see the log files\n".encode()
            try:
                del self._buffer[: self._write_some()]
            except BlockingIOError:
                self._wait()
                return
            except OSError as error:
                if error.errno in _FULL:
                    self._hidden += self._buffered
                    self._buffer.clear()
                else:  # closed: there is nobody to tell
                    self._give_up()
                return
        self._stop_waiting()

    def _write_some(self) -> int:
        size = _WRITE_BYTES
        if self._may_block:
            # Room for PIPE_BUF bytes is what poll promises; a larger write could wait for the reader.
            size = select.PIPE_BUF
            poll = select.poll()
            poll.register(self._descriptor, select.POLLOUT)
            if not poll.poll(0):
                raise BlockingIOError
        return os.write(self._descriptor, self._buffer[:size])

    def _wait(self) -> None:
        """Go on when the descriptor is writable; without a running loop, at the next line."""
        if self._waiting_in is None:
            with contextlib.suppress(RuntimeError, OSError):
                loop = asyncio.get_running_loop()
                loop.add_writer(self._descriptor, self._flush)
                self._waiting_in = loop

    def _stop_waiting(self) -> None:
        if self._waiting_in is not None:
            self._waiting_in.remove_writer(self._descriptor)
            self._waiting_in = None

    def _give_up(self) -> None:
        self._stop_waiting()
        self._buffer.clear()
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def _open_sink(descriptor: int) -> tuple[int, bool]:
    """A descriptor of our own for the same place, and whether writing to it may block; -1 when it is closed.

    O_NONBLOCK belongs to the open file, which is shared with the shell: setting it would break programs that
    come after us. Opened anew through /proc, a pipe or a terminal gets flags of its own.
    """
    try:
        mode = os.fstat(descriptor).st_mode
        if stat.S_ISFIFO(mode) or stat.S_ISCHR(mode):
            with contextlib.suppress(OSError):
                flags = os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
                return os.open(f"/proc/self/fd/{descriptor}", flags), False
        return os.dup(descriptor), not stat.S_ISREG(mode)  # dup'ed descriptors are not inherited
    except OSError:
        return -1, False
