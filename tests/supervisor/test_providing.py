"""Whatever a provider does, the newest good list holds, and it is asked again with growing delays."""

from __future__ import annotations

import asyncio
import json
import stat
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from blackhole_cg.core.discovery import Discovery
from blackhole_cg.core.instance_list import MAX_INSTANCES, Instance, checked, from_text, to_text
from blackhole_cg.core.spec import DiscoverySpec, RuntimeSpec, SupervisorSpec
from blackhole_cg.errors import BlackholeError
from blackhole_cg.supervisor.providing import Memory, Providing
from blackhole_cg.supervisor.rediscovery import Rediscovery
from tests.support.builders import service
from tests.support.virtual_loop import run_virtual

A, B = {"id": "a", "template": "t"}, {"id": "b", "template": "t"}


class Script:
    """A provider that does one thing after another: waits, gives a list, raises."""

    def __init__(self, *steps: Any) -> None:
        self._steps = list(steps)
        self.began_at: list[float] = []

    async def __aiter__(self) -> AsyncIterator[Any]:
        self.began_at.append(asyncio.get_running_loop().time())
        while self._steps:
            step = self._steps.pop(0)
            if isinstance(step, float):
                await asyncio.sleep(step)
            elif isinstance(step, Exception):
                raise step
            else:
                yield step


class Taker:
    """Takes lists in, slowly if asked, and refuses those that have a certain id."""

    def __init__(self, seconds: float = 0.0, refuses: str = "") -> None:
        self._seconds = seconds
        self.refuses = refuses
        self.asked: list[tuple[Instance, ...]] = []
        self.taken: list[tuple[Instance, ...]] = []

    async def __call__(self, instances: tuple[Instance, ...]) -> None:
        self.asked.append(instances)
        await asyncio.sleep(self._seconds)
        if any(item["id"] == self.refuses for item in instances):
            raise BlackholeError(f"{self.refuses}: refused")
        self.taken.append(instances)


def follow(provider: Any, take: Taker, seconds: float) -> list[str]:
    """Follow for so long; what was noted."""
    notes: list[str] = []

    async def main() -> None:
        task = asyncio.create_task(Providing(provider, take, notes.append, lambda: 0.0).run())
        await asyncio.sleep(seconds)
        assert not task.done()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    run_virtual(main())
    return notes


def test_each_list_replaces_the_one_before() -> None:
    take = Taker()
    assert follow(Script([A], 1.0, [A, B], 1.0, [], 1.0, [B]), take, 10) == []
    assert take.taken == [(A,), (A, B), (), (B,)]


def test_only_the_newest_of_what_came_meanwhile_is_taken_in() -> None:
    take = Taker(seconds=1.0)
    lists = [[{**A, "n": number}] for number in range(50)]
    steps = [step for each in lists for step in (each, 0.1)]
    follow(Script(*steps), take, 20)
    assert len(take.taken) <= 8
    assert take.taken[-1] == tuple(lists[-1])


def test_a_list_that_says_the_same_is_not_taken_in_again() -> None:
    take = Taker()
    follow(Script([A], 1.0, [dict(A)], 1.0, [A]), take, 10)
    assert take.asked == [(A,)]


def test_a_failure_is_told_once_and_the_provider_asked_again_with_growing_delays() -> None:
    script = Script(*[OSError("no route to the database")] * 12, [A])
    take = Taker()
    notes = follow(script, take, 1000)
    assert notes == ["the provider of instances failed: OSError: no route to the database"]
    delays = [after - before for before, after in zip(script.began_at, script.began_at[1:], strict=False)]
    assert delays == [1, 2, 4, 8, 16, 32, 60, 60, 60, 60, 60, 60]
    assert take.taken == [(A,)]


def test_an_end_is_no_failure() -> None:
    take = Taker()
    script = Script([A])
    assert follow(script, take, 1000) == []
    assert (take.taken, len(script.began_at)) == ([(A,)], 1)


NONSENSE: dict[str, tuple[Any, str]] = {
    "nothing": (None, "a list of instances was expected, not nothing"),
    "text": ("[]", "a list of instances was expected, not a value of type str"),
    "one instance": (A, "a list of instances was expected, not a value of type dict"),
    "a generator": (
        (item for item in [A]),
        "a list of instances was expected, not a value of type generator",
    ),
    "names": (["a"], "item 0 of the list is a value of type str, not a mapping with id and template"),
    "a key": ([A, {1: 2}], "item 1 of the list has a value of type int as a key (accepted: text)"),
    "a list": (
        [{**A, "args": ["x"]}],
        "item 0 of the list has a value of type list as its args "
        "(accepted: text, a number, true, false, null)",
    ),
    "half a character": ([{**A, "v": "\ud800"}], "item 0 of the list has no proper text as its v"),
    "too many": ([A] * (MAX_INSTANCES + 1), "the list has 10001 instances (accepted: up to 10000)"),
    "too much": (
        [{**A, "v": "x" * 2**21}],
        "the list is too long (accepted: up to 2097152 characters as JSON)",
    ),
}


