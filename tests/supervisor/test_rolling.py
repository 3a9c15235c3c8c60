"""Rolling changes on a fake host: a few at a time, back when the new ones fail, and over a crash."""

from __future__ import annotations

import asyncio
import json

import pytest

from blackhole_cg.core.facts import ExitStatus
from blackhole_cg.core.spec import RestartPolicy, RolloutSpec, SupervisorSpec
from blackhole_cg.core.words import RestartWhen
from blackhole_cg.errors import OperationError
from tests.support.builders import supervisor_spec
from tests.support.fake_host import FakeHost
from tests.support.rollouts import NAMES, Watched, group, play, supervisor, told


async def watch(host: FakeHost, counts: list[int]) -> None:
    while True:
        runs = [host.live[name] for name in NAMES if name in host.live]
        counts.append(sum(not run.signals for run in runs))
        await asyncio.sleep(0.1)


@pytest.mark.parametrize("bound", [1, 2, 4])
def test_so_many_are_replaced_at_a_time_and_what_is_stopped_stays_so(tmp_path, bound):
    async def main():
        host, counts = Watched(), []
        async with supervisor(tmp_path, supervisor_spec(*group(1)), host) as it:
            await it.start()
            await it.stop("web-4")
            watching = asyncio.create_task(watch(host, counts))
            rollout = RolloutSpec(bound, 2.0)
            await it.reload(supervisor_spec(*group(2, rollout=rollout)))
            watching.cancel()
            assert min(counts) == max(0, 3 - bound)
            assert host.versions() == dict.fromkeys(NAMES[:3], 2)
            assert it.configuration.rollouts() == []
            assert not it.paths.rollouts.exists()
            assert ("web-3", "replaced: 4 of 4 of 'web'") in told(it)
            await it.start("web-4")
            assert host.versions()["web-4"] == 2

    play(main)


def test_a_version_that_fails_is_taken_back_and_shown_as_outdated(tmp_path):
    async def main():
        host, counts = Watched(), []
        old, new = supervisor_spec(*group(1)), supervisor_spec(*group(2))
        async with supervisor(tmp_path, old, host) as it:
            await it.start()
            before = {name: host.live[name] for name in NAMES}
            host.broken = {2}
            watching = asyncio.create_task(watch(host, counts))
            with pytest.raises(OperationError) as refused:
                await it.reload(new)
            watching.cancel()
            assert str(refused.value).startswith(
                "the rollout of 'web' is taken back: 'web-1' was up for less than 2s: "
            )
            assert min(counts) == 3
            assert host.versions() == dict.fromkeys(NAMES, 1)
            assert all(host.live[name] is before[name] for name in NAMES[1:])
            assert all(info.outdated for info in it.all_services())
            assert it.configuration.rollouts()[0]["phase"] == "failed"
            assert it.paths.rollouts.stat().st_mode & 0o777 == 0o600
            assert told(it)[0][1].startswith("the rollout of 'web' goes back, 1 of 4 begun: ")
            # What ends by itself comes back as it was, too.
            host.live["web-2"].end(ExitStatus(code=1))
            await asyncio.sleep(20)
            assert host.versions() == dict.fromkeys(NAMES, 1)
            host.broken = set()
            await it.reload(new)  # again
            assert host.versions() == dict.fromkeys(NAMES, 2)
            assert not any(info.outdated for info in it.all_services())

    play(main)


def test_a_list_of_instances_neither_tries_again_nor_disturbs(tmp_path):
    async def main():
        host = Watched()
        async with supervisor(tmp_path, supervisor_spec(*group(1)), host) as it:
            await it.start()
            host.broken = {2}
            with pytest.raises(OperationError):
                await it.reload(supervisor_spec(*group(2)))
            host.broken = set()
            before = dict(host.live)
            listed = supervisor_spec(*group(2), *group(2, names=["web-5"]))

            async def read() -> SupervisorSpec:
                return listed

            await (await it.configuration.renew(read)).settled()
            assert host.versions() == {**dict.fromkeys(NAMES, 1), "web-5": 2}
            assert all(host.live[name] is run for name, run in before.items())

    play(main)


