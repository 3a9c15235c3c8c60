"""The datagram socket that one run says something of itself by, and who it was that said it.

Every service has its own, so that one that floods its socket fills no other's queue. Descriptors that come
with a message are never taken in: the kernel closes them as the message is received, which is what a sender
of BARRIER=1 waits for. Source: sd_notify(3), unix(7).
"""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Final

from blackhole_cg.core.notify import MAX_MESSAGE_BYTES
from blackhole_cg.kernel.identity import Identity

DIRECTORY_MODE: Final = 0o711
SOCKET_MODE: Final = 0o600

MESSAGES_PER_TURN: Final = 16
"""Of the event loop, so that a service that never stops talking leaves time for the others."""

MESSAGES_LEFT_BEHIND: Final = 512
"""As many are read of a process that has ended; the kernel seldom queues more (net.unix.max_dgram_qlen)."""

_CREDENTIALS: Final = struct.Struct("iII")  # pid, uid, gid

Take = Callable[[bytes, int], None]
"""Takes a message and the pid of its sender."""


class NotifySocket:
    """A bound socket; messages wait in it until `listen` is called."""

    def __init__(self, path: Path, owner: Identity) -> None:
        self._path = path
        self._owner = owner
        self._sockets = [_bind(path, owner)]  # the last one has the name, those before it have lost it
        self._take: Take | None = None

    @classmethod
    def bind(cls, path: Path, owner: Identity) -> NotifySocket:
        """Make the socket, for the service's user alone, in place of an earlier run's. Raises OSError."""
        return cls(path, owner)

    def restore(self) -> None:
        """Where its name is gone, listen there again; who is connected is still heard. Raises OSError."""
        if not self._sockets or self._path.exists():
            return
        self._sockets.append(_bind(self._path, self._owner))
        if self._take is not None:
            self.listen(self._take)

    def listen(self, take: Take) -> None:
        """Hand over every message from now on. Needs a running event loop."""
        self._take = take
        for each in self._sockets:
            asyncio.get_running_loop().add_reader(each, self.read)

    def read(self, limit: int = MESSAGES_PER_TURN) -> None:
        """Hand over what waits, up to `limit` messages; the loop calls again for the rest."""
        for each in tuple(self._sockets):
            self._read_from(each, limit)

    def _read_from(self, bound: socket.socket, limit: int) -> None:
        for _ in range(limit):
            if bound not in self._sockets or self._take is None:
                return
            try:
                received = bound.recvmsg(MAX_MESSAGE_BYTES, socket.CMSG_SPACE(_CREDENTIALS.size))
            except BlockingIOError:
                return
            message, ancillary, flags, _ = received
            sender = _sender(ancillary)
            if sender and not flags & socket.MSG_TRUNC:
                self._take(message, sender)

    def close(self) -> None:
        """Take no more, and remove the socket. A second call does nothing."""
        if not self._sockets:
            return
        for each in self._sockets:
            if self._take is not None:
                asyncio.get_running_loop().remove_reader(each)
            each.close()
        self._sockets = []
        self._path.unlink(missing_ok=True)


def _bind(path: Path, owner: Identity) -> socket.socket:
    if not path.parent.is_dir():
        path.parent.mkdir(parents=True)
        path.parent.chmod(DIRECTORY_MODE)
    path.unlink(missing_ok=True)
    bound = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        bound.bind(os.fspath(path))
        path.chmod(SOCKET_MODE)
        if (owner.uid, owner.gid) != (os.geteuid(), os.getegid()):
            os.chown(path, owner.uid, owner.gid)
    except BaseException:
        bound.close()
        raise
    return bound


def _sender(ancillary: list[tuple[int, int, bytes]]) -> int:
    """The pid that the kernel vouches for; 0 where it tells none that is visible from here."""
    for level, kind, data in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_CREDENTIALS) and len(data) == _CREDENTIALS.size:
            pid: int = _CREDENTIALS.unpack(data)[0]
            return pid
    return 0
