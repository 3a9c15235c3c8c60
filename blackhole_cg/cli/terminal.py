"""What a terminal can show: colours, widths, tables. Knows nothing of services."""

from __future__ import annotations

import os
import shutil
import sys
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest
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
    """One column of a table, and what may become of it on a narrow screen.

    An `optional` one goes, a `brief` text takes the place of the longer one, what `shrinks` is cut and what
    `wraps` is continued below; it is tried in this order.
    """

    title: str
    cells: Sequence[Cell]
    right: bool = False
    optional: bool = False
    brief: Sequence[Cell] | None = None
    shrinks: bool = False
    wraps: bool = False

    @property
    def width(self) -> int:
        """Of its widest cell."""
        return max([len(self.title), *(len(cell.text) for cell in self.cells)])


def render_table(columns: Sequence[Column], screen: Screen) -> list[str]:
    """The lines of a table, its titles first."""
    shown = _fit(list(columns), screen.width)
    widths = [_shrunk_width(shown, place, screen.width) for place in range(len(shown))]
    rows = [[Cell(column.title, ("bold",)) for column in shown]]
    rows += [list(row) for row in zip(*(column.cells for column in shown), strict=True)]
    return [line for row in rows for line in _render_row(row, shown, widths, screen)]


def _fit(columns: list[Column], width: int | None) -> list[Column]:
    """The columns, less what is optional and shorter where possible, as far as the width demands it."""
    for column in reversed(columns.copy()):
        if column.optional and _excess(columns, width) > 0:
            columns.remove(column)
    for place, column in enumerate(columns):
        if column.brief is not None and _excess(columns, width) > 0:
            columns[place] = replace(column, cells=column.brief)
    return columns


def _shrunk_width(columns: Sequence[Column], place: int, width: int | None) -> int:
    """Of one column, if it is the one that gives way: there is one at most in a table."""
    column = columns[place]
    excess = _excess(columns, width)
    if not (column.shrinks or column.wraps) or excess <= 0:
        return column.width
    return max(_NARROWEST_CELL, column.width - excess)


def _excess(columns: Sequence[Column], width: int | None) -> int:
    """By how much the columns are wider than the screen."""
    total = sum(column.width for column in columns) + len(_GAP) * (len(columns) - 1)
    return 0 if width is None else total - width


def _render_row(row: list[Cell], columns: Sequence[Column], widths: list[int], screen: Screen) -> list[str]:
    parts = [
        textwrap.wrap(cell.text, width) or [""] if column.wraps else [_cut(cell.text, width)]
        for cell, column, width in zip(row, columns, widths, strict=True)
    ]
    lines = []
    for texts in zip_longest(*parts, fillvalue=""):
        line = ""
        for text, cell, column, width in zip(texts, row, columns, widths, strict=True):
            painted = screen.paint(text, *cell.styles)
            blanks = " " * (width - len(text))
            line += (blanks + painted if column.right else painted + blanks) + _GAP
        lines.append(line.rstrip())
    return lines


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"


def printable(text: str) -> str:
    """The text without what could move the cursor or break the line: such characters are shown escaped."""
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else repr(each)[1:-1] for each in text)
