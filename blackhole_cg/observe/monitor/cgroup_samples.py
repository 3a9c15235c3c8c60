"""What a cgroup's files say, read through descriptors that stay open as long as the run.

A file that is not there (its controller is off, the kernel is too old, PSI is disabled) leaves its values
unknown. Source for every file: kernel Documentation/admin-guide/cgroup-v2.rst and accounting/psi.rst.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator, Mapping
from typing import Final

from blackhole_cg.core.samples import Reading

READ_BYTES: Final = 16384  # memory.stat, the longest of them, has about 2000


class CgroupReader:
    """The files of one cgroup directory."""

    def __init__(self, directory: str) -> None:
        self._descriptors: dict[str, int] = {}
        self._is_gone = False
        try:
            directory_fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError:
            self._is_gone = True
            return
        try:
            for file in _FILES:
                try:
                    self._descriptors[file] = os.open(file, os.O_RDONLY | os.O_CLOEXEC, dir_fd=directory_fd)
                except FileNotFoundError:
                    continue
        except OSError:  # no descriptors left: better nothing than a part
            self.close()
            raise
        finally:
            os.close(directory_fd)

    def read_into(self, reading: Reading) -> bool:
        """Fill in what the files say; False when the cgroup has gone."""
        for file, descriptor in self._descriptors.items():
            try:
                _FILES[file](reading, os.pread(descriptor, READ_BYTES, 0))
            except OSError as cause:
                if cause.errno == errno.ENODEV:  # the directory has been removed
                    self._is_gone = True
                    return False
                # otherwise unknown, for example EOPNOTSUPP: PSI is built in and switched off
            except ValueError:
                continue  # not what this file contains: unknown, too
        return not self._is_gone

    def close(self) -> None:
        """Close every descriptor. A second call does nothing."""
        for descriptor in self._descriptors.values():
            os.close(descriptor)
        self._descriptors = {}


def list_processes(directory: str) -> list[int]:
    """The processes of a cgroup and of those below it; none when it has gone."""
    pids: list[int] = []
    for place, _, files in os.walk(directory):
        if "cgroup.procs" not in files:
            continue
        try:
            with open(f"{place}/cgroup.procs", "rb", buffering=0) as file:  # noqa: PTH123  a hot path
                pids += map(int, file.read().split())
        except OSError:
            continue  # removed while we looked
    return pids


def parse_flat(text: bytes, wanted: Mapping[bytes, str]) -> Iterator[tuple[str, int]]:
    """The wanted values of a flat keyed file such as cpu.stat, by the names they are wanted under."""
    for line in text.split(b"\n"):
        key, _, value = line.partition(b" ")
        name = wanted.get(key)
        if name is not None:
            yield name, int(value)


def parse_io(text: bytes) -> tuple[int, int]:
    """Bytes read and written, summed over the devices of io.stat; a cgroup without any I/O has no lines."""
    read = written = 0
    for word in text.split():
        key, _, value = word.partition(b"=")
        if key == b"rbytes":
            read += int(value)
        elif key == b"wbytes":
            written += int(value)
    return read, written


def parse_pressure(text: bytes) -> dict[bytes, float]:
    """The avg10 of each line of a pressure file, by its first word: some, full."""
    averages = {}
    for line in text.split(b"\n"):
        words = line.split()
        if len(words) > 1 and words[1].startswith(b"avg10="):
            averages[words[0]] = float(words[1][6:])
    return averages


def _flat(wanted: Mapping[bytes, str]) -> Callable[[Reading, bytes], None]:
    def take(reading: Reading, text: bytes) -> None:
        for name, value in parse_flat(text, wanted):
            setattr(reading, name, value)

    return take


def _number(name: str) -> Callable[[Reading, bytes], None]:
    def take(reading: Reading, text: bytes) -> None:
        setattr(reading, name, int(text))

    return take


def _pressure(some: str, full: str | None = None) -> Callable[[Reading, bytes], None]:
    def take(reading: Reading, text: bytes) -> None:
        averages = parse_pressure(text)
        setattr(reading, some, averages.get(b"some"))
        if full is not None:
            setattr(reading, full, averages.get(b"full"))

    return take


def _io(reading: Reading, text: bytes) -> None:
    reading.io_read_bytes_total, reading.io_write_bytes_total = parse_io(text)


_FILES: Final[dict[str, Callable[[Reading, bytes], None]]] = {
    "cpu.stat": _flat(
        {
            b"usage_usec": "cpu_usec",
            b"nr_periods": "cpu_periods_total",
            b"nr_throttled": "cpu_throttled_periods_total",
            b"throttled_usec": "cpu_throttled_usec",
        }
    ),
    "memory.current": _number("memory_current_bytes"),
    "memory.stat": _flat({b"anon": "memory_anon_bytes", b"inactive_file": "memory_inactive_file_bytes"}),
    "memory.events": _flat(
        {
            b"high": "memory_high_events_total",
            b"max": "memory_max_events_total",
            b"oom_kill": "oom_kills_total",
        }
    ),
    "io.stat": _io,
    "pids.current": _number("pids"),
    "cpu.pressure": _pressure("cpu_pressure_percent"),
    "memory.pressure": _pressure("memory_pressure_percent", "memory_full_pressure_percent"),
    "io.pressure": _pressure("io_pressure_percent", "io_full_pressure_percent"),
}
"""File -> how its text goes into a reading."""
