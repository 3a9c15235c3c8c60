"""The configurations that were applied last, resolved and with their secrets, one file each.

They can be returned to even when the files they came from have changed. Readable by their owner alone.
"""

from __future__ import annotations

import json
import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from blackhole_cg.core.spec import SupervisorSpec
from blackhole_cg.core.spec_text import parse_spec, render_spec
from blackhole_cg.errors import StoreError

_log = logging.getLogger(__name__)

KEPT: Final = 10
_MODE: Final = 0o600


@dataclass(frozen=True, slots=True)
class Entry:
    """One of them. `how` is the command that applied it."""

    number: int
    at_wall: str
    how: str
    source: str | None  # the file it came from
    services: int

    def to_json(self) -> dict[str, Any]:
        """The entry as the API shows it."""
        return {name: getattr(self, name) for name in self.__slots__}


class ConfigHistory:
    """The files in one directory, NUMBER.json each; numbers only grow."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def entries(self) -> list[Entry]:
        """What there is, oldest first; what cannot be read is left out."""
        found = []
        for number in self._numbers():
            try:
                found.append(self._read(number)[0])
            except StoreError as error:
                _log.error("%s", error)
        return found

    def load(self, number: int) -> SupervisorSpec:
        """One of them. Raises StoreError."""
        text = self._read(number)[1]
        try:
            return parse_spec(text)
        except (ValueError, KeyError, TypeError, AttributeError) as cause:
            raise StoreError(f"cannot read {self._path(number)}: {cause!r}") from cause

    def ends_with(self, spec: SupervisorSpec) -> bool:
        """Whether the newest one is this."""
        numbers = self._numbers()
        if not numbers:
            return False
        try:
            # The same text is the usual case, and ten times cheaper than to make a configuration of it.
            return self._read(numbers[-1])[1] == render_spec(spec) or self.load(numbers[-1]) == spec
        except StoreError:
            return False

    def add(self, spec: SupervisorSpec, how: str, source: str | None, at_wall: str) -> int:
        """Keep one more, and no more than the newest ten; its number. Raises StoreError: it is not kept."""
        numbers = self._numbers()
        number = numbers[-1] + 1 if numbers else 1
        text = json.dumps(
            {
                "number": number,
                "at_wall": at_wall,
                "how": how,
                "source": source,
                "services": len(spec.services),
                "configuration": render_spec(spec),
            }
        )
        try:
            self._write(number, text)
        except OSError as cause:
            raise StoreError(f"cannot store the configuration: {cause.strerror}") from cause
        for old in numbers[: max(0, len(numbers) + 1 - KEPT)]:
            self._path(old).unlink(missing_ok=True)
        return number

    def _write(self, number: int, text: str) -> None:
        """As a whole or not at all, whenever the power goes."""
        self._directory.mkdir(mode=0o700, exist_ok=True)
        path = self._path(number)
        half = path.with_suffix(".new")
        half.unlink(missing_ok=True)
        try:
            descriptor = os.open(half, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, _MODE)
            with os.fdopen(descriptor, "w") as file:
                file.write(text)
                file.flush()
                os.fsync(descriptor)
            half.rename(path)
        except OSError:
            half.unlink(missing_ok=True)
            raise

    def _read(self, number: int) -> tuple[Entry, str]:
        """An entry, and the text of its configuration."""
        path = self._path(number)
        try:
            data = json.loads(path.read_text())
            return Entry(**{name: data[name] for name in Entry.__slots__}), data["configuration"]
        except OSError as cause:
            raise StoreError(f"there is no configuration {number}: {cause.strerror}") from cause
        except (ValueError, KeyError, TypeError, AttributeError) as cause:
            raise StoreError(f"cannot read {path}: {cause!r}") from cause

    def _path(self, number: int) -> Path:
        return self._directory / f"{number}.json"

    def _numbers(self) -> list[int]:
        try:
            return sorted(int(path.stem) for path in self._directory.glob("*.json") if path.stem.isdigit())
        except OSError:
            return []
