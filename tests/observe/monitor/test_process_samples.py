"""Asking real processes, some of which end at the worst moment."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import threading
import time

import psutil

from blackhole_cg.core.samples import Reading
from blackhole_cg.observe.monitor.process_samples import Part, ProcessReader
from tests.observe.monitor.processes import DESCRIPTORS, LISTEN, SPIN, THREADS, WRITE, process
from tests.support.waiting import eventually

MIB = 2**20


def read(reader: ProcessReader, *parts: Part) -> Reading:
    reading = Reading(time.monotonic())
    reader.read_into(reading, parts or tuple(Part))
    return reading


def test_sums_go_over_all_processes():
    held = DESCRIPTORS.format(count=40) + "\n" + THREADS.format(count=3)
    with process(held) as one, process(held + "\n" + LISTEN.format(count=2)) as other:
        reading = read(ProcessReader(lambda: [one.pid, other.pid]))
    assert 80 <= reading.open_files <= 110
    assert reading.threads == reading.pids == 8
    assert reading.connections == 2
    assert reading.memory_private_bytes < reading.memory_rss_bytes < reading.memory_vms_bytes
    assert 4 * MIB < reading.memory_rss_bytes < 200 * MIB


def test_only_what_is_asked_for_is_known():
    with process() as one:
        reading = read(ProcessReader(lambda: [one.pid]), Part.THREADS)
    assert reading.threads == 1
    assert (reading.open_files, reading.memory_rss_bytes, reading.cpu_usec) == (None, None, None)


def test_counters_only_grow_while_processes_come_and_go():
    pids: list[int] = []
    reader = ProcessReader(lambda: pids)

    def used_usec() -> float:
        total = read(reader, Part.CPU).cpu_usec
        assert total is not None
        return total

    with process(after=SPIN) as one:
        with process(after=SPIN) as other:
            pids[:] = [one.pid, other.pid]
            both = eventually(lambda: (total := used_usec()) > 200_000 and total, "both use the CPU")
            pids[:] = [one.pid]
        assert used_usec() >= both
        assert eventually(lambda: used_usec() > both + 100_000, "the other goes on")


def test_what_is_written_to_disk_is_counted():
    # Not into pytest's directory, which may be in memory.
    with (
        tempfile.NamedTemporaryFile(dir="/var/tmp") as file,
        process(after=WRITE.format(path=file.name)) as one,
    ):
        reader = ProcessReader(lambda: [one.pid])
        before = read(reader, Part.IO).io_write_bytes_total
        assert before is not None
        eventually(lambda: read(reader, Part.IO).io_write_bytes_total > before, "the counter grows")


def test_a_process_that_has_gone_is_left_out():
    with process() as one, process() as gone:
        gone.kill()
        gone.wait()
        assert read(ProcessReader(lambda: [one.pid, gone.pid]), Part.THREADS).threads == 1
        assert read(ProcessReader(lambda: [gone.pid]), Part.THREADS).threads is None


def test_a_zombie_is_left_out():
    with process() as one, process() as dead:
        dead.kill()
        eventually(lambda: psutil.Process(dead.pid).status() == psutil.STATUS_ZOMBIE, "it is a zombie")
        reading = read(ProcessReader(lambda: [one.pid, dead.pid]), Part.RSS, Part.OPEN_FILES, Part.CPU)
        assert reading.memory_rss_bytes is not None
        assert reading.open_files is not None


def test_processes_that_end_all_the_time_are_no_error():
    """Hundreds of short lives under a reader that looks without a pause."""
    pids: list[int] = []
    ended = threading.Event()

    def spawn() -> None:
        try:
            for _ in range(200):
                child = subprocess.Popen(["/bin/true"])
                pids.append(child.pid)
                del pids[:-3]
                child.wait()
        finally:
            ended.set()

    spawner = threading.Thread(target=spawn)
    spawner.start()
    reader = ProcessReader(lambda: list(pids))
    looks = 0
    while not ended.is_set():
        read(reader)
        reader.table(time.monotonic())
        looks += 1
    spawner.join()
    assert looks > 5


def test_the_table_has_a_line_for_each_process():
    with process(DESCRIPTORS.format(count=40), SPIN) as one:
        reader = ProcessReader(lambda: [one.pid])
        (first,) = reader.table(time.monotonic())
        assert (first.pid, first.cpu_percent, first.threads) == (one.pid, None, 1)
        assert "python" in first.command.split()[0]
        assert first.open_files >= 40
        assert 0 < first.memory_rss_bytes < first.memory_vms_bytes
        assert 0 <= first.uptime_seconds < 60
        busy = eventually(lambda: (s := reader.table(time.monotonic())[0]).cpu_percent and s, "it is busy")
        assert 0 < busy.cpu_percent <= 150


def test_one_that_may_not_be_asked_makes_the_sum_unknown():
    class Forbidden:
        pid = 7

        def num_fds(self):
            raise psutil.AccessDenied(7)

    with process() as one:
        reader = ProcessReader(lambda: [one.pid, 7])
        reader._known[7] = Forbidden()
        assert read(reader, Part.OPEN_FILES).open_files is None


def test_psutil_is_not_imported_before_it_is_needed():
    code = "import sys, blackhole_cg.observe.monitor.monitor; print('psutil' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
