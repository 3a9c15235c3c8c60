"""Files in memory for the loader, and the usual ways to load them."""

from __future__ import annotations

import errno
import fnmatch
from collections.abc import Mapping
from textwrap import dedent

from blackhole_cg.core.config import Context, LoadedConfig, load_config, resolve
from blackhole_cg.core.spec import ServiceSpec
from blackhole_cg.errors import ConfigError

MAIN = "blackhole.yaml"
CONTEXT = Context(working_dir="/etc/bh", runtime_dir="/run/bh", data_root="/var/lib/blackhole")

Files = Mapping[str, str | bytes | OSError]


class MemoryReader:
    """A file system of a few files; an OSError as content is what reading raises."""

    def __init__(self, files: Files) -> None:
        self._files = files

    def read_bytes(self, path: str) -> bytes:
        content = self._files.get(path, OSError(errno.ENOENT, "No such file or directory"))
        if isinstance(content, OSError):
            raise content
        return dedent(content).encode() if isinstance(content, str) else content

    def glob(self, pattern: str) -> list[str]:
        return sorted(path for path in self._files if fnmatch.fnmatch(path, pattern))


def load(text: str | bytes, environ: Mapping[str, str] | None = None, **files: str | bytes) -> LoadedConfig:
    """The loaded configuration of a main file; further files by their names with "__" for "."."""
    others = {name.replace("__", "."): content for name, content in files.items()}
    return load_config(MAIN, MemoryReader({MAIN: text, **others}), environ or {})


def service(text: str, environ: Mapping[str, str] | None = None, **files: str | bytes) -> ServiceSpec:
    """The spec of the first service."""
    spec = resolve(load(text, environ, **files), CONTEXT)
    return next(iter(spec.services.values()))


def lines_of(files: Files, environ: Mapping[str, str] | None = None) -> list[str]:
    """The lines a user is shown for what is wrong; none when nothing is."""
    try:
        load_config(MAIN, MemoryReader(files), environ or {})
    except ConfigError as error:
        return str(error).splitlines()
    return []
