"""A list of instances as a program gives it: nothing is believed of it before it was looked at."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, Final, Protocol

from blackhole_cg.core.units import shorten

MAX_INSTANCES: Final = 10_000
MAX_TEXT: Final = 2 * 2**20
"""Characters of a whole list as JSON."""

Value = str | int | float | bool | None
Instance = dict[str, Value]


class InstanceProvider(Protocol):
    """Says which instances there should be: each list is complete, and replaces the one before.

    Iterated once; again, with growing delays, when it fails. When it ends, its last list holds.
    """

    def __aiter__(self) -> AsyncIterator[Sequence[Mapping[str, Value]]]:
        """The lists; an item has `id`, `template`, and the keys that its template uses."""


def checked(wanted: object) -> tuple[Instance, ...]:
    """A copy of the list, of plain data. Raises ValueError with what is wrong with it."""
    if isinstance(wanted, str | bytes | Mapping) or not isinstance(wanted, Sequence):
        raise ValueError(f"a list of instances was expected, not {_kind(wanted)}")
    if len(wanted) > MAX_INSTANCES:
        raise ValueError(f"the list has {len(wanted)} instances (accepted: up to {MAX_INSTANCES})")
    made = tuple(_instance(index, item) for index, item in enumerate(wanted))
    if len(json.dumps(made)) > MAX_TEXT:
        raise ValueError(f"the list is too long (accepted: up to {MAX_TEXT} characters as JSON)")
    return made


def from_text(text: str) -> tuple[Instance, ...]:
    """A list as `to_text` wrote it. Raises ValueError."""
    return checked(json.loads(text))


def to_text(instances: Sequence[Instance]) -> str:
    """A list as JSON, the same text for the same list."""
    return json.dumps(instances, sort_keys=True)


def _instance(index: int, item: Any) -> Instance:
    if not isinstance(item, Mapping):
        raise ValueError(f"item {index} of the list is {_kind(item)}, not a mapping with id and template")
    made: Instance = {}
    for key, value in item.items():
        if not isinstance(key, str):
            raise ValueError(f"item {index} of the list has {_kind(key)} as a key (accepted: text)")
        if isinstance(value, str):
            made[key] = _text(index, key, value)
        elif value is None or isinstance(value, bool | int | float):
            made[key] = value
        else:
            what = f"item {index} of the list has {_kind(value)} as its {shorten(key)}"
            raise ValueError(f"{what} (accepted: text, a number, true, false, null)")
    return made


def _text(index: int, key: str, value: str) -> str:
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ValueError(f"item {index} of the list has no proper text as its {shorten(key)}") from None
    return str(value)


def _kind(value: object) -> str:
    return "nothing" if value is None else f"a value of type {type(value).__name__}"
