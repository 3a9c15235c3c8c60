"""The console: harmless text, and a reader that stalls or goes away."""

from __future__ import annotations

import asyncio
import fcntl
import os
import socket
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blackhole_cg.core.loglines import Lines
from blackhole_cg.core.words import Stream
from blackhole_cg.observe.console import BUFFER_BYTES, Console, render_safe
from tests.observe.helpers import until

OUT, ERR = Stream.STDOUT, Stream.STDERR


@pytest.fixture
def pipe() -> tuple[int, int]:
    return os.pipe()


def drain(descriptor: int) -> bytes:
    os.set_blocking(descriptor, False)
    found = b""
    try:
        while data := os.read(descriptor, 1 << 20):
            found += data
    except BlockingIOError:
        pass
    return found


def test_names_are_aligned_and_each_line_has_one(pipe: tuple[int, int]) -> None:
    console = Console(pipe[1], names=["db", "storage"])
    console.show("db", OUT, Lines(b"ready\n\nagain"))
    console.show("storage", ERR, Lines(b"tab\tkept"))
    console.note("2 services running")
    assert drain(pipe[0]).decode() == (
        "db      | ready\ndb      | \ndb      | again\nstorage | tab\tkept\n2 services running\n"
    )


def test_a_name_that_comes_later_widens_the_column(pipe: tuple[int, int]) -> None:
    console = Console(pipe[1], names=["db"])
    console.show("db", OUT, Lines(b"1"))
    console.show("storage", OUT, Lines(b"2"))
    console.show("db", OUT, Lines(b"3"))
    console.show("x" * 60, OUT, Lines(b"4"))
    console.show("db", OUT, Lines(b"5"))
    lines = drain(pipe[0]).decode().splitlines()
    assert lines[:3] == ["db | 1", "storage | 2", "db      | 3"]
    assert lines[3:] == ["x" * 60 + " | 4", "db".ljust(24) + " | 5"]


def test_colours_differ_by_service_and_end_before_the_message(pipe: tuple[int, int]) -> None:
    console = Console(pipe[1], colour=True, names=["a", "b"])
    console.show("a", OUT, Lines(b"x"))
    console.show("b", ERR, Lines(b"x"))
    assert drain(pipe[0]) == b"\x1b[36ma\x1b[0m | x\n\x1b[33mb\x1b[0m \x1b[31m|\x1b[0m x\n"


@pytest.mark.parametrize(
    ("block", "text"),
    [
        (b"\x1b]0;title\x07", "\\x1b]0;title\\x07"),
        (b"\x1b[2J\x1b[31mred\x1b[0m", "\\x1b[2Jred"),
        ("\x9b2J".encode(), "\\x9b2J"),
        (b"a\r\nb\r", "a\nb"),
        (b"10%\r20%", "10%\\x0d20%"),
        (b"back\x08\x7f", "back\\x08\\x7f"),
        (b"\xff\xfe", "\\xff\\xfe"),
        ("\u202eevil\u2069".encode(), "\\u202eevil\\u2069"),
        ("käse 😀\tx".encode(), "käse 😀\tx"),
    ],
)
def test_control_characters_are_harmless(block: bytes, text: str) -> None:
    assert render_safe(block) == text


@given(st.binary(max_size=60))
def test_no_bytes_can_control_the_terminal(block: bytes) -> None:
    text = render_safe(block)
    assert all(char in "\t\n" or (ord(char) >= 32 and not 127 <= ord(char) < 160) for char in text)
    assert text.count("\n") == block.count(b"\n")


def test_a_stalled_reader_costs_lines_not_memory_and_is_told(pipe: tuple[int, int]) -> None:
    async def scenario() -> None:
        flags = fcntl.fcntl(pipe[1], fcntl.F_GETFL)
        console = Console(pipe[1])
        block = Lines(b"\n".join([b"x" * 99] * 100))
        for _ in range(1000):
            console.show("web", OUT, block)
        assert console.hidden_total > 0
        assert len(console._buffer) < 2 * BUFFER_BYTES
        assert fcntl.fcntl(pipe[1], fcntl.F_GETFL) == flags
        shown = b""
        hidden = console.hidden_total

        def marked() -> bool:
            nonlocal shown
            shown += drain(pipe[0])
            return b"not shown" in shown

        await until(marked)
        console.show("web", OUT, Lines(b"back"))
        await until(lambda: bool(console._buffer) is False)
        shown += drain(pipe[0])
        lines = shown.splitlines()
        assert lines[-2:] == [f"... {hidden} lines not shown, see the log files".encode(), b"web | back"]
        assert set(lines[:-2]) == {b"web | " + b"x" * 99}
        assert len(lines) - 2 + hidden == 100_000
        console.close()

    asyncio.run(scenario())


def test_a_full_disk_hides_lines_until_it_is_not(tmp_path: Path) -> None:
    path = tmp_path / "console.txt"
    file = os.open(path, os.O_WRONLY | os.O_CREAT)
    console = Console(file)
    # The errors of a full disk, from a device that always is.
    full = os.open("/dev/full", os.O_WRONLY)
    os.dup2(full, console._descriptor)
    for _ in range(3):
        console.show("web", OUT, Lines(b"x"))
    os.dup2(file, console._descriptor)
    console.show("web", OUT, Lines(b"y"))
    console.close()
    os.close(full)
    os.close(file)
    assert path.read_text() == "... 3 lines not shown, see the log files\nweb | y\n"


def test_a_closed_reader_is_ignored(pipe: tuple[int, int]) -> None:
    os.close(pipe[0])
    console = Console(pipe[1])
    for _ in range(3):
        console.show("web", OUT, Lines(b"x"))
        console.note("y")
    console.close()
    console.close()
    assert os.fstat(pipe[1]), "the descriptor is still its owner's"
    os.close(pipe[1])


def test_a_descriptor_that_was_never_open_is_ignored() -> None:
    descriptor = os.dup(1)
    os.close(descriptor)
    console = Console(descriptor)
    console.show("web", OUT, Lines(b"x"))
    console.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)


def test_a_socket_never_blocks() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        console = Console(ours.fileno())
        for _ in range(1000):
            console.show("web", OUT, Lines(b"x" * 4000))
        assert console.hidden_total > 0
        assert drain(theirs.fileno()).startswith(b"web | xxx")
        console.close()


def test_a_file_gets_everything_after_what_it_has(tmp_path: Path) -> None:
    path = tmp_path / "console.txt"
    with path.open("wb", buffering=0) as file:
        file.write(b"before\n")
        console = Console(file.fileno())
        for _ in range(100):
            console.show("web", OUT, Lines(b"x" * 9000))
        console.close()
        file.write(b"after\n")
    lines = path.read_bytes().splitlines()
    assert (len(lines), lines[0], lines[-1]) == (102, b"before", b"after")


def test_a_terminal_that_is_stopped_and_goes_away() -> None:
    async def scenario() -> None:
        master, terminal = os.openpty()
        console = Console(terminal)
        for _ in range(1000):
            console.show("web", OUT, Lines(b"x" * 1000))
        assert console.hidden_total > 0
        assert os.get_blocking(terminal)
        os.close(master)
        os.close(terminal)
        await asyncio.sleep(0)
        console.show("web", OUT, Lines(b"x"))
        console.close()

    asyncio.run(scenario())
