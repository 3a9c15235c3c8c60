"""The throttle over a fake freezer in virtual time: holds end, whatever comes between."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import pytest

from blackhole_cg.core.facts import LimitState
from blackhole_cg.core.spec import ResourceLimits
from blackhole_cg.core.throttle import LONGEST_HOLD_SECONDS
from blackhole_cg.errors import CgroupError, CgroupGoneError
from blackhole_cg.runner.service import ServiceRunner
from blackhole_cg.supervisor.throttling import Throttling, say_throttled
from tests.support.builders import service
from tests.support.virtual_loop import run_virtual

UNENFORCED = LimitState("20000 100000", reason="cpu: absent")


class FakeFreezer:
    """A service that spins on one processor unless it is held."""

    def __init__(self, obstacle: str | None = None) -> None:
        self.obstacle = obstacle
        self.error: CgroupError | None = None
        self.looks = 0
        self.held_since: float | None = None
        self.longest_seconds = 0.0
        self._began, self._held_seconds = self._now(), 0.0

    @staticmethod
    def _now() -> float:
        return asyncio.get_running_loop().time()

    def cpu_seconds(self) -> float:
        self.looks += 1
        if self.error is not None:
            raise self.error
        now = self._now()
        held = self._held_seconds + (0.0 if self.held_since is None else now - self.held_since)
        return now - self._began - held

    def hold(self) -> None:
        self.held_since = self._now() if self.held_since is None else self.held_since

    def let_go(self) -> None:
        if self.held_since is not None:
            held = self._now() - self.held_since
            self._held_seconds += held
            self.longest_seconds = max(self.longest_seconds, held)
            self.held_since = None


class Scene:
    def __init__(self, limit: LimitState = UNENFORCED, obstacle: str | None = None) -> None:
        self.freezer = FakeFreezer(obstacle)
        self.told: list[str] = []
        spec = service("web", limits=ResourceLimits(cpu_percent=20.0))
        run = SimpleNamespace(freezer=self.freezer, limits={"cpu_max": limit})
        self.runner = cast(ServiceRunner, SimpleNamespace(name="web", spec=spec, run=run))
        now: Any = asyncio.get_running_loop().time
        self.throttling = Throttling(now, lambda name, detail: self.told.append(detail))

    async def until_held(self) -> None:
        while self.freezer.held_since is None:  # noqa: ASYNC110  (in virtual time)
            await asyncio.sleep(0.001)


def test_a_run_that_spins_is_held_to_its_share_and_that_is_told_once():
    async def main() -> None:
        scene = Scene()
        scene.throttling.add(scene.runner)
        await asyncio.sleep(60)
        assert scene.freezer.cpu_seconds() == pytest.approx(12, rel=0.05)
        assert scene.freezer.longest_seconds <= LONGEST_HOLD_SECONDS + 0.01
        assert len(scene.told) == 1
        assert scene.told[0].startswith("cpu_max: used more than 20% of a processor; the monitor throttles")
        scene.throttling.close()

    run_virtual(main())


@pytest.mark.parametrize("end", ["remove", "close"])
def test_an_end_while_it_is_held_lets_it_go_and_looks_no_more(end: str):
    async def main() -> None:
        scene = Scene()
        scene.throttling.add(scene.runner)
        await scene.until_held()
        scene.throttling.remove("web") if end == "remove" else scene.throttling.close()
        assert scene.freezer.held_since is None
        looks = scene.freezer.looks
        await asyncio.sleep(60)
        assert scene.freezer.looks == looks

    run_virtual(main())


def test_a_cgroup_that_cannot_be_read_is_let_go_and_that_is_told():
    async def main() -> None:
        scene = Scene()
        scene.throttling.add(scene.runner)
        scene.freezer.error = CgroupError("read", "/cg/web/cpu.stat", 5)
        await asyncio.sleep(60)
        assert scene.freezer.held_since is None
        assert scene.told == [f"cpu_max is not enforced any more: {scene.freezer.error}"]

    run_virtual(main())


def test_a_cgroup_that_is_gone_is_nothing_to_tell():
    async def main() -> None:
        scene = Scene()
        scene.throttling.add(scene.runner)
        scene.freezer.error = CgroupGoneError("read", "/cg/web/cpu.stat", 19)
        await asyncio.sleep(60)
        assert scene.told == []
        scene.throttling.close()

    run_virtual(main())


def test_what_the_kernel_enforces_or_cannot_be_held_is_left_alone_and_status_says_which():
    async def main() -> None:
        enforced = replace(UNENFORCED, effective="20000 100000", enforced=True, reason=None)
        for scene in (Scene(enforced), Scene(obstacle="no cgroup.freeze")):
            scene.throttling.add(scene.runner)
            assert scene.freezer.looks == 0
        assert say_throttled(Scene(enforced).runner, enforced) == enforced
        can = say_throttled(Scene().runner, UNENFORCED).reason
        assert can == "cpu: absent; the monitor throttles the service by freezing it"
        cannot = say_throttled(Scene(obstacle="no cgroup.freeze").runner, UNENFORCED).reason
        assert cannot == "cpu: absent; the monitor cannot throttle it either: no cgroup.freeze"

    run_virtual(main())
