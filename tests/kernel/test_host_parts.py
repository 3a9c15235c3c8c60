"""The small parts behind the host: devices, rlimits, identities, FIFOs, files, signals, the claimed tree."""

from __future__ import annotations

import asyncio
import fcntl
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from blackhole_cg.core.facts import Usage
from blackhole_cg.core.spec import ServiceSpec
from blackhole_cg.core.words import Isolation, Stream
from blackhole_cg.errors import CgroupError, KernelError, SpawnError
from blackhole_cg.kernel.block import (
    describe_mechanisms,
    io_weight_mechanisms,
    parse_io_cost,
    parse_scheduler,
)
from blackhole_cg.kernel.cgroup import Cgroup, parse_counters, parse_populated
from blackhole_cg.kernel.facts import CgroupPlace
from blackhole_cg.kernel.host import HostOptions, LinuxHost
from blackhole_cg.kernel.identity import Identity, resolve_identity
from blackhole_cg.kernel.own_process import Abilities, parse_caught_signals
from blackhole_cg.kernel.rlimits import RlimitBounds, parse_proc_limits
from blackhole_cg.kernel.service_files import find_program
from blackhole_cg.kernel.service_manager import ServiceManager
from blackhole_cg.kernel.stored_streams import StoredStreams
from blackhole_cg.kernel.streams import StreamFiles
from blackhole_cg.kernel.tree import CgroupTree
from tests.kernel.machine import Machine, new_root_name, sleeper, stop

OWN = Identity.of_this_process()


@pytest.mark.parametrize(
    ("text", "scheduler"),
    [
        ("none [mq-deadline] kyber bfq\n", "mq-deadline"),
        ("[none] bfq\n", "none"),
        ("none\n", "none"),
        ("", "none"),
    ],
)
def test_schedulers(text: str, scheduler: str) -> None:
    assert parse_scheduler(text) == scheduler


def test_io_cost_devices() -> None:
    text = "8:0 enable=1 ctrl=user rpct=0.00\n8:16 enable=0 ctrl=auto\n"
    assert parse_io_cost(text) == {"8:0"}
    assert parse_io_cost("") == frozenset()


def test_mechanisms_are_told_for_real_disks_only(tmp_path: Path) -> None:
    for name, device, scheduler in (
        ("sda", "8:0", "[bfq] none"),
        ("sdb", "8:16", "bfq [none]"),
        ("sdc", "8:32", "[mq-deadline] none"),
        ("loop0", "7:0", "[none]"),
    ):
        disk = tmp_path / "block" / name
        (disk / "queue").mkdir(parents=True)
        (disk / "queue/scheduler").write_text(scheduler)
        (disk / "dev").write_text(device + "\n")
        if name != "loop0":
            (disk / "device").mkdir()
    (tmp_path / "io.cost.qos").write_text("8:16 enable=1 ctrl=auto\n")
    found = io_weight_mechanisms(tmp_path, tmp_path)
    assert found == {"sda": "bfq", "sdb": "io.cost", "sdc": None}
    assert describe_mechanisms(found) == (
        "acts on sda by bfq, sdb by io.cost; "
        "has no effect on sdc: neither the BFQ scheduler nor io.cost is active"
    )
    assert describe_mechanisms({}) == "has no effect: no disk is known here"


PROC_LIMITS = """\
Limit                     Soft Limit           Hard Limit           Units     
Max cpu time              unlimited            unlimited            seconds   
Max file size             1024                 unlimited            bytes     
Max core file size        0                    unlimited            bytes     
Max open files            1024                 20000                files     
Max realtime timeout      unlimited            unlimited            us        
"""  # noqa: W291


def test_proc_limits_by_our_names() -> None:
    assert parse_proc_limits(PROC_LIMITS) == {
        "cpu": "max",
        "fsize": 1024,
        "core": 0,
        "nofile": 1024,
        "rttime": "max",
    }


def test_every_rlimit_name_is_found_in_proc() -> None:
    found = parse_proc_limits(Path("/proc/self/limits").read_text())
    bounds = RlimitBounds.of_this_process(privileged=False)
    assert set(bounds.hard) == set(found)


@pytest.mark.parametrize(
    ("privileged", "requested", "value", "refused"),
    [
        (False, 1000, 1000, False),
        (False, 5000, 4096, True),
        (False, "max", 4096, True),
        (True, 5000, 5000, False),
        (True, "max", 1_000_000, True),
        (True, 2_000_000, 1_000_000, True),
    ],
)
def test_open_files_are_bounded_by_privilege_and_kernel(
    privileged: bool, requested: int, value: int, refused: bool
) -> None:
    bounds = RlimitBounds({"nofile": 4096}, privileged, 1_000_000)
    (clamped,) = bounds.plan({"nofile": requested}, clamp=True)
    (strict,) = bounds.plan({"nofile": requested}, clamp=False)
    assert clamped.value == value
    assert (clamped.problem is not None) == (strict.problem is not None) == refused
    assert strict.value == (-1 if requested == "max" else requested)


