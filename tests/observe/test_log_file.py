"""The log file: whole lines, rotation, and disks that fail."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from blackhole_cg.core.loglines import MAX_LINE_BYTES, LineEncoder, Lines
from blackhole_cg.core.spec import LogPolicy
from blackhole_cg.core.words import Stream
from blackhole_cg.observe.log_file import NOWHERE, LogFile, LogPosition
from tests.observe.helpers import TIME, Disk, encode, messages, rows

LINE = len(encode("0000"))


class Clock:
    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


def make(tmp_path: Path, lines: int = 1000, files: int = 3, **arguments: object) -> LogFile:
    policy = LogPolicy(max_bytes=lines * LINE, max_files=files)
    return LogFile(tmp_path / "web.log", policy, **arguments)  # type: ignore[arg-type]


def numbered(begin: int, end: int) -> list[str]:
    return [f"{number:04d}" for number in range(begin, end)]


def stored(log: LogFile) -> list[str]:
    """All messages in all files, oldest first."""
    return [message.decode() for message in messages(*log.younger_than(None))]


def test_a_batch_is_one_write_and_the_file_is_closed_to_others(tmp_path: Path) -> None:
    disk = Disk()
    previous = os.umask(0o077)
    try:
        log = make(tmp_path / "deep" / "er", write=disk.write)
        assert log.append(encode(*numbered(0, 100))) == 0
    finally:
        os.umask(previous)
    assert disk.calls == [100 * LINE]
    assert stored(log) == numbered(0, 100)
    assert stat.S_IMODE(log.path.stat().st_mode) == 0o640


def test_an_existing_file_is_continued(tmp_path: Path) -> None:
    for begin in (0, 10, 20):
        log = make(tmp_path)
        log.append(encode(*numbered(begin, begin + 10)))
        log.close()
    assert stored(log) == numbered(0, 30)


def test_rotation_keeps_count_and_never_splits_a_line(tmp_path: Path) -> None:
    log = make(tmp_path, lines=10, files=3)
    for begin in range(0, 95, 5):
        log.append(encode(*numbered(begin, begin + 5)))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["web.log", "web.log.1", "web.log.2"]
    assert stored(log) == numbered(70, 95)
    assert all(path.stat().st_size <= 10 * LINE for path in tmp_path.iterdir())


def test_one_batch_may_fill_several_files(tmp_path: Path) -> None:
    log = make(tmp_path, lines=10, files=10)
    log.append(encode(*numbered(0, 35)))
    assert stored(log) == numbered(0, 35)
    assert [len(rows(path)) for path in log.younger_than(None)] == [10, 10, 10, 5]


def test_a_line_larger_than_a_file_has_a_file_of_its_own(tmp_path: Path) -> None:
    log = make(tmp_path, lines=2, files=5)
    log.append(encode("0000", "x" * 2000, "0002"))
    assert [len(rows(path)) for path in log.younger_than(None)] == [1, 1, 1]


def test_one_file_only_begins_anew(tmp_path: Path) -> None:
    log = make(tmp_path, lines=10, files=1)
    log.append(encode(*numbered(0, 25)))
    assert stored(log) == numbered(20, 25)
    assert len(list(tmp_path.iterdir())) == 1


def test_a_smaller_count_removes_what_a_larger_one_left(tmp_path: Path) -> None:
    log = make(tmp_path, lines=10, files=6)
    log.append(encode(*numbered(0, 60)))
    log.close()
    log = make(tmp_path, lines=10, files=2)
    log.append(encode(*numbered(60, 70)))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["web.log", "web.log.1"]
    assert stored(log) == numbered(50, 70)


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EIO, errno.EDQUOT])
@pytest.mark.parametrize("free", [0, 1, LINE - 1, LINE, 3 * LINE + 7])
def test_a_full_disk_drops_and_counts_whole_lines(tmp_path: Path, free: int, error: int) -> None:
    disk = Disk(error=error)
    log = make(tmp_path, write=disk.write)
    log.append(encode("0000"))
    disk.free_bytes = free
    kept = free // LINE
    assert log.append(encode(*numbered(1, 11))) == 10 - kept
    assert log.error is not None
    assert log.error.errno == error
    assert stored(log) == numbered(0, 1 + kept)
    disk.free_bytes = None
    assert log.append(encode("0099")) == 0
    assert log.error is None
    assert log.dropped_total == 10 - kept
    assert stored(log) == [*numbered(0, 1 + kept), "0099"]


def test_a_short_write_is_continued(tmp_path: Path) -> None:
    disk = Disk(free_bytes=LINE + 5)

    def write(descriptor: int, data: bytes | memoryview) -> int:
        written = disk.write(descriptor, data)
        disk.free_bytes = None
        return written

    log = make(tmp_path, write=write)
    assert log.append(encode(*numbered(0, 10))) == 0
    assert disk.calls == [LINE + 5, 9 * LINE - 5]
    assert stored(log) == numbered(0, 10)


def test_a_disk_that_fills_between_two_files_loses_only_the_rest(tmp_path: Path) -> None:
    disk = Disk(free_bytes=13 * LINE + 1)
    log = make(tmp_path, lines=10, files=5, write=disk.write)
    assert log.append(encode(*numbered(0, 30))) == 17
    assert stored(log) == numbered(0, 13)


def test_a_real_limit_on_file_size(tmp_path: Path) -> None:
    code = """
