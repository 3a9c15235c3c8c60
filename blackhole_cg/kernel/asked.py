"""What a configuration is resolved against beside its files: variables, accounts, programs, directories.

Keeps each answer. Whoever has the result of a reading can ask again, and knows whether it would be the same.
"""

from __future__ import annotations

import grp
import os
import posixpath
import pwd
import stat
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, TypeVar, cast

from blackhole_cg.core.reading import Context

ABSENT: Final = "does not exist"
_T = TypeVar("_T")


@dataclass(slots=True)
class Asked:
    """Variables by name, None where one is not set; answers of the host by question and subject.

    `identity` is that of what has read, None where that changed meanwhile.
    """

    variables: dict[str, str | None] = field(default_factory=dict)
    answers: dict[tuple[str, str], object] = field(default_factory=dict)
    identity: bytes | None = None


class AskedVariables(Mapping[str, str]):
    """Variables that remember which of them were looked at. They cannot be listed: all would count then."""

    def __init__(self, environ: Mapping[str, str], asked: Asked) -> None:
        self._environ = environ
        self._asked = asked

    def __getitem__(self, name: str) -> str:
        value = self._asked.variables[name] = self._environ.get(name)
        if value is None:
            raise KeyError(name)
        return value

    def __iter__(self) -> Iterator[str]:
        raise TypeError("variables are asked for by their names")

    def __len__(self) -> int:
        raise TypeError("variables are asked for by their names")


class AskedHost:
    """Asks this host, each question once, and remembers what it said."""

    def __init__(self, asked: Asked) -> None:
        self._answers = asked.answers

    def ask(self, question: Callable[[str], _T], subject: str) -> _T:
        """The answer to one of the functions below."""
        key = (question.__name__, subject)
        if key not in self._answers:
            self._answers[key] = question(subject)
        return cast(_T, self._answers[key])


def host_context(runtime_dir: str, environ: Mapping[str, str]) -> Context:
    """What this process resolves a configuration against: its directory, and where it may keep data."""
    data_root = "/var/lib/blackhole"
    if os.geteuid() != 0:
        home = environ.get("HOME") or pwd.getpwuid(os.geteuid()).pw_dir
        data_root = posixpath.join(environ.get("XDG_DATA_HOME") or f"{home}/.local/share", "blackhole")
    return Context(str(Path.cwd()), str(Path(runtime_dir).absolute()), data_root)


def file_problem(path: str) -> str | None:
    """Why the file cannot be executed, or None when it can."""
    try:
        mode = Path(path).stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return ABSENT
    except (OSError, ValueError) as error:
        return f"cannot be looked up: {getattr(error, 'strerror', None) or error}"
    if stat.S_ISDIR(mode):
        return "is a directory"
    if not stat.S_ISREG(mode):
        return "is not a file"
    return None if os.access(path, os.X_OK) else "is not executable"


def find_user(name: str) -> int | None:
    """The number of a user, None where there is none of this name."""
    try:
        return int(name) if name.isdigit() else pwd.getpwnam(name).pw_uid
    except (KeyError, ValueError):
        return None


def find_group(name: str) -> int | None:
    """The number of a group, None where there is none of this name."""
    try:
        return int(name) if name.isdigit() else grp.getgrnam(name).gr_gid
    except (KeyError, ValueError):
        return None


def has_account(uid: str) -> bool:
    """Whether a number, in digits, belongs to an account."""
    try:
        pwd.getpwuid(int(uid))
    except (KeyError, OverflowError, ValueError):
        return False
    return True


def is_no_directory(path: str) -> bool:
    """Whether it is there, and not a directory."""
    return Path(path).exists() and not Path(path).is_dir()


QUESTIONS: Final[Mapping[str, Callable[[str], object]]] = {
    question.__name__: question
    for question in (file_problem, find_user, find_group, has_account, is_no_directory)
}
"""All of them by name."""
