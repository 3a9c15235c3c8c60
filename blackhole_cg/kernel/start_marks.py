"""Files that say of a run that it has certainly not begun: what a supervisor's end leaves unclear otherwise.

Made before the fork, and emptied by the child once it is allowed to go on, which needs no room on a full
disk and no rights of its own. A file that is empty or missing therefore means that the run may have begun.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path


class StartMarks:
    """The files of one directory, one for each service."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def make(self, name: str) -> int | None:
        """Mark the next run as not begun; for the child to empty. None where that is not possible."""
        descriptor = None
        try:
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
            descriptor = os.open(self._directory / name, flags, 0o600)
            os.write(descriptor, b"not begun\n")
        except OSError:  # a full disk must not keep services from starting
            if descriptor is not None:
                os.close(descriptor)
            self.remove(name)
            return None
        return descriptor

    def is_held(self, name: str) -> bool:
        """Whether the run has certainly not begun."""
        try:
            return (self._directory / name).stat().st_size > 0
        except OSError:
            return False

    def remove(self, name: str) -> None:
        """The run is over."""
        with contextlib.suppress(OSError):
            (self._directory / name).unlink()
