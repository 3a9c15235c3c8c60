"""The text of an env_file: KEY=VALUE lines, comments and quotes. Nothing in it is expanded."""

from __future__ import annotations

import re
from typing import Final

from blackhole_cg.errors import Diagnostic

ACCEPTED: Final = "KEY=VALUE, KEY='VALUE', KEY=\"VALUE\", # comment"

_LINE: Final = re.compile(
    r"""\s*(?:export\s+)?(?P<key>[A-Za-z_][A-Za-z0-9_.-]*)\s*=\s*
    (?: '(?P<single>[^']*)' \s*(?:\#.*)?
      | "(?P<double>(?:[^"\\]|\\.)*)" \s*(?:\#.*)?
      | (?P<plain>[^'"\s].*|) )""",
    re.VERBOSE,
)
_COMMENT: Final = re.compile(r"(?:^|\s)#.*")
_ESCAPE: Final = re.compile(r"\\(.)")
_ESCAPED: Final = {"n": "\n", "t": "\t", "r": "\r"}


def parse_dotenv(data: bytes, source: str) -> tuple[dict[str, str], list[Diagnostic]]:
    """The variables of the file, and one diagnostic for each line that is not understood.

    Double quotes know \\n, \\t, \\r, \\" and \\\\; single quotes keep their text; a plain value ends at " #".
    A message never shows the line, which may hold a secret.
    """
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        bad_line = data.count(b"\n", 0, error.start) + 1
        return {}, [Diagnostic(source, bad_line, 1, "", "is not UTF-8 text")]
    values: dict[str, str] = {}
    diagnostics: list[Diagnostic] = []
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        match = _LINE.fullmatch(line)
        if match is None or "\0" in line:
            message = f"is not a variable (accepted: {ACCEPTED})"
            diagnostics.append(Diagnostic(source, number, 1, "", message))
        else:
            values[match["key"]] = _value(match)
    return values, diagnostics


def _value(match: re.Match[str]) -> str:
    if match["single"] is not None:
        return match["single"]
    if match["double"] is not None:
        return _ESCAPE.sub(lambda escape: _ESCAPED.get(escape[1], escape[1]), match["double"])
    return _COMMENT.sub("", match["plain"]).rstrip()
