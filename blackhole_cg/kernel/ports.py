"""Who has a TCP port: tried by binding it, and looked up by asking the kernel for its sockets.

Touches no socket but its own, and never listens: nobody can mistake the attempt for a service.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from blackhole_cg.core.ports import PortHolder
from blackhole_cg.kernel.procfs import read_kernel_file

PROC: Final = Path("/proc")

_SOCK_DIAG_BY_FAMILY: Final = 20
_DONE, _ERROR = 3, 2  # types of netlink messages
_DUMP: Final = 0x1 | 0x100 | 0x200  # NLM_F_REQUEST, NLM_F_ROOT, NLM_F_MATCH
_LISTEN: Final = 10
_ALL_STATES: Final = (1 << 14) - 1  # with TCP_BOUND_INACTIVE, from Linux 6.8 on
_ANSWER_BYTES: Final = 1 << 16
_ANSWER_SECONDS: Final = 2.0

_NO_SUCH_FAMILY: Final = frozenset({errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL, errno.EPROTONOSUPPORT})


@dataclass(frozen=True, slots=True)
class TcpSocket:
    """A TCP socket that has a port. `inode` 0: no process holds it, the kernel is still closing it."""

    inode: int
    uid: int
    is_listening: bool


def find_port_holder(port: int, *, identify: bool = True, proc: Path = PROC) -> PortHolder | None:
    """Who has a TCP port on any address of this host; None where a service could bind it.

    That is tried with SO_REUSEADDR, so what is left of connections counts only where it was left by a program
    that did not set it: then nobody can bind the port until the kernel has closed them.
    To identify it takes milliseconds, in which every descriptor of every process is looked at; to find only
    that there is somebody takes microseconds.

    Source: socket(7), SO_REUSEADDR; sock_diag(7); inet_csk_bind_conflict of the kernel.
    """
    try:
        _bind_everywhere(port)
        return None
    except OSError as cause:
        if cause.errno != errno.EADDRINUSE:
            return PortHolder(problem=os.strerror(cause.errno or 0))
    if not identify:
        return PortHolder()
    try:
        found = list(read_sockets(port))
    except OSError:  # the kernel was built without sock_diag: it is known that there is one, not who
        return PortHolder()
    held = sorted((each for each in found if each.inode), key=lambda each: not each.is_listening)
    if found and not held:
        return PortHolder(is_closing=True)
    return _identify(held, proc)


def _bind_everywhere(port: int) -> None:
    """Raises OSError when a service that takes any address could not bind the port."""
    for family, address in ((socket.AF_INET, ""), (socket.AF_INET6, "::")):
        try:
            attempt = socket.socket(family, socket.SOCK_STREAM)
        except OSError as cause:
            if cause.errno in _NO_SUCH_FAMILY:
                continue
            raise
        with attempt:
            attempt.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                attempt.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            try:
                attempt.bind((address, port))
            except OSError as cause:
                if family == socket.AF_INET6 and cause.errno in _NO_SUCH_FAMILY:
                    continue
                raise


def read_sockets(port: int) -> Iterator[TcpSocket]:
    """Every TCP socket with this local port, in whatever state. Raises OSError."""
    # Eleven MB that only a conflict needs; and its own socket runs an event loop, which ours forbids.
    from pyroute2.netlink.diag import inet_diag_msg, inet_diag_req

    for family in (socket.AF_INET, socket.AF_INET6):
        request = inet_diag_req()
        request["sdiag_family"] = family
        request["sdiag_protocol"] = socket.IPPROTO_TCP
        request["idiag_states"] = _ALL_STATES
        request["idiag_sport"] = port
        request["header"] |= {"type": _SOCK_DIAG_BY_FAMILY, "flags": _DUMP, "sequence_number": 1}
        request.encode()
        for text in _ask(bytes(request.data)):
            answer = inet_diag_msg(text)
            answer.decode()
            if answer["idiag_sport"] == port:
                is_listening = answer["idiag_state"] == _LISTEN
                yield TcpSocket(answer["idiag_inode"], answer["idiag_uid"], is_listening)


def _ask(request: bytes) -> Iterator[bytes]:
    """The messages that answer a request for many. Source: netlink(7), NLM_F_DUMP."""
    netlink_sock_diag = 4
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, netlink_sock_diag) as asked:
        asked.settimeout(_ANSWER_SECONDS)
        asked.bind((0, 0))
        asked.send(request)
        while True:
            answer = asked.recv(_ANSWER_BYTES)
            while answer:
                length, kind = int.from_bytes(answer[:4], "little"), int.from_bytes(answer[4:6], "little")
                if kind == _DONE:
                    return
                if kind == _ERROR or length < 16:
                    number = int.from_bytes(answer[16:20], "little", signed=True)
                    raise OSError(-number or errno.EPROTO, "sock_diag")
                yield answer[:length]
                answer = answer[(length + 3) & ~3 :]


def _identify(held: Iterable[TcpSocket], proc: Path) -> PortHolder:
    """The process that holds the first of these sockets that any is seen to hold."""
    uid: int | None = None
    names: dict[str, TcpSocket] = {}
    for each in held:
        uid = each.uid if uid is None else uid
        names.setdefault(f"socket:[{each.inode}]", each)
    pids = _holders(set(names), proc)
    for name, each in names.items():
        if name in pids:
            return PortHolder(pids[name], _command(proc, pids[name]), each.uid)
    return PortHolder(uid=uid)


def _holders(names: set[str], proc: Path) -> dict[str, int]:
    """The process of each of these sockets, ourselves if we have it too, or else the oldest number."""
    found: dict[str, int] = {}
    numbers = sorted(int(entry.name) for entry in proc.iterdir() if entry.name.isdigit()) if names else []
    for pid in (os.getpid(), *numbers):
        for name in _descriptors(proc / str(pid) / "fd"):
            if name in names:
                found.setdefault(name, pid)
        if len(found) == len(names):
            break
    return found


def _descriptors(directory: Path) -> Iterator[str]:
    """What the descriptors of a process lead to; nothing of one that has gone, or may not be looked at."""
    with suppress(OSError):
        for entry in directory.iterdir():
            with suppress(OSError):
                yield str(entry.readlink())


def _command(proc: Path, pid: int) -> str | None:
    """Its name alone: the arguments of somebody else's process may hold secrets."""
    try:
        return read_kernel_file(str(proc / str(pid) / "comm")).rstrip("\n")
    except OSError:
        return None
