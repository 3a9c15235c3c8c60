"""Configuration files on this host: reading them safely, and what only the host can say about them."""

from __future__ import annotations

import os
import posixpath
from collections.abc import Iterator, Mapping
from typing import Final

from blackhole_cg.core.config import LoadedConfig, in_order, inspect_config, resolve
from blackhole_cg.core.config.tree import KeyPath, Sequence
from blackhole_cg.core.reading import Context
from blackhole_cg.core.socket_spec import SocketKind
from blackhole_cg.core.spec import ServiceSpec, SupervisorSpec
from blackhole_cg.core.units import shorten
from blackhole_cg.errors import ConfigError, Diagnostic
from blackhole_cg.kernel.asked import (
    ABSENT,
    AskedHost,
    AskedVariables,
    file_problem,
    find_group,
    find_user,
    has_account,
    is_no_directory,
)
from blackhole_cg.kernel.file_reader import FileReader
from blackhole_cg.kernel.snapshot import RememberingReader, Snapshot

MAX_SOCKET_PATH_BYTES: Final = 107
"""Source: unix(7), sun_path is 108 bytes with its final NUL."""

_CONTROL_GROUP: Final[KeyPath] = ("control", "group")
_SERVICES_DIR: Final[KeyPath] = ("runtime", "orchestrator", "services_dir")


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
        reader: the files; those of this host when None. It also takes down what else was asked.
        provided: instances that are not in the files.

    Raises:
        ConfigError: with everything that is wrong, sorted by position.
    """
    reader = reader or RememberingReader(FileReader(), Snapshot())
    variables = AskedVariables(environ, reader.asked)
    loaded, diagnostics = inspect_config(path, reader, variables, reader.scan, provided)
    if loaded is None:
        raise ConfigError(in_order(path, diagnostics))
    spec = resolve(loaded, context)
    diagnostics = [*diagnostics, *host_diagnostics(loaded, spec, AskedHost(reader.asked))]
    if diagnostics:
        raise ConfigError(in_order(path, diagnostics))
    return loaded, spec


def host_diagnostics(loaded: LoadedConfig, spec: SupervisorSpec, host: AskedHost) -> list[Diagnostic]:
    """What of the configuration cannot work on this host: programs, accounts, directories, sockets.

    Disabled services are left alone, and so is whatever follows from a value that was refused already.
    """
    diagnostics: list[Diagnostic] = []
    group = spec.runtime.control_group
    if group is not None and host.ask(find_group, group) is None:
        shown = shorten(loaded.secrets.get(_CONTROL_GROUP, group))
        diagnostics.append(loaded.diagnostic(_CONTROL_GROUP, f"there is no group '{shown}' on this host"))
    for service in (*spec.services.values(), *spec.surge.values()):
        for check in _CHECKS if service.enabled else ():
            diagnostics += check(loaded, service, host)
    return diagnostics


def _program(loaded: LoadedConfig, service: ServiceSpec, host: AskedHost) -> Iterator[Diagnostic]:
    path: KeyPath = ("services", service.name)
    concluded_from = [
        (*path, key) for key in ("command", "binary_path", "data_dir", "environment", "env_file")
    ]
    if not all(loaded.is_sound(origin) for origin in (*concluded_from, _SERVICES_DIR)):
        return
    problem = _program_problem(service.argv[0], service.environment.get("PATH", ""), host)
    if problem:
        key = "command" if loaded.has_written((*path, "command")) else "binary_path"
        origins = ((*path, "command"), (*path, "command", 0), (*path, "binary_path"), (*path, "data_dir"))
        is_secret = not loaded.secrets.keys().isdisjoint((*origins, _SERVICES_DIR))
        shown = "the program" if is_secret else f"'{shorten(service.argv[0], 200)}'"
        yield loaded.diagnostic((*path, key), f"{shown} {problem} (accepted: an executable file)")


def _program_problem(program: str, search_path: str, host: AskedHost) -> str | None:
    """Why the program cannot be executed, or None when it can."""
    if "/" in program:
        return host.ask(file_problem, program)
    directories = [directory for directory in search_path.split(":") if directory]
    problems = [host.ask(file_problem, posixpath.join(directory, program)) for directory in directories]
    if None in problems:
        return None
    return next((problem for problem in problems if problem != ABSENT), "is not on the PATH of the service")


def _accounts(loaded: LoadedConfig, service: ServiceSpec, host: AskedHost) -> Iterator[Diagnostic]:
    path: KeyPath = ("services", service.name)
    if service.user is not None:
        yield from _account_problem(
            loaded, (*path, "user"), service.user, host.ask(find_user, service.user), {os.geteuid()}
        )
        if service.user.isdigit() and service.group is None and not host.ask(has_account, service.user):
            message = "this number has no account, so its group is not known (set group too)"
            yield loaded.diagnostic((*path, "user"), message)
    if service.group is not None:
        own = {os.getegid(), *os.getgroups()}
        yield from _account_problem(
            loaded, (*path, "group"), service.group, host.ask(find_group, service.group), own
        )


def _account_problem(
    loaded: LoadedConfig, path: KeyPath, account: str, number: int | None, own: set[int]
) -> Iterator[Diagnostic]:
    kind = path[-1]
    if number is None:
        shown = shorten(loaded.secrets.get(path, account))
        yield loaded.diagnostic(path, f"there is no {kind} '{shown}' on this host")
    elif os.geteuid() != 0 and number not in own:
        yield loaded.diagnostic(path, f"only root can run a service as another {kind}")


def _data_dir(loaded: LoadedConfig, service: ServiceSpec, host: AskedHost) -> Iterator[Diagnostic]:
    path: KeyPath = ("services", service.name, "data_dir")
    if host.ask(is_no_directory, service.data_dir):
        shown = shorten(loaded.secrets.get(path, service.data_dir), 200)
        yield loaded.diagnostic(path, f"'{shown}' exists and is not a directory")


def _socket(loaded: LoadedConfig, service: ServiceSpec, _: AskedHost) -> Iterator[Diagnostic]:
    if service.unix_socket is None:
        return
    length = len(os.fsencode(service.unix_socket))
    if length > MAX_SOCKET_PATH_BYTES:
        message = f"the path has {length} bytes (accepted: up to {MAX_SOCKET_PATH_BYTES})"
        yield loaded.diagnostic(("services", service.name, "unix_socket"), message)


def _notify_socket(loaded: LoadedConfig, service: ServiceSpec, _: AskedHost) -> Iterator[Diagnostic]:
    length = len(os.fsencode(service.notify_socket or ""))
    if length > MAX_SOCKET_PATH_BYTES:
        message = (
            f"the path of its notify socket, {service.notify_socket}, has {length} bytes "
            f"(accepted: up to {MAX_SOCKET_PATH_BYTES}; use a shorter name or --runtime-dir)"
        )
        yield loaded.diagnostic(("services", service.name, "type"), message)


def _held_sockets(loaded: LoadedConfig, service: ServiceSpec, host: AskedHost) -> Iterator[Diagnostic]:
    for socket in service.sockets:
        path: KeyPath = ("services", service.name, "sockets", socket.name)
        length = len(os.fsencode(socket.address))
        if socket.kind is SocketKind.UNIX and length > MAX_SOCKET_PATH_BYTES:
            message = f"the path has {length} bytes (accepted: up to {MAX_SOCKET_PATH_BYTES})"
            yield loaded.diagnostic((*path, "unix"), message)
        for key, kind, account, find in (
            ("owner", "user", socket.owner, find_user),
            ("group", "group", socket.group, find_group),
        ):
            if account is not None and loaded.has_written((*path, key)) and host.ask(find, account) is None:
                shown = shorten(loaded.secrets.get((*path, key), account))
                yield loaded.diagnostic((*path, key), f"there is no {kind} '{shown}' on this host")


_CHECKS: Final = (_program, _accounts, _data_dir, _socket, _notify_socket, _held_sockets)