@pytest.mark.parametrize(("hard", "value"), [(-1, -1), (100, 100)])
def test_unlimited_is_had_where_the_hard_limit_is(hard: int, value: int) -> None:
    bounds = RlimitBounds({"core": hard}, False, 10)
    (rlimit,) = bounds.plan({"core": "max"}, clamp=True)
    assert (rlimit.value, rlimit.problem is None) == (value, hard == -1)


def spec(**changes: object) -> ServiceSpec:
    values: dict[str, object] = {"name": "web", "argv": ("true",), "data_dir": "/tmp", "environment": {}}
    return ServiceSpec(**{**values, **changes})  # type: ignore[arg-type]


def test_identities() -> None:
    assert resolve_identity(spec(), OWN) is OWN
    assert resolve_identity(spec(user="root"), OWN) == Identity(0, 0, (0,))
    assert resolve_identity(spec(user="0"), OWN).uid == 0
    assert resolve_identity(spec(group="0"), OWN) == Identity(OWN.uid, 0, (0,))
    assert resolve_identity(spec(user="3999999", group="3999998"), OWN) == Identity(
        3999999, 3999998, (3999998,)
    )


def test_programs_are_found_on_the_services_own_path(tmp_path: Path) -> None:
    for directory, mode in (("a", 0o644), ("b", 0o755), ("c", 0o755)):
        (tmp_path / directory).mkdir()
        (tmp_path / directory / "tool").write_text("")
        (tmp_path / directory / "tool").chmod(mode)
    (tmp_path / "b/dir").mkdir()
    path = ":".join(str(tmp_path / name) for name in ("none", "a", "b", "c"))
    assert find_program(spec(argv=("tool",), environment={"PATH": path})) == f"{tmp_path}/b/tool"
    assert find_program(spec(argv=("./x",), environment={"PATH": path})) == "./x"
    with pytest.raises(SpawnError, match="find 'dir': no such program on its PATH"):
        find_program(spec(argv=("dir",), environment={"PATH": path}))


NOT_STORED = StoredStreams(ServiceManager(None, None, None))


def test_fifos_are_made_once_and_found_again(tmp_path: Path) -> None:
    streams = StreamFiles(tmp_path / "fifo", NOT_STORED)
    first = streams.open_reader("web", Stream.STDOUT, OWN)
    writer = streams.open_writer("web", Stream.STDOUT, OWN)
    second = streams.open_reader("web", Stream.STDOUT, OWN)
    found = os.fstat(first)
    assert found.st_mode & 0o777 == 0o600
    assert (tmp_path / "fifo").stat().st_mode & 0o777 == 0o711
    assert os.fstat(second).st_ino == found.st_ino
    assert (os.get_blocking(first), os.get_blocking(writer)) == (False, True)
    assert not os.get_inheritable(first) and not os.get_inheritable(writer)
    assert fcntl.fcntl(first, fcntl.F_GETPIPE_SZ) >= 65536
    os.write(writer, b"kept")
    os.close(writer)
    assert os.read(second, 10) == b"kept"
    with pytest.raises(BlockingIOError):
        os.read(first, 10)  # no writer is left but ourselves: still not the end of the file
    for descriptor in (first, second):
        os.close(descriptor)
    streams.remove("web")
    streams.remove("web")
    assert list((tmp_path / "fifo").iterdir()) == []


def test_a_writer_is_of_the_fifo_that_is_read_whatever_has_its_name(tmp_path: Path) -> None:
    streams = StreamFiles(tmp_path / "fifo", NOT_STORED)
    reader = streams.open_reader("web", Stream.STDOUT, OWN)
    for name_is_taken in (False, True):
        shutil.rmtree(tmp_path / "fifo")
        if name_is_taken:
            (tmp_path / "fifo").mkdir()
            os.mkfifo(tmp_path / "fifo" / "web.stdout")
        writer = streams.open_writer("web", Stream.STDOUT, OWN)
        assert os.get_blocking(writer) and not os.get_inheritable(writer)
        os.write(writer, b"read")
        assert os.read(reader, 10) == b"read"
        os.close(writer)
        (tmp_path / "fifo").mkdir(exist_ok=True)
    os.close(reader)
    other = os.open(tmp_path, os.O_RDONLY)  # it may get the reader's number
    writer = streams.open_writer("web", Stream.STDOUT, OWN)
    assert os.path.samestat(os.fstat(writer), (tmp_path / "fifo" / "web.stdout").stat())
    for descriptor in (writer, other):
        os.close(descriptor)


