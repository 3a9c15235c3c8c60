"""Which programs of the services directory become services, and why the others do not."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from blackhole_cg.core.names import SERVICE_NAME_FORMS, SERVICE_NAME_PATTERN
from blackhole_cg.core.units import shorten

MAX_FOUND: Final = 10_000
"""Programs that are looked at, so that a directory nobody expected ends in a sentence."""

_NAME: Final = re.compile(SERVICE_NAME_PATTERN)


@dataclass(frozen=True, slots=True)
class Candidate:
    """What was seen at `DIRECTORY/NAME`; `problem` is why the host would not take it, None when it would."""

    name: str
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class Discovery:
    """The services that a directory offers, and what it has that is refused, each sorted by name.

    `problem` says why nothing in the directory was looked at.
    """

    names: tuple[str, ...] = ()
    refused: tuple[Candidate, ...] = ()
    problem: str | None = None

    def without(self, configured: Iterable[str]) -> Discovery:
        """The rest, when these are configured: nothing is said about those either."""
        known = frozenset(configured)
        names = tuple(name for name in self.names if name not in known)
        return Discovery(names, tuple(each for each in self.refused if each.name not in known), self.problem)

    def sentences(self, directory: str) -> tuple[str, ...]:
        """What a person should know."""
        if self.problem is not None:
            return (f"{directory}: {self.problem}",)
        paths = ((posixpath.join(directory, shorten(each.name)), each.problem) for each in self.refused)
        return tuple(f"{path}: {problem}" for path, problem in paths)


def conclude(candidates: Iterable[Candidate]) -> Discovery:
    """Tell services and refusals apart."""
    checked = [_checked(each) for each in sorted(candidates, key=lambda each: each.name)]
    names = tuple(each.name for each in checked if each.problem is None)
    return Discovery(names, tuple(each for each in checked if each.problem is not None))


def _checked(candidate: Candidate) -> Candidate:
    if _NAME.fullmatch(candidate.name):
        return candidate
    return Candidate(candidate.name, f"this is not a service name (accepted: {SERVICE_NAME_FORMS})")
