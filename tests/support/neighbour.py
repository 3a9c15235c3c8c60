"""A healthy service beside faulty ones: whatever happens to those, nothing may happen to it."""

from __future__ import annotations

from datetime import datetime

from tests.support.live import Live


class Neighbour:
    """Looks at a service when made and at the end: nothing may have been told of it in between."""

    def __init__(self, live: Live, name: str) -> None:
        self._live = live
        self._name = name
        self._before = self._look()

    def _look(self) -> tuple[object, ...]:
        info = self._live.status(self._name)
        return info["pid"], info["run_id"], info["restarts"], info["health"], self._live.events(self._name)

    def assert_untouched(self) -> None:
        """The same process, the same run, the same health, and no event since."""
        assert self._look() == self._before


def seconds_until(live: Live, name: str, state: str, began: float) -> float:
    """How long after a moment, as time.time() counts, a service entered a state for the first time."""
    walls = (datetime.fromisoformat(each["at_wall"]) for each in live.events(name) if each["to"] == state)
    return min(at for at in (wall.timestamp() - began for wall in walls) if at >= 0)


def why(live: Live, name: str) -> str:
    """What `why NAME` prints, on one line."""
    return " ".join(live.cli("why", name).stdout.split())
