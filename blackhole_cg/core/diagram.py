"""Renders docs/states.md from the transition tables, so that the picture cannot drift from the code."""

from __future__ import annotations

from collections import defaultdict

from blackhole_cg.core.machine import IGNORED, TRANSITIONS
from blackhole_cg.core.words import State

_HEAD = """\
# The states of a service

Generated from the tables in `blackhole_cg/core/machine.py`; do not edit.
Write it anew with `python -m blackhole_cg.core.diagram > docs/states.md`.

Two facts are kept per service: what is *desired* (`up`, `down`) and its *state*. A restart is a stop while
desired stays `up`. Every edge is stored as an event with its reason (`blackhole-cg events NAME`).
"""


def render_states() -> str:
    """The whole document: diagram, transitions, ignored events."""
    return "\n".join([_HEAD, *_diagram(), "", *_transitions(), "", *_ignored(), ""])


def _diagram() -> list[str]:
    edges: dict[tuple[State, State], list[str]] = defaultdict(list)
    for (state, event), transition in TRANSITIONS.items():
        for target in transition.targets:
            if target is not state:
                edges[state, target].append(event.__name__)
    lines = [f"    {a} --> {b}: {', '.join(names)}" for (a, b), names in edges.items()]
    return ["```mermaid", "stateDiagram-v2", "    [*] --> stopped", *lines, "```"]


def _transitions() -> list[str]:
    rows = [
        f"| {state} | {event.__name__} | {', '.join(transition.targets)} |"
        for (state, event), transition in TRANSITIONS.items()
    ]
    return ["## Transitions", "", "| state | event | leads to |", "| --- | --- | --- |", *rows]


def _ignored() -> list[str]:
    rows = [f"| {state} | {event.__name__} | {reason} |" for (state, event), reason in IGNORED.items()]
    return ["## Ignored", "", "| state | event | why nothing happens |", "| --- | --- | --- |", *rows]


if __name__ == "__main__":
    print(render_states(), end="")