def test_neither_files_nor_links_pass_for_a_fifo(tmp_path: Path) -> None:
    streams = StreamFiles(tmp_path, NOT_STORED)
    (tmp_path / "web.stdout").write_text("")
    os.mkfifo(tmp_path / "elsewhere")
    (tmp_path / "web.stderr").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(FileExistsError, match="exists and is no FIFO"):
        streams.open_reader("web", Stream.STDOUT, OWN)
    with pytest.raises(OSError, match="Too many levels of symbolic links"):
        streams.open_reader("web", Stream.STDERR, OWN)
    host = LinuxHost(HostOptions(tmp_path / "run", Isolation.BEST_EFFORT))
    (tmp_path / "run/fifo/web.stderr").mkdir(parents=True)
    before = os.listdir("/proc/self/fd")
    with pytest.raises(KernelError, match=r"cannot open .*web\.stderr"):
        host.open_streams(spec())
    assert os.listdir("/proc/self/fd") == before


def test_caught_signals_are_those_that_can_be_reset() -> None:
    status = "SigPnd:\t0000000000000000\nSigIgn:\t0000000001001000\nSigCgt:\t0000000180000502\n"
    number = {1 << (bit - 1) for bit in (2, 9, 11, 13, 25, 32, 33)}
    assert sum(number) == 0x1001000 | 0x180000502
    assert parse_caught_signals(status) == (signal.SIGINT, signal.SIGSEGV, signal.SIGPIPE, signal.SIGXFSZ)


def abilities(oom_score_adj: int, privileged: bool) -> Abilities:
    return Abilities(OWN, RlimitBounds({}, privileged, 1), oom_score_adj, 40, True, privileged)


@pytest.mark.parametrize(
    ("ours", "privileged", "wanted", "isolation", "written"),
    [
        (0, False, 0, Isolation.REQUIRED, None),
        (0, False, 300, Isolation.REQUIRED, 300),
        (0, False, -300, Isolation.REQUIRED, -300),
        (0, False, -300, Isolation.BEST_EFFORT, None),
        (0, True, -300, Isolation.BEST_EFFORT, -300),
        (200, False, 0, Isolation.REQUIRED, None),
        (200, True, 0, Isolation.REQUIRED, 0),
        (-900, False, 0, Isolation.REQUIRED, 0),
    ],
)
def test_what_is_written_to_oom_score_adj(
    ours: int, privileged: bool, wanted: int, isolation: Isolation, written: int | None
) -> None:
    assert abilities(ours, privileged).oom_score_to_write(wanted, isolation) == written


def test_counters() -> None:
    assert parse_counters("low 0\noom_kill 2\n") == {"low": 0, "oom_kill": 2}
    assert parse_populated("populated 1\nfrozen 0\n") is True
    assert parse_populated("populated 0\nfrozen 0\n") is False


def test_usage_and_oom_from_the_controllers_files(tmp_path: Path) -> None:
    (tmp_path / "web").mkdir()
    parent = os.open(tmp_path, os.O_RDONLY)
    cgroup = Cgroup(parent, "web", str(tmp_path / "web"))
    try:
        assert cgroup.usage() == Usage(pids=0)
        assert cgroup.oom_kills() is None
        (tmp_path / "web/cpu.stat").write_text("usage_usec 1500000\nuser_usec 1\n")
        (tmp_path / "web/memory.current").write_text("4096\n")
        (tmp_path / "web/pids.current").write_text("3\n")
        (tmp_path / "web/memory.events").write_text("low 0\noom 1\noom_kill 2\n")
        assert cgroup.usage() == Usage(cpu_seconds=1.5, memory_bytes=4096, pids=3)
        assert cgroup.oom_kills() == 2
    finally:
        cgroup.close()
        os.close(parent)


def test_removal_gives_up_in_time_and_says_why(tmp_path: Path) -> None:
    (tmp_path / "web").mkdir()
    (tmp_path / "web/file").write_text("")
    parent = os.open(tmp_path, os.O_RDONLY)
    cgroup = Cgroup(parent, "web", str(tmp_path / "web"))
    try:
        with pytest.raises(CgroupError, match=f"cannot remove {tmp_path}/web: Directory not empty"):
            asyncio.run(cgroup.remove())
    finally:
        cgroup.close()
        os.close(parent)


