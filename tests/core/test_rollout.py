"""Which instances are replaced next: never too many at once, and always to an end."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from blackhole_cg.core.rollout import Member, Phase, Rollout, carry_on, is_over, keep, next_to_replace, stage
from tests.support.builders import service, supervisor_spec

members_at_first = st.lists(
    st.builds(Member, st.just(""), st.booleans(), st.booleans(), st.booleans()), max_size=8
).map(lambda members: [replace(member, name=str(number)) for number, member in enumerate(members)])


def down(members: list[Member]) -> int:
    return sum(member.is_wanted and (member.is_busy or not member.is_up) for member in members)


@given(members_at_first, st.integers(1, 4), st.data())
def test_never_more_are_down_than_may_be_and_all_are_replaced_in_the_end(members, bound, data):
    at_first = down(members)
    turns = 0
    while not is_over(members):
        chosen = next_to_replace(members, bound)
        members = [replace(each, is_busy=each.is_busy or each.name in chosen) for each in members]
        assert down(members) <= max(bound, at_first)
        busy = [each.name for each in members if each.is_busy]
        if not busy:  # those that are down and need no new run come back by themselves
            members = [replace(each, is_up=True) for each in members]
        else:
            done = data.draw(st.sampled_from(busy))
            members = [
                replace(each, is_busy=False, is_stale=False, is_up=each.is_wanted)
                if each.name == done
                else each
                for each in members
            ]
        turns += 1
        assert turns <= 17
    assert next_to_replace(members, bound) == []


def test_what_is_down_goes_first_and_what_is_wanted_down_at_any_time():
    members = [
        Member("a", is_wanted=True, is_up=True, is_stale=True),
        Member("b", is_wanted=True, is_up=False, is_stale=True),
        Member("c", is_wanted=False, is_up=False, is_stale=True),
    ]
    assert next_to_replace(members, 1) == ["b", "c"]
    assert next_to_replace(members, 2) == ["b", "c", "a"]


def specs(version: str, *names: str):
    return {name: service(name, config_hash=version, instance_of="web") for name in names}


OLD, NEW = specs("1", "a", "b"), specs("2", "a", "b")
ROLLOUT = Rollout("web", OLD, {"a": "2", "b": "2"}, frozenset({"a"}))


def test_a_configuration_is_staged_as_far_as_it_is_rolled_out():
    staged = stage(supervisor_spec(*NEW.values(), service("db")), [ROLLOUT]).services
    assert {name: spec.config_hash for name, spec in staged.items()} == {"a": "2", "b": "1", "db": ""}


def test_the_next_supervisor_carries_on_in_the_phase_that_was_recorded():
    for phase in Phase:
        rollout = replace(ROLLOUT, phase=phase)
        assert carry_on(rollout, NEW) == rollout
    assert carry_on(ROLLOUT, specs("2", "c")) is None


def test_by_another_configuration_the_next_supervisor_brings_all_to_that():
    found = carry_on(replace(ROLLOUT, phase=Phase.BACK), OLD)
    assert found is not None
    assert (found.phase, found.released) == (Phase.FORWARD, {"a", "b"})
    assert stage(supervisor_spec(*OLD.values()), [found]).services == OLD


def test_whom_a_newer_configuration_changes_again_is_no_part_of_it_any_more():
    kept = keep(ROLLOUT, {**specs("3", "a"), **specs("2", "b")})
    assert kept is not None
    assert (set(kept.former), kept.released) == ({"b"}, frozenset())
    assert keep(ROLLOUT, specs("3", "a", "b")) is None
