"""The kernel's announcements of ended processes, by the process connector: for kernels before 6.15.

It announces every process of the host, so a filter in the kernel lets through only those that are watched:
a busy host neither wakes us nor fills the socket. Owns the socket and its subscription.
"""

from __future__ import annotations

import asyncio
import errno
import os
import select
import socket
import struct
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import Any, Final

from blackhole_cg.core.facts import ExitStatus
from blackhole_cg.errors import KernelError

NETLINK_CONNECTOR: Final = 11  # Source: linux/netlink.h
BUFFER_BYTES: Final = 4 << 20
MESSAGE_BYTES: Final = 4096
PATIENCE_SECONDS: Final = 2.0
"""An end is announced just after it can be seen in the pidfd; on a very busy host that takes a while."""

_SO_ATTACH_FILTER: Final = 26  # Source: asm-generic/socket.h
_SO_RCVBUFFORCE: Final = 33
_WHAT_OFFSET: Final = 36  # in a message, of proc_event.what. Source: linux/cn_proc.h, linux/connector.h
_PROCESS_OFFSET: Final = 56  # of exit_proc_event.process_tgid

# Classic BPF. Source: kernel Documentation/networking/filter.rst
_LOAD: Final = 0x20  # a word of the message, at a fixed place
_JUMP_IF_EQUAL: Final = 0x15
_JUMP: Final = 0x05
_RETURN: Final = 0x06
_ALL: Final = 0xFFFFFFFF
_REACH: Final = 200  # a conditional jump goes at most 255 instructions on
MAX_FILTERED: Final = 2000

Deliver = Callable[[ExitStatus], None]
Instruction = tuple[int, int, int, int]


