"""Main processes: each held by a pidfd, reaped once, its exit status delivered to whoever holds it.

Also reaps the orphans that a child subreaper inherits, without stealing a main process's status.
"""

from __future__ import annotations

import asyncio
import os
import signal

from blackhole_cg.core.facts import ExitStatus
from blackhole_cg.kernel.exit_status import ForeignExits


class MainProcess:
    """A child of ours from fork to reaping; or one that is not, whose exit status others must tell us."""

    def __init__(self, pid: int, pidfd: int, children: Children) -> None:
        self.pid = pid
        self.status: ExitStatus | None = None
        self._pidfd = pidfd
        self._children = children
        self._ended = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(pidfd, self._on_exit)
        children.known[pid] = self

    @classmethod
    def taken_over(cls, pid: int, pidfd: int, children: Children) -> MainProcess:
        """One that we did not fork, or not in this life: it may be our child nevertheless."""
        if not is_child(pidfd):
            children.foreign.expect(pid, pidfd)
        return cls(pid, pidfd, children)

    async def exited(self) -> ExitStatus:
        """Wait for the end. May be awaited by many, cancelled, and awaited again."""
        await self._ended.wait()
        assert self.status is not None
        return self.status

    def signal(self, number: int) -> None:
        """Send a signal through the pidfd, so that it cannot reach another process of the same number."""
        if self.status is not None:
            return
        try:
            signal.pidfd_send_signal(self._pidfd, number)
        except ProcessLookupError:
            return  # it has ended and is about to be reaped

    def beside(self, pid: int, pidfd: int) -> MainProcess:
        """Another process, held in the same way."""
        return MainProcess.taken_over(pid, pidfd, self._children)

    def deliver(self, status: ExitStatus) -> None:
        """Take the exit status, by whichever way it was learnt; the first one counts."""
        if self.status is not None:
            return
        self.status = status
        self.release()
        self._ended.set()

    def release(self) -> None:
        """Let go of the process, whatever it does from now on."""
        if self._pidfd >= 0:
            self._children.known.pop(self.pid, None)
            self._children.foreign.forget(self.pid)
            self._loop.remove_reader(self._pidfd)
            os.close(self._pidfd)
            self._pidfd = -1

    def _on_exit(self) -> None:
        if self.status is not None:
            return  # reaped by a sweep in this same turn of the loop
        try:
            result = os.waitid(os.P_PIDFD, self._pidfd, os.WEXITED | os.WNOHANG)
        except ChildProcessError:
            self._loop.remove_reader(self._pidfd)  # it stays readable
            self._children.foreign.ended(self.pid, self._pidfd, self.deliver)
            return
        if result is not None:
            self.deliver(_exit_status(result))


class Children:
    """The children of this process: the main processes, and the strangers that fell to us.

    `foreign` tells how main processes ended that are not our children.
    """

    def __init__(self, foreign: ForeignExits | None = None) -> None:
        self.known: dict[int, MainProcess] = {}
        self.foreign = foreign or ForeignExits()
        self.strangers_total = 0

    def reap_strangers(self) -> int:
        """Reap every child that has ended; a main process gets its status delivered, the rest are counted.

        Returns how many strangers were reaped now. Call it on SIGCHLD, in a child subreaper or as PID 1.
        """
        reaped = 0
        while True:
            try:
                result = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG)
            except ChildProcessError:
                break
            if result is None:
                break
            process = self.known.get(result.si_pid)
            if process is not None:
                process.deliver(_exit_status(result))
            else:
                reaped += 1
        self.strangers_total += reaped
        return reaped


def is_child(pidfd: int) -> bool:
    """Whether a process is our child, be it alive or ended."""
    try:
        os.waitid(os.P_PIDFD, pidfd, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True


def _exit_status(result: os.waitid_result) -> ExitStatus:
    if result.si_code == os.CLD_EXITED:
        return ExitStatus(code=result.si_status)
    return ExitStatus(signal=result.si_status)
