"""The words of command lines, as a POSIX shell, systemd and Compose make them: character by character."""

from __future__ import annotations

import re
from collections.abc import Mapping

_FOR_THE_SHELL = set("|&;<>()`*?[]{}#~!\n")
_BUILTINS = re.compile(
    r"[.:]|alias|bg|break|case|cd|command|continue|eval|exit|export|fg|for|getopts|hash|if|jobs|local"
    r"|read|readonly|return|set|shift|source|times|trap|type|ulimit|umask|unalias|unset|until|wait|while"
)
_ESCAPES = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v", "s": " "}
_ESCAPES |= {"\\": "\\", '"': '"', "'": "'"}


def shell_words(line: str) -> tuple[list[str], dict[str, str]]:
    """The words that `sh -c LINE` runs and the variables before them; by sh itself if it does more than that.

    A `$PORT` becomes {tcp_port} where a shell would replace it.
    """
    by_shell = ["/bin/sh", "-c", line], dict[str, str]()
    marked = re.sub(r"\$PORT\b|\$\{PORT(:-\d+)?\}", "\0", line)
    words, word, quote, escaped = [], None, "", False
    for char in marked + " ":
        if escaped:
            kept = "\\" if quote and char not in '$`"\\' else ""
            word, escaped = (word or "") + kept + char, False
        elif char == "\\" and quote != "'":
            escaped = True
        elif quote and char == quote:
            quote = ""
        elif quote:
            if quote == '"' and char in "$`":
                return by_shell
            word = (word or "") + ("$PORT" if char == "\0" and quote == "'" else char)
        elif char in "\"'":
            word, quote = word or "", char
        elif char in " \t":
            words, word = [*words, word] if word is not None else words, None
        elif char in "$`" or (char in _FOR_THE_SHELL and not (char in "{}#~!" and word)):
            return by_shell
        else:
            word = (word or "") + char
    if quote or escaped:
        return by_shell
    words = [each.replace("\0", "{tcp_port}") for each in words]
    environment: dict[str, str] = {}
    while words and re.match(r"[A-Za-z_]\w*=", words[0]):
        name, _, value = words.pop(0).partition("=")
        environment[name] = value
    words = words[1:] if words[:1] == ["exec"] else words
    return (words, environment) if words and not _BUILTINS.fullmatch(words[0]) else by_shell


def systemd_words(line: str, unit: str) -> list[str]:
    """The words of a setting: quotes anywhere, C escapes in and outside of them, the specifiers we know."""
    pattern = re.compile(
        r"""\\x([0-9a-fA-F]{2})|\\([0-7]{3})|\\u([0-9a-fA-F]{4})|\\(.)|(["'])|(\s+)|(.)""", re.DOTALL
    )
    words: list[str] = []
    word, quote = None, ""
    for found in pattern.finditer(line + " "):
        x, octal, u, escape, mark, space, plain = found.groups()
        piece = plain or ""
        if x or octal or u:
            piece = chr(int(x or octal or u, 8 if octal else 16))
        elif escape:
            piece = _ESCAPES.get(escape, found[0])
        elif mark and quote in ("", mark):
            quote = mark if not quote else ""
        elif space and not quote:
            if word is not None:
                words.append(word)
            word = None
            continue
        else:
            piece = found[0]
        word = (word or "") + piece
    words = [";" if each == "\\;" else each for each in words]
    return [specified(each, unit) for each in words]


def specified(text: str, unit: str) -> str:
    """The text with those specifiers replaced that do not depend on a machine."""
    name = unit.removesuffix(".service")
    known = {"%": "%", "n": f"{name.removesuffix('@')}.service", "N": name.removesuffix("@")}
    known |= {"p": name.partition("@")[0], "t": "/run", "S": "/var/lib", "C": "/var/cache", "L": "/var/log"}
    known |= {"T": "/tmp", "V": "/var/tmp"}
    return re.sub(r"%(.)", lambda match: known.get(match[1], match[0]), text)


def compose_text(text: str, environ: Mapping[str, str]) -> str:
    """The text with its variables replaced, nested ones too."""
    out, at = "", 0
    while at < len(text):
        if text[at] != "$":
            out, at = out + text[at], at + 1
        elif text[at : at + 2] == "$$":
            out, at = out + "$", at + 2
        elif found := re.compile(r"\$(\w+)").match(text, at):
            out, at = out + environ.get(found[1], ""), found.end()
        elif text[at : at + 2] == "${":
            end = _closing(text, at + 2)
            name, operator, rest = re.findall(r"(\w+)(:?[-?+])?(.*)", text[at + 2 : end], re.DOTALL)[0]
            other = compose_text(rest, environ) if operator.endswith(("+", "-")) else ""
            is_set = bool(environ.get(name)) if operator.startswith(":") else name in environ
            out += other if operator and is_set == operator.endswith("+") else environ.get(name, "")
            at = end + 1
        else:
            out, at = out + "$", at + 1
    return out


def _closing(text: str, at: int) -> int:
    depth = 1
    while at < len(text):
        depth += (text[at - 1 : at + 1] == "${") - (text[at] == "}")
        if depth == 0:
            return at
        at += 1
    raise ValueError("a variable is not closed")
