"""The kinds of values a key can have: how each is read, what it accepts, how it is written and described.

A kind is put on a field with `Annotated`; the field's type says whether "max" and null are accepted too.
Kinds raise ValueError with a complete sentence; nothing of pydantic's wording reaches a user.
"""

from __future__ import annotations

import difflib
import json
import math
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final, get_args

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import CoreSchema, core_schema

from blackhole_cg.core import units
from blackhole_cg.core.words import MAX, Max

JsonSchema = dict[str, Any]

_TRUE: Final = frozenset({"true", "yes", "on"})
_FALSE: Final = frozenset({"false", "no", "off"})
_WHOLE: Final = re.compile(r"[-+]?[0-9]{1,19}")
_NUMBER: Final = re.compile(r"[-+]?(?:[0-9]{1,19}(?:\.[0-9]{0,30})?|\.[0-9]{1,30})(?:[eE][-+]?[0-9]{1,3})?")
_JSON_NUMBER: Final = re.compile(r"-?(?:0|[1-9][0-9]{0,99})(\.[0-9]+)?([eE][-+]?[0-9]{1,3})?")
_JSON_WORDS: Final = {
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}


MAX_ARGUMENT: Final = 131_071
"""Characters of one argument or variable. Source: execve(2), MAX_ARG_STRLEN."""


class Text(str):
    """A scalar of the configuration: its text, whether it was plain, and how a message may show it."""

    __slots__ = ("plain", "shown")

    plain: bool
    shown: str

    @classmethod
    def of(cls, text: str, *, plain: bool, shown: str) -> Text:
        """Text that `shown` stands for in messages, because the text itself may be secret."""
        made = cls(text)
        made.plain = plain
        made.shown = shown
        return made


def describe(value: Any) -> str:
    """The value for a message: short, printable, and never a secret."""
    if value is None:
        return "this is empty, which"
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list | tuple):
        return "a list"
    return f"'{units.shorten(getattr(value, 'shown', str(value)))}'"


def suggest(value: Any, candidates: Iterable[str]) -> str:
    """ "did you mean 'x'? " when a candidate is close to the value, else nothing; nothing for a secret."""
    is_secret = isinstance(value, Text) and value.shown != value
    if not isinstance(value, str) or is_secret or len(value) > 64:
        return ""
    known = {candidate.lower(): candidate for candidate in candidates}
    close = difflib.get_close_matches(value.lower(), known, n=1, cutoff=0.66)
    return f"did you mean '{known[close[0]]}'? " if close else ""


class Kind:
    """A kind of value. Subclasses say how text is read; the rest has defaults."""

    unit: str = ""

    def read(self, value: Any) -> Any:
        """The value a model holds. Raises ValueError without the list of what is accepted."""
        raise NotImplementedError

    def accepted(self) -> str:
        """What is accepted, in words."""
        raise NotImplementedError

    def schema(self) -> JsonSchema:
        """The JSON Schema of what is accepted."""
        raise NotImplementedError

    def show(self, value: Any) -> Any:
        """The value as configuration text that reads back as the same value."""
        return value

    def accepted_of(self, annotation: Any) -> str:
        """What a field of this type accepts, in words: with "max" where the type has it."""
        return f'{self.accepted()}, or "max"' if Max in get_args(annotation) else self.accepted()

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        serialize = core_schema.plain_serializer_function_ser_schema(
            lambda value: value if value is None or value == MAX else self.show(value)
        )
        return core_schema.no_info_plain_validator_function(
            self._reader(source), serialization=serialize, metadata={"source": source}
        )

    def _reader(self, source: Any) -> Callable[[Any], Any]:
        arguments = get_args(source)
        has_max, has_null = Max in arguments, type(None) in arguments
        accepted = self.accepted_of(source)

        def read(value: Any) -> Any:
            # A variable that is empty leaves an optional key unset.
            is_empty_variable = value == "" and isinstance(value, Text) and value.shown != ""
            if has_null and (value is None or is_empty_variable):
                return None
            if isinstance(value, str) and value == MAX and has_max:
                return MAX
            try:
                return self.read(value)
            except ValueError as error:
                text = str(error)
                raise ValueError(text if "accepted: " in text else f"{text} (accepted: {accepted})") from None

        return read

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchema:
        # The metadata of the core schema is the one place that knows the field's own type.
        arguments = get_args(schema.get("metadata", {}).get("source"))
        made = self.schema()
        choices: list[JsonSchema] = list(made["anyOf"]) if "anyOf" in made else [made]
        if Max in arguments:
            choices.append({"const": MAX})
        if type(None) in arguments:
            choices.append({"type": "null"})
        made = choices[0] if len(choices) == 1 else {"anyOf": choices}
        return {**made, "x-unit": self.unit} if self.unit else made


