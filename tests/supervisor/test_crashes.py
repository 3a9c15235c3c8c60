"""The supervisor dies at every point where it leaves a mark, and at random: nothing is lost or done twice."""

from __future__ import annotations

import errno
import gc
import logging
import os
import random
import tempfile
from collections import Counter
from pathlib import Path

import pytest

from blackhole_cg.core.spec import RestartPolicy, SupervisorSpec
from blackhole_cg.core.words import Condition, RestartWhen, ServiceType
from blackhole_cg.errors import BlackholeError, StoreError
from tests.support.builders import service, supervisor_spec
from tests.support.fake_host import Behaviour, FakeHost
from tests.support.faults import Fate
from tests.support.lives import Observer, Wish, World
from tests.support.virtual_loop import run_virtual

NEVER = RestartPolicy(when=RestartWhen.NEVER)
NAMES = ("db", "migrate", "web", "aside")
MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # where a sync costs nothing
RANDOM_CRASHES = int(os.environ.get("BLACKHOLE_CG_TEST_CRASHES", "800"))


def configuration() -> SupervisorSpec:
    return supervisor_spec(
        service("db"),
        service("migrate", "db", type=ServiceType.ONESHOT, restart=NEVER),
        service("web", depends_on={"db": Condition.STARTED, "migrate": Condition.COMPLETED}),
        service("aside", restart=NEVER),
    )


def behaviours() -> dict[str, Behaviour]:
    return {
        "db": Behaviour(exec_seconds=0.1, stop_seconds=1.0),
        "migrate": Behaviour(exit_after_seconds=0.2),
        "web": Behaviour(stop_seconds=None, leftovers=True),  # has to be killed
        "aside": Behaviour(leftovers=True),
    }


WISHES = [
    Wish("stop", ("aside",)),
    Wish("restart", ("db",)),
    Wish("start", ("aside",)),
    Wish("stop", ("web", "db")),
    Wish("reset", ("web",)),
    Wish("start", ("web",)),
]


class Drama:
    """Wishes to one supervisor after another, with what is expected of the machine."""

    def __init__(self, directory: Path) -> None:
        self.world = World(configuration(), directory, FakeHost(**behaviours()))
        self.observer = Observer(self.world)
        self.wanted: dict[str, str] = {}  # as acknowledged

    async def begin(self, fate: Fate) -> bool:
        before = {name: self.observer.live_run(name) for name in NAMES}
        lived = await self.world.begin(fate) and await self.world.settle()
        if not lived:
            await self.world.kill()
        self.observer.check_machine()
        if before_file_exists(self.world):
            self.observer.check_file()
        for name, run in before.items():
            if run is not None and self.is_settled(name):
                assert self.observer.live_run(name) == run, f"{name} was touched by a take-over"
        if lived:
            self.observer.check_settled()
            self.check_wanted()
            self.wanted = self.observer.desired(NAMES)
        return lived

    def is_settled(self, name: str) -> bool:
        """Whether nothing was under way that could end a run: its wish was acknowledged."""
        return self.wanted.get(name) == "up"

    def check_wanted(self) -> None:
        found = self.observer.desired(NAMES)
        for name, wish in self.wanted.items():
            assert found[name] == wish, f"{name} was acknowledged as {wish}, and is {found[name]}"

    async def ask(self, wish: Wish) -> bool:
        """Carry it out; where the supervisor dies in it, what was and what is asked for are both right."""
        wish = Wish(wish.action, wish.names)
        runs = {name: self.observer.live_run(name) for name in NAMES}
        begun = self.observer.begun
        waits = {
            name for name, word in self.observer.desired(NAMES).items() if word == "up" and not runs[name]
        }
        touched = touched_by(wish)
        alive = await self.world.ask(wish)
        assert wish.refusal is None, wish.refusal
        if wish.is_acknowledged:
            self.note(wish, runs, self.observer.begun - begun)
            self.wanted |= self.observer.desired(sorted(touched - set(wish.names)))
        else:
            for name in touched:
                self.wanted.pop(name, None)
        for name in set(NAMES) - touched - waits:  # what waited for one of them may start now
            assert self.observer.live_run(name) == runs[name], f"{name} has nothing to do with {wish}"
        self.observer.check_machine()
        self.observer.check_file()
        if not alive:
            await self.world.kill()
            self.observer.check_file()
        return alive

    def note(self, wish: Wish, runs: dict[str, int | None], begun: Counter[str]) -> None:
        for name in wish.names:
            live = self.observer.live_run(name)
            match wish.action:
                case "reset":  # takes what failed or is done down
                    self.wanted |= self.observer.desired([name])
                case "stop":
                    self.wanted[name] = "down"
                    assert live is None
                case "start":
                    self.wanted[name] = "up"
                    assert begun[name] == (runs[name] is None)
                    assert name == "migrate" or live is not None
                case "restart":
                    self.wanted[name] = "up"
                    assert begun[name] == 1
                    assert name == "migrate" or live not in (None, runs[name])

    async def end(self) -> None:
        """The ordered end, after which there is nothing to take over, and numbers go on."""
        assert await self.world.settle()
        self.observer.check_settled()
        await self.world.end()
        assert not self.world.host.live
        assert await self.world.begin(Fate())
        await self.world.end()
        self.observer.check_machine()


