"""Every exception this package raises on purpose.

BlackholeError
├── ConfigError             the configuration is wrong; the user can fix it
├── KernelError             an operation on the kernel failed (operation, path, errno, value)
│   └── CgroupError
│       ├── CgroupGoneError         the cgroup was removed underneath us; a normal race
│       └── ControllerMissingError  the cgroup lives, its controller is off
├── SpawnError              a step between the wish to start and exec failed (step, errno)
├── IsolationError          `isolation: required` and a limit cannot be enforced
├── LockHeldError           another supervisor owns this runtime directory
├── StoreError              the state database cannot be read or written
├── OperationError          a start, stop or restart did not reach its goal
│   ├── DependentsError         a stop would take away what running services need
│   └── UnknownServiceError     no service of that name is configured
└── ControlError            the control API could not be asked, or refused
    └── NoSupervisorError   nothing answers on the socket
"""

from __future__ import annotations

import errno as codes
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Final


class BlackholeError(Exception):
    """Base of every error of this package; its text is fit to show to a user."""


@dataclass(frozen=True, slots=True, order=True)
class Diagnostic:
    """One thing wrong in a configuration. `line` and `column` count from 1; 0 when there is none."""

    source: str
    line: int
    column: int
    key: str
    message: str

    def __str__(self) -> str:
        place = f"{self.source}:{self.line}:{self.column}" if self.line else self.source
        return f"{place}: {self.key}: {self.message}" if self.key else f"{place}: {self.message}"


class ConfigError(BlackholeError):
    """The configuration is wrong; carries all diagnostics, one line each."""

    def __init__(self, diagnostics: Sequence[Diagnostic]) -> None:
        self.diagnostics = tuple(diagnostics)
        super().__init__("\n".join(str(diagnostic) for diagnostic in self.diagnostics))


class KernelError(BlackholeError):
    """An operation on the kernel failed.

    Args:
        operation: what was tried, as it follows "cannot": "write", "read", "create".
        path: the file or directory it was tried on.
        errno: the error number.
        value: what was being written, if anything.
    """

    def __init__(self, operation: str, path: str, errno: int, value: str | None = None) -> None:
        self.operation = operation
        self.path = path
        self.errno = errno
        self.value = value
        what = f"{operation} {value!r} to {path}" if value is not None else f"{operation} {path}"
        super().__init__(f"cannot {what}: {os.strerror(errno)}")


class CgroupError(KernelError):
    """An operation on a cgroup failed."""


class CgroupGoneError(CgroupError):
    """The cgroup does not exist any more; callers treat it as empty."""


class ControllerMissingError(CgroupError):
    """The cgroup exists but the file does not, because its controller is not enabled."""


class SpawnError(BlackholeError):
    """A run could not begin: `step` failed, nothing of the service has run, nothing is left behind.

    Args:
        service: the service's name.
        step: the step in words, as it follows "cannot start 'NAME': ": "set RLIMIT_NOFILE to 10000".
        errno: the error number, or 0 when `detail` says why.
        detail: the reason where there is no error number.

    `cause` is the step and the reason, for where a service is not what could not be started.
    """

    def __init__(self, service: str, step: str, errno: int = 0, detail: str = "") -> None:
        self.service = service
        self.step = step
        self.errno = errno
        cause = os.strerror(errno) if errno else detail
        self.cause = f"{step}: {cause}" if cause else step
        super().__init__(f"cannot start '{service}': {self.cause}")


_PASSING: Final = frozenset(
    {codes.EMFILE, codes.ENFILE, codes.ENOMEM, codes.EAGAIN, codes.ENOBUFS, codes.ENOSPC, codes.EDQUOT}
)


def is_passing(error: BaseException | None) -> bool:
    """Whether the cause of an error is a shortage that may be over in a moment, and nothing that is wrong."""
    while error is not None:
        if getattr(error, "errno", None) in _PASSING:
            return True
        error = error.__cause__
    return False


class IsolationError(BlackholeError):
    """Limits were asked for that this host cannot enforce; `problems` has one line for each."""

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = tuple(problems)
        lines = "\n".join(f"  {problem}" for problem in problems)
        super().__init__(
            "cannot enforce what `isolation: required` demands "
            f"(use `isolation: best_effort` to run without):\n{lines}"
        )


class LockHeldError(BlackholeError):
    """Another supervisor holds the lock of this runtime directory."""


class StoreError(BlackholeError):
    """The state database cannot be read or written; callers keep going without it."""


class OperationError(BlackholeError):
    """A start, stop or restart did not reach its goal; the text says why.

    `rolled_back` says that everything the start had begun is stopped again.
    """

    def __init__(self, message: str, *, rolled_back: bool = False) -> None:
        self.rolled_back = rolled_back
        super().__init__(message)


class DependentsError(OperationError):
    """A stop would take away what running services need; nothing was stopped."""


class UnknownServiceError(OperationError):
    """No service of that name is configured; the text suggests the closest of the `known` names."""

    def __init__(self, name: str, known: Iterable[str] = ()) -> None:
        self.name = name
        closest = get_close_matches(name, list(known), n=1)
        hint = f" (did you mean '{closest[0]}'?)" if closest else ""
        super().__init__(f"there is no service '{name}'{hint}")


class ControlError(BlackholeError):
    """The control API refused a request. `kind` is a word a program can test."""

    def __init__(self, kind: str, message: str) -> None:
        self.kind = kind
        super().__init__(message)


class NoSupervisorError(ControlError):
    """No supervisor answers on the control socket."""

    def __init__(self, socket_path: str, cause: str) -> None:
        super().__init__("no_supervisor", f"no supervisor answers on {socket_path}: {cause}")
