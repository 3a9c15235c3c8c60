"""Files of sections and settings, as supervisord and systemd write them, with the line of each setting."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from blackhole_cg.core.importers.draft import Source, refuse

_SECTION: Final = re.compile(r"\[([^\]]+)\]\s*(?:[;#].*)?$")
_SUPERVISORD: Final = re.compile(r"([^=:\s][^=:]*?)\s*[=:]\s*(.*)")
_SYSTEMD: Final = re.compile(r"([^=\s][^=]*?)\s*=\s*(.*)")
_INLINE_COMMENT: Final = re.compile(r"(?:^|\s)[;#].*$")


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting; a value of several lines has them separated by newlines."""

    section: str
    key: str
    value: str
    line: int


def read_supervisord(source: Source) -> list[Setting]:
    """The settings of a file in supervisord's form: comments at line ends, indented lines go on.

    Raises:
        ConfigError: a line is neither a section nor a setting.
    """
    settings: list[Setting] = []
    section = ""
    for number, line in enumerate(source.text.splitlines(), start=1):
        if line.lstrip().startswith((";", "#")):
            continue
        text = _INLINE_COMMENT.sub("", line).rstrip()
        if not text:
            continue
        if text[0].isspace() and settings and settings[-1].section == section:
            last = settings.pop()
            settings.append(Setting(section, last.key, f"{last.value}\n{text.strip()}".strip(), last.line))
        elif found := _SECTION.match(text):
            section = found[1].strip()
        elif (found := _SUPERVISORD.match(text.strip())) and section:
            settings.append(Setting(section, found[1].lower(), found[2].strip(), number))
        else:
            raise refuse(source, number, 1, "is neither a [section] nor KEY=VALUE")
    return settings


def read_systemd(source: Source) -> list[Setting]:
    """The settings of a unit file: a backslash at the end of a line joins the next, settings repeat.

    Source: systemd.syntax(7).

    Raises:
        ConfigError: a line is neither a section nor a setting.
    """
    settings: list[Setting] = []
    section, joined, first = "", "", 0
    for number, line in enumerate(source.text.splitlines(), start=1):
        if line.lstrip().startswith((";", "#")):  # also between lines that are joined
            continue
        first = first if joined else number
        if line.endswith("\\"):
            joined += line[:-1] + " "
            continue
        text, joined = (joined + line).strip(), ""
        if not text:
            continue
        if found := _SECTION.match(text):
            section = found[1].strip()
        elif (found := _SYSTEMD.match(text)) and section:
            settings.append(Setting(section, found[1], found[2].strip(), first))
        else:
            raise refuse(source, first, 1, "is neither a [section] nor Key=value")
    return settings
