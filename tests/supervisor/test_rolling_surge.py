"""Additional instances while others are replaced: first to come, last to go, and none left over."""

from __future__ import annotations

import asyncio
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from blackhole_cg.core.rollout import Rollout, bounds_of
from blackhole_cg.core.spec import RolloutSpec, SupervisorSpec
from blackhole_cg.core.words import AUTO, Dependents
from blackhole_cg.errors import OperationError
from blackhole_cg.observe.rollout_file import RolloutFile
from blackhole_cg.supervisor.endpoints import list_endpoints
from blackhole_cg.supervisor.supervisor import Supervisor
from tests.support.builders import service, supervisor_spec
from tests.support.faults import Fate
from tests.support.lives import Wish, World
from tests.support.rollouts import NAMES, Watched, group, play, supervisor, told


def grown(version: int, rollout: RolloutSpec, *, count: int = 4, **fields: object) -> SupervisorSpec:
    """A group of so many, as a configuration of it is resolved."""
    names = [f"web-{index}" for index in range(1, 2 * count + 1)]
    specs = group(version, names=names, rollout=rollout, **fields)
    user = service("user", *names[:count])
    return replace(
        supervisor_spec(*specs[:count], user, max_processes=100),
        surge={each.name: each for each in specs[count:]},
    )


def one_more(unavailable: int | str = 0, surge: int | str = 1) -> RolloutSpec:
    return RolloutSpec(unavailable, 2.0, surge)


class Survey:
    """How many of the group there were, at least and at most."""

    def __init__(self, host: Watched) -> None:
        self._host = host
        self.least, self.most = host.available(), host.running()

    async def _run(self) -> None:
        while True:
            self.least = min(self.least, self._host.available())
            self.most = max(self.most, self._host.running())
            await asyncio.sleep(0.05)

    @contextmanager
    def going_on(self) -> Iterator[None]:
        task = asyncio.create_task(self._run())
        try:
            yield
        finally:
            task.cancel()


async def begin(directory: Path, spec: SupervisorSpec, host: Watched) -> Supervisor:
    it = supervisor(directory, spec, host)
    await it.open()
    await it.start()
    await asyncio.sleep(1)
    return it


def at_rest(it: Supervisor, host: Watched, version: int, count: int = 4) -> None:
    """Nothing is left of any additional one."""
    names = [f"web-{index}" for index in range(1, count + 1)]
    assert {name: number for name, number in host.versions().items() if name != "user"} == dict.fromkeys(
        names, version
    )
    assert sorted(info.name for info in it.all_services()) == ["user", *names]
    assert sorted(it.spec.services) == ["user", *names]
    assert all(rollout["surge"] == [] for rollout in it.configuration.rollouts())


@pytest.mark.parametrize(
    ("unavailable", "surge", "least", "most"),
    [(0, 1, 4, 5), (1, 1, 3, 5), (0, 3, 4, 7), (2, "26%", 2, 6), ("25%", "100%", 4, 8), (0, 9, 4, 8)],
)
def test_they_come_first_and_leave_last(tmp_path, unavailable, surge, least, most):
    async def main():
        host = Watched()
        rollout = one_more(unavailable, surge)
        it = await begin(tmp_path, grown(1, rollout), host)
        survey, before = Survey(host), it.service_info("user").run_id
        with survey.going_on():
            plan = await it.reload(grown(2, rollout))
        assert (survey.least, survey.most) == (least, most)
        at_rest(it, host, 2)
        assert not it.paths.rollouts.exists()
        assert {change.service for change in plan.changes} == set(NAMES)
        steps = told(it)
        added = {name for name, detail in steps[: most - 4] if detail == "up: additional instance of 'web'"}
        assert added == {f"web-{index}" for index in range(5, most + 1)}
        ends = [name for name, detail in steps if detail == "additional instance of 'web': to be removed"]
        assert {*ends} == added
        assert [detail for name, detail in steps if name in NAMES][-1] == "replaced: 4 of 4 of 'web'"
        assert it.service_info("user").run_id == before
        await it.shutdown()

    play(main)


