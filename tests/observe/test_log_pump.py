"""The pump: real FIFOs, real writers, real files."""

from __future__ import annotations

import asyncio
import errno
import os
import random
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest

from blackhole_cg.core.loglines import MAX_LINE_BYTES, Lines
from blackhole_cg.core.spec import LogPolicy
from blackhole_cg.core.words import Stream
from blackhole_cg.observe.log_file import LogFile
from blackhole_cg.observe.log_pump import RECOVERY_SECONDS, LogHooks, LogPump, LogTrouble
from tests.observe.helpers import Disk, make_fifos, messages, pumped, rows, run_python, until

# Writes so many numbered lines of so many bytes, as fast as the FIFO takes them.
NUMBERED_WRITER = """
import os, sys
descriptor, count, size = os.open(sys.argv[1], os.O_RDWR), int(sys.argv[2]), int(sys.argv[3])
for begin in range(0, count, 10000):
    data = b"".join(b"%09d%s\\n" % (n, b"x" * (size - 10)) for n in range(begin, min(count, begin + 10000)))
    while data:
        data = data[os.write(descriptor, data[:1 << 20]):]
"""


def resident_bytes() -> int:
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_lines_are_stored_with_stream_run_and_time(tmp_path: Path) -> None:
    stamp = datetime(2025, 11, 21, 4, 2, 0, 1, tzinfo=UTC)

    async def scenario() -> None:
        with pumped(tmp_path, hooks=LogHooks(wall_clock=lambda: stamp)) as rig:
            rig.write(b"one\ntwo\nhal")
            await until(lambda: rig.pump.lines_total == 2)
            rig.write(b"oops \xff\n", Stream.STDERR)
            await until(lambda: rig.pump.lines_total == 3)
            rig.write(b"f\n")
            await until(lambda: rig.pump.lines_total == 4)
            assert rig.pump.dropped_total == 0

    asyncio.run(scenario())
    found = rows(tmp_path / "web.log")
    assert [(row["stream"], row["message"]) for row in found] == [
        ("stdout", "one"),
        ("stdout", "two"),
        ("stderr", "oops \udcff"),
        ("stdout", "half"),
    ]
    assert {(row["time"], row["service"], row["run_id"]) for row in found} == {
        ("2025-11-21T04:02:00.000001Z", "web", 1)
    }


def test_a_run_ends_with_everything_it_wrote(tmp_path: Path) -> None:
    async def scenario() -> None:
        with pumped(tmp_path) as rig:
            rig.write(b"first\nunfinished")  # not yet seen by the loop
            rig.write(b"error", Stream.STDERR)
            rig.pump.end_run()
            assert rig.pump.lines_total == 3
            rig.pump.begin_run(2)
            rig.write(b"second\n")
            rig.pump.end_run()

    asyncio.run(scenario())
    assert [(row["run_id"], row["message"]) for row in rows(tmp_path / "web.log")] == [
        (1, "first"),
        (1, "unfinished"),
        (1, "error"),
        (2, "second"),
    ]


def test_a_stray_writer_cannot_hold_up_the_end_of_a_run(tmp_path: Path) -> None:
    async def scenario() -> None:
        # What a process outside the run would do meanwhile: write again after each read.
        def write_again(_stream: Stream, _lines: Lines) -> None:
            rig.write(b"stray\n")

        with pumped(tmp_path, hooks=LogHooks(lines=write_again)) as rig:
            rig.write(b"mine\n")
            rig.pump.end_run()
            assert rig.pump.lines_total == 1

    asyncio.run(scenario())


def test_a_full_fifo_is_drained(tmp_path: Path) -> None:
    async def scenario() -> int:
        with pumped(tmp_path) as rig:
            os.set_blocking(rig.writers[Stream.STDOUT], False)
            total = 0
            with pytest.raises(BlockingIOError):
                while True:
                    total += os.write(rig.writers[Stream.STDOUT], b"y" * 99 + b"\n")
            rig.pump.end_run()
            return total

    assert asyncio.run(scenario()) == 100 * len(rows(tmp_path / "web.log"))


def test_an_over_long_line_is_marked_and_continued(tmp_path: Path) -> None:
    data = random.Random(1).randbytes(50_000).replace(b"\n", b"")

    async def scenario() -> None:
        with pumped(tmp_path) as rig:
            rig.write(data + b"\n")
            await until(lambda: rig.pump.lines_total == 4)

    asyncio.run(scenario())
    assert b"".join(messages(tmp_path / "web.log")) == data
    assert [row.get("partial") for row in rows(tmp_path / "web.log")] == [True, True, True, None]
    assert all(len(piece) <= MAX_LINE_BYTES for piece in messages(tmp_path / "web.log"))


def test_the_console_gets_every_line_even_when_the_disk_is_full(tmp_path: Path) -> None:
    shown: list[tuple[Stream, bytes]] = []

    async def scenario() -> None:
        log = LogFile(tmp_path / "web.log", LogPolicy(), write=Disk(free_bytes=0).write)
        hooks = LogHooks(lines=lambda stream, lines: shown.append((stream, lines.block)))
        with pumped(tmp_path, log=log, hooks=hooks) as rig:
            rig.write(b"one\ntwo\n")
            await until(lambda: rig.pump.dropped_total == 2)

    asyncio.run(scenario())
    assert shown == [(Stream.STDOUT, b"one\ntwo")]


