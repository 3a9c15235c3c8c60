"""Taking sockets back from processes that have them: a copy of another process's descriptor.

Source: pidfd_getfd(2), Linux 5.6. It takes the right to trace the process, which root has.
"""

from __future__ import annotations

import ctypes
import logging
import os
import re
import socket
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from blackhole_cg.core.socket_spec import SocketSpec
from blackhole_cg.kernel.bind import is_the_same

log = logging.getLogger(__name__)

PIDFD_GETFD: Final = 438  # of every architecture that has it
_SOCKET: Final = re.compile(r"socket:\[(\d+)\]")
_libc = ctypes.CDLL(None, use_errno=True)


def borrow_sockets(
    wanted: Iterable[SocketSpec], pids: Iterable[int], proc: Path = Path("/proc")
) -> Iterator[tuple[SocketSpec, socket.socket]]:
    """Each wanted socket that one of the processes has, with a descriptor of our own for it.

    Looks at low descriptors first, where a service has what it was handed, and at each socket once.
    """
    missing = list(wanted)
    seen: set[str] = set()
    for pid in pids:
        if not missing:
            return
        for found in _sockets_of(pid, seen, proc):
            spec = next((each for each in missing if is_the_same(found, each)), None)
            if spec is None:
                found.close()
                continue
            missing.remove(spec)
            yield spec, found
            if not missing:
                return


def _sockets_of(pid: int, seen: set[str], proc: Path) -> Iterator[socket.socket]:
    try:
        pidfd = os.pidfd_open(pid)
    except OSError:
        return
    try:
        for number in _numbers(proc / str(pid) / "fd", seen):
            copy = copy_descriptor(pidfd, number)
            try:
                found = socket.socket(fileno=copy)
            except OSError:  # something else has this number meanwhile
                os.close(copy)
                continue
            yield found
    except OSError as cause:
        log.warning("cannot take sockets back from process %d: %s", pid, os.strerror(cause.errno or 0))
    finally:
        os.close(pidfd)


def _numbers(directory: Path, seen: set[str]) -> Iterator[int]:
    for number in sorted(int(path.name) for path in directory.iterdir()):
        try:
            match = _SOCKET.fullmatch(os.fspath((directory / str(number)).readlink()))
        except OSError:
            continue  # closed meanwhile
        if match is not None and match[1] not in seen:
            seen.add(match[1])
            yield number


def copy_descriptor(pidfd: int, number: int) -> int:
    """A close-on-exec descriptor of our own for what has this number in another process. Raises OSError."""
    copy: int = _libc.syscall(PIDFD_GETFD, pidfd, number, 0)
    if copy < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return copy