def tree_on_files(mount: Path, own: str, root: str, offered: str, inner: str = "") -> CgroupPlace:
    """A hierarchy of plain files: whatever is written is accepted."""
    for directory in (mount, *(mount / part for part in ("a", "a/b"))):
        directory.mkdir(exist_ok=True)
        (directory / "cgroup.controllers").write_text(offered)
        (directory / "cgroup.subtree_control").write_text("")
        (directory / "cgroup.procs").write_text("")
        if directory != mount:
            (directory / "cgroup.type").write_text("domain")
    return CgroupPlace(mount, mount / own, mount / root, mount / (inner or root), None)


def test_controllers_are_enabled_down_the_whole_way(tmp_path: Path) -> None:
    place = tree_on_files(tmp_path, "", "a/b", "pids cpu hugetlb")
    tree = CgroupTree.claim(CgroupPlace(place.mount, place.own, place.root, tmp_path, None))
    assert tree is not None and tree.failures == {}
    for directory in (tmp_path, tmp_path / "a", tmp_path / "a/b"):
        assert (
            directory / "cgroup.subtree_control"
        ).read_text() == "+pids"  # the last of two writes, one each
    assert tree.shown_path("web") == "/a/b/web"
    tree.close()
    assert (tmp_path / "a/b").exists()  # it was there before


def test_the_supervisor_steps_into_a_leaf_of_a_delegated_root(tmp_path: Path) -> None:
    place = tree_on_files(tmp_path, "a/b", "a/b", "memory")
    (tmp_path / "a/b/_supervisor").mkdir()
    tree = CgroupTree.claim(place)
    assert tree is not None
    assert (tmp_path / "a/b/_supervisor/cgroup.procs").read_text() == str(os.getpid())
    assert (tmp_path / "a/b/cgroup.subtree_control").read_text() == "+memory"
    assert (tmp_path / "a/cgroup.subtree_control").read_text() == ""  # not ours to change
    tree.close()


def test_the_supervisor_stays_where_it_sits_in_a_leaf_already(tmp_path: Path) -> None:
    place = tree_on_files(tmp_path, "a/b/leaf", "a/b", "memory")
    tree = CgroupTree.claim(place)
    assert tree is not None
    assert not (tmp_path / "a/b/_supervisor").exists()
    tree.close()


def test_a_controller_that_cannot_be_enabled_is_a_fact_with_the_reason(tmp_path: Path) -> None:
    place = tree_on_files(tmp_path, "", "a/b", "pids")
    (tmp_path / "a/b/cgroup.subtree_control").unlink()
    (tmp_path / "a/b/cgroup.subtree_control").mkdir()
    tree = CgroupTree.claim(place)
    assert tree is not None
    assert tree.failures == {"pids": f"cannot enable it in {tmp_path}/a/b: Is a directory"}
    tree.close()


@pytest.mark.needs_kernel
@pytest.mark.every_kernel
def test_a_controller_below_processes_is_explained_by_the_pids(machine: Machine) -> None:
    """On the real kernel, with a controller that no process may sit above; above pids one may."""
    mount = Path(machine.host.facts.cgroup_mount or "")
    offered = (mount / "cgroup.controllers").read_text().split()
    usable = [name for name in ("memory", "io") if name in offered]
    if not usable:
        pytest.skip("cgroup v2 has neither the memory nor the io controller here")
    root = mount / new_root_name()
    root.mkdir()
    stranger = sleeper(root / "cgroup.procs")
    tree = CgroupTree.claim(CgroupPlace(mount, mount, root, mount, None))
    try:
        assert tree is not None
        assert str(stranger.pid) in tree.failures[usable[0]]
    finally:
        if tree is not None:
            tree.close()
        stop(stranger)
        root.rmdir()


def test_signals_of_the_c_library_that_were_ignored_are_given_back() -> None:
    """In a process of its own, which ignores 32 by a system call, since no tool can."""
    script = (
        "import ctypes\n"
        "from blackhole_cg.kernel.procfs import read_kernel_file\n"
        "from blackhole_cg.kernel.reserved_signals import _SYSCALL_NUMBERS, unignore_reserved_signals\n"
        "import os\n"
        "number = _SYSCALL_NUMBERS[os.uname().machine]\n"
        "ignore = (1).to_bytes(8, 'little') + bytes(56)\n"
        "assert ctypes.CDLL(None).syscall(number, 32, ignore, None, ctypes.c_size_t(8)) == 0\n"
        "def ignored():\n"
        "    lines = read_kernel_file('/proc/self/status').splitlines()\n"
        "    return int(next(l for l in lines if 'SigIgn' in l)[7:], 16) >> 31 & 1\n"
        "assert ignored()\n"
        "unignore_reserved_signals(read_kernel_file('/proc/self/status'))\n"
        "print(ignored())\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("0\n", "")
