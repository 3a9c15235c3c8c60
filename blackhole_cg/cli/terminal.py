"""What a terminal can show: colours, widths, tables. Knows nothing of services."""

from __future__ import annotations

import os
import shutil
import sys
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TextIO

_SGR: Final = {
    "bold": "1",
    "dim": "2",
    "red": "31",
    "green": "32",
    "yellow": "33",
    "blue": "34",
    "cyan": "36",
}
_GAP: Final = "  "
_NARROWEST_CELL: Final = 8


@dataclass(frozen=True, slots=True)
class Screen:
    """How to write: in colour or not, and how wide; `width` None is without bound."""

    colour: bool = False
    width: int | None = None

    def paint(self, text: str, *styles: str) -> str:
        """The text in these styles, or as it is where there are no colours."""
        if not self.colour or not styles or not text:
            return text
        return f"\x1b[{';'.join(_SGR[style] for style in styles)}m{text}\x1b[0m"

    def wrap(self, text: str, indent: str = "  ") -> list[str]:
        """The text in lines that fit; all but the first are indented."""
        if self.width is None:
            return [text]
        return textwrap.wrap(text, max(self.width, 20), subsequent_indent=indent, break_on_hyphens=False)


def screen_of(stream: TextIO | None = None, environ: Mapping[str, str] = os.environ) -> Screen:
    """What a stream can show, stdout by default: NO_COLOR is honoured, and a pipe has no width."""
    stream = sys.stdout if stream is None else stream
    if not stream.isatty():
        return Screen()
    colour = not environ.get("NO_COLOR") and environ.get("TERM") != "dumb"
    return Screen(colour, shutil.get_terminal_size().columns)


@dataclass(frozen=True, slots=True)
class Cell:
    """Text and the styles to show it in."""

    text: str
    styles: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a table. When the screen is too narrow, `optional` ones go and `shrinks` ones are cut."""

    title: str
    cells: Sequence[Cell]
    right: bool = False
    optional: bool = False
    shrinks: bool = False

    @property
    def width(self) -> int:
        """Of its widest cell."""
        return max(len(self.title), *(len(cell.text) for cell in self.cells), 0)


def render_table(columns: Sequence[Column], screen: Screen) -> list[str]:
    """The lines of a table, its titles first."""
    shown, widths = _fit(columns, screen.width)
    rows = [[Cell(column.title, ("bold",)) for column in shown]]
    rows += [list(row) for row in zip(*(column.cells for column in shown), strict=True)]
    return [_GAP.join(_cells(row, shown, widths, screen)).rstrip() for row in rows]


def _cells(row: list[Cell], columns: Sequence[Column], widths: list[int], screen: Screen) -> list[str]:
    """Painted and padded; the last one is not padded, so that no line ends in colourless blanks."""
    found = []
    for place, (cell, column, width) in enumerate(zip(row, columns, widths, strict=True)):
        text = cut(cell.text, width)
        blanks = " " * (width - len(text))
        painted = screen.paint(text, *cell.styles)
        last = place == len(row) - 1
        found.append(blanks + painted if column.right else painted + ("" if last else blanks))
    return found


def _fit(columns: Sequence[Column], width: int | None) -> tuple[list[Column], list[int]]:
    shown = list(columns)
    widths = [column.width for column in shown]
    if width is None:
        return shown, widths
    for column in reversed(columns):
        if column.optional and _total(widths) > width:
            place = shown.index(column)
            room = width - _total(widths) + widths[place]
            if room >= 2 * _NARROWEST_CELL:
                widths[place] = room
            else:
                del shown[place], widths[place]
    for place, column in enumerate(shown):
        if column.shrinks and _total(widths) > width:
            widths[place] = max(_NARROWEST_CELL, widths[place] - (_total(widths) - width))
    return shown, widths


def _total(widths: Sequence[int]) -> int:
    return sum(widths) + len(_GAP) * (len(widths) - 1)


def cut(text: str, width: int) -> str:
    """The text in at most `width` columns."""
    return text if len(text) <= width else text[: width - 1] + "…"


def printable(text: str) -> str:
    """The text without what could move the cursor or break the line: such characters are shown escaped."""
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else repr(each)[1:-1] for each in text)
