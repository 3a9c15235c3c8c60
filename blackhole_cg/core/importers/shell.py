"""Command lines that were written for a shell: those that need none, and those that do."""

from __future__ import annotations

import re
import shlex
from typing import Final

from blackhole_cg.core.importers.draft import literal

_FOR_THE_SHELL: Final = re.compile(r"[|&;<>()`*?\[\]\n]|(?:^|\s)#|\$[({A-Za-z_0-9@*#?$!-]|(?:^|\s)~")
_ASSIGNMENT: Final = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)=(.*)", re.DOTALL)
_WORDS: Final = frozenset(
    {"cd", "if", "for", "while", "source", ".", "export", "exit", "set", "ulimit", "umask", "test"}
)

SHELL: Final = "needs a shell, and is given to /bin/sh -c"


def split(line: str) -> tuple[list[str], dict[str, str]] | None:
    """The words of a command line and the variables set before them; None where it takes a shell."""
    try:
        words = shlex.split(line)
        if _FOR_THE_SHELL.search(_without_quoted(line)):
            return None
    except ValueError:
        return None
    variables: dict[str, str] = {}
    while words and (found := _ASSIGNMENT.fullmatch(words[0])):
        variables[found[1]] = found[2]
        words.pop(0)
    if words and words[0] == "exec":
        words.pop(0)
    return (words, variables) if words and words[0] not in _WORDS else None


def by_shell(line: str) -> list[str]:
    """The command that has /bin/sh run the line."""
    return ["/bin/sh", "-c", literal(line)]


def _without_quoted(line: str) -> str:
    """The line without what quotes keep as it is; in double quotes `$` and backticks still count."""
    line = re.sub(r"'[^']*'|\\.", "x", line)
    return re.sub(r'"[^"]*"', lambda quoted: re.sub(r"[|&;<>()*?\[\]#]", "", quoted[0]), line)
