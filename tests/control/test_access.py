"""Who may use the control socket: modes, owners, peer credentials, and what may be replaced by it."""

from __future__ import annotations

import grp
import os
import shutil
import socket
import stat
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from blackhole_cg.control.access import Access, Peer, bind_control_socket, read_peer, resolve_access
from blackhole_cg.control.client import ControlClient
from blackhole_cg.errors import ControlError
from tests.control.fake_operations import Served

STRANGER = 61234
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="becoming another user needs root")


@pytest.fixture
def open_dir() -> Iterator[Path]:
    """A runtime directory that every user may pass through, as the real one."""
    path = Path(tempfile.mkdtemp(prefix="bh-"))
    path.chmod(0o711)
    yield path
    shutil.rmtree(path)


def as_user(uid: int, gid: int, groups: list[int], ask: Callable[[], object]) -> str:
    """What `ask` gives in a process of another user: "ok", or the kind of the ControlError."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        answer = "crashed"
        try:
            os.setgroups(groups)
            os.setresgid(gid, gid, gid)
            os.setresuid(uid, uid, uid)
            ask()
            answer = "ok"
        except ControlError as error:
            answer = error.kind
        finally:
            os.write(writing, answer.encode())
            os._exit(0)
    os.close(writing)
    os.waitpid(pid, 0)
    with os.fdopen(reading) as pipe:
        return pipe.read()


def some_group() -> grp.struct_group:
    """A group that is not root's."""
    for group in grp.getgrall():
        if group.gr_gid not in {0, STRANGER, *os.getgroups()}:
            return group
    pytest.skip("this host has no group but root's")


def test_the_socket_is_for_its_owner_alone_whatever_the_umask(tmp_path: Path) -> None:
    previous = os.umask(0)
    try:
        listener = bind_control_socket(tmp_path / "control.sock", Access(os.geteuid()))
        assert os.umask(0) == 0  # it is as it was
    finally:
        os.umask(previous)
    status = (tmp_path / "control.sock").stat()
    assert stat.S_ISSOCK(status.st_mode)
    assert stat.S_IMODE(status.st_mode) == 0o600
    assert os.listdir(tmp_path) == ["control.sock"]
    assert not listener.get_inheritable()
    listener.close()


def test_the_socket_of_a_dead_supervisor_is_replaced(tmp_path: Path) -> None:
    for name in ("control.sock", "control.sock.new"):
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(str(tmp_path / name))
    with Served(tmp_path):
        assert len(ControlClient(tmp_path).services()) == 3
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("name", ["control.sock", "control.sock.new"])
def test_nothing_but_a_socket_is_replaced(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("precious")
    with pytest.raises(ControlError, match="something that is not a socket is in its place"):
        Served(tmp_path).__enter__()
    assert (tmp_path / name).read_text() == "precious"


def test_a_path_too_long_for_a_socket_is_refused_with_advice(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 120)
    deep.mkdir()
    with pytest.raises(ControlError, match=r"longer than 103 bytes .*--runtime-dir"):
        Served(deep).__enter__()


def test_a_directory_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(ControlError, match=r"cannot listen on .*/none/control.sock: No such file"):
        Served(tmp_path / "none").__enter__()


def test_an_unknown_group_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    with pytest.raises(ControlError, match="to group 'no-such-group': there is no such group"):
        Served(tmp_path, group="no-such-group").__enter__()
    assert os.listdir(tmp_path) == []


def test_access_rules() -> None:
    def peer(uid: int, gid: int = 5, *groups: int) -> Peer:
        return Peer(1, uid, gid, frozenset(groups))

    private, shared = Access(owner_uid=1000), Access(owner_uid=1000, group_gid=7)
    assert private.allows(peer(0)) and private.allows(peer(1000))
    assert not private.allows(peer(1001, 7, 7))
    assert shared.allows(peer(1001, 7)) and shared.allows(peer(1001, 5, 6, 7))
    assert not shared.allows(peer(1001, 5, 6))
    assert resolve_access(None) == Access(os.geteuid(), None)


def test_the_kernel_tells_who_the_peer_is() -> None:
    here, there = socket.socketpair(socket.AF_UNIX)
    with here, there:
        peer = read_peer(here)
    assert (peer.pid, peer.uid, peer.gid) == (os.getpid(), os.geteuid(), os.getegid())
    assert peer.groups == frozenset(os.getgroups())


@needs_root
@pytest.mark.needs_root
def test_a_stranger_is_kept_out_by_the_mode_and_by_the_credentials(open_dir: Path) -> None:
    with Served(open_dir) as served:
        ask = ControlClient(open_dir).services
        assert as_user(0, 0, [], ask) == "ok"
        assert as_user(STRANGER, STRANGER, [], ask) == "forbidden"
        served.socket_path.chmod(0o666)  # an accident
        assert as_user(STRANGER, STRANGER, [], ask) == "forbidden"
        assert as_user(STRANGER, 0, [0], ask) == "forbidden"  # root's group is not root
        assert as_user(STRANGER, STRANGER, [], lambda: ControlClient(open_dir).change("stop", "*")) == (
            "forbidden"
        )
        assert served.operations.calls == []


@needs_root
@pytest.mark.needs_root
def test_a_group_may_use_the_socket_by_primary_or_supplementary_membership(open_dir: Path) -> None:
    group = some_group()
    with Served(open_dir, group=group.gr_name) as served:
        status = served.socket_path.stat()
        assert (stat.S_IMODE(status.st_mode), status.st_gid) == (0o660, group.gr_gid)
        ask = ControlClient(open_dir).services
        assert as_user(STRANGER, group.gr_gid, [], ask) == "ok"
        assert as_user(STRANGER, STRANGER, [group.gr_gid], ask) == "ok"
        assert as_user(STRANGER, STRANGER, [STRANGER], ask) == "forbidden"
        served.socket_path.chmod(0o666)
        assert as_user(STRANGER, STRANGER, [STRANGER], ask) == "forbidden"


@needs_root
@pytest.mark.needs_root
def test_more_groups_than_the_kernel_can_tell_us_are_looked_up(open_dir: Path) -> None:
    group = some_group()
    many = list(range(100_000, 100_400))
    with Served(open_dir, group=group.gr_name) as served:
        served.socket_path.chmod(0o666)
        ask = ControlClient(open_dir).services
        assert as_user(STRANGER, group.gr_gid, many, ask) == "ok"
        assert as_user(STRANGER, STRANGER, [*many, group.gr_gid], ask) == "forbidden"  # not in the database
