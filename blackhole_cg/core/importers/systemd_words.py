"""The words of a setting, as systemd splits and unquotes them.

Source: systemd.syntax(7), "Quoting"; systemd.service(5), "Command lines".
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

_ESCAPE: Final = re.compile(
    r"\\(?:x([0-9a-fA-F]{2})|([0-3][0-7]{2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|(.?))", re.DOTALL
)
_CHARACTERS: Final = {"a": 7, "b": 8, "f": 12, "n": 10, "r": 13, "t": 9, "v": 11, "s": 32}
_SAME: Final = "\\\"'"


def split(line: str) -> list[str]:
    """The words: quotes may be anywhere, and escapes count outside of them and within. Raises ValueError."""
    return [word for _, word in _words(line)]


def split_command(line: str) -> tuple[list[str], bool]:
    """The words of the first command of a line, and whether a `;` begins another. Raises ValueError."""
    words: list[str] = []
    for raw, word in _words(line):
        if raw == ";":
            return words, True
        words.append(";" if raw == "\\;" else word)
    return words, False


def _words(line: str) -> Iterator[tuple[str, str]]:
    """Each word as it was written, and what it says."""
    at = 0
    while at < len(line):
        if line[at].isspace():
            at += 1
            continue
        start, word, quote = at, bytearray(), ""
        while at < len(line) and (quote or not line[at].isspace()):
            if line[at] == "\\":
                said, at = _unescape(line, at)
                word += said
                continue
            if line[at] == quote:
                quote = ""
            elif not quote and line[at] in "\"'":
                quote = line[at]
            else:
                word += line[at].encode()
            at += 1
        if quote:
            raise ValueError("has a quote that is never closed")
        yield line[start:at], _text(bytes(word))


def _unescape(line: str, at: int) -> tuple[bytes, int]:
    """What the escape at a place stands for, and where it ends. One that is unknown stays as it is."""
    found = _ESCAPE.match(line, at)
    assert found is not None  # it matches at every backslash
    byte, octal, short, long, char = found.groups()
    if byte or octal:
        said = bytes([int(byte, 16) if byte else int(octal, 8)])
    elif short or long:
        said = chr(int(short or long, 16)).encode()
    elif char in _CHARACTERS:
        said = bytes([_CHARACTERS[char]])
    else:
        said = (char if char and char in _SAME else found[0]).encode()
    return said, found.end()


def _text(word: bytes) -> str:
    if b"\0" in word:
        raise ValueError("has a zero byte, which no word can hold")
    try:
        return word.decode()
    except UnicodeDecodeError:
        raise ValueError("has bytes that are not UTF-8 text") from None
