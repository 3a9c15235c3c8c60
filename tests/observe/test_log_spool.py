"""No line is lost and none repeated, whenever the pump is killed."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import resource
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blackhole_cg.core.loglines import MAX_LINE_BYTES
from blackhole_cg.core.spec import LogPolicy
from blackhole_cg.core.words import Stream
from blackhole_cg.observe.log_file import LogFile
from blackhole_cg.observe.log_pump import LogPump
from blackhole_cg.observe.log_spool import FREE_BYTES, LogSpool
from tests.observe.helpers import encode, make_fifos, messages, rows, until
from tests.observe.mortal import BOOT_ID, Kill, Mortal, Step, waiting_bytes

OUT, ERR = Stream.STDOUT, Stream.STDERR
LINE = len(encode("0000"))
LONG = bytes(range(32, 127)) * (3 * MAX_LINE_BYTES // 95)

SCENARIOS: dict[str, tuple[list[Step], LogPolicy]] = {
    "both streams, lines in parts": (
        [(OUT, b"1\n2\nth"), (ERR, b"oops"), (OUT, b"ree\n4"), (ERR, b" oh\n"), (OUT, b"5"), (OUT, b"\n\n")],
        LogPolicy(),
    ),
    "over-long lines": (
        [(OUT, b"1\n" + LONG[:20_000]), (OUT, LONG[20_000:]), (OUT, b"\nend\n"), (ERR, LONG + b"\n" + LONG)],
        LogPolicy(),
    ),
    "two runs, the first ends within a line": (
        [(OUT, b"one\nha"), (ERR, b"lf"), 2, (OUT, b"two\n")],
        LogPolicy(),
    ),
    "rotation between and within batches": (
        [(OUT, b"0000\n0001\n0002\n0003\n0004\n00"), (ERR, b"0000\n0001\n"), (OUT, b"05\n0006\n0007\n")],
        LogPolicy(max_bytes=2 * LINE + 20, max_files=20),
    ),
    "a spool that gives memory back": (
        [(OUT, b"%4000d\n%4000d\n" % (n, n) * 4) for n in range(3)],
        LogPolicy(),
    ),
}  # fmt: skip


@contextmanager
def mortal(directory: Path, steps: list[Step], policy: LogPolicy) -> Iterator[Mortal]:
    it = Mortal(directory, steps, policy)
    try:
        yield it
    finally:
        it.bury()


@pytest.mark.parametrize("halfway", [False, True], ids=["before", "halfway"])
@pytest.mark.parametrize("name", SCENARIOS)
def test_a_kill_at_any_system_call_loses_and_repeats_nothing(
    tmp_path: Path, name: str, halfway: bool
) -> None:
    steps, policy = SCENARIOS[name]
    survived, at = False, 0
    while not survived:
        at += 1
        directory = tmp_path / str(at)
        directory.mkdir()
        with mortal(directory, steps, policy) as it:
            survived = it.live(Kill(at, halfway))
            assert it.live()
            it.check()
    assert at > 3 * len(steps), "there was something to be killed at"


@pytest.mark.parametrize("halfway", [False, True], ids=["before", "halfway"])
def test_a_single_file_that_begins_anew_repeats_nothing(tmp_path: Path, halfway: bool) -> None:
    lines = [b"%04d" % number for number in range(12)]
    steps: list[Step] = [(OUT, b"\n".join(lines[begin : begin + 4]) + b"\n") for begin in (0, 4, 8)]
    survived, at = False, 0
    while not survived:
        at += 1
        directory = tmp_path / str(at)
        directory.mkdir()
        with mortal(directory, steps, LogPolicy(max_bytes=3 * LINE, max_files=1)) as it:
            survived = it.live(Kill(at, halfway))
            assert it.live()
            found = it.written(OUT, 1)
            assert 0 < len(found) <= 3
            assert found == lines[-len(found) :]
    assert at > 20


chunks = st.tuples(
    st.sampled_from(list(Stream)),
    st.one_of(
        st.binary(min_size=1, max_size=40),
        st.lists(st.sampled_from([b"a", b"bc", b"\n", "ü".encode()]), min_size=1, max_size=30).map(b"".join),
        st.integers(0, 40_000).map(lambda size: LONG[:size] + b"\n"),
    ),
)
kills = st.builds(Kill, st.integers(1, 40), st.booleans())


@settings(max_examples=30, deadline=None)
@given(st.lists(chunks, max_size=8), st.lists(kills, max_size=6), st.integers(100, 3000))
def test_kills_at_random_moments_lose_and_repeat_nothing(
    steps: list[Step], deaths: list[Kill], max_bytes: int
) -> None:
    with tempfile.TemporaryDirectory() as directory:
        policy = LogPolicy(max_bytes=max_bytes, max_files=1000)
        with mortal(Path(directory), steps, policy) as it:
            for death in deaths:
                it.live(death)
            assert it.live()
            it.check()


def spooled_pump(directory: Path, readers: dict[Stream, int], log: LogFile | None = None) -> LogPump:
    """A pump with a spool, on descriptors of its own."""
    streams = {stream: os.dup(reader) for stream, reader in readers.items()}
    log = log or LogFile(directory / "web.log", LogPolicy())
    return LogPump("web", streams, log, spool=LogSpool(directory / "spool", "web", BOOT_ID))


@contextmanager
def fifos(directory: Path) -> Iterator[tuple[dict[Stream, int], dict[Stream, int]]]:
    """Reading and writing descriptors of both FIFOs."""
    paths, readers = make_fifos(directory, "web")
    with ExitStack() as stack:
        writers = {stream: os.open(path, os.O_RDWR) for stream, path in paths.items()}
        for descriptor in (*readers.values(), *writers.values()):
            stack.callback(os.close, descriptor)
        yield readers, writers


def test_a_line_begun_before_an_orderly_end_is_finished_after_it(tmp_path: Path) -> None:
    async def scenario() -> None:
        with fifos(tmp_path) as (readers, writers):
            first = spooled_pump(tmp_path, readers)
            first.open()
            first.begin_run(7)
            os.write(writers[OUT], b"one\nfirst half,")
            first.close()
            os.write(writers[OUT], b" second half\n")
            second = spooled_pump(tmp_path, readers)
            second.open()
            await until(lambda: second.lines_total == 1)
            second.close()

    asyncio.run(scenario())
    found = [(row["run_id"], row["message"]) for row in rows(tmp_path / "web.log")]
    assert found == [(7, "one"), (7, "first half, second half")]


def test_what_another_boot_left_is_not_believed(tmp_path: Path) -> None:
    async def scenario() -> None:
        with fifos(tmp_path) as (readers, writers):
            before = spooled_pump(tmp_path, readers)
            before.open()
            os.write(writers[OUT], b"one\nunfinished")
            before.close()
            log = tmp_path / "web.log"
            log.write_bytes(log.read_bytes() + encode("two"))
            after = LogPump(
                "web",
                {stream: os.dup(reader) for stream, reader in readers.items()},
                LogFile(log, LogPolicy()),
                spool=LogSpool(tmp_path / "spool", "web", BOOT_ID[::-1]),
            )
            after.open()
            os.write(writers[OUT], b"three\n")
            after.close()

    asyncio.run(scenario())
    assert messages(tmp_path / "web.log") == [b"one", b"two", b"three"]


def test_what_somebody_else_wrote_into_the_log_file_does_not_cost_a_line(tmp_path: Path) -> None:
    async def scenario() -> None:
        with fifos(tmp_path) as (readers, writers):
            for number in range(3):
                pump = spooled_pump(tmp_path, readers)
                pump.open()
                with (tmp_path / "web.log").open("ab") as log:
                    log.write(encode(f"foreign {number}"))
                os.write(writers[OUT], b"ours %d\n" % number)
                pump.close()

    asyncio.run(scenario())
    found = messages(tmp_path / "web.log")
    assert found == [b"foreign 0", b"ours 0", b"foreign 1", b"ours 1", b"foreign 2", b"ours 2"]


def test_the_spool_takes_three_descriptors_and_little_memory(tmp_path: Path) -> None:
    async def scenario() -> None:
        with fifos(tmp_path) as (readers, writers):
            before = len(os.listdir("/proc/self/fd"))
            spool = LogSpool(tmp_path / "spool", "web", BOOT_ID)
            assert len(os.listdir("/proc/self/fd")) == before + 3
            streams = {stream: os.dup(reader) for stream, reader in readers.items()}
            pump = LogPump("web", streams, LogFile(tmp_path / "web.log", LogPolicy()), spool=spool)
            pump.open()
            for _ in range(200):
                os.write(writers[OUT], b"x" * 9_999 + b"\nunfinished")
                await until(lambda: not waiting_bytes(readers[OUT]))
            used = (tmp_path / "spool" / "web.stdout").stat().st_blocks * 512
            assert used <= FREE_BYTES + MAX_LINE_BYTES + 2 * 4096
            pump.close()
            spool.remove()
            assert list((tmp_path / "spool").iterdir()) == []
            assert len(os.listdir("/proc/self/fd")) == before

    asyncio.run(scenario())


def test_a_spool_that_refuses_is_told_once_and_read_past(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    lines = [b"%04d" % number for number in range(100)]

    async def scenario() -> None:
        with fifos(tmp_path) as (readers, writers):
            log = LogFile(tmp_path / "web.log", LogPolicy(max_bytes=300, max_files=100))
            pump = spooled_pump(tmp_path, readers, log)
            pump.open()
            limits = resource.getrlimit(resource.RLIMIT_FSIZE)
            resource.setrlimit(resource.RLIMIT_FSIZE, (402, limits[1]))  # the log files are shorter
            try:
                for line in lines:
                    os.write(writers[OUT], line[:2])
                    await until(lambda: not waiting_bytes(readers[OUT]))
                    os.write(writers[OUT], line[2:] + b"\n")
                    await until(lambda: not waiting_bytes(readers[OUT]))
            finally:
                resource.setrlimit(resource.RLIMIT_FSIZE, limits)
            os.write(writers[OUT], b"unfinished, and whole")
            pump.close()
            again = spooled_pump(tmp_path, readers)
            again.open()
            again.end_run()
            again.close()
            assert (pump.lines_total, pump.dropped_total) == (100, 0)

    with caplog.at_level(logging.WARNING):
        asyncio.run(scenario())
    stored = messages(*LogFile(tmp_path / "web.log", LogPolicy(max_files=100)).younger_than(None))
    assert stored == [*lines, b"unfinished, and whole"]
    assert [record.getMessage() for record in caplog.records] == [
        f"web: a kill of the supervisor may lose log lines: {os.strerror(errno.EFBIG)}"
    ]