class ExitListener:
    """Remembers how watched processes ended until somebody asks. Use `open`."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._loop = asyncio.get_running_loop()
        self._watched: dict[int, int] = {}  # pid -> pidfd
        self._told: dict[int, ExitStatus] = {}
        self._asking: dict[int, tuple[Deliver, asyncio.TimerHandle]] = {}
        self._narrowing: asyncio.Handle | None = None
        self._is_narrow = False

    @classmethod
    def open(cls) -> ExitListener:
        """Subscribe; needs CAP_NET_ADMIN in the initial namespaces.

        Raises:
            KernelError: the kernel has no connector, or does not let us listen.
        """
        try:
            connection = socket.socket(
                socket.AF_NETLINK, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC, NETLINK_CONNECTOR
            )
        except OSError as cause:
            raise _error(cause.errno) from cause
        try:
            _subscribe(connection)
        except OSError as cause:
            connection.close()
            raise _error(cause.errno) from cause
        listener = cls(connection)
        listener._loop.add_reader(connection.fileno(), listener._read)
        return listener

    @property
    def idle(self) -> bool:
        """Whether nobody is watched."""
        return not self._watched

    def watch(self, pid: int, pidfd: int) -> None:
        """Remember how this process ends, should it end from now on."""
        if self._is_narrow:
            self._filter(())
        self._watched[pid] = pidfd
        self._narrow_soon()

    def forget(self, pid: int) -> None:
        """Watch it no more."""
        if self._watched.pop(pid, None) is None:
            return
        self._told.pop(pid, None)
        if asking := self._asking.pop(pid, None):
            asking[1].cancel()
        self._narrow_soon()

    def tell(self, pid: int, deliver: Deliver) -> None:
        """Hand over how a process ended that has ended; nothing known if that was not announced."""
        self._read()
        if pid in self._told or pid not in self._watched:
            deliver(self._told.get(pid, ExitStatus()))
            return
        timer = self._loop.call_later(PATIENCE_SECONDS, self._give_up, pid)
        self._asking[pid] = deliver, timer

    def close(self) -> None:
        """Unsubscribe; who still waits for an answer gets none. A second call does nothing."""
        if self._socket.fileno() < 0:
            return
        if self._narrowing is not None:
            self._narrowing.cancel()
        self._loop.remove_reader(self._socket.fileno())
        with suppress(OSError):
            self._socket.send(_control(listen=False))
        self._socket.close()
        for pid in tuple(self._asking):
            if pid in self._asking:  # an answer may make others be forgotten
                self._give_up(pid)

    def _give_up(self, pid: int) -> None:
        deliver, timer = self._asking.pop(pid)
        timer.cancel()
        deliver(ExitStatus())

    def _read(self) -> None:
        """Take in all that is there, then tell who has asked: the last announcement counts."""
        while self._socket.fileno() >= 0:
            try:
                message = self._socket.recv(MESSAGE_BYTES)
            except BlockingIOError:
                break
            except OSError as cause:
                if cause.errno != errno.ENOBUFS:
                    break
                self._told.clear()  # some were lost, perhaps what would have corrected these
                continue
            self._note(message)
        for pid in self._asking.keys() & self._told.keys():
            deliver, timer = self._asking.pop(pid)
            status = self._told[pid]
            timer.cancel()
            deliver(status)

    def _note(self, message: bytes) -> None:
        event = parse_exit(message)
        if event is None:
            return
        pid, status = event
        pidfd = self._watched.get(pid)
        # Each thread is announced. Only with the last one has the process ended, and its status is the one.
        if pidfd is not None and _has_ended(pidfd):
            self._told[pid] = status

    def _narrow_soon(self) -> None:
        if self._narrowing is None:
            self._narrowing = self._loop.call_soon(self._narrow)

    def _narrow(self) -> None:
        self._narrowing = None
        self._filter(self._watched if 0 < len(self._watched) <= MAX_FILTERED else ())

    def _filter(self, pids: Iterable[int]) -> None:
        """Let through only the ends of these processes, of all processes if there are none."""
        pids = tuple(pids)
        with suppress(OSError):  # no memory for so long a one: what is there lets through no less
            _attach(self._socket, exit_filter(pids))
            self._is_narrow = bool(pids)


def parse_exit(message: bytes) -> tuple[int, ExitStatus] | None:
    """The process and the exit status of which a message tells; None when it is about something else."""
    from pyroute2.netlink.connector.cn_proc import PROC_EVENT_EXIT, proc_event_exit

    if len(message) < _PROCESS_OFFSET + 8 or _number_at(message, _WHAT_OFFSET) != PROC_EVENT_EXIT:
        return None
    event: Any = proc_event_exit(message)
    event.decode()
    code = os.waitstatus_to_exitcode(event["exit_code"])
    return event["process_tgid"], ExitStatus(code=code) if code >= 0 else ExitStatus(signal=-code)


def exit_filter(pids: Sequence[int]) -> list[Instruction]:
    """A filter for exit events, those of some processes or, without pids, of all; answers pass too."""
    from pyroute2.netlink.connector.cn_proc import PROC_EVENT_EXIT, PROC_EVENT_NONE

    accept: Instruction = (_RETURN, 0, 0, _ALL)
    refuse: Instruction = (_RETURN, 0, 0, 0)
    program: list[Instruction] = [
        (_LOAD, 0, 0, _WHAT_OFFSET),
        (_JUMP_IF_EQUAL, 2, 0, _as_loaded(PROC_EVENT_NONE)),
        (_JUMP_IF_EQUAL, 2 if pids else 1, 0, _as_loaded(PROC_EVENT_EXIT)),
        refuse,
        accept,
    ]
    if not pids:
        return program
    program.append((_LOAD, 0, 0, _PROCESS_OFFSET))
    for begin in range(0, len(pids), _REACH):
        block = pids[begin : begin + _REACH]
        for place, pid in enumerate(block):
            program.append((_JUMP_IF_EQUAL, len(block) - place, 0, _as_loaded(pid)))
        program += [(_JUMP, 0, 0, 1), accept]
    return [*program, refuse]


def _subscribe(connection: socket.socket) -> None:
    """Source: drivers/connector/cn_proc.c: who may not listen gets no answer, all others at once."""
    connection.setblocking(False)
    for option in (_SO_RCVBUFFORCE, socket.SO_RCVBUF):
        with suppress(OSError):
            connection.setsockopt(socket.SOL_SOCKET, option, BUFFER_BYTES)
            break
    _attach(connection, exit_filter(()))
    connection.bind((0, 1))  # the group CN_IDX_PROC
    connection.send(_control(listen=True))
    try:
        connection.recv(MESSAGE_BYTES)
    except BlockingIOError as cause:
        raise PermissionError(errno.EPERM, "not in the initial namespaces") from cause


def _control(*, listen: bool) -> bytes:
    from pyroute2.netlink import NLMSG_DONE
    from pyroute2.netlink.connector import cn_proc

    message: Any = cn_proc.proc_event_control()
    message["idx"], message["val"], message["len"] = cn_proc.CN_IDX_PROC, cn_proc.CN_VAL_PROC, 4
    message["action"] = cn_proc.PROC_CN_MCAST_LISTEN if listen else cn_proc.PROC_CN_MCAST_IGNORE
    message["header"]["type"] = NLMSG_DONE
    message.encode()
    return bytes(message.data)


def _attach(connection: socket.socket, program: Sequence[Instruction]) -> None:
    """Raises OSError: ENOMEM past net.core.optmem_max. Source: socket(7), SO_ATTACH_FILTER."""
    from ctypes import addressof, create_string_buffer

    code = b"".join(struct.pack("HBBI", *instruction) for instruction in program)
    buffer = create_string_buffer(code, len(code))
    connection.setsockopt(
        socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("HP", len(program), addressof(buffer))
    )


def _as_loaded(number: int) -> int:
    """A number of the host's byte order as BPF reads it: as one of the network's."""
    return socket.htonl(number)


def _number_at(message: bytes, offset: int) -> int:
    return int(struct.unpack_from("I", message, offset)[0])


def _has_ended(pidfd: int) -> bool:
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(0))


def _error(code: int | None) -> KernelError:
    return KernelError("listen to", "the kernel's process connector", code or errno.EIO)
