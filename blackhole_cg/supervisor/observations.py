"""What services use, in the shapes of the API: samples with wall times, the past, single processes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import asdict
from datetime import datetime, timedelta
from typing import Any

from blackhole_cg.core.history import Extent, History
from blackhole_cg.core.samples import Sample
from blackhole_cg.runner.clock import Clock, wall_text
from blackhole_cg.supervisor.watching import Watching


class Observations:
    """Answers from what the monitor keeps; only `processes` looks anew."""

    def __init__(self, watching: Watching, clock: Clock) -> None:
        self._watching = watching
        self._clock = clock

    def latest(self, name: str) -> dict[str, Any] | None:
        """The newest sample of the live run; None when there is none."""
        sample = self._watching.monitor.latest(name)
        return None if sample is None else self._render(sample)

    def history(self, name: str, since: datetime | None) -> dict[str, Any]:
        """Points of the last hour and spans of the last day, oldest first, across runs."""
        found = self._watching.monitor.history(name)
        if since is None:
            return self._render_history(found)
        ago_seconds = (self._clock.wall() - since).total_seconds()
        return self._render_history(found, self._clock.now() - ago_seconds)

    async def follow(self, names: Sequence[str]) -> AsyncIterator[dict[str, Any]]:
        """The newest sample of each of these services, or of all when none is named, and then all to come."""
        async for name, sample in self._watching.follow(names or None):
            yield {"service": name, **self._render(sample)}

    def processes(self, name: str) -> list[dict[str, Any]]:
        """Every process of the live run, looked at now."""
        return [_rounded(asdict(process)) for process in self._watching.monitor.processes(name)]

    def _render(self, sample: Sample) -> dict[str, Any]:
        values = sample.to_json()
        del values["taken_at"]
        return {"at_wall": self._wall(sample.taken_at), **_rounded(values)}

    def _render_history(self, history: History, since: float = float("-inf")) -> dict[str, Any]:
        return {
            "points": [
                {"at_wall": self._wall(point.at), **_rounded(point.values)} for point in history.points(since)
            ],
            "spans": [
                {
                    "begins_wall": self._wall(span.begins_at),
                    **{metric: _render_extent(extent) for metric, extent in span.extents.items()},
                }
                for span in history.spans(since)
            ],
        }

    def _wall(self, at: float) -> str:
        return wall_text(self._clock.wall() - timedelta(seconds=self._clock.now() - at))


def _render_extent(extent: Extent | None) -> dict[str, float] | None:
    return None if extent is None else _rounded(asdict(extent))


def _rounded(values: dict[Any, Any]) -> dict[str, Any]:
    """The same with no more digits than mean something."""
    return {
        str(name): round(value, 3) if isinstance(value, float) else value for name, value in values.items()
    }
