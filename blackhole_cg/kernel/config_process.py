"""Reads a configuration in a process of its own.

What checks a configuration stays in memory once it was imported, several times what the rest of the
supervisor needs, and every later fork would pay for it. In a process of its own it ends with that process,
and the supervisor's loop goes on meanwhile.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from blackhole_cg.errors import ConfigError, Diagnostic
from blackhole_cg.kernel.asked import Asked, host_context
from blackhole_cg.kernel.config_cache import ConfigCache
from blackhole_cg.kernel.config_identity import identify
from blackhole_cg.kernel.question import Question, answer
from blackhole_cg.kernel.snapshot import RememberingReader, Snapshot

if TYPE_CHECKING:  # a start waits for this process: it is begun before anything else is imported
    from blackhole_cg.core.reading import Context
    from blackhole_cg.core.spec import SupervisorSpec

Kept: TypeAlias = tuple[bytes | None, bytes]
"""An identity, and a reading as it was answered: what a cache keeps."""

IDLE_SECONDS: Final = 15.0
"""How long a process that reads is kept for the next list of instances."""

_Said: TypeAlias = "tuple[SupervisorSpec, Snapshot, Asked] | list[Diagnostic]"


class ConfigProcess:
    """One reading of one file, under way from the beginning; take its result once, by either way.

    Args:
        path: the configuration file.
        runtime_dir: the runtime directory it is resolved for.
        provided: instances that are not in the files.
        snapshot: files that are taken as they were; afterwards `snapshot` has all that were read.

    `kept` is then for the cache: the identity of what has read, and the text of its answer.
    """

    def __init__(
        self,
        path: Path,
        runtime_dir: Path,
        provided: tuple[dict[str, Any], ...] = (),
        snapshot: Snapshot | None = None,
    ) -> None:
        self.snapshot = snapshot or Snapshot()
        self.kept: Kept = (None, b"")
        asked = (str(path), str(runtime_dir), provided, self.snapshot)
        self._question = Question(__name__, asked, f"load {path}")

    def result(self) -> SupervisorSpec:
        """Wait for it.

        Raises:
            ConfigError: the configuration is wrong.
            BlackholeError: the process has died.
        """
        return self._conclude(self._question.result())

    async def read(self) -> SupervisorSpec:
        """Wait for it while the loop goes on; whoever stops waiting ends the process.

        Raises:
            ConfigError: the configuration is wrong.
            BlackholeError: the process has died.
        """
        return self._conclude(await self._question.read())

    def _conclude(self, said: _Said) -> SupervisorSpec:
        spec, self.snapshot, asked = _concluded(said)
        self.kept = (asked.identity, self._question.text)
        return spec


class FirstReading:
    """What a start goes by: the cache where that holds, else a process, under way from the beginning.

    Args:
        path: the configuration file.
        runtime_dir: the runtime directory it is resolved for.
    """

    def __init__(self, path: Path, runtime_dir: Path) -> None:
        self.cache = ConfigCache(path, runtime_dir)
        self._known = self.cache.load(os.environ)
        self._process = ConfigProcess(path, runtime_dir) if self._known is None else None

    def result(self) -> tuple[SupervisorSpec, Snapshot]:
        """Wait for it, once; then the cache has what it is to keep.

        Raises:
            ConfigError: the configuration is wrong.
            BlackholeError: the process has died.
        """
        known, process = self._known, self._process
        self._known = self._process = None
        if known is not None:
            return known
        assert process is not None
        spec = process.result()
        self.cache.keep(*process.kept)
        return spec, process.snapshot


class ResidentConfigProcess:
    """Reads a configuration again and again: instances may come and go faster than a process begins."""

    def __init__(self, runtime_dir: Path) -> None:
        from blackhole_cg.kernel.resident import Resident

        self._runtime_dir = str(runtime_dir)
        self._resident = Resident(__name__, "load the configuration", IDLE_SECONDS)

    async def read(
        self, path: Path, provided: tuple[dict[str, Any], ...], snapshot: Snapshot
    ) -> tuple[SupervisorSpec, Snapshot]:
        """The configuration with these instances, of the files in the snapshot; and all that was read.

        Raises:
            ConfigError: the configuration is wrong.
            BlackholeError: the process has died.
        """
        asked = (str(path), self._runtime_dir, provided, snapshot)
        spec, snapshot, _ = _concluded(await self._resident.ask(asked))
        return spec, snapshot

    def close(self) -> None:
        """End the process, if there is one."""
        self._resident.close()


def _concluded(said: _Said) -> tuple[SupervisorSpec, Snapshot, Asked]:
    if isinstance(said, list):
        raise ConfigError(said)
    return said


def reply(asked: tuple[str, str, tuple[dict[str, Any], ...], Snapshot]) -> _Said:
    """In that process: the specification and all that it was read from, or what is wrong."""
    path, runtime_dir, provided, snapshot = asked
    context = host_context(runtime_dir, os.environ)
    is_of_files = not provided and snapshot == Snapshot()  # and so what a start would read
    identity = _identity(path, context) if is_of_files else None  # before anything else is imported

    from blackhole_cg.core.config.provided import provided_instances
    from blackhole_cg.kernel.file_reader import FileReader
    from blackhole_cg.kernel.files import load

    reader = RememberingReader(FileReader(), snapshot)
    try:
        spec = load(path, os.environ, context, reader, provided_instances(provided))[1]
    except ConfigError as error:
        return list(error.diagnostics)
    if identity is not None and _identity(path, context) == identity:
        reader.asked.identity = identity
    return spec, reader.snapshot, reader.asked


def _identity(path: str, context: Context) -> bytes | None:
    try:
        return identify(path, context)
    except (OSError, ImportError, ValueError):
        return None  # and so nothing is kept


if __name__ == "__main__":
    if sys.argv[1:]:
        from blackhole_cg.kernel.resident import answer_all

        answer_all(reply)
    else:
        answer(reply)