def test_a_newer_configuration_overtakes(tmp_path):
    async def main():
        host = Watched()
        async with supervisor(tmp_path, supervisor_spec(*group(1)), host) as it:
            await it.start()
            overtaken = asyncio.create_task(it.reload(supervisor_spec(*group(2))))
            await asyncio.sleep(3)
            assert set(host.versions().values()) == {1, 2}
            await it.reload(supervisor_spec(*group(3)))
            assert host.versions() == dict.fromkeys(NAMES, 3)
            with pytest.raises(OperationError):
                await overtaken
            overtaken = asyncio.create_task(it.reload(supervisor_spec(*group(4))))
            await asyncio.sleep(3)
            await it.reload(supervisor_spec(*group(3)))  # the way back is one, too
            assert host.versions() == dict.fromkeys(NAMES, 3)
            await asyncio.gather(overtaken, return_exceptions=True)

    play(main)


def test_an_operator_who_stops_one_in_between_has_the_last_word(tmp_path):
    async def main():
        host = Watched()
        async with supervisor(tmp_path, supervisor_spec(*group(1)), host) as it:
            await it.start()
            reload = asyncio.create_task(it.reload(supervisor_spec(*group(2))))
            await asyncio.sleep(1)
            await it.stop("web-1")
            await reload
            assert host.versions() == dict.fromkeys(NAMES[1:], 2)

    play(main)


@pytest.mark.parametrize("turns", range(6))
def test_a_start_that_comes_in_between_is_no_failure(tmp_path, turns):
    async def main():
        host = Watched()
        async with supervisor(tmp_path, supervisor_spec(*group(1)), host) as it:
            await it.start()
            taken = it.configuration.take(supervisor_spec(*group(2)))
            for _ in range(turns):  # of the loop, in which the work gets on
                await asyncio.sleep(0)
            await it.start()
            await taken.settled()
            assert host.versions() == dict.fromkeys(NAMES, 2)
            assert it.configuration.rollouts() == []

    play(main)


def test_instances_that_are_gone_or_new_do_not_wait_for_their_turn(tmp_path):
    async def main():
        host = Watched()
        async with supervisor(tmp_path, supervisor_spec(*group(1)), host) as it:
            await it.start()
            names = [*NAMES[:2], "web-5"]
            await it.reload(supervisor_spec(*group(1, names=names)))
            assert host.versions() == dict.fromkeys(names, 1)
            assert told(it) == []

    play(main)


@pytest.mark.parametrize("broken", [False, True])
@pytest.mark.parametrize("after_seconds", [0.0, 0.1, 0.7, 2.5, 2.9, 3.5, 6.0])
def test_the_next_supervisor_goes_on_where_one_was_killed(tmp_path, broken, after_seconds):
    async def main():
        host, counts = Watched(), []
        new = supervisor_spec(*group(2))
        first = supervisor(tmp_path, supervisor_spec(*group(1)), host)
        await first.open()
        await first.start()
        if broken:
            host.broken = {2}
        watching = asyncio.create_task(watch(host, counts))
        reload = asyncio.create_task(first.reload(new))
        await asyncio.sleep(after_seconds)
        assert first.paths.rollouts.exists()
        phase = json.loads(first.paths.rollouts.read_text())[0]["phase"]
        await first.detach()
        await asyncio.gather(reload, return_exceptions=True)
        second = supervisor(tmp_path, new, host)
        await second.open()
        await second.start()
        await asyncio.sleep(40)
        watching.cancel()
        assert min(counts) == 3
        assert host.versions() == dict.fromkeys(NAMES, 1 if broken else 2)
        rollouts = second.configuration.rollouts()
        assert [each["phase"] for each in rollouts] == (["failed"] if broken else [])
        assert broken or phase == "forward"
        await second.shutdown()
        assert not second.paths.rollouts.exists()

    play(main)


def test_after_an_apply_the_next_supervisor_rolls_back_to_its_file(tmp_path):
    async def main():
        host, counts = Watched(), []
        spec = supervisor_spec(*group(1, restart=RestartPolicy(when=RestartWhen.NEVER)))
        first = supervisor(tmp_path, spec, host)
        await first.open()
        await first.start()
        reload = asyncio.create_task(first.reload(supervisor_spec(*group(2))))
        await asyncio.sleep(4)
        assert set(host.versions().values()) == {1, 2}
        await first.detach()
        await asyncio.gather(reload, return_exceptions=True)
        watching = asyncio.create_task(watch(host, counts))
        async with supervisor(tmp_path, spec, host) as second:
            await second.start()
            await asyncio.sleep(40)
            watching.cancel()
            assert host.versions() == dict.fromkeys(NAMES, 1)
            assert min(counts) >= 3
            assert second.configuration.rollouts() == []

    play(main)
