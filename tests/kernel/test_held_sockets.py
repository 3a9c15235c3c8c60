from __future__ import annotations

import os
import pwd
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from blackhole_cg.core.socket_spec import SocketKind, SocketSpec, parse_stored_name, stored_name
from blackhole_cg.errors import SpawnError
from blackhole_cg.kernel.bind import refresh
from blackhole_cg.kernel.held_sockets import HeldSockets
from blackhole_cg.kernel.identity import Identity
from blackhole_cg.kernel.inherited import Inheritance
from tests.support.builders import service
from tests.support.ports import free_port
from tests.support.sockets import is_refused

ME = Identity.of_this_process()


class Stored:
    """A store that says what it was told."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def keep(self, name: str, descriptor: int) -> None:
        assert os.fstat(descriptor)
        self.names.append(name)

    def keep_no_more(self, name: str) -> None:
        self.names.remove(name)


@pytest.fixture
def stored():
    return Stored()


@pytest.fixture
def held(stored):
    it = HeldSockets(stored)
    yield it
    it.close()


def tcp(port: int, name: str = "http", host: str = "127.0.0.1", **keys) -> SocketSpec:
    return SocketSpec(name, SocketKind.TCP, f"{host}:{port}", **keys)


def unix(path: Path, name: str = "api", **keys) -> SocketSpec:
    return SocketSpec(name, SocketKind.UNIX, str(path), **keys)


def web(*sockets: SocketSpec):
    return replace(service("web"), sockets=sockets)


def test_what_is_held_stays_the_same_from_run_to_run_until_it_is_released(held, stored, tmp_path):
    port, path = free_port(), tmp_path / "new/api.sock"
    spec = web(tcp(port), unix(path), SocketSpec("dns", SocketKind.UDP, f"127.0.0.1:{port}"))
    first = held.prepare(spec, ME)
    assert list(first) == ["http", "api", "dns"]
    first["http"].setblocking(False)  # as a service may do
    second = held.prepare(spec, ME)
    assert all(second[name] is first[name] for name in first)
    assert os.get_blocking(second["http"].fileno())
    assert not any(os.get_inheritable(each.fileno()) for each in second.values())
    assert not is_refused(port)
    assert stored.names == ["svc/web/http", "svc/web/api", "svc/web/dns"]
    assert (held.services(), held.names("web")) == (["web"], {"http", "api", "dns"})
    assert (held.ports("web"), held.ports("other")) == ({port}, frozenset())
    held.release("web")
    assert is_refused(port)
    assert not path.exists()
    assert (stored.names, held.services(), held.names("web")) == ([], [], frozenset())
    held.release("web")


@pytest.mark.parametrize(
    "other",
    [
        lambda port: tcp(free_port()),
        lambda port: tcp(port, host="0.0.0.0"),
        lambda port: tcp(port, host="[::]"),
        lambda port: SocketSpec("http", SocketKind.UDP, f"127.0.0.1:{port}"),
    ],
    ids=["port", "every address", "every address, IPv6 too", "kind"],
)
def test_another_address_is_another_socket(held, stored, other):
    port = free_port()
    before = held.prepare(web(tcp(port)), ME)["http"]
    after = held.prepare(web(other(port)), ME)["http"]
    assert before.fileno() == -1, "closed"
    assert after.fileno() >= 0
    assert stored.names == ["svc/web/http"]


def test_an_address_in_another_spelling_is_the_same(held):
    port = free_port()
    spec = tcp(port, host="[::ffff:7f00:1]")  # which the kernel writes as ::ffff:127.0.0.1
    before = held.prepare(web(spec), ME)["http"]
    assert held.prepare(web(replace(spec, backlog=7)), ME)["http"] is before


def test_ipv6only_leaves_the_port_to_ipv4(held):
    port = free_port()
    held.prepare(web(tcp(port, "six", "[::]", ipv6only=True), tcp(port, "four", "0.0.0.0")), ME)
    with pytest.raises(SpawnError, match=r"listen on tcp \[::\]:\d+ \(socket six\): Address already in use"):
        held.prepare(web(tcp(port, "four", "0.0.0.0"), tcp(port, "six", "[::]")), ME)


def test_when_one_cannot_be_bound_the_others_are_not_either_and_what_was_held_stays(held, stored, tmp_path):
    kept, fresh, path = free_port(), free_port(), tmp_path / "api.sock"
    before = held.prepare(web(tcp(kept)), ME)["http"]
    with socket.create_server(("127.0.0.1", 0)) as taken:
        busy = tcp(taken.getsockname()[1], "busy")
        with pytest.raises(SpawnError) as error:
            held.prepare(web(tcp(kept), tcp(fresh, "fresh"), unix(path), busy), ME)
    assert str(error.value) == (
        f"cannot start 'web': listen on {busy.shown} (socket busy): Address already in use"
    )
    assert is_refused(fresh)
    assert not path.exists()
    assert held.names("web") == {"http"}
    assert held.prepare(web(tcp(kept)), ME)["http"] is before
    assert stored.names == ["svc/web/http"]


def test_a_socket_file_that_nobody_listens_on_is_replaced(held, tmp_path):
    path = tmp_path / "api.sock"
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    held.prepare(web(unix(path, mode=0o600)), ME)
    assert path.stat().st_mode & 0o777 == 0o600
    with socket.socket(socket.AF_UNIX) as caller:
        caller.connect(str(path))


def test_a_socket_file_that_was_deleted_is_made_again(held, tmp_path):
    path = tmp_path / "api.sock"
    held.prepare(web(unix(path)), ME)
    path.unlink()
    held.prepare(web(unix(path)), ME)
    with socket.socket(socket.AF_UNIX) as caller:
        caller.connect(str(path))


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM], ids=["stream", "datagram"])
def test_a_socket_file_that_somebody_listens_on_is_theirs(held, tmp_path, kind):
    path = tmp_path / "api.sock"
    with socket.socket(socket.AF_UNIX, kind) as theirs:
        theirs.bind(str(path))
        if kind is socket.SOCK_STREAM:
            theirs.listen(1)
        with pytest.raises(SpawnError, match=r"\(socket api\): Address already in use"):
            held.prepare(web(unix(path)), ME)
    assert path.is_socket()


def test_a_file_of_another_kind_is_left_alone(held, tmp_path):
    path = tmp_path / "api.sock"
    path.write_text("precious")
    with pytest.raises(SpawnError, match="something else has this name"):
        held.prepare(web(unix(path)), ME)
    assert path.read_text() == "precious"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_owner_and_group_of_a_unix_socket(held, tmp_path):
    path, nobody = tmp_path / "api.sock", pwd.getpwnam("nobody")
    identity = Identity(nobody.pw_uid, nobody.pw_gid, ())

    def owners(**keys) -> tuple[int, int]:
        held.prepare(web(unix(path, **keys)), identity)
        found = path.stat()
        return found.st_uid, found.st_gid

    assert owners() == (nobody.pw_uid, nobody.pw_gid)
    assert owners(owner="root") == (0, 0)
    assert owners(owner="root", group=str(nobody.pw_gid)) == (0, nobody.pw_gid)
    assert owners(owner="4294") == (4294, nobody.pw_gid)
    with pytest.raises(SpawnError, match="there is no user 'nobody-at-all'"):
        owners(owner="nobody-at-all")


@pytest.mark.skipif(os.geteuid() != 0, reason="root alone could be misled")
def test_a_link_put_in_the_place_of_a_socket_file_gives_nothing_away(held, tmp_path):
    path, precious = tmp_path / "api.sock", tmp_path / "precious"
    precious.write_text("")
    precious.chmod(0o600)
    spec = unix(path, mode=0o666, owner="nobody")
    bound = held.prepare(web(spec), ME)["api"]
    path.unlink()
    path.symlink_to(precious)
    with pytest.raises(SpawnError, match="replaced by something else"):
        refresh("web", bound, spec, ME)
    held.release("web")
    assert path.is_symlink(), "it is not ours to remove"
    assert (precious.stat().st_uid, precious.stat().st_mode & 0o777) == (0, 0o600)


def test_what_was_inherited_is_used_where_it_fits_and_closed_where_it_does_not(held, stored, tmp_path):
    port, other = free_port(), free_port()
    ours, moved = socket.create_server(("127.0.0.1", port)), socket.create_server(("127.0.0.1", other))
    file = os.open(tmp_path, os.O_RDONLY)
    inheritance = Inheritance({
        "svc/web/http": [ours.detach()],
        "svc/web/admin": [moved.detach()],
        "svc/db/odd": [file],
        "lock": [os.dup(0)],
    })  # fmt: skip
    held.inherit(inheritance)
    assert inheritance.names == ["lock"]
    inheritance.close()
    assert (held.services(), held.names("web")) == (["web"], {"http", "admin"})
    stored.names += ["svc/web/http", "svc/web/admin"]
    sockets = held.prepare(web(tcp(port), tcp(free_port(), "admin")), ME)
    assert sockets["http"].getsockname()[1] == port
    assert is_refused(other)
    assert stored.names == ["svc/web/http", "svc/web/admin"]


def test_copies_for_a_successor_outlive_our_own(held):
    port = free_port()
    held.prepare(web(tcp(port)), ME)
    copies = held.handed_over()
    held.close()
    assert list(copies) == ["svc/web/http"]
    assert not is_refused(port)
    os.close(copies["svc/web/http"])
    assert is_refused(port)


HOLDER = """
import os, socket, sys
kept = socket.create_server(("127.0.0.1", int(sys.argv[1])))
file = socket.socket(socket.AF_UNIX)
file.bind(sys.argv[2])
file.listen()
others = [socket.socketpair() for _ in range(20)]
print("ready", flush=True)
sys.stdin.read()
"""


def test_sockets_are_taken_back_from_a_process_that_has_them(held, stored, tmp_path, caplog):
    port, path = free_port(), tmp_path / "api.sock"
    command = [sys.executable, "-S", "-c", HOLDER, str(port), str(path)]
    spec = web(tcp(port), unix(path), tcp(free_port(), "other"))
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout.readline() == b"ready\n"
        before = len(list(Path("/proc/self/fd").iterdir()))
        held.recover(spec, [2**22 - 1, holder.pid])
        assert len(list(Path("/proc/self/fd").iterdir())) == before + 2
        holder.stdin.close()
        holder.wait(30)
    assert (held.names("web"), stored.names) == ({"http", "api"}, ["svc/web/http", "svc/web/api"])
    assert not is_refused(port)
    assert "web: its socket other (tcp" in caplog.text
    sockets = held.prepare(spec, ME)
    assert sockets["http"].getsockname()[1] == port
    assert sockets["api"].getsockname() == str(path)


def test_the_names_that_sockets_are_stored_by():
    assert parse_stored_name(stored_name("web", "http.v2")) == ("web", "http.v2")
    assert [parse_stored_name(name) for name in ("lock", "svc/web", "svc/", "svc//x", "x/svc/a/b")] == [
        None
    ] * 5