def _plain_text(value: Any, what: str) -> str:
    """The text of a scalar; raises ValueError for anything else."""
    if isinstance(value, bool | int | float):
        return str(value)
    if not isinstance(value, str):
        raise ValueError(f"{describe(value)} is not {what}")
    return str(value)


@dataclass(frozen=True)
class Flag(Kind):
    """true or false, in YAML's several spellings."""

    def read(self, value: Any) -> bool:
        if isinstance(value, bool):
            return value
        word = str(value).lower() if isinstance(value, str) else ""
        if word not in _TRUE | _FALSE:
            raise ValueError(f"{describe(value)} is neither true nor false")
        return word in _TRUE

    def accepted(self) -> str:
        return "true, false"

    def schema(self) -> JsonSchema:
        return {"type": "boolean"}


@dataclass(frozen=True)
class Whole(Kind):
    """A whole number within bounds."""

    low: int
    high: int
    unit: str = ""

    def read(self, value: Any) -> int:
        text = _plain_text(value, "a whole number")
        if isinstance(value, bool) or not _WHOLE.fullmatch(text):
            raise ValueError(f"{describe(value)} is not a whole number")
        number = int(text)
        if not self.low <= number <= self.high:
            raise ValueError(f"{describe(value)} is out of range")
        return number

    def accepted(self) -> str:
        return f"{self.low} to {self.high}"

    def schema(self) -> JsonSchema:
        return {"type": "integer", "minimum": self.low, "maximum": self.high}


@dataclass(frozen=True)
class Number(Kind):
    """A number within bounds."""

    low: float
    high: float
    unit: str = ""

    def read(self, value: Any) -> float:
        text = _plain_text(value, "a number")
        if isinstance(value, bool) or not _NUMBER.fullmatch(text):
            raise ValueError(f"{describe(value)} is not a number")
        number = float(text)
        if not self.low <= number <= self.high:
            raise ValueError(f"{describe(value)} is out of range")
        return number

    def accepted(self) -> str:
        return f"{self.low:.15g} to {self.high:.15g}"

    def schema(self) -> JsonSchema:
        return {"type": "number", "minimum": self.low, "maximum": self.high}

    def show(self, value: Any) -> Any:
        return int(value) if value == int(value) else value


@dataclass(frozen=True)
class Size(Kind):
    """A number of bytes, written with or without a unit."""

    low: int = 0
    unit: str = "bytes"

    def read(self, value: Any) -> int:
        try:
            size = units.parse_size(value)
        except ValueError:
            raise ValueError(f"{describe(value)} is not a size") from None
        if size < self.low:
            raise ValueError(f"{describe(value)} is too small")
        return size

    def accepted(self) -> str:
        least = f", at least {units.render_size(self.low)}" if self.low else ""
        return f"{units.SIZE_FORMS}{least}"

    def schema(self) -> JsonSchema:
        pattern = r"^\s*[0-9]+(\.[0-9]+)?\s*([kKmMgGtT]([iI]?[bB])?|[bB])?\s*$"
        return {"anyOf": [{"type": "string", "pattern": pattern}, {"type": "integer", "minimum": self.low}]}

    def show(self, value: Any) -> Any:
        return units.render_size(value)


