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
    """The names of services that were found, sorted, and a sentence for everything that was refused."""

    names: tuple[str, ...] = ()
    refused: tuple[str, ...] = ()


def conclude(directory: str, candidates: Iterable[Candidate], configured: Iterable[str] = ()) -> Discovery:
    """Sort candidates into services and refusals; what is configured takes precedence and is left out."""
    known = frozenset(configured)
    names: list[str] = []
    refused: list[str] = []
    for candidate in sorted(candidates, key=lambda each: each.name):
        if candidate.name in known:
            continue
        problem = candidate.problem
        if not _NAME.fullmatch(candidate.name):
            problem = f"this is not a service name (accepted: {SERVICE_NAME_FORMS})"
        if problem is None:
            names.append(candidate.name)
        else:
            refused.append(f"{posixpath.join(directory, shorten(candidate.name))}: {problem}")
    return Discovery(tuple(names), tuple(refused))
