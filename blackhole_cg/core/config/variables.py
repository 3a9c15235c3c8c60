"""`${VAR}`, `${VAR:-default}` and `$$` in text; every other `$` stays as written."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from blackhole_cg.core.units import shorten

ACCEPTED: Final = "${NAME}, ${NAME:-default}; write $${ for a plain ${"
MAX_TEXT: Final = 2**20
"""Characters that the variables of one value may add."""

_TOKEN: Final = re.compile(r"\$\$|\$\{(?P<body>[^}]*)(?P<end>\}?)", re.DOTALL)
_BODY: Final = re.compile(r"(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?::-(?P<default>.*))?", re.DOTALL)
_NEEDS_ESCAPE: Final = re.compile(r"\$(?=[${])")


@dataclass(frozen=True, slots=True)
class Expanded:
    """Text after expansion; `has_variable` says that a part of it may be secret."""

    text: str
    has_variable: bool = False


def expand(text: str, environ: Mapping[str, str], limit: int = MAX_TEXT) -> Expanded:
    """The text with its variables replaced; a default is used where the variable is unset or empty.

    `limit` bounds what the variables add, in characters.

    Raises:
        ValueError: a variable is not set, a `${` cannot be read, or the result is too long.
    """
    if "$" not in text:
        return Expanded(text)
    parts: list[str] = []
    length = end = 0
    has_variable = False
    for match in _TOKEN.finditer(text):
        value = "$" if match[0] == "$$" else _value(match, environ)
        has_variable |= match[0] != "$$"
        parts += (text[end : match.start()], value)
        length += len(value)
        if length > limit:
            raise ValueError(f"is too long after its variables are replaced (accepted: up to {limit})")
        end = match.end()
    return Expanded("".join(parts) + text[end:], has_variable)


def _value(match: re.Match[str], environ: Mapping[str, str]) -> str:
    body = _BODY.fullmatch(match["body"])
    if body is None or not match["end"]:
        raise ValueError(f"cannot read the variable in '{shorten(match[0])}' (accepted: {ACCEPTED})")
    value = environ.get(body["name"])
    if body["default"] is not None:
        return value or body["default"]
    if value is None:
        name = shorten(body["name"])
        raise ValueError(f"the variable {name} is not set (set it, or write ${{{name}:-default}})")
    return value


def escape(text: str) -> str:
    """Text that `expand` turns back into this text."""
    return _NEEDS_ESCAPE.sub("$$", text)