@pytest.mark.parametrize("what", NONSENSE)
def test_nonsense_is_told_and_what_held_holds(what: str) -> None:
    nonsense, said = NONSENSE[what]
    take = Taker()
    notes = follow(Script([A], 1.0, nonsense, 1.0, nonsense, 1.0, [A, B]), take, 10)
    assert notes == [f"the provider of instances gave nonsense, the last list holds: {said}"]
    assert take.taken == [(A,), (A, B)]


def test_a_list_whose_items_explode_is_nonsense() -> None:
    class Trap(dict[str, Any]):
        def items(self) -> Any:
            raise RuntimeError("boom")

    take = Taker()
    notes = follow(Script([Trap()], 1.0, [A]), take, 10)
    assert notes == ["the provider of instances gave nonsense, the last list holds: boom"]
    assert take.taken == [(A,)]


def test_a_refused_list_is_told_once_and_tried_again_until_it_fits_or_a_newer_one_comes() -> None:
    take = Taker(refuses="b")
    notes = follow(Script([A], 1.0, [B], 20.0, [A, {**A, "id": "c"}]), take, 100)
    assert notes == ["a list of instances was refused, the last one holds:; b: refused"]
    assert take.asked == [(A,), *[(B,)] * 5, (A, {**A, "id": "c"})]
    assert take.taken[-1] == (A, {**A, "id": "c"})


# ---- the last list ----


def test_a_list_is_kept_for_the_next_supervisor_and_for_nobody_else(tmp_path: Path) -> None:
    memory = Memory(tmp_path / "instances.json")
    assert memory.load() == ()
    wanted = checked([{**A, "n": 1, "on": True, "text": "ä\n", "none": None}])
    memory.save(wanted)
    assert memory.load() == wanted
    assert stat.S_IMODE((tmp_path / "instances.json").stat().st_mode) == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["instances.json"]
    assert from_text(to_text(wanted)) == wanted


@pytest.mark.parametrize("content", [b"", b"[", b"\xff", b"[5]", b"{}", b"[" * 100_000])
def test_a_broken_memory_is_no_memory(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "instances.json").write_bytes(content)
    assert Memory(tmp_path / "instances.json").load() == ()


def test_a_memory_that_cannot_be_written_is_told_and_no_more(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    Memory(tmp_path / "gone" / "instances.json").save(checked([A]))
    assert "cannot store the list of instances" in caplog.text


# ---- programs while running ----


def watch(
    *looks: Discovery | Exception, interval: float | None = 5.0, known: str = "", seconds: float = 100.0
) -> list[float]:
    """When it takes in what is there; it sees this, look by look, the last one again and again."""
    taken: list[float] = []
    remaining = list(looks)
    services = {name: service(name) for name in known.split()}

    async def main() -> None:
        from dataclasses import replace

        found = {name: replace(each, discovered=True) for name, each in services.items()}
        runtime = RuntimeSpec(discovery=DiscoverySpec("/services", interval))
        spec = SupervisorSpec(runtime, {**found, "configured": service("configured")})
        spec = replace(spec, surge={"configured-2": service("configured-2")})

        async def look(directory: str) -> Discovery:
            seen = remaining.pop(0) if len(remaining) > 1 else remaining[0]
            if isinstance(seen, Exception):
                raise seen
            return seen

        async def take() -> None:
            taken.append(asyncio.get_running_loop().time() - began)

        began = asyncio.get_running_loop().time()
        task = asyncio.create_task(Rediscovery(lambda: spec, look, take).run())
        await asyncio.sleep(seconds)
        task.cancel()

    run_virtual(main())
    return taken


SEEN: Callable[..., Discovery] = lambda *names: Discovery(tuple(sorted(names)))  # noqa: E731


def test_what_came_is_taken_in_at_the_next_look() -> None:
    assert watch(SEEN("web"), SEEN("web", "api"), known="web", seconds=12) == [10]


def test_what_is_away_for_one_look_has_not_gone() -> None:
    assert watch(SEEN(), SEEN("web"), SEEN(), SEEN("web"), known="web") == []
    assert watch(SEEN(), SEEN(), known="web", seconds=12) == [10]


def test_a_directory_that_cannot_be_looked_at_says_nothing_about_what_is_in_it() -> None:
    assert watch(Discovery(problem="cannot be looked at: Input/output error"), known="web") == []
    assert watch(BlackholeError("the process that does it has died"), known="web") == []


def test_nothing_is_looked_at_unless_asked_and_what_is_configured_is_left_alone() -> None:
    assert watch(SEEN("web"), interval=None) == []
    assert watch(SEEN("configured", "configured-2")) == []


def test_the_text_of_a_list_does_not_depend_on_the_order_of_keys() -> None:
    assert to_text(checked([A])) == to_text(checked([dict(reversed(A.items()))]))
    assert json.loads(to_text(checked([A]))) == [A]
