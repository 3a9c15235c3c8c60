"""The dependency graph of services: orders, closures and loops. Names outside the mapping are ignored."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping

Dependencies = Mapping[str, Iterable[str]]
"""What each name depends on, directly."""


def start_order(dependencies: Dependencies) -> list[str]:
    """Every name after all it depends on; otherwise in the order of the mapping. Reverse it to stop.

    Raises:
        ValueError: the dependencies form a loop; the text is the loop, "a -> b -> a".
    """
    position = {name: index for index, name in enumerate(dependencies)}
    names = list(dependencies)
    waits_for = {name: {other for other in dependencies[name] if other in position} for name in names}
    dependents = invert(dependencies)
    ready = [position[name] for name in names if not waits_for[name]]
    order: list[str] = []
    while ready:
        name = names[heapq.heappop(ready)]
        order.append(name)
        for dependent in dependents[name]:
            waits_for[dependent].discard(name)
            if not waits_for[dependent]:
                heapq.heappush(ready, position[dependent])
    if len(order) < len(names):
        raise ValueError(render_cycle(find_cycle(dependencies) or []))
    return order


def invert(dependencies: Dependencies) -> dict[str, list[str]]:
    """Who depends on each name, directly, in the order of the mapping."""
    dependents: dict[str, list[str]] = {name: [] for name in dependencies}
    for name, needed in dependencies.items():
        for other in dict.fromkeys(needed):
            if other in dependents:
                dependents[other].append(name)
    return dependents


def closure(dependencies: Dependencies, names: Iterable[str]) -> list[str]:
    """`names` and everything they depend on, directly or not, in the order of the mapping."""
    found: set[str] = set()
    pending = [name for name in names if name in dependencies]
    while pending:
        name = pending.pop()
        if name not in found:
            found.add(name)
            pending.extend(other for other in dependencies[name] if other in dependencies)
    return [name for name in dependencies if name in found]


def dependents_of(dependencies: Dependencies, names: Iterable[str]) -> list[str]:
    """What depends on one of `names`, directly or not, without `names`, in the order of the mapping."""
    roots = set(names)
    return [name for name in closure(invert(dependencies), roots) if name not in roots]


def find_cycle(dependencies: Dependencies) -> list[str] | None:
    """One loop, beginning and ending with its earliest name in the mapping; None when there is none."""
    position = {name: index for index, name in enumerate(dependencies)}
    done: set[str] = set()
    for root in dependencies:
        if root in done:
            continue
        path = {root: iter(dependencies[root])}  # insertion order is the path from the root
        while path:
            name, needed = next(reversed(path.items()))
            other = next((other for other in needed if other in position and other not in done), None)
            if other is None:
                done.add(name)
                del path[name]
            elif other in path:
                loop = list(path)[list(path).index(other) :]
                first = loop.index(min(loop, key=position.__getitem__))
                return [*loop[first:], *loop[:first], loop[first]]
            else:
                path[other] = iter(dependencies[other])
    return None


def render_cycle(loop: Iterable[str]) -> str:
    """The loop in words: "a -> b -> a"."""
    return " -> ".join(loop)
