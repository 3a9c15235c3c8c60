"""Configuration files on this host: reading them safely, and what only the host can say about them."""

from __future__ import annotations

import errno
import glob
import grp
import os
import posixpath
import pwd
import stat
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Final

from blackhole_cg.core.config import (
    Context,
    LoadedConfig,
    in_order,
    inspect_config,
    resolve,
)
from blackhole_cg.core.config.tree import KeyPath, Sequence
from blackhole_cg.core.config.yaml_text import MAX_FILE_BYTES
from blackhole_cg.core.socket_spec import SocketKind
from blackhole_cg.core.spec import ServiceSpec, SupervisorSpec
from blackhole_cg.core.units import format_size, shorten
from blackhole_cg.errors import ConfigError, Diagnostic
from blackhole_cg.kernel.snapshot import RememberingReader, Snapshot

MAX_SOCKET_PATH_BYTES: Final = 107
"""Source: unix(7), sun_path is 108 bytes with its final NUL."""

_KINDS: Final = {
    stat.S_IFDIR: "a directory",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
}


_ABSENT: Final = "does not exist"
_CONTROL_GROUP: Final[KeyPath] = ("control", "group")
_SERVICES_DIR: Final[KeyPath] = ("runtime", "orchestrator", "services_dir")


class FileReader:
    """Reads regular files of a bounded size; never waits, whatever the path turns out to be."""

    def __init__(self, max_bytes: int = MAX_FILE_BYTES) -> None:
        self._max_bytes = max_bytes

    def read_bytes(self, path: str) -> bytes:
        """The whole file. Raises OSError, whose strerror says why in words."""
        # O_NONBLOCK: opening a FIFO would wait for a writer.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                kind = _KINDS.get(stat.S_IFMT(status.st_mode), "something else")
                raise OSError(errno.EINVAL, f"it is {kind}, not a file")
            with os.fdopen(descriptor, "rb", closefd=False) as file:
                data = file.read(self._max_bytes + 1)
        finally:
            os.close(descriptor)
        if len(data) > self._max_bytes:
            size = format_size(max(status.st_size, len(data)))
            bound = format_size(self._max_bytes)
            raise OSError(errno.EFBIG, f"it is too large: {size} (accepted: up to {bound})")
        return data

    def glob(self, pattern: str) -> list[str]:
        """The paths that match, sorted."""
        return sorted(glob.glob(pattern))  # noqa: PTH207  Path.glob refuses absolute patterns


def host_context(runtime_dir: str, environ: Mapping[str, str]) -> Context:
    """What this process resolves a configuration against: its directory, and where it may keep data."""
    data_root = "/var/lib/blackhole"
    if os.geteuid() != 0:
        home = environ.get("HOME") or pwd.getpwuid(os.geteuid()).pw_dir
        data_root = posixpath.join(environ.get("XDG_DATA_HOME") or f"{home}/.local/share", "blackhole")
    return Context(str(Path.cwd()), str(Path(runtime_dir).absolute()), data_root)


def load(
    path: str,
    environ: Mapping[str, str],
    context: Context,
    reader: RememberingReader | None = None,
    provided: Sequence | None = None,
) -> tuple[LoadedConfig, SupervisorSpec]:
    """The configuration in the file at `path`, checked against itself and against this host.

    Args:
        path: the main file.
        environ: the variables.
        context: what relative paths and names are resolved against.
        reader: the files; those of this host when None.
        provided: instances that are not in the files.

    Raises:
        ConfigError: with everything that is wrong, sorted by position.
    """
    reader = reader or RememberingReader(FileReader(), Snapshot())
    loaded, diagnostics = inspect_config(path, reader, environ, reader.scan, provided)
    if loaded is None:
        raise ConfigError(in_order(path, diagnostics))
    spec = resolve(loaded, context)
    diagnostics = [*diagnostics, *host_diagnostics(loaded, spec)]
    if diagnostics:
        raise ConfigError(in_order(path, diagnostics))
    return loaded, spec


def host_diagnostics(loaded: LoadedConfig, spec: SupervisorSpec) -> list[Diagnostic]:
    """What of the configuration cannot work on this host: programs, accounts, directories, sockets.

    Disabled services are left alone, and so is whatever follows from a value that was refused already.
    """
    diagnostics: list[Diagnostic] = []
    group = spec.runtime.control_group
    if group is not None and _find_group(group) is None:
        shown = shorten(loaded.secrets.get(_CONTROL_GROUP, group))
        diagnostics.append(loaded.diagnostic(_CONTROL_GROUP, f"there is no group '{shown}' on this host"))
    for service in (*spec.services.values(), *spec.surge.values()):
        for check in _CHECKS if service.enabled else ():
            diagnostics += check(loaded, service)
    return diagnostics


def _program(loaded: LoadedConfig, service: ServiceSpec) -> Iterator[Diagnostic]:
    path: KeyPath = ("services", service.name)
    concluded_from = [
        (*path, key) for key in ("command", "binary_path", "data_dir", "environment", "env_file")
    ]
    if not all(loaded.is_sound(origin) for origin in (*concluded_from, _SERVICES_DIR)):
        return
    problem = _program_problem(service.argv[0], service.environment.get("PATH", ""))
    if problem:
        key = "command" if loaded.has_written((*path, "command")) else "binary_path"
        origins = ((*path, "command"), (*path, "command", 0), (*path, "binary_path"), (*path, "data_dir"))
        is_secret = not loaded.secrets.keys().isdisjoint((*origins, _SERVICES_DIR))
        shown = "the program" if is_secret else f"'{shorten(service.argv[0], 200)}'"
        yield loaded.diagnostic((*path, key), f"{shown} {problem} (accepted: an executable file)")


