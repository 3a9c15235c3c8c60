"""The files a service finds when it starts: its program, its data directory, its hand-over configuration."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Final

from blackhole_cg.core.spec import ServiceSpec
from blackhole_cg.errors import SpawnError
from blackhole_cg.kernel.identity import Identity

PARENT_MODE: Final = 0o755
DATA_MODE: Final = 0o750
CONFIG_PARENT_MODE: Final = 0o711
CONFIG_MODE: Final = 0o600


def find_program(spec: ServiceSpec) -> str:
    """The file to execute: as written when it has a slash, else the first on the service's own PATH.

    Raises:
        SpawnError: it is nowhere on the PATH.
    """
    name = spec.argv[0]
    if "/" in name:
        return name
    path = spec.environment.get("PATH", os.defpath)
    for directory in path.split(":"):
        candidate = Path(directory or ".", name)
        if _is_program(candidate):
            return str(candidate)
    raise SpawnError(spec.name, f"find {name!r}", detail=f"no such program on its PATH ({path})")


def prepare_data_dir(spec: ServiceSpec, owner: Identity, own: Identity) -> None:
    """Create the data directory when it is missing, for the service's user; one that exists is left as it is.

    Raises:
        SpawnError: it cannot be created.
    """
    directory = Path(spec.data_dir)
    if directory.is_dir():
        return
    try:
        missing = [parent for parent in directory.parents if not parent.exists()]
        for parent in reversed(missing):
            parent.mkdir()
            parent.chmod(PARENT_MODE)  # whatever our umask is, the service's user must get through
        directory.mkdir()
        directory.chmod(DATA_MODE)
        if owner != own:
            os.chown(directory, owner.uid, owner.gid)
    except OSError as cause:
        raise SpawnError(spec.name, f"create data directory {directory}", cause.errno or 0) from cause


def handed_config_file(spec: ServiceSpec) -> Path | None:
    """Where the hand-over file of a run is; None when it has none."""
    if spec.handed_config is None or spec.config_path is None:
        return None
    return Path(spec.config_path)


def write_handed_config(spec: ServiceSpec, owner: Identity, own: Identity) -> Path | None:
    """Write the hand-over file, readable by the service's user alone; None when there is none.

    Written beside and renamed, so that nobody ever reads half of it or reads it with other rights.

    Raises:
        SpawnError: it cannot be written; no temporary file is left.
    """
    target = handed_config_file(spec)
    if target is None or spec.handed_config is None:
        return None
    temporary = target.with_name(f".{target.name}.new")
    try:
        if not target.parent.is_dir():
            target.parent.mkdir(parents=True, exist_ok=True)
            target.parent.chmod(CONFIG_PARENT_MODE)
        temporary.unlink(missing_ok=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with os.fdopen(os.open(temporary, flags, CONFIG_MODE), "w", encoding="utf-8") as file:
            if owner != own:
                os.fchown(file.fileno(), owner.uid, owner.gid)
            file.write(spec.handed_config)
        temporary.replace(target)
    except OSError as cause:
        temporary.unlink(missing_ok=True)
        raise SpawnError(spec.name, f"write its configuration to {target}", cause.errno or 0) from cause
    return target


def _is_program(path: Path) -> bool:
    try:
        found = path.stat()
    except OSError:
        return False
    return stat.S_ISREG(found.st_mode) and bool(found.st_mode & 0o111)