def test_trouble_is_told_once_when_it_begins_and_once_when_it_is_over(tmp_path: Path) -> None:
    troubles: list[LogTrouble] = []
    seconds = 0.0

    async def scenario() -> None:
        nonlocal seconds
        disk = Disk(free_bytes=0, error=errno.ENOSPC)
        log = LogFile(tmp_path / "web.log", LogPolicy(), write=disk.write)
        with pumped(tmp_path, log=log, hooks=LogHooks(trouble=troubles.append, now=lambda: seconds)) as rig:
            for number in range(5):
                rig.write(b"lost\nlost\n")
                await until(lambda number=number: rig.pump.dropped_total == 2 * number + 2)
            assert len(troubles) == 1
            disk.free_bytes = None
            for _ in range(2):
                rig.write(b"kept\n")
                rig.pump.end_run()
                assert len(troubles) == 1
                seconds += RECOVERY_SECONDS / 2
            rig.write(b"kept\n")
            await until(lambda: len(troubles) == 2)
            disk.free_bytes = 0
            rig.write(b"lost\n")
            await until(lambda: len(troubles) == 3)

    asyncio.run(scenario())
    path = tmp_path / "web.log"
    assert troubles == [
        LogTrouble("web", f"cannot write {path}: No space left on device", 2),
        LogTrouble("web", None, 10),
        LogTrouble("web", f"cannot write {path}: No space left on device", 1),
    ]


def test_closing_gives_back_every_descriptor_and_stores_the_rest(tmp_path: Path) -> None:
    async def scenario() -> None:
        before = set(os.listdir("/proc/self/fd"))
        paths, descriptors = make_fifos(tmp_path, "web")
        pump = LogPump("web", descriptors, LogFile(tmp_path / "web.log", LogPolicy()))
        pump.open()
        pump.open()
        descriptor = os.open(paths[Stream.STDERR], os.O_RDWR)
        os.write(descriptor, b"last words")
        os.close(descriptor)
        pump.close()
        pump.close()
        assert set(os.listdir("/proc/self/fd")) == before

    asyncio.run(scenario())
    assert [(row["run_id"], row["message"]) for row in rows(tmp_path / "web.log")] == [(0, "last words")]


def test_a_log_that_cannot_be_opened_is_an_error_at_once(tmp_path: Path) -> None:
    async def scenario() -> None:
        (tmp_path / "web.log").mkdir()
        _, descriptors = make_fifos(tmp_path, "web")
        pump = LogPump("web", descriptors, LogFile(tmp_path / "web.log", LogPolicy()))
        with pytest.raises(IsADirectoryError):
            pump.open()
        pump.close()

    asyncio.run(scenario())


def test_100_mb_at_full_speed_in_constant_memory_while_a_quiet_service_is_heard(tmp_path: Path) -> None:
    count, size = 1_000_000, 100
    figures: dict[str, float] = {}

    async def scenario() -> None:
        log = LogFile(tmp_path / "noisy.log", LogPolicy(max_bytes=16 << 20, max_files=100))
        with pumped(tmp_path, "noisy", log=log) as noisy, pumped(tmp_path, "quiet") as quiet:
            writer = await run_python(NUMBERED_WRITER, noisy.paths[Stream.STDOUT], count, size)
            await until(lambda: noisy.pump.lines_total > 50_000)
            resident, began = resident_bytes(), time.monotonic()
            lines_before = noisy.pump.lines_total
            delays: list[float] = []
            peak = resident
            while noisy.pump.lines_total < 0.9 * count:
                told = quiet.pump.lines_total
                sent = time.monotonic()
                quiet.write(b"still here\n")
                await until(lambda told=told: quiet.pump.lines_total > told)
                delays.append(time.monotonic() - sent)
                peak = max(peak, resident_bytes())
                await asyncio.sleep(0.02)
            megabytes = (noisy.pump.lines_total - lines_before) * size / 1e6
            assert await writer.wait() == 0
            noisy.pump.end_run()
            assert (noisy.pump.lines_total, noisy.pump.dropped_total) == (count, 0)
            figures.update(
                grown_bytes=peak - resident,
                slowest_seconds=max(delays),
                flood_seconds=time.monotonic() - began,
                megabytes_per_second=megabytes / (time.monotonic() - began),
            )

    asyncio.run(scenario())
    print(figures)
    expected = 0
    for path in LogFile(tmp_path / "noisy.log", LogPolicy(max_files=100)).younger_than(None):
        for message in messages(path):
            assert int(message[:9]) == expected
            expected += 1
    assert expected == count
    assert figures["grown_bytes"] < 16 << 20
    # Starved, it would be heard when the flood is over; a slow machine takes longer for both.
    assert figures["slowest_seconds"] < max(1.0, figures["flood_seconds"] / 5)
