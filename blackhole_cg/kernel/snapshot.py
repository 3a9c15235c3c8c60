"""What a configuration was read from, kept: it can be resolved again, with other instances.

Whoever is in the middle of editing a file does not want it applied because an instance came or went.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from blackhole_cg.core.discovery import Discovery
from blackhole_cg.kernel.asked import Asked
from blackhole_cg.kernel.discovery import scan

if TYPE_CHECKING:  # the supervisor itself must not import what reads configurations
    from blackhole_cg.core.config.includes import Reader


@dataclass(slots=True)
class Snapshot:
    """Files by path, or (errno, text) where one could not be read; globs; services directories."""

    files: dict[str, bytes | tuple[int, str]] = field(default_factory=dict)
    globs: dict[str, list[str]] = field(default_factory=dict)
    found: dict[str, Discovery] = field(default_factory=dict)


class RememberingReader:
    """Reads what is in the snapshot from there, and adds to it what is not.

    `asked` is for what the configuration depends on beside that: it is asked anew for every reading.
    """

    def __init__(self, reader: Reader, snapshot: Snapshot) -> None:
        self._reader = reader
        self.snapshot = snapshot
        self.asked = Asked()

    def read_bytes(self, path: str) -> bytes:
        """The content of a file. Raises OSError, also for one that could not be read before."""
        files = self.snapshot.files
        if path not in files:
            try:
                files[path] = self._reader.read_bytes(path)
            except OSError as error:
                files[path] = (error.errno or 0, error.strerror or str(error))
        content = files[path]
        if isinstance(content, tuple):
            raise OSError(*content)
        return content

    def glob(self, pattern: str) -> list[str]:
        """The paths a pattern matches, sorted."""
        if pattern not in self.snapshot.globs:
            self.snapshot.globs[pattern] = self._reader.glob(pattern)
        return self.snapshot.globs[pattern]

    def scan(self, directory: str, configured: Iterable[str]) -> Discovery:
        """The programs in a services directory that are not configured."""
        known = frozenset(configured)
        if directory not in self.snapshot.found:
            self.snapshot.found[directory] = scan(directory)
        return self.snapshot.found[directory].without(known)
