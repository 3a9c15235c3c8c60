"""Binding a socket where the configuration wants it, and telling whether one is there already."""

from __future__ import annotations

import contextlib
import errno
import grp
import os
import pwd
import socket
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from blackhole_cg.core.socket_spec import SocketKind, SocketSpec, split_address
from blackhole_cg.errors import SpawnError
from blackhole_cg.kernel.identity import Identity

DIRECTORY_MODE: Final = 0o755


def bind_socket(service: str, spec: SocketSpec, identity: Identity) -> socket.socket:
    """A new socket that listens where `spec` says; blocking, as whoever inherits one expects.

    Nobody can connect before the file of a unix socket has its owner and its mode. A file of that name that
    nothing listens on any more is replaced.

    Raises:
        SpawnError: it cannot be bound; nothing is left behind.
    """
    with _told(service, spec), contextlib.ExitStack() as undo:
        bound = undo.enter_context(socket.socket(_family(spec), _type(spec)))
        if spec.kind is SocketKind.UNIX:
            path = Path(spec.address)
            _make_way(path)
            bound.bind(spec.address)
            undo.callback(path.unlink)
            _set_access(spec, identity)
        else:
            if spec.kind is SocketKind.TCP:  # connections of before that linger are no obstacle
                bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if bound.family == socket.AF_INET6:
                bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(spec.ipv6only))
            bound.bind(split_address(spec.address))
        if spec.kind is not SocketKind.UDP:
            bound.listen(spec.backlog)
        undo.pop_all()
        return bound


def is_the_same(held: socket.socket, spec: SocketSpec) -> bool:
    """Whether a socket is bound where `spec` says, and can still be reached there."""
    with contextlib.suppress(OSError, ValueError):
        if (held.family, held.type) != (_family(spec), _type(spec)):
            return False
        if spec.kind is not SocketKind.UDP and not held.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            return False
        if spec.kind is SocketKind.UNIX:
            return held.getsockname() == spec.address and Path(spec.address).is_socket()
        if held.family == socket.AF_INET6:
            only = held.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)
            if bool(only) != spec.ipv6only:
                return False
        host, port = held.getsockname()[:2]
        wanted_host, wanted_port = split_address(spec.address)
        packed = (socket.inet_pton(held.family, each) for each in (host, wanted_host))
        return port == wanted_port and len(set(packed)) == 1
    return False


def refresh(service: str, held: socket.socket, spec: SocketSpec, identity: Identity) -> None:
    """Give a socket that is held what may have changed around it, and each run the same to begin with.

    Raises:
        SpawnError: its file cannot have this owner or mode.
    """
    with _told(service, spec):
        held.setblocking(True)  # a property of the socket itself, so a run may have changed it
        if spec.kind is not SocketKind.UDP:
            held.listen(spec.backlog)
        if spec.kind is SocketKind.UNIX:
            _set_access(spec, identity)


def remove_file(bound: socket.socket) -> None:
    """Remove the file of a unix socket; nothing happens for any other, or where it is gone."""
    if bound.family != socket.AF_UNIX:
        return
    with contextlib.suppress(OSError):
        path = Path(bound.getsockname())
        if stat.S_ISSOCK(path.lstat().st_mode):
            path.unlink()


def _family(spec: SocketSpec) -> socket.AddressFamily:
    if spec.kind is SocketKind.UNIX:
        return socket.AF_UNIX
    return socket.AF_INET6 if spec.address.startswith("[") else socket.AF_INET


def _type(spec: SocketSpec) -> socket.SocketKind:
    return socket.SOCK_DGRAM if spec.kind is SocketKind.UDP else socket.SOCK_STREAM


@contextlib.contextmanager
def _told(service: str, spec: SocketSpec) -> Iterator[None]:
    try:
        yield
    except OSError as cause:
        step = f"listen on {spec.shown} (socket {spec.name})"
        raise SpawnError(service, step, detail=cause.strerror or str(cause)) from cause


def _make_way(path: Path) -> None:
    """Make the directory, and remove what an earlier supervisor left. Raises OSError when it is in use."""
    path.parent.mkdir(mode=DIRECTORY_MODE, parents=True, exist_ok=True)
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise FileExistsError(errno.EEXIST, "something else has this name")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as caller:
        code = caller.connect_ex(os.fspath(path))
    if code != errno.ECONNREFUSED:  # connected, or too many wait there, or it is of another type
        raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))
    path.unlink()


def _set_access(spec: SocketSpec, identity: Identity) -> None:
    """Owner and mode of the file. Raises OSError, also where there is no such account.

    By a descriptor, and of nothing but a socket: whoever may write to the directory could put a link to
    another file into its place meanwhile.
    """
    uid, gid = identity.uid, identity.gid
    if spec.owner is not None:
        entry = _user(spec.owner)
        uid, gid = (int(spec.owner), gid) if entry is None else (entry.pw_uid, entry.pw_gid)
    if spec.group is not None:
        gid = _group(spec.group)
    file = os.open(spec.address, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        found = os.fstat(file)
        if not stat.S_ISSOCK(found.st_mode):
            raise OSError(0, "it has been replaced by something else")
        this = Path(f"/proc/self/fd/{file}")
        if (found.st_uid, found.st_gid) != (uid, gid):
            os.chown(this, uid, gid)
        if stat.S_IMODE(found.st_mode) != spec.mode:
            this.chmod(spec.mode)
    finally:
        os.close(file)


def _user(name: str) -> pwd.struct_passwd | None:
    """None for a number without an account."""
    try:
        return pwd.getpwuid(int(name)) if name.isdecimal() else pwd.getpwnam(name)
    except KeyError:
        if name.isdecimal():
            return None
        raise OSError(0, f"there is no user {name!r}") from None


def _group(name: str) -> int:
    try:
        return int(name) if name.isdecimal() else grp.getgrnam(name).gr_gid
    except KeyError:
        raise OSError(0, f"there is no group {name!r}") from None
