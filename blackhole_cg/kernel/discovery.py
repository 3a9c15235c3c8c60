"""Looks for programs in the services directory: `DIRECTORY/NAME/NAME`. Opens directories, and no file."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from typing import Final

from blackhole_cg.core.discovery import MAX_FOUND, Candidate, Discovery, conclude
from blackhole_cg.kernel.question import Question, answer

_DIRECTORY_FLAGS: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_ANYBODY: Final = "anybody can write to it, and it would run as root (take the permission away: chmod o-w)"


def scan(directory: str) -> Discovery:
    """The services that a directory offers; a directory that is not there offers none.

    What others could exchange is refused: symbolic links anywhere below the directory, and for root
    whatever everybody can write to. The directory itself may be named by a link.
    """
    try:
        opened = os.open(directory, _DIRECTORY_FLAGS)
    except FileNotFoundError:
        return Discovery()
    except OSError as error:
        return Discovery(problem=f"cannot be looked at: {error.strerror}")
    try:
        if _is_open_to_all(os.fstat(opened)):
            return Discovery(problem=f"{_ANYBODY}; nothing in it is a service")
        return conclude(_candidates(opened))
    except OSError as error:
        return Discovery(problem=f"cannot be looked at: {error.strerror}")
    finally:
        os.close(opened)


def _candidates(opened: int) -> Iterator[Candidate]:
    """Every directory, and every link, but those whose name begins with a dot."""
    with os.scandir(opened) as entries:
        names = [
            entry.name
            for entry in entries
            if not entry.name.startswith(".") and (entry.is_symlink() or entry.is_dir(follow_symlinks=False))
        ]
    for name in sorted(names)[:MAX_FOUND]:
        yield Candidate(name, _problem(opened, name))
    if len(names) > MAX_FOUND:
        yield Candidate(sorted(names)[MAX_FOUND], f"only the first {MAX_FOUND} directories are looked at")


def _problem(parent: int, name: str) -> str | None:
    """Why a directory does not make a service; None when it does."""
    try:
        inner = os.open(name, _DIRECTORY_FLAGS | os.O_NOFOLLOW, dir_fd=parent)
    except OSError as error:
        is_link = _is_link(parent, name)
        return "it is a symbolic link" if is_link else f"cannot be looked at: {error.strerror}"
    try:
        if _is_open_to_all(os.fstat(inner)):
            return _ANYBODY
        return _program_problem(inner, name)
    finally:
        os.close(inner)


def _program_problem(inner: int, name: str) -> str | None:
    try:
        found = os.stat(name, dir_fd=inner, follow_symlinks=False)
    except FileNotFoundError:
        return f"there is no program {name} in it"
    except OSError as error:
        return f"its program {name} cannot be looked at: {error.strerror}"
    if stat.S_ISLNK(found.st_mode):
        return f"its program {name} is a symbolic link"
    if not stat.S_ISREG(found.st_mode):
        return f"its program {name} is not a file"
    if not found.st_mode & 0o111 or not os.access(name, os.X_OK, dir_fd=inner):
        return f"its program {name} is not executable"
    return f"its program {name}: {_ANYBODY}" if _is_open_to_all(found) else None


def _is_open_to_all(found: os.stat_result) -> bool:
    return os.geteuid() == 0 and bool(found.st_mode & stat.S_IWOTH)


def _is_link(parent: int, name: str) -> bool:
    try:
        return stat.S_ISLNK(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode)
    except OSError:
        return False


class DiscoveryProcess:
    """One look into a directory by a process of its own: a file system that hangs holds up only that."""

    def __init__(self, directory: str) -> None:
        self._question = Question(__name__, directory, f"look into {directory}")

    async def read(self) -> Discovery:
        """What was found; whoever stops waiting ends the process. Raises BlackholeError: it has died."""
        found: Discovery = await self._question.read()
        return found


if __name__ == "__main__":
    answer(scan)