@dataclass(frozen=True)
class Duration(Kind):
    """A span of time, written with or without a unit."""

    low: float = 0.0
    high: float = 3650 * 86400.0
    unit: str = "seconds"

    def read(self, value: Any) -> float:
        try:
            seconds = units.parse_duration(value)
        except ValueError:
            raise ValueError(f"{describe(value)} is not a duration") from None
        if not self.low <= seconds <= self.high:
            raise ValueError(f"{describe(value)} is too {'short' if seconds < self.low else 'long'}")
        return seconds

    def accepted(self) -> str:
        low, high = units.render_duration(self.low), units.render_duration(self.high)
        return f"{units.DURATION_FORMS}; {low} to {high}"

    def schema(self) -> JsonSchema:
        pattern = r"^\s*([0-9]+(\.[0-9]+)?\s*(d|h|m|s|ms)?\s*)+$"
        number = {"type": "number", "minimum": self.low, "maximum": self.high}
        return {"anyOf": [{"type": "string", "pattern": pattern}, number]}

    def show(self, value: Any) -> Any:
        return units.render_duration(value)


@dataclass(frozen=True)
class Choice(Kind):
    """One word of a fixed list; an enumeration's words become its members."""

    words: type[StrEnum] | tuple[str, ...]

    def read(self, value: Any) -> str:
        word = _plain_text(value, "one of the accepted words")
        known = tuple(self.words)
        if word not in known:
            hint = suggest(value, map(str, known))
            raise ValueError(f"{describe(value)} is not known ({hint}accepted: {self.accepted()})")
        return next(member for member in known if member == word)

    def accepted(self) -> str:
        return ", ".join(self.words)

    def schema(self) -> JsonSchema:
        return {"enum": [str(word) for word in self.words]}

    def show(self, value: Any) -> Any:
        return str(value)


@dataclass(frozen=True)
class Words(Kind):
    """Text; with a pattern when not every text will do."""

    what: str = "text"
    pattern: str = ".+"
    allowed: str = "text that is not empty"

    def read(self, value: Any) -> str:
        if value is None:
            raise ValueError('is empty (accepted: text; write "" for an empty one)')
        text = _plain_text(value, self.what)
        if len(text) > MAX_ARGUMENT:
            raise ValueError(f"is too long: {len(text)} characters (accepted: up to {MAX_ARGUMENT})")
        if "\0" in text:
            raise ValueError("has a NUL character, which no program can be given")
        if not re.fullmatch(self.pattern, text, re.DOTALL):
            raise ValueError(f"{describe(value)} is not {self.what}")
        return text

    def accepted(self) -> str:
        return self.allowed

    def schema(self) -> JsonSchema:
        if self.pattern == ".*":
            return {"type": ["string", "number", "boolean"]}
        return {"type": "string", "pattern": f"^(?:{self.pattern})$"}


@dataclass(frozen=True)
class Anything(Kind):
    """Any mapping, kept as JSON would hold it."""

    def read(self, value: Any) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise ValueError(f"{describe(value)} is not a mapping")
        made: dict[str, Any] = to_json_value(value)
        return made

    def accepted(self) -> str:
        return "any mapping"

    def schema(self) -> JsonSchema:
        return {"type": "object"}


def to_json_value(value: Any) -> Any:
    """The value as JSON; plain text is a number, true or false only where JSON spells it so."""
    if isinstance(value, dict):
        return {str(key): to_json_value(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_json_value(item) for item in value]
    if not isinstance(value, Text) or not value.plain:
        return str(value) if isinstance(value, str) else value
    if value in _JSON_WORDS:
        return _JSON_WORDS[value]
    if _JSON_NUMBER.fullmatch(value):
        number = json.loads(value)
        return number if math.isfinite(number) else str(value)
    return str(value)