def test_they_are_shown_while_they_are_there_and_hold_up_nobody(tmp_path):
    async def main():
        host = Watched()
        it = await begin(tmp_path, grown(1, one_more(), tcp_port=AUTO), host)
        reload = asyncio.create_task(it.reload(grown(2, one_more(), tcp_port=AUTO)))
        await asyncio.sleep(3)
        assert it.configuration.rollouts()[0]["surge"] == ["web-5"]
        assert it.service_info("web-5").instance_of == "web"
        port = it.service_info("web-5").tcp_port
        assert port is not None
        assert list_endpoints(it.services)["web-5"]["tcp"] == f"127.0.0.1:{port}"
        assert "web-5" not in it.spec.services
        assert it.services.with_dependents(["web-5"], Dependents.REFUSE) == ["web-5"]
        await reload
        assert "web-5" not in list_endpoints(it.services)
        await it.shutdown()

    play(main)


def test_a_version_that_fails_takes_nothing_down(tmp_path):
    async def main():
        host = Watched()
        it = await begin(tmp_path, grown(1, one_more()), host)
        before = {name: host.live[name] for name in NAMES}
        host.broken = {2}
        survey = Survey(host)
        with survey.going_on(), pytest.raises(OperationError) as refused:
            await it.reload(grown(2, one_more()))
        assert str(refused.value).startswith(
            "the rollout of 'web' is taken back: 'web-5' was up for less than 2s: "
        )
        assert survey.least == 4
        assert {name: host.live[name] for name in NAMES} == before
        at_rest(it, host, 1)
        assert all(info.outdated for info in it.all_services() if info.name in NAMES)
        host.broken = set()
        await it.reload(grown(2, one_more()))  # again
        at_rest(it, host, 2)
        await it.shutdown()

    play(main)


@pytest.mark.parametrize(("unavailable", "surge"), [(0, 1), (1, 2), (0, 4)])
@pytest.mark.parametrize("broken", ["web-1", "web-2", "web-4"])
def test_going_back_they_stand_in_too(tmp_path, broken, unavailable, surge):
    async def main():
        host = Watched()
        rollout = one_more(unavailable, surge)
        it = await begin(tmp_path, grown(1, rollout), host)
        host.broken = {(broken, 2)}
        survey = Survey(host)
        with survey.going_on(), pytest.raises(OperationError) as refused:
            await it.reload(grown(2, rollout))
        assert f"'{broken}' was up for less than" in str(refused.value)
        assert survey.least >= 4 - unavailable
        assert survey.most <= 4 + surge
        at_rest(it, host, 1)
        await it.shutdown()

    play(main)


def test_one_for_which_there_is_no_room_is_a_failure(tmp_path):
    async def main():
        host = Watched()
        full = {"runtime": replace(grown(1, one_more()).runtime, max_processes=5)}
        it = await begin(tmp_path, replace(grown(1, one_more()), **full), host)
        with pytest.raises(OperationError, match=r"cannot start 'web-5': 5 services are running"):
            await it.reload(replace(grown(2, one_more()), **full))
        at_rest(it, host, 1)
        await it.shutdown()

    play(main)


def test_one_that_an_operator_stops_is_missed(tmp_path):
    async def main():
        host = Watched()
        it = await begin(tmp_path, grown(1, one_more()), host)
        reload = asyncio.create_task(it.reload(grown(2, one_more())))
        await asyncio.sleep(3)
        await it.stop("web-5")
        with pytest.raises(OperationError, match="'web-5' stands in for them, and is not up"):
            await reload
        at_rest(it, host, 1)
        await it.shutdown()

    play(main)


def test_who_is_stopped_needs_nobody_to_stand_in(tmp_path):
    async def main():
        host = Watched()
        it = await begin(tmp_path, grown(1, one_more(0, 4)), host)
        await it.stop("user", "web-3", "web-4")
        survey = Survey(host)
        with survey.going_on():
            await it.reload(grown(2, one_more(0, 4)))
        assert (survey.least, survey.most) == (2, 4)
        assert host.versions() == {"web-1": 2, "web-2": 2}
        await it.shutdown()

    play(main)


@pytest.mark.parametrize("after_seconds", [0.1, 1.0, 2.4, 2.9, 4.0, 7.0])
@pytest.mark.parametrize("broken", [False, True])
def test_a_newer_configuration_overtakes(tmp_path, after_seconds, broken):
    async def main():
        host = Watched()
        it = await begin(tmp_path, grown(1, one_more()), host)
        host.broken = {2} if broken else set()
        survey = Survey(host)
        with survey.going_on():
            overtaken = asyncio.create_task(it.reload(grown(2, one_more())))
            await asyncio.sleep(after_seconds)
            await it.reload(grown(3, one_more()))
        assert (survey.least, survey.most) == (4, 5)
        at_rest(it, host, 3)
        await asyncio.gather(overtaken, return_exceptions=True)
        await it.shutdown()

    play(main)


