"""Reading logs back, and following them through rotations."""

from __future__ import annotations

import asyncio
import json
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from blackhole_cg.core.loglines import render_time
from blackhole_cg.core.spec import LogPolicy
from blackhole_cg.core.words import Stream
from blackhole_cg.observe.log_file import LogFile
from blackhole_cg.observe.log_reader import BLOCK_BYTES, LogQuery, LogReader
from tests.observe.helpers import collect, encode, pumped, run_python, until
from tests.observe.test_log_pump import NUMBERED_WRITER

BEGIN = datetime(2025, 11, 21, 4, 0, tzinfo=UTC)
PATIENCE_SECONDS = 60


def stamped(number: int) -> bytes:
    """Line `number`, one a second; every third on stderr."""
    stream = Stream.STDERR if number % 3 == 0 else Stream.STDOUT
    return encode(f"{number:06d}", stream=stream, time=render_time(BEGIN + timedelta(seconds=number)))


def names(numbers: range | list[int]) -> list[bytes]:
    return [b"%06d" % number for number in numbers]


def read(log: LogFile, query: LogQuery) -> list[bytes]:
    return asyncio.run(collect(LogReader(log).read(query)))


@pytest.fixture(scope="module", params=[3_000, 30_000, 10_000_000], ids=["small files", "files", "one file"])
def log(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> LogFile:
    """A thousand lines, in files of various sizes, none lost."""
    path = tmp_path_factory.mktemp("log") / "web.log"
    log = LogFile(path, LogPolicy(max_bytes=request.param, max_files=60))
    for begin in range(0, 1000, 7):
        log.append(b"".join(stamped(number) for number in range(begin, min(1000, begin + 7))))
    return log


@pytest.mark.parametrize("tail", [0, 1, 2, 10, 333, 999, 1000, 5000])
def test_tail_gives_the_newest_lines(log: LogFile, tail: int) -> None:
    assert read(log, LogQuery(tail=tail)) == names(range(max(0, 1000 - tail), 1000))


@pytest.mark.parametrize("tail", [0, 1, 10, 5000, None])
def test_tail_counts_only_the_stream_asked_for(log: LogFile, tail: int | None) -> None:
    errors = [number for number in range(1000) if number % 3 == 0]
    expected = errors if tail is None else errors[max(0, len(errors) - tail) :]
    assert read(log, LogQuery(tail=tail, stream=Stream.STDERR)) == names(expected)


@pytest.mark.parametrize("second", [-5, 0, 1, 500, 999, 1000])
@pytest.mark.parametrize("tail", [None, 3])
def test_since_includes_the_moment(log: LogFile, second: int, tail: int | None) -> None:
    expected = list(range(max(0, second), 1000))
    if tail is not None:
        expected = expected[-tail:]
    assert read(log, LogQuery(tail=tail, since=BEGIN + timedelta(seconds=second))) == names(expected)


def test_everything_is_the_default(log: LogFile) -> None:
    assert read(log, LogQuery()) == names(range(1000))


def test_tail_of_long_lines_over_many_blocks(tmp_path: Path) -> None:
    log = LogFile(tmp_path / "web.log", LogPolicy())
    texts = [f"{number}" + "\x01" * 16_000 for number in range(40)]  # 96 kB each
    log.append(encode(*texts))
    assert log.path.stat().st_size > 10 * BLOCK_BYTES
    for tail in (1, 2, 3, 17, 40):
        assert read(log, LogQuery(tail=tail)) == [text.encode() for text in texts[-tail:]]


def test_what_is_not_a_log_line_is_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "web.log"
    torn = encode("torn")[:-4]
    huge = b"z" * (3 * BLOCK_BYTES)
    path.write_bytes(
        b"note\n" + stamped(0) + torn + b"\n" + stamped(1) + huge + b"\n\n" + stamped(2) + b"\0" * 99
    )
    log = LogFile(path, LogPolicy())
    assert read(log, LogQuery()) == names(range(3))
    assert read(log, LogQuery(tail=2)) == names([1, 2])
    assert read(log, LogQuery(since=BEGIN + timedelta(seconds=1))) == names([1, 2])


def test_no_log_yet(tmp_path: Path) -> None:
    assert read(LogFile(tmp_path / "web.log", LogPolicy()), LogQuery(tail=10)) == []


def test_lines_carry_the_whole_contract(log: LogFile) -> None:
    async def first() -> bytes:
        return b"".join([block async for block in LogReader(log).read(LogQuery(tail=1))])

    assert json.loads(asyncio.run(first())) == {
        "time": "2025-11-21T04:16:39.000000Z",
        "service": "web",
        "stream": "stderr",
        "run_id": 1,
        "message": "000999",
    }


def test_reading_all_ends_although_more_is_written(tmp_path: Path) -> None:
    async def scenario() -> int:
        log = LogFile(tmp_path / "web.log", LogPolicy())
        log.append(stamped(0) * 20_000)
        count = 0
        async for block in LogReader(log).read(LogQuery()):
            count += block.count(b"\n")
            log.append(stamped(1) * 5_000)
        return count

    assert asyncio.run(scenario()) == 20_000


def test_a_follower_gets_history_and_then_each_line_as_it_comes(tmp_path: Path) -> None:
    async def scenario() -> None:
        with pumped(tmp_path) as rig:
            rig.write(b"one\ntwo\n")
            await until(lambda: rig.pump.lines_total == 2)
            blocks = LogReader(rig.log).read(LogQuery(tail=1), follow=True)
            async with asyncio.timeout(PATIENCE_SECONDS):
                assert b'"two"' in await anext(blocks)
                for number in range(50):
                    waiting = asyncio.ensure_future(anext(blocks))
                    rig.write(b"line %d\n" % number)
                    assert b'"line %d"' % number in await waiting
            await blocks.aclose()

    asyncio.run(scenario())


def test_a_follower_waits_for_a_log_that_does_not_exist_yet(tmp_path: Path) -> None:
    async def scenario() -> list[bytes]:
        log = LogFile(tmp_path / "web.log", LogPolicy())
        following = asyncio.ensure_future(collect(LogReader(log).read(LogQuery(tail=10), follow=True)))
        await asyncio.sleep(0)
        log.append(stamped(0))
        await asyncio.sleep(0)
        log.append(stamped(1))
        log.close()
        async with asyncio.timeout(PATIENCE_SECONDS):
            return await following

    assert asyncio.run(scenario()) == names(range(2))


def test_a_follower_filters_by_stream(tmp_path: Path) -> None:
    async def scenario() -> list[bytes]:
        log = LogFile(tmp_path / "web.log", LogPolicy())
        query = LogQuery(tail=0, stream=Stream.STDERR)
        following = asyncio.ensure_future(collect(LogReader(log).read(query, follow=True)))
        await asyncio.sleep(0)
        for number in range(30):
            log.append(stamped(number))
            await asyncio.sleep(0)
        log.close()
        return await following

    assert asyncio.run(scenario()) == names(range(0, 30, 3))


@pytest.mark.parametrize("how", ["deleted", "moved"])
def test_a_follower_survives_someone_else_rotating(tmp_path: Path, how: str) -> None:
    async def scenario() -> list[bytes]:
        seconds = 0.0
        log = LogFile(tmp_path / "web.log", LogPolicy(), now=lambda: seconds)
        log.append(stamped(0))
        following = asyncio.ensure_future(collect(LogReader(log).read(LogQuery(), follow=True)))
        await asyncio.sleep(0.01)
        for number in range(1, 6):
            if how == "deleted":
                log.path.unlink()
            else:
                log.path.rename(tmp_path / f"moved.{number}")
            seconds += 1.0
            log.append(stamped(number))
            await asyncio.sleep(0.01)
        log.close()
        return await following

    assert asyncio.run(scenario()) == names(range(6))


def test_a_follower_slower_than_retention_goes_on_with_what_is_left(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> list[bytes]:
        policy = LogPolicy(max_bytes=10 * len(stamped(0)), max_files=2)
        log = LogFile(tmp_path / "web.log", policy)
        log.append(b"".join(map(stamped, range(5))))
        blocks = LogReader(log).read(LogQuery(), follow=True)
        first = await anext(blocks)
        assert first.count(b"\n") == 5
        log.append(b"".join(map(stamped, range(5, 100))))
        log.close()
        return await collect(blocks)

    # The file it holds it reads to the end; of the others, two are left.
    assert asyncio.run(scenario()) == names([*range(5, 10), *range(80, 100)])
    assert "so slow" in caplog.text


def test_a_cancelled_follower_leaves_no_descriptor(tmp_path: Path) -> None:
    async def scenario() -> None:
        log = LogFile(tmp_path / "web.log", LogPolicy())
        log.append(stamped(0))
        before = set(os.listdir("/proc/self/fd"))
        following = asyncio.ensure_future(collect(LogReader(log).read(LogQuery(), follow=True)))
        await asyncio.sleep(0.01)
        assert set(os.listdir("/proc/self/fd")) != before
        following.cancel()
        with pytest.raises(asyncio.CancelledError):
            await following
        assert set(os.listdir("/proc/self/fd")) == before

    asyncio.run(scenario())


def test_followers_see_each_of_200000_lines_once_and_in_order_through_rotations(tmp_path: Path) -> None:
    count, size = 200_000, 60

    async def follow(log: LogFile, pause_seconds: float) -> int:
        expected = 0
        async for block in LogReader(log).read(LogQuery(), follow=True):
            for line in block.splitlines():
                assert int(json.loads(line)["message"][:9]) == expected
                expected += 1
            await asyncio.sleep(pause_seconds)
        return expected

    async def scenario() -> list[int]:
        log = LogFile(tmp_path / "web.log", LogPolicy(max_bytes=1 << 20, max_files=60))
        with pumped(tmp_path, log=log) as rig:
            followers = [asyncio.ensure_future(follow(log, pause)) for pause in (0, 0.01)]
            writer = await run_python(NUMBERED_WRITER, rig.paths[Stream.STDOUT], count, size)
            assert await writer.wait() == 0
        async with asyncio.timeout(PATIENCE_SECONDS):
            return await asyncio.gather(*followers)

    assert asyncio.run(scenario()) == [count, count]
    assert len(list(tmp_path.glob("web.log*"))) > 20
