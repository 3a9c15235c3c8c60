"""Whether a configuration would be read by the same code, for the same place, on behalf of the same user.

Cheap enough for every start: files are told by their names, sizes, times and inodes, not by what is in them.
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from blackhole_cg.core.reading import Context

FORMAT: Final = 1
"""Of what is kept; the digest of the code changes with it anyway, this says it to people."""

PACKAGES: Final = (
    __name__.partition(".")[0],
    "yaml",
    "_yaml",
    "pydantic",
    "pydantic_core",
    "annotated_types",
    "typing_extensions",
    "typing_inspection",
)
"""All that takes part in reading a configuration, but for Python itself; some of them may not be there."""

_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")


def identify(path: str, context: Context) -> bytes:
    """32 bytes that change whenever the file at `path` may come to mean something else, its text aside.

    Raises:
        OSError: it cannot be told.
    """
    facts = (
        FORMAT,
        (sys.version, sys.executable, sys.getfilesystemencoding()),
        [(name, tuple(_files_of(name))) for name in PACKAGES],
        (path, context.working_dir, context.runtime_dir, context.data_root),
        (os.getresuid(), os.getresgid(), sorted(os.getgroups())),
        _BOOT_ID.read_text(),
    )
    return hashlib.sha256(repr(facts).encode(errors="surrogateescape")).digest()


def _files_of(name: str) -> Iterator[tuple[object, ...]]:
    """Every file of a package, or the one of a module; what is compiled follows from them."""
    spec = find_spec(name)
    if spec is None:
        return
    if spec.submodule_search_locations is None:
        if spec.origin is None:
            raise OSError(f"nobody knows where the module {name} is")
        yield _facts(spec.origin, os.stat(spec.origin))  # noqa: PTH116  a thousand of them at every start
        return
    for place in spec.submodule_search_locations:
        yield from _files_below(place)


def _files_below(directory: str) -> Iterator[tuple[object, ...]]:
    with os.scandir(directory) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            if entry.is_dir():
                if entry.name != "__pycache__":
                    yield from _files_below(entry.path)
            else:
                yield _facts(entry.path, entry.stat())


def _facts(path: str, status: os.stat_result) -> tuple[object, ...]:
    return path, status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino, status.st_dev
