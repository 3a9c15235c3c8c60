"""Who may use the control socket, and the making of that socket.

The mode of the socket keeps strangers out; the peer's credentials are checked as well, so that a mode
changed by accident opens nothing.
"""

from __future__ import annotations

import contextlib
import errno
import grp
import os
import pwd
import socket
import stat
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from blackhole_cg.errors import ControlError

_SO_PEERGROUPS: Final = 59
_GROUPS_BUFFER_BYTES: Final = 1024  # the most that Python's getsockopt takes: 256 groups
_SOCKET_PATH_MAX_BYTES: Final = 107  # sun_path less its terminating zero. Source: unix(7)
_BACKLOG: Final = 128


class _OptionSocket(Protocol):
    def getsockopt(self, level: int, option: int, size: int, /) -> bytes: ...


@dataclass(frozen=True, slots=True)
class Peer:
    """The process at the other end, as the kernel recorded it when it connected."""

    pid: int
    uid: int
    gid: int
    groups: frozenset[int]  # supplementary


@dataclass(frozen=True, slots=True)
class Access:
    """Root, the supervisor's own user and, where set, the members of one group may use the socket."""

    owner_uid: int
    group_gid: int | None = None

    def allows(self, peer: Peer) -> bool:
        """Whether this peer may use the control API."""
        if peer.uid in {0, self.owner_uid}:
            return True
        return self.group_gid is not None and self.group_gid in peer.groups | {peer.gid}


def resolve_access(group: str | None) -> Access:
    """The access rules for this process and a group's name. Raises ControlError for an unknown group."""
    if group is None:
        return Access(os.geteuid())
    try:
        return Access(os.geteuid(), grp.getgrnam(group).gr_gid)
    except KeyError:
        raise ControlError(
            "unknown_group", f"cannot open the control socket to group '{group}': there is no such group"
        ) from None


def read_peer(connection: _OptionSocket) -> Peer:
    """Who is at the other end of a connected unix socket.

    Source: unix(7), SO_PEERCRED; SO_PEERGROUPS since kernel 4.13.
    """
    size = struct.calcsize("3i")
    pid, uid, gid = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size))
    return Peer(pid, uid, gid, _read_groups(connection, uid, gid))


def _read_groups(connection: _OptionSocket, uid: int, gid: int) -> frozenset[int]:
    try:
        packed = connection.getsockopt(socket.SOL_SOCKET, _SO_PEERGROUPS, _GROUPS_BUFFER_BYTES)
    except OSError as cause:
        if cause.errno not in {errno.ERANGE, errno.ENOPROTOOPT}:
            raise
        # More than 256 groups, or an old kernel: what the user database says is the next best answer.
        with contextlib.suppress(KeyError):
            return frozenset(os.getgrouplist(pwd.getpwuid(uid).pw_name, gid))
        return frozenset()
    return frozenset(struct.unpack(f"{len(packed) // 4}I", packed))


def bind_control_socket(path: Path, access: Access) -> socket.socket:
    """Listen on `path`, replacing the socket of a supervisor that is gone; the caller holds the lock.

    The socket is made under a name nobody asks for and renamed once its owner and mode are right: there is no
    moment in which it is open to more than it should be, or missing while an old one is replaced.

    Raises:
        ControlError: the path is too long, taken by something else, or not writable.
    """
    if len(os.fsencode(path)) + 4 > _SOCKET_PATH_MAX_BYTES:
        raise _cannot_listen(
            path, f"the path is longer than {_SOCKET_PATH_MAX_BYTES - 4} bytes (use a shorter --runtime-dir)"
        )
    fresh = _first_name(path)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        _remove_stale(fresh)
        _check_replaceable(path)
        _bind_private(listener, fresh)
        if access.group_gid is not None:
            os.chown(fresh, -1, access.group_gid)
            fresh.chmod(0o660)
        listener.listen(_BACKLOG)
        fresh.rename(path)
    except OSError as cause:
        listener.close()
        raise _cannot_listen(path, cause.strerror or str(cause)) from cause
    except BaseException:
        listener.close()
        raise
    return listener


def resume_control_socket(descriptor: int, path: Path, access: Access) -> socket.socket | None:
    """The socket of an earlier program, with whoever waits in it; None where it is not the one at `path`.

    Raises:
        ControlError: its owner or mode cannot be set.
    """
    listener = socket.socket(fileno=descriptor)
    try:
        # It keeps the name it was bound to, whatever it was renamed to.
        if listener.getsockname() != os.fspath(_first_name(path)) or not stat.S_ISSOCK(path.lstat().st_mode):
            listener.close()
            return None
        listener.setblocking(False)
        os.chown(path, -1, os.getegid() if access.group_gid is None else access.group_gid)
        path.chmod(0o600 if access.group_gid is None else 0o660)
    except FileNotFoundError:
        listener.close()
        return None
    except OSError as cause:
        listener.close()
        raise _cannot_listen(path, cause.strerror or str(cause)) from cause
    return listener


def identify_socket(path: Path) -> tuple[int, int] | None:
    """Which file has this name, by device and inode; None when none has."""
    try:
        found = path.lstat()
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino


def _first_name(path: Path) -> Path:
    return path.with_name(f"{path.name}.new")


def _bind_private(listener: socket.socket, path: Path) -> None:
    """Bind so that the socket has mode 0600 from its first instant; in one thread the umask is ours alone."""
    previous = os.umask(0o177)
    try:
        listener.bind(os.fspath(path))
    finally:
        os.umask(previous)


def _remove_stale(path: Path) -> None:
    _check_replaceable(path)
    path.unlink(missing_ok=True)


def _check_replaceable(path: Path) -> None:
    """Refuse to replace anything but a socket."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise _cannot_listen(path, "something that is not a socket is in its place")


def _cannot_listen(path: Path, cause: str) -> ControlError:
    return ControlError("cannot_listen", f"cannot listen on {path}: {cause}")
