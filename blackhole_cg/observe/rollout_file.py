"""Rolling changes that are under way or have failed, for the next supervisor: a file for its owner alone.

It holds resolved specs, secrets included.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

from blackhole_cg.core.rollout import Phase, Rollout
from blackhole_cg.core.spec import RuntimeSpec, SupervisorSpec
from blackhole_cg.core.spec_text import parse_spec, render_spec
from blackhole_cg.errors import StoreError

_MODE: Final = 0o600


class RolloutFile:
    """The file at `path`; there is none while there are no rollouts."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def load(self) -> list[Rollout]:
        """What an earlier supervisor left. Raises StoreError where it cannot be read."""
        try:
            return [_parse(data) for data in json.loads(self._path.read_text())]
        except FileNotFoundError:
            return []
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as cause:
            raise StoreError(f"cannot read {self._path}: {cause!r}") from cause

    def save(self, rollouts: Iterable[Rollout]) -> None:
        """Keep these and no others, as a whole or not at all. Raises StoreError."""
        data = [_render(rollout) for rollout in rollouts]
        half = self._path.with_suffix(".new")
        try:
            if not data:
                self._path.unlink(missing_ok=True)
                return
            half.unlink(missing_ok=True)
            descriptor = os.open(half, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, _MODE)
            with os.fdopen(descriptor, "w") as file:
                file.write(json.dumps(data))
                file.flush()
                os.fsync(descriptor)
            half.rename(self._path)
        except OSError as cause:
            half.unlink(missing_ok=True)
            raise StoreError(f"cannot write {self._path}: {cause.strerror}") from cause


def _render(rollout: Rollout) -> dict[str, Any]:
    return {
        "group": rollout.group,
        "former": render_spec(SupervisorSpec(RuntimeSpec(), rollout.former)),
        "target": dict(rollout.target),
        "released": sorted(rollout.released),
        "phase": str(rollout.phase),
        "reason": rollout.reason,
        "surge": render_spec(SupervisorSpec(RuntimeSpec(), rollout.surge)),
    }


def _parse(data: dict[str, Any]) -> Rollout:
    return Rollout(
        data["group"],
        parse_spec(data["former"]).services,
        data["target"],
        frozenset(data["released"]),
        Phase(data["phase"]),
        data["reason"],
        # A version that knew of none has written none.
        parse_spec(data["surge"]).services if "surge" in data else {},
    )
