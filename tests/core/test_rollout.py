"""Which instances are replaced next: always enough of them up, never too many, and always to an end."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blackhole_cg.core.plan import compare
from blackhole_cg.core.rollout import (
    Bounds,
    Member,
    Phase,
    Rollout,
    bounds_of,
    carry_on,
    foresee_surge,
    is_over,
    keep,
    next_turn,
    stage,
)
from blackhole_cg.core.spec import RolloutSpec, SupervisorSpec
from tests.support.builders import service, supervisor_spec

members_at_first = st.lists(
    st.builds(Member, st.just(""), st.booleans(), st.booleans(), st.booleans()), max_size=8
).map(lambda members: [replace(member, name=str(number)) for number, member in enumerate(members)])

bounds = st.builds(Bounds, st.integers(0, 4), st.integers(0, 4)).filter(lambda each: each != Bounds(0, 0))


def available(members: list[Member], surge: list[Member]) -> int:
    return sum(each.is_wanted and each.is_up and not each.is_busy for each in (*members, *surge))


def wanted(members: list[Member]) -> int:
    return sum(each.is_wanted for each in members)


class World:
    """A group on its way: what is busy ends in any order, and additional ones come up or not."""

    def __init__(self, members: list[Member], limits: Bounds, draw: st.DataObject) -> None:
        self.members = members
        self.surge: list[Member] = []
        self.phase = Phase.FORWARD
        self._limits = limits
        self._draw = draw

    def take_turn(self) -> None:
        turn = next_turn(self.members, self.surge, self._limits, self.phase)
        before = available(self.members, self.surge)
        begun = [Member(f"+{len(self.surge) + each}", True, False, is_busy=True) for each in range(turn.add)]
        self.surge += begun
        self.members = [
            replace(each, is_busy=each.is_busy or each.name in turn.replace) for each in self.members
        ]
        down = self._limits.unavailable
        if self.phase is Phase.BACK and not self.surge:
            down = max(1, down)  # rather than never
        assert available(self.members, self.surge) >= min(before, wanted(self.members) - down)
        assert len(self.surge) <= self._limits.surge

    def end_something(self) -> None:
        busy = [each for each in (*self.members, *self.surge) if each.is_busy]
        if not busy:  # those that are down and need no new run come back by themselves
            self.members = [replace(each, is_up=True) for each in self.members]
            return
        done = self._draw.draw(st.sampled_from(busy))
        is_member = done in self.members
        is_good = self._draw.draw(st.booleans()) if self.phase is Phase.FORWARD else True
        if is_good and is_member:
            self._set(replace(done, is_busy=False, is_stale=False, is_up=done.is_wanted))
        elif is_good:
            self._set(replace(done, is_busy=False, is_up=True))
        else:
            self._turn_back(done)

    def _turn_back(self, failed: Member) -> None:
        self.phase = Phase.BACK
        self._set(replace(failed, is_busy=False, is_up=False))
        self.surge = [each for each in self.surge if each.is_up and each.name != failed.name]
        self.members = [
            replace(each, is_busy=False, is_stale=each.is_busy or not each.is_stale, is_up=each.is_up)
            for each in self.members
        ]

    def _set(self, changed: Member) -> None:
        self.members = [changed if each.name == changed.name else each for each in self.members]
        self.surge = [changed if each.name == changed.name else each for each in self.surge]


@given(members_at_first, bounds, st.data())
def test_enough_are_up_not_too_many_are_there_and_it_ends(members, limits, data):
    world = World(members, limits, data)
    for _ in range(60):
        if is_over(world.members) and not any(each.is_busy for each in world.surge):
            break
        world.take_turn()
        world.end_something()
    assert is_over(world.members)
    assert next_turn(world.members, world.surge, limits, world.phase).replace == []
    assert next_turn(world.members, [], limits, world.phase).add == 0


def test_what_is_down_goes_first_and_what_is_wanted_down_at_any_time():
    members = [
        Member("a", is_wanted=True, is_up=True, is_stale=True),
        Member("b", is_wanted=True, is_up=False, is_stale=True),
        Member("c", is_wanted=False, is_up=False, is_stale=True),
    ]
    assert next_turn(members, [], Bounds(1), Phase.FORWARD).replace == ["b", "c"]
    assert next_turn(members, [], Bounds(2), Phase.FORWARD).replace == ["b", "c", "a"]
    turn = next_turn(members, [], Bounds(1, 4), Phase.FORWARD)
    assert (turn.replace, turn.add) == (["b", "c"], 1)  # as many as can be stood in for


def test_nobody_is_taken_down_before_the_additional_ones_are_up():
    old = [Member(name, is_wanted=True, is_up=True, is_stale=True) for name in "abcd"]
    coming = [Member("e", is_wanted=True, is_up=False, is_busy=True)]
    there = [Member("e", is_wanted=True, is_up=True)]
    stopped = [Member("e", is_wanted=False, is_up=False)]
    for limits in (Bounds(0, 1), Bounds(2, 1)):
        assert next_turn(old, [], limits, Phase.FORWARD).add == 1
        assert next_turn(old, coming, limits, Phase.FORWARD).replace == []
    assert next_turn(old, there, Bounds(0, 1), Phase.FORWARD).replace == ["a"]
    assert next_turn(old, there, Bounds(2, 1), Phase.FORWARD).replace == ["a", "b", "c"]
    assert next_turn(old, stopped, Bounds(0, 1), Phase.FORWARD).replace == []
    assert next_turn(old, [], Bounds(0, 1), Phase.BACK).replace == ["a"]  # rather than never
    assert next_turn(old, there, Bounds(0, 2), Phase.BACK).replace == ["a"]


@pytest.mark.parametrize(
    ("unavailable", "surge", "count", "expected"),
    [
        ("25%", "25%", 4, (1, 1)),
        ("25%", "25%", 5, (1, 2)),
        ("25%", "25%", 3, (0, 1)),
        (0, "1%", 3, (0, 1)),
        ("10%", 0, 3, (1, 0)),  # rounded to nothing, so one
        ("100%", 0, 3, (3, 0)),
        (1, "100%", 3, (1, 3)),
        (0, 9, 3, (0, 3)),
    ],
)
def test_percentages_are_rounded_as_in_kubernetes(unavailable, surge, count, expected):
    found = bounds_of([RolloutSpec(unavailable, 0.0, surge)], count)
    assert (found.unavailable, found.surge) == expected


def specs(version: str, *names: str):
    return {name: service(name, config_hash=version, instance_of="web") for name in names}


OLD, NEW = specs("1", "a", "b"), specs("2", "a", "b")
ROLLOUT = Rollout("web", OLD, {"a": "2", "b": "2"}, frozenset({"a"}), surge=specs("2", "c"))


def test_a_configuration_is_staged_as_far_as_it_is_rolled_out():
    staged = stage(supervisor_spec(*NEW.values(), service("db")), [ROLLOUT]).services
    assert {name: spec.config_hash for name, spec in staged.items()} == {
        "a": "2",
        "b": "1",
        "db": "",
        "c": "2",
    }


def test_the_next_supervisor_carries_on_in_the_phase_that_was_recorded():
    for phase in Phase:
        rollout = replace(ROLLOUT, phase=phase)
        assert carry_on(rollout, NEW) == rollout
    assert carry_on(ROLLOUT, specs("2", "d")) is None


def test_by_another_configuration_the_next_supervisor_brings_all_to_that():
    found = carry_on(replace(ROLLOUT, phase=Phase.BACK), OLD)
    assert found is not None
    assert (found.phase, found.released, found.surge) == (Phase.FORWARD, {"a", "b"}, ROLLOUT.surge)
    staged = stage(supervisor_spec(*OLD.values()), [found]).services
    assert staged == {**OLD, **specs("2", "c")}
    larger = carry_on(ROLLOUT, specs("2", "a", "b", "c"))
    assert larger is not None
    assert (larger.released, larger.surge) == ({"a", "b", "c"}, {})


def test_whom_a_newer_configuration_changes_again_is_no_part_of_it_any_more():
    kept = keep(ROLLOUT, {**specs("3", "a"), **specs("2", "b")})
    assert kept is not None
    assert (set(kept.former), kept.released) == ({"b"}, frozenset())
    assert keep(ROLLOUT, specs("3", "a", "b")) is None


def test_the_additional_ones_of_a_change_are_foreseen():
    old = supervisor_spec(*OLD.values(), service("db", config_hash="1"))
    services = {**NEW, "db": service("db", config_hash="2")}
    new = SupervisorSpec(old.runtime, services, surge=specs("2", "c", "d", "e"))
    new.services["a"] = replace(NEW["a"], umask=7)
    new.services["b"] = replace(NEW["b"], umask=7)
    assert foresee_surge(old, new, compare(old, new)) == {"web": ["c", "d"]}
    assert foresee_surge(new, new, compare(new, new)) == {}