def touched_by(wish: Wish) -> set[str]:
    """Those a wish is about, and what it starts beside them."""
    needs = {"web": {"db", "migrate"}, "migrate": {"db"}}
    more = set().union(*(needs.get(name, set()) for name in wish.names)) if wish.action != "stop" else set()
    return {*wish.names, *more}


def before_file_exists(world: World) -> bool:
    return world.paths.database.exists() and world.paths.database.stat().st_size > 0


async def play(directory: Path, fate: Fate) -> None:
    """All wishes; the supervisor with this fate is the first, those that follow are immortal."""
    drama = Drama(directory)
    while not await drama.begin(fate):
        fate = Fate()
    for wish in WISHES:
        if not await drama.ask(wish):
            assert await drama.begin(Fate())
            assert await drama.ask(wish), "again, for it was not acknowledged"
    assert await drama.world.settle()
    drama.observer.check_settled()
    await drama.world.kill()


async def play_at_random(directory: Path, seed: int, deaths: int) -> None:
    """Wishes drawn at random to one supervisor after another, each of which dies at some point."""
    dice = random.Random(seed)
    drama = Drama(directory)
    while drama.world.deaths < deaths:
        alive = await drama.begin(Fate(dice.choice([1, 2, 5, 10, 20, 40, 80]) + dice.randrange(40)))
        while alive:
            action = dice.choice(["start", "stop", "restart", "reset"])
            names = tuple(dice.sample(NAMES, dice.choice([1, 1, 2, 4])))
            alive = await drama.ask(Wish(action, names))
    assert await drama.begin(Fate())
    await drama.end()


@pytest.fixture(autouse=True)
def _quiet():
    """Thousands of take-overs are told in the log; and what a supervisor freezes is garbage here."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)
    gc.unfreeze()


def test_a_crash_at_every_point_of_a_life():
    with tempfile.TemporaryDirectory(dir=MEMORY) as directory:
        counting = Fate()
        run_virtual(play(Path(directory) / "all", counting))
        kinds = Counter(counting.points)
        print(f"{len(counting.points)} points: {dict(kinds)}")
        for die_at in range(1, len(counting.points) + 1):
            fate = Fate(die_at)
            try:
                run_virtual(play(Path(directory) / str(die_at), fate))
            except BaseException as error:
                error.add_note(f"the supervisor died at point {die_at}: {fate.points[-1]}")
                raise
            assert fate.is_dead


@pytest.mark.parametrize("seed", range(5))
def test_crashes_at_random(seed: int):
    with tempfile.TemporaryDirectory(dir=MEMORY) as directory:
        run_virtual(play_at_random(Path(directory), seed, RANDOM_CRASHES // 5))


FAULTS = [errno.EMFILE, errno.ENOSPC, errno.EPERM, errno.EINTR]


@pytest.mark.parametrize("call", ["launch", "signal", "kill", "thaw", "write", "sync"])
def test_a_call_that_fails_once_ends_no_supervisor_and_is_made_up_for(call: str):
    """At its first, second and third time; whatever was refused can be asked for again, and holds then."""

    async def live(directory: Path, number: int) -> None:
        error = OSError(FAULTS[number % len(FAULTS)], "on purpose")
        failure = StoreError(str(error)) if call in ("write", "sync") else error
        world = World(configuration(), directory, FakeHost(**behaviours()))
        fate = Fate(fail_at={(call, number): failure})
        observer = Observer(world)
        try:
            assert await world.begin(fate)
        except BlackholeError as refused:  # it could not come up, and said why
            assert "on purpose" in str(refused)
            assert await world.begin(Fate())
        for wish in WISHES * 2:
            assert await world.ask(Wish(wish.action, wish.names))
        for name in NAMES:
            await world.ask(Wish("start", (name,)))
        assert await world.settle()
        observer.check_machine()
        observer.check_file()
        assert set(world.host.live) >= {"db", "web"}
        await world.end()
        assert not world.host.live

    with tempfile.TemporaryDirectory(dir=MEMORY) as directory:
        for number in (1, 2, 3):
            run_virtual(live(Path(directory) / str(number), number))
