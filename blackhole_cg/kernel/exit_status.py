"""How a process has ended that is not our child, and whom `waitid` therefore tells us nothing about.

The kernel is asked through the pidfd, and the zombie if there is one still; where neither says it, the
process connector does (`exit_listener`), provided it was listened to when the process ended.
"""

from __future__ import annotations

import fcntl
import logging
import os
import re
import signal
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Final

from blackhole_cg.core.facts import ExitStatus
from blackhole_cg.errors import KernelError
from blackhole_cg.kernel.exit_listener import ExitListener
from blackhole_cg.kernel.procfs import read_kernel_file

# Source: linux/pidfd.h, struct pidfd_info: mask, cgroupid, eleven numbers, exit_code; PIDFD_INFO_EXIT (6.15).
_INFO: Final = struct.Struct("QQ11Ii")
_GET_INFO: Final = 3 << 30 | _INFO.size << 16 | 0xFF << 8 | 11
_INFO_EXIT: Final = 1 << 3
_KEEPS_EXIT_STATUS: Final = (6, 15)

_EXIT_CODE_FIELD: Final = 49  # counted from the one after the name. Source: proc_pid_stat(5), field 52

Ask = Callable[[int, int], ExitStatus | None]
Deliver = Callable[[ExitStatus], None]

log = logging.getLogger(__name__)


class ForeignExits:
    """Learns how processes end that are not our children.

    Args:
        ask: tells of an ended process, by its pid and its pidfd, how it ended; None where it cannot.
        always_answers: `ask` can tell of any process, so that nobody need listen.
    """

    def __init__(self, ask: Ask | None = None, always_answers: bool | None = None) -> None:
        self._ask = ask or ask_kernel
        self._always_answers = pidfd_keeps_exit_status() if always_answers is None else always_answers
        self._listener: ExitListener | None = None
        self._has_complained = False

    def expect(self, pid: int, pidfd: int) -> None:
        """Be told of the end of this process, if it has not ended yet. Needs a running event loop."""
        if self._always_answers:
            return
        if self._listener is None:
            try:
                self._listener = ExitListener.open()
            except KernelError as error:
                self._complain(error)
                return
        self._listener.watch(pid, pidfd)

    def forget(self, pid: int) -> None:
        """It does not matter any more how this process ends."""
        if self._listener is None:
            return
        self._listener.forget(pid)
        if self._listener.idle:
            self.close()

    def ended(self, pid: int, pidfd: int, deliver: Deliver) -> None:
        """The process has ended: hand over how, at once or soon; neither code nor signal if nobody knows.

        Call `forget` once it is delivered.
        """
        status = self._ask(pid, pidfd)
        if status is None and self._listener is not None:
            self._listener.tell(pid, deliver)
        else:
            deliver(status or ExitStatus())

    def close(self) -> None:
        """Listen no more."""
        if self._listener is not None:
            self._listener.close()
            self._listener = None

    def _complain(self, error: KernelError) -> None:
        if not self._has_complained:
            self._has_complained = True
            log.warning("how services end that were taken over will not be known: %s", error)


def ask_kernel(pid: int, pidfd: int) -> ExitStatus | None:
    """How an ended process ended: from its pidfd once it is reaped, from its zombie before that.

    It may be reaped between the two questions, hence three of them.
    """
    return _ask_pidfd(pidfd) or _ask_zombie(pid, pidfd) or _ask_pidfd(pidfd)


def pidfd_keeps_exit_status() -> bool:
    """Whether a pidfd tells how its process ended even when that has been reaped."""
    version = re.match(r"(\d+)\.(\d+)", os.uname().release)
    if version is None or (int(version[1]), int(version[2])) < _KEEPS_EXIT_STATUS:
        return False
    pidfd = os.pidfd_open(os.getpid())
    try:
        return _get_info(pidfd) is not None  # a sandbox may refuse what the kernel could do
    finally:
        os.close(pidfd)


def parse_wait_status(status: int) -> ExitStatus:
    """An exit status as wait(2) encodes it."""
    code = os.waitstatus_to_exitcode(status)
    return ExitStatus(code=code) if code >= 0 else ExitStatus(signal=-code)


def _ask_pidfd(pidfd: int) -> ExitStatus | None:
    info = _get_info(pidfd)
    if info is None or not info[0] & _INFO_EXIT:
        return None
    return parse_wait_status(info[1])


def _get_info(pidfd: int) -> tuple[int, int] | None:
    """The mask of what is known, and the exit status if that is."""
    answer = bytearray(_INFO.pack(_INFO_EXIT, *[0] * 13))
    try:
        fcntl.ioctl(pidfd, _GET_INFO, answer)
    except OSError:
        return None
    values = _INFO.unpack(answer)
    return values[0], values[-1]


def _ask_zombie(pid: int, pidfd: int) -> ExitStatus | None:
    """Of a process that its parent has not reaped yet.

    To who may not look into the process the kernel shows 0 instead, and the same permission is needed for
    its namespaces. Source: proc_pid_stat(5), proc_pid_ns(5): PTRACE_MODE_READ_FSCREDS.
    """
    try:
        fields = read_kernel_file(f"/proc/{pid}/stat").rpartition(")")[2].split()
        Path(f"/proc/{pid}/ns/user").readlink()
        signal.pidfd_send_signal(pidfd, 0)  # not reaped yet, so that the number still was this process's
    except OSError:
        return None
    if fields[0] != "Z":
        return None
    return parse_wait_status(int(fields[_EXIT_CODE_FIELD]))
