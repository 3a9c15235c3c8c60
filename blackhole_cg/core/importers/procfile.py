"""Procfile: a line `NAME: COMMAND` for each process type."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final

from blackhole_cg.core.importers import shell
from blackhole_cg.core.importers.draft import Draft, Own, Source, literal, refuse

_LINE: Final = re.compile(r"([A-Za-z0-9_-]+):\s*(.+)")
_PORT: Final = re.compile(r"\$PORT\b|\$\{PORT\}|\$\{PORT:-(\d+)\}")
_FIRST_PORT: Final = 5000
_PORT_STEP: Final = 100
_ENV_FILE: Final = ".env"

_RELEASE: Final = "a release phase runs once before the others: start it by hand, or let them depend on it"


def import_procfile(sources: Sequence[Source]) -> Draft:
    """The process types as services, each with a port as `foreman` counts them. Raises ConfigError."""
    draft = Draft(inherits_environment=True)
    for source in sources:
        found = False
        for number, line in enumerate(source.text.splitlines(), start=1):
            text = line.strip()
            if not text or text.startswith("#"):
                continue
            match = _LINE.fullmatch(text)
            if match is None:
                raise refuse(source, number, 1, "is not NAME: COMMAND")
            found = True
            _import_line(draft, source, number, match[1], match[2])
        if not found:
            raise refuse(source, 0, 0, "has no process types (expected lines NAME: COMMAND)")
    return draft


def _import_line(draft: Draft, source: Source, number: int, name: str, line: str) -> None:
    port = _FIRST_PORT + _PORT_STEP * len(draft.services)
    service: dict[str, Any] = {}
    uses_port = bool(_PORT.search(line))
    parts = shell.split(_PORT.sub("PORT-of-it", line))
    if parts is None:
        service["command"] = shell.by_shell(line)
        draft.note(source, number, name, shell.SHELL)
    else:
        words, variables = parts
        service["command"] = [_word(word) for word in words]
        if variables:
            service["environment"] = {key: _word(value) for key, value in variables.items()}
    service["data_dir"] = source.directory
    if _ENV_FILE in source.siblings:
        service["env_file"] = f"{source.directory}/{_ENV_FILE}"
    if uses_port or name == "web":
        own = service.setdefault("environment", {}).setdefault("PORT", Own("{tcp_port}"))
        service["tcp_port"] = int(own) if own.isdecimal() and not uses_port else port
    if name == "release":
        service |= {"type": "oneshot", "enabled": False}
        draft.note(source, number, name, _RELEASE)
    draft.add(source, number, name, service)


def _word(word: str) -> str:
    if "PORT-of-it" in word:
        return Own(literal(word).replace("PORT-of-it", "{tcp_port}"))
    return literal(word)
