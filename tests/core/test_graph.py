"""The dependency graph: orders, closures, loops."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blackhole_cg.core import graph

NAMES = "abcdefgh"


@st.composite
def graphs(draw: st.DrawFn, acyclic: bool = False) -> dict[str, list[str]]:
    names = draw(st.permutations(NAMES))
    edges = draw(st.sets(st.tuples(st.sampled_from(NAMES), st.sampled_from(NAMES)), max_size=20))
    if acyclic:
        edges = {(name, other) for name, other in edges if name > other}
    return {name: sorted(other for source, other in edges if source == name) for name in names}


def test_independent_names_keep_their_order() -> None:
    assert graph.start_order({"web": [], "api": [], "db": []}) == ["web", "api", "db"]
    assert graph.start_order({"web": ["db"], "cache": [], "db": []}) == ["cache", "db", "web"]


def test_unknown_and_repeated_names_do_no_harm() -> None:
    assert graph.start_order({"a": ["zz", "b", "b"], "b": []}) == ["b", "a"]
    assert graph.closure({"a": ["zz"]}, ["a", "yy"]) == ["a"]


def test_a_loop_is_named() -> None:
    dependencies = {"x": ["b"], "a": ["b"], "b": ["c"], "c": ["a"]}
    assert graph.find_cycle(dependencies) == ["a", "b", "c", "a"]
    with pytest.raises(ValueError, match=r"^a -> b -> c -> a$"):
        graph.start_order(dependencies)
    assert graph.find_cycle({"a": ["a"]}) == ["a", "a"]


def test_closures_and_dependents() -> None:
    dependencies = {"web": ["api"], "api": ["db"], "db": [], "other": []}
    assert graph.closure(dependencies, ["api"]) == ["api", "db"]
    assert graph.dependents_of(dependencies, ["db"]) == ["web", "api"]
    assert graph.invert(dependencies) == {"web": [], "api": ["web"], "db": ["api"], "other": []}


def test_a_chain_of_ten_thousand_needs_no_recursion() -> None:
    chain = {str(index): [str(index + 1)] for index in range(10_000)}
    assert graph.start_order(chain)[0] == "9999"
    assert graph.find_cycle(chain) is None


@given(graphs(acyclic=True))
def test_every_name_comes_after_all_it_depends_on(dependencies: dict[str, list[str]]) -> None:
    order = graph.start_order(dependencies)
    assert sorted(order) == sorted(dependencies)
    assert all(order.index(other) < order.index(name) for name in order for other in dependencies[name])


@given(graphs())
def test_there_is_an_order_or_a_real_loop(dependencies: dict[str, list[str]]) -> None:
    loop = graph.find_cycle(dependencies)
    if loop is None:
        assert len(graph.start_order(dependencies)) == len(dependencies)
        return
    assert loop[0] == loop[-1] and len(set(loop)) == len(loop) - 1
    assert all(after in dependencies[before] for before, after in pairwise(loop))
    with pytest.raises(ValueError, match="->"):
        graph.start_order(dependencies)


@given(graphs(), st.sets(st.sampled_from(NAMES)))
def test_dependents_are_those_whose_closure_holds_the_name(
    dependencies: dict[str, list[str]], names: set[str]
) -> None:
    expected = [
        name
        for name in dependencies
        if name not in names and names & set(graph.closure(dependencies, [name]))
    ]
    assert graph.dependents_of(dependencies, names) == expected
