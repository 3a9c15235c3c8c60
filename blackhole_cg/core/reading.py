"""What reading a configuration depends on beside its text. Imports nothing of what reads one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

MAX_FILE_BYTES: Final = 2 * 2**20


@dataclass(frozen=True, slots=True)
class Context:
    """What the configuration is resolved against; all directories are absolute.

    `working_dir` is where relative file names of the command line begin, `data_root` holds the data
    directories of services that set none.
    """

    working_dir: str
    runtime_dir: str = "/run/blackhole-cg"
    data_root: str = "/var/lib/blackhole"