def _program_problem(program: str, search_path: str) -> str | None:
    """Why the program cannot be executed, or None when it can."""
    if "/" in program:
        return _file_problem(program)
    directories = [directory for directory in search_path.split(":") if directory]
    problems = [_file_problem(posixpath.join(directory, program)) for directory in directories]
    if None in problems:
        return None
    return next((problem for problem in problems if problem != _ABSENT), "is not on the PATH of the service")


def _file_problem(path: str) -> str | None:
    try:
        mode = Path(path).stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return _ABSENT
    except (OSError, ValueError) as error:
        return f"cannot be looked up: {getattr(error, 'strerror', None) or error}"
    if stat.S_ISDIR(mode):
        return "is a directory"
    if not stat.S_ISREG(mode):
        return "is not a file"
    return None if os.access(path, os.X_OK) else "is not executable"


def _accounts(loaded: LoadedConfig, service: ServiceSpec) -> Iterator[Diagnostic]:
    path: KeyPath = ("services", service.name)
    if service.user is not None:
        yield from _account_problem(loaded, (*path, "user"), service.user, _find_user, {os.geteuid()})
        if service.user.isdigit() and service.group is None and not _has_passwd_entry(int(service.user)):
            message = "this number has no account, so its group is not known (set group too)"
            yield loaded.diagnostic((*path, "user"), message)
    if service.group is not None:
        own = {os.getegid(), *os.getgroups()}
        yield from _account_problem(loaded, (*path, "group"), service.group, _find_group, own)


def _account_problem(
    loaded: LoadedConfig, path: KeyPath, account: str, find: Callable[[str], int | None], own: set[int]
) -> Iterator[Diagnostic]:
    kind = path[-1]
    number = find(account)
    if number is None:
        shown = shorten(loaded.secrets.get(path, account))
        yield loaded.diagnostic(path, f"there is no {kind} '{shown}' on this host")
    elif os.geteuid() != 0 and number not in own:
        yield loaded.diagnostic(path, f"only root can run a service as another {kind}")


def _find_user(name: str) -> int | None:
    try:
        return int(name) if name.isdigit() else pwd.getpwnam(name).pw_uid
    except (KeyError, ValueError):
        return None


def _find_group(name: str) -> int | None:
    try:
        return int(name) if name.isdigit() else grp.getgrnam(name).gr_gid
    except (KeyError, ValueError):
        return None


def _has_passwd_entry(uid: int) -> bool:
    try:
        pwd.getpwuid(uid)
    except (KeyError, OverflowError):
        return False
    return True


def _data_dir(loaded: LoadedConfig, service: ServiceSpec) -> Iterator[Diagnostic]:
    path: KeyPath = ("services", service.name, "data_dir")
    if Path(service.data_dir).exists() and not Path(service.data_dir).is_dir():
        shown = shorten(loaded.secrets.get(path, service.data_dir), 200)
        yield loaded.diagnostic(path, f"'{shown}' exists and is not a directory")


def _socket(loaded: LoadedConfig, service: ServiceSpec) -> Iterator[Diagnostic]:
    if service.unix_socket is None:
        return
    length = len(os.fsencode(service.unix_socket))
    if length > MAX_SOCKET_PATH_BYTES:
        message = f"the path has {length} bytes (accepted: up to {MAX_SOCKET_PATH_BYTES})"
        yield loaded.diagnostic(("services", service.name, "unix_socket"), message)


def _notify_socket(loaded: LoadedConfig, service: ServiceSpec) -> Iterator[Diagnostic]:
    length = len(os.fsencode(service.notify_socket or ""))
    if length > MAX_SOCKET_PATH_BYTES:
        message = (
            f"the path of its notify socket, {service.notify_socket}, has {length} bytes "
            f"(accepted: up to {MAX_SOCKET_PATH_BYTES}; use a shorter name or --runtime-dir)"
        )
        yield loaded.diagnostic(("services", service.name, "type"), message)


def _held_sockets(loaded: LoadedConfig, service: ServiceSpec) -> Iterator[Diagnostic]:
    for socket in service.sockets:
        path: KeyPath = ("services", service.name, "sockets", socket.name)
        length = len(os.fsencode(socket.address))
        if socket.kind is SocketKind.UNIX and length > MAX_SOCKET_PATH_BYTES:
            message = f"the path has {length} bytes (accepted: up to {MAX_SOCKET_PATH_BYTES})"
            yield loaded.diagnostic((*path, "unix"), message)
        for key, kind, account, find in (
            ("owner", "user", socket.owner, _find_user),
            ("group", "group", socket.group, _find_group),
        ):
            if account is not None and loaded.has_written((*path, key)) and find(account) is None:
                shown = shorten(loaded.secrets.get((*path, key), account))
                yield loaded.diagnostic((*path, key), f"there is no {kind} '{shown}' on this host")


_CHECKS: Final = (_program, _accounts, _data_dir, _socket, _notify_socket, _held_sockets)
