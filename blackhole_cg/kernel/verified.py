"""A program that is executed only if it is the one that was meant: the same open file is hashed and executed.

All of it happens in the child, in the cgroup of the service: a large file costs the service time, not the
supervisor.
"""

from __future__ import annotations

import hashlib
import os
import stat
from typing import Final, NoReturn

SCRIPT: Final = b"#!"


class NotThatProgramError(Exception):
    """The program is another one; the text names both sums."""


class VerifiedProgram:
    """The program at `path`, in three steps: open, verify, execute."""

    def __init__(self, path: bytes, sha256: str) -> None:
        self._path = path
        self._sha256 = sha256
        self._descriptor = -1

    def verify(self) -> None:
        """Open it and compare its sum; what happens to the path afterwards does not matter.

        Raises:
            OSError: it cannot be read.
            NotThatProgramError: its sum is another one.
        """
        # O_NONBLOCK: opening a FIFO would wait for a writer.
        self._descriptor = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        if not stat.S_ISREG(os.fstat(self._descriptor).st_mode):
            raise NotThatProgramError("it is not a file")
        with os.fdopen(self._descriptor, "rb", buffering=0, closefd=False) as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != self._sha256:
            raise NotThatProgramError(f"it is {found}, and binary_sha256 is {self._sha256}")

    def execute(self, argv: tuple[bytes, ...], environment: dict[bytes, bytes]) -> NoReturn:
        """Become it.

        The interpreter of a script opens the script by its descriptor, which must stay open for that.
        Source: execveat(2), BUGS. Raises OSError.
        """
        if os.pread(self._descriptor, len(SCRIPT), 0) == SCRIPT:
            os.set_inheritable(self._descriptor, True)
        os.execve(self._descriptor, argv, environment)