import resource, sys
from pathlib import Path
from blackhole_cg.core.spec import LogPolicy
from blackhole_cg.observe.log_file import LogFile
from tests.observe.helpers import encode
resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))
log = LogFile(Path(sys.argv[1]), LogPolicy())
dropped = sum(log.append(encode(*(f"{n:04d}" for n in range(b, b + 10)))) for b in range(0, 100, 10))
print(dropped, log.dropped_total, log.error)
"""
    path = tmp_path / "web.log"
    run = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, check=True)
    kept = 5000 // LINE
    # Once nothing fits a later batch cannot either, and no torn line is left between.
    assert run.stdout.split(maxsplit=2)[:2] == [str(100 - kept)] * 2
    assert "File too large" in run.stdout
    assert [message.decode() for message in messages(path)] == numbered(0, kept)


def test_a_directory_in_the_way_is_an_error_and_then_is_not(tmp_path: Path) -> None:
    (tmp_path / "web.log").mkdir()
    log = make(tmp_path)
    with pytest.raises(IsADirectoryError):
        log.open()
    assert log.append(encode("0000", "0001")) == 2
    (tmp_path / "web.log").rmdir()
    assert log.append(encode("0002")) == 0
    assert stored(log) == ["0002"]
    assert log.dropped_total == 2


@pytest.mark.parametrize("how", ["deleted", "moved", "replaced"])
def test_a_file_that_vanished_is_begun_anew_within_a_second(tmp_path: Path, how: str) -> None:
    clock = Clock()
    log = make(tmp_path, now=clock)
    log.append(encode("0000"))
    moved = tmp_path / "elsewhere"
    if how == "deleted":
        log.path.unlink()
    else:
        log.path.rename(moved)
        if how == "replaced":
            log.path.write_bytes(encode("0001"))
    clock.seconds += 1.0
    log.append(encode("0002"))
    assert stored(log) == (["0001", "0002"] if how == "replaced" else ["0002"])
    if how != "deleted":
        assert messages(moved) == [b"0000"]


def test_a_truncated_file_is_rotated_by_its_true_size(tmp_path: Path) -> None:
    clock = Clock()
    log = make(tmp_path, lines=10, files=2, now=clock)
    log.append(encode(*numbered(0, 9)))
    os.truncate(log.path, 0)
    clock.seconds += 1.0
    log.append(encode(*numbered(9, 18)))
    assert stored(log) == numbered(9, 18)
    assert len(list(tmp_path.iterdir())) == 1


def test_a_line_torn_by_a_crash_is_ended(tmp_path: Path) -> None:
    path = tmp_path / "web.log"
    path.write_bytes(encode("0000") + encode("abcdef")[:-5])
    log = make(tmp_path)
    log.append(encode("0002"))
    assert [(row["message"], row.get("partial")) for row in rows(path)] == [
        ("0000", None),
        ("abcd", True),
        ("0002", None),
    ]


def test_a_rotation_that_is_refused_lets_the_file_grow(tmp_path: Path) -> None:
    clock = Clock()
    log = make(tmp_path, lines=10, files=2, now=clock)
    obstacle = tmp_path / "web.log.1"
    obstacle.mkdir()
    assert log.append(encode(*numbered(0, 25))) == 0
    assert len(rows(log.path)) == 25
    obstacle.rmdir()
    clock.seconds += 1.0
    log.append(encode("0025"))
    assert stored(log) == numbered(0, 26)
    assert len(rows(obstacle)) == 25


def test_a_file_is_cut_back_to_a_position_in_it_and_in_no_other_file(tmp_path: Path) -> None:
    log = make(tmp_path)
    log.append(encode("0000"))
    position = log.position()
    assert position.size_bytes == LINE
    log.append(encode("0001"))
    log.close()
    assert log.position() == NOWHERE

    device, inode = position.file_id
    for elsewhere in (NOWHERE, LogPosition((device, inode + 1), 0), LogPosition(position.file_id, 3 * LINE)):
        other = make(tmp_path)
        other.open(cut_back=elsewhere)
        other.close()
    assert stored(log) == ["0000", "0001"]

    again = make(tmp_path)
    again.open(cut_back=position)
    again.append(encode("0002"))
    assert stored(again) == ["0000", "0002"]


def test_a_file_that_cannot_be_opened_at_first_is_cut_back_later(tmp_path: Path) -> None:
    log = make(tmp_path)
    log.append(encode("0000"))
    position = log.position()
    log.append(encode("0001"))
    log.close()
    log.path.rename(tmp_path / "aside")
    log.path.mkdir()
    again = make(tmp_path)
    with pytest.raises(IsADirectoryError):
        again.open(cut_back=position)
    log.path.rmdir()
    (tmp_path / "aside").rename(log.path)
    again.append(encode("0002"))
    assert stored(again) == ["0000", "0002"]


def test_each_change_of_files_is_told_before_and_after_it(tmp_path: Path) -> None:
    told: list[tuple[int, int, int]] = []
    log = make(tmp_path, lines=2, files=9)

    def settle(lines: int) -> None:
        told.append((lines, log.position().size_bytes // LINE, len(stored(log))))

    log.append(encode(*numbered(0, 5)), settle)
    # lines of the batch stored, lines in the current file, lines in all files: the first and the last agree
    assert told == [(0, 0, 0), (2, 2, 2), (2, 0, 2), (4, 2, 4), (4, 0, 4)]
    told.clear()
    log.append(encode("0005"), settle)
    assert told == []


def test_followers_end_with_the_file(tmp_path: Path) -> None:
    log = make(tmp_path)
    log.append(encode("0000"))
    log.close()
    assert log.changed.closed


def test_the_newest_run_is_that_of_the_last_line(tmp_path: Path) -> None:
    log = make(tmp_path)
    assert log.newest_run_id() == 0
    for run_id in (9, 11):
        encoder = LineEncoder("web", Stream.STDOUT, run_id)
        log.append(encoder.encode(Lines(b'says "run_id":77,'), TIME))
    assert log.newest_run_id() == 11
    log.append(b"somebody else wrote this\n")
    assert log.newest_run_id() == 11


def test_the_newest_run_is_found_where_a_file_has_just_begun(tmp_path: Path) -> None:
    log = make(tmp_path)
    log.append(LineEncoder("web", Stream.STDOUT, 5).encode(Lines(b"x" * MAX_LINE_BYTES), TIME))
    log.path.rename(log.path.with_name(f"{log.path.name}.1"))
    log.path.touch()
    assert log.newest_run_id() == 5
