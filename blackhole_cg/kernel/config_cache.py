"""The last reading of the configuration, kept for the next start, which needs not read it then.

A reading is kept together with everything that it depends on: files, patterns, programs, variables, accounts,
and the code that has read. It is used only where all of it is the same when asked again; whatever is wrong
with what is kept, the configuration itself is there to be read. It holds what services are given, secrets
among it, and what is in it is believed: it is ours alone, or it is not used.
"""

from __future__ import annotations

import hashlib
import logging
import os
import pickle
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

from blackhole_cg.kernel.asked import QUESTIONS, Asked, host_context
from blackhole_cg.kernel.config_identity import identify
from blackhole_cg.kernel.discovery import scan
from blackhole_cg.kernel.file_reader import FileReader

if TYPE_CHECKING:  # a start waits for this: what is in the cache is imported only where there is one
    from blackhole_cg.core.spec import SupervisorSpec
    from blackhole_cg.kernel.snapshot import Snapshot

NAME: Final = "configuration.cache"
MAX_BYTES: Final = 256 * 2**20

_MAGIC: Final = b"blackhole-cg cache\n"
_DIGEST_BYTES: Final = 32
_OTHERS: Final = 0o077
_OTHER_WRITERS: Final = 0o022

_log = logging.getLogger(__name__)


class ConfigCache:
    """The cache of one configuration file, in the runtime directory it is resolved for.

    Args:
        path: the configuration file.
        runtime_dir: the runtime directory.
    """

    def __init__(self, path: Path, runtime_dir: Path) -> None:
        self._path = str(path)
        self._runtime_dir = runtime_dir
        self._pending: tuple[bytes, bytes] | None = None  # an identity, and a reading as it was answered

    def load(self, environ: Mapping[str, str]) -> tuple[SupervisorSpec, Snapshot] | None:
        """What reading the file now would say; None where that is not known."""
        try:
            context = host_context(str(self._runtime_dir), environ)
            spec, snapshot, asked = pickle.loads(self._read(identify(self._path, context)))
            return (spec, snapshot) if _holds(snapshot, asked, environ) else None
        except Exception as error:  # whatever is wrong with it, reading will tell what is right
            _log.debug("the configuration is read anew: %s", error)
            return None

    def keep(self, identity: bytes | None, reading: bytes) -> None:
        """Keep this reading, with the next `write`; nothing where no identity says by what it was read."""
        self._pending = None if identity is None else (identity, reading)

    def write(self) -> None:
        """Write what is to be kept, if there is something; a failure costs the next start some time."""
        pending, self._pending = self._pending, None
        if pending is None:
            return
        try:
            with _opened(self._runtime_dir) as directory:
                _write(directory, _MAGIC, *_sealed(*pending))
        except OSError as error:
            _log.debug("the next start has to read the configuration: %s", error)

    def discard(self) -> None:
        """Remove it: what services were given ends with them."""
        self._pending = None
        with suppress(OSError):
            (self._runtime_dir / NAME).unlink()

    def _read(self, identity: bytes) -> bytes:
        """The kept reading. Raises OSError, ValueError: it must not be used."""
        with _opened(self._runtime_dir) as directory:
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
            with os.fdopen(os.open(NAME, flags, dir_fd=directory), "rb") as file:
                _check_file(os.fstat(file.fileno()))
                head = file.read(len(_MAGIC) + 2 * _DIGEST_BYTES)
                if head[:-_DIGEST_BYTES] != _MAGIC + identity:
                    raise ValueError("it was read by other code, or for something else")
                reading = file.read()
        if (identity, head[-_DIGEST_BYTES:], reading) != _sealed(identity, reading):
            raise ValueError("it is damaged")
        return reading


def _sealed(identity: bytes, reading: bytes) -> tuple[bytes, bytes, bytes]:
    return identity, hashlib.sha256(identity + reading).digest(), reading


@contextmanager
def _opened(runtime_dir: Path) -> Iterator[int]:
    """The runtime directory, if nobody else can put a file there. Raises OSError, PermissionError."""
    directory = os.open(runtime_dir, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        status = os.fstat(directory)
        if status.st_uid != os.geteuid() or status.st_mode & _OTHER_WRITERS:
            raise PermissionError(f"{runtime_dir} is not ours alone")
        yield directory
    finally:
        os.close(directory)


def _check_file(status: os.stat_result) -> None:
    is_ours = status.st_uid == os.geteuid() and not status.st_mode & _OTHERS and status.st_nlink == 1
    if not (stat.S_ISREG(status.st_mode) and is_ours):
        raise PermissionError("it is not ours alone")
    if status.st_size > MAX_BYTES:
        raise ValueError("it is too large")


def _write(directory: int, *parts: bytes) -> None:
    """In the place of the one before, or not at all. Not synced: it needs not outlive this boot."""
    beside = f"{NAME}.new"
    with suppress(FileNotFoundError):
        os.unlink(beside, dir_fd=directory)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(beside, flags, 0o600, dir_fd=directory)
    try:
        with os.fdopen(descriptor, "wb", buffering=0) as file:
            for part in parts:
                left = memoryview(part)
                while left:
                    left = left[file.write(left) :]
        os.rename(beside, NAME, src_dir_fd=directory, dst_dir_fd=directory)
    except BaseException:
        os.unlink(beside, dir_fd=directory)
        raise


def _holds(snapshot: Snapshot, asked: Asked, environ: Mapping[str, str]) -> bool:
    """Whether everything that was read and asked would be the same now."""
    reader = FileReader()
    return (
        all(environ.get(name) == value for name, value in asked.variables.items())
        and all(_content(reader, path) == content for path, content in snapshot.files.items())
        and all(reader.glob(pattern) == paths for pattern, paths in snapshot.globs.items())
        and all(scan(directory) == found for directory, found in snapshot.found.items())
        and all(
            QUESTIONS[question](subject) == answer for (question, subject), answer in asked.answers.items()
        )
    )


def _content(reader: FileReader, path: str) -> bytes | tuple[int, str]:
    """As a snapshot has it."""
    try:
        return reader.read_bytes(path)
    except OSError as error:
        return error.errno or 0, error.strerror or str(error)