@pytest.mark.parametrize("count", [2, 3, 5, 6])
@pytest.mark.parametrize("after_seconds", [None, 1.0, 2.9, 6.0])
def test_another_count_at_the_same_time(tmp_path, count, after_seconds):
    async def main():
        host = Watched()
        it = await begin(tmp_path, grown(1, one_more()), host)
        survey = Survey(host)
        with survey.going_on():
            if after_seconds is not None:
                overtaken = asyncio.create_task(it.reload(grown(2, one_more())))
                await asyncio.sleep(after_seconds)
            await it.reload(grown(2, one_more(), count=count))
        at_rest(it, host, 2, count)
        assert survey.least >= min(4, count)
        assert survey.most <= max(4, count) + 1
        if after_seconds is not None:
            await asyncio.gather(overtaken, return_exceptions=True)
        await it.shutdown()

    play(main)


MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # where a sync costs nothing
BROKEN = [set(), {2}, {("web-1", 2)}, {("web-3", 2)}, {("web-5", 2)}]


@settings(max_examples=40)
@given(
    rollout=st.sampled_from([one_more(), one_more(1, 1), one_more(0, 3), one_more("50%", "50%")]),
    broken=st.sampled_from(BROKEN),
    deaths=st.lists(st.integers(1, 150), max_size=3),
)
@example(rollout=one_more(), broken=set(), deaths=[20, 20, 20])
@example(rollout=one_more(), broken={("web-3", 2)}, deaths=[100, 3])
def test_whenever_a_supervisor_is_killed_the_next_leaves_none_over(rollout, broken, deaths):
    async def main(directory: Path):
        host, new, fate = Watched(), grown(2, rollout), Fate()
        world = World(grown(1, rollout), directory, host)
        await world.begin(fate)
        await world.settle(1)
        host.broken, world.spec, survey = broken, new, Survey(host)
        with survey.going_on():
            lives = iter([*deaths, None])
            first = next(lives)
            fate.die_at = None if first is None else len(fate.points) + first
            lived = await world.ask(Wish("reload", (new,))) and await world.settle()
            for die_at in lives:
                if not lived:
                    await world.kill()
                    lived = await world.begin(Fate(die_at)) and await world.settle()
        assert lived
        world.fate.die_at = None
        it = world.supervisor
        at_rest(it, host, 1 if broken and it.configuration.rollouts() else 2)
        assert broken or it.configuration.rollouts() == []
        limits = bounds_of([rollout], 4)
        assert survey.least >= 4 - limits.unavailable
        assert survey.most <= 4 + limits.surge
        await world.end()
        assert not it.paths.rollouts.exists()

    with tempfile.TemporaryDirectory(dir=MEMORY) as directory:
        play(lambda: main(Path(directory)))


@pytest.mark.parametrize("after_seconds", [0.1, 1.0, 2.5, 4.0, 8.0])
def test_by_another_file_the_next_supervisor_has_none_over_either(tmp_path, after_seconds):
    async def main():
        host = Watched()
        old = supervisor_spec(*group(1), service("user", *NAMES))
        first = await begin(tmp_path, old, host)
        survey = Survey(host)
        with survey.going_on():
            reload = asyncio.create_task(first.reload(grown(2, one_more())))
            await asyncio.sleep(after_seconds)
            await first.detach()
            await asyncio.gather(reload, return_exceptions=True)
            second = await begin(tmp_path, old, host)
            await asyncio.sleep(60)
        at_rest(second, host, 1)
        assert second.configuration.rollouts() == []
        assert survey.least >= 3
        assert survey.most == 5
        await second.shutdown()

    play(main)


def test_what_a_version_without_them_has_recorded_is_read(tmp_path):
    path = tmp_path / "rollouts.json"
    file = RolloutFile(path)
    specs = {each.name: each for each in group(1)}
    rollout = Rollout("web", specs, dict.fromkeys(specs, "2"), surge=grown(2, one_more()).surge)
    file.save([rollout])
    assert file.load() == [rollout]
    data = json.loads(path.read_text())
    del data[0]["surge"]
    path.write_text(json.dumps(data))
    assert file.load() == [replace(rollout, surge={})]
