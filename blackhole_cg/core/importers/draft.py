"""What an importer makes: services in our words, and a note for every setting that did not fit."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Final

from blackhole_cg.core.config import placeholders
from blackhole_cg.core.config.variables import escape
from blackhole_cg.errors import ConfigError, Diagnostic

_NOT_IN_A_NAME: Final = re.compile(r"[^a-z0-9_-]+")
_MAX_NAME: Final = 63

Carry = Callable[[dict[str, Any], str], str]
"""Carries a value over to a service; what is different about it, if anything. Raises ValueError."""


@dataclass(frozen=True, slots=True)
class Source:
    """A file to import: what it is called, what it says, its absolute directory, and the names beside it."""

    path: str
    text: str
    directory: str = "/"
    siblings: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Note:
    """A setting that was not carried over as it was, and why. `line` counts from 1; 0 is the whole file."""

    path: str
    line: int
    setting: str
    why: str

    def __str__(self) -> str:
        place = f"{self.path}:{self.line}" if self.line else self.path
        return f"{place}: {self.setting}: {self.why}"


@dataclass(slots=True)
class Draft:
    """A configuration under way."""

    services: dict[str, dict[str, Any]] = field(default_factory=dict)
    notes: list[Note] = field(default_factory=list)
    inherits_environment: bool = False  # whether services used to get the environment of their supervisor

    def note(self, source: Source, line: int, setting: str, why: str) -> None:
        """Tell that a setting was not carried over, each once."""
        note = Note(source.path, line, setting, why)
        if note not in self.notes:
            self.notes.append(note)

    def add(self, source: Source, line: int, name: str, service: dict[str, Any]) -> str:
        """Add a service under a name that is valid and new; that name."""
        chosen, number = valid_name(name), 2
        while chosen in self.services:
            chosen, number = f"{valid_name(name)[: _MAX_NAME - 4]}-{number}", number + 1
        if chosen != name:
            self.note(source, line, name, f"is called {chosen} here")
        for text in _texts(service):
            for word in sorted(placeholders.used_in(text)):
                self.note(source, line, f"{{{word}}}", "is a placeholder here and will be replaced")
        first: dict[str, Any] = {
            key: service[key] for key in ("enabled", "type", "command", "args") if key in service
        }
        self.services[chosen] = {**first, **service}
        return chosen


def _texts(value: Any) -> Iterable[str]:
    """The literal texts of a service: those that our own placeholders were not put into."""
    if isinstance(value, Own):
        return
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from _texts(item)
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item)


class Own(str):
    """Text that has placeholders on purpose."""

    __slots__ = ()


def valid_name(name: str) -> str:
    """The name as one of a service: lower case, digits, '-' and '_'."""
    return _NOT_IN_A_NAME.sub("-", name.lower()).lstrip("-_").rstrip("-")[:_MAX_NAME] or "service"


def literal(text: str) -> str:
    """The text as blackhole.yaml has to spell it, so that no `$` of it begins a variable."""
    return escape(text)


def refuse(source: Source, line: int, column: int, message: str) -> ConfigError:
    """The error for a file that is not what it is said to be."""
    return ConfigError([Diagnostic(source.path, line, column, "", message)])


def put(service: dict[str, Any], path: str, value: Any) -> None:
    """Set a value by its dotted key: "restart.policy"."""
    *sections, key = path.split(".")
    for section in sections:
        service = service.setdefault(section, {})
    service[key] = value


def setter(path: str, read: Callable[[str], Any] = str) -> Carry:
    """What carries a value over by setting one key."""

    def carry(service: dict[str, Any], value: str) -> str:
        put(service, path, read(value))
        return ""

    return carry


def duration(seconds: float) -> str:
    """A duration as blackhole.yaml spells it."""
    if seconds != int(seconds):
        return f"{round(seconds * 1000)}ms"
    return f"{int(seconds)}s"
