"""What a file says, read without the importers: every setting, the command and the environment of a service.

Source: the manuals of supervisord, foreman, Compose and systemd.syntax(7); systemd.exec(5).
"""

from __future__ import annotations

import configparser
import re
import shlex
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from tests.importers_on.words import compose_text, shell_words, specified, systemd_words

Environ = Mapping[str, str]
"""What the variables of the outside stand for."""


@dataclass(slots=True)
class Original:
    """A service as its own supervisor understands it; `lines` are those that its notes may stand at."""

    name: str
    lines: range
    settings: list[tuple[str, str]] = field(default_factory=list)
    argv: list[str] | None = None
    environment: dict[str, str] = field(default_factory=dict)
    copies: int = 1
    expand: Callable[[str], str] = str


def read_supervisord(path: Path, text: str, environ: Environ) -> Iterator[Original]:
    """The programs first, then a nameless one for each other section."""
    parser = configparser.RawConfigParser(inline_comment_prefixes=(";", "#"), strict=False)
    parser.read_string(text)
    starts = [(n, line) for n, line in enumerate(text.splitlines(), 1) if line.startswith("[")]
    for section in parser.sections():
        begin = next(n for n, line in starts if line.startswith(f"[{section}]"))
        end = next((n for n, _ in starts if n > begin), len(text) + 2)
        kind, _, name = section.partition(":")
        settings = list(parser.items(section))
        if not settings:
            continue
        if kind != "program":
            yield Original("", range(begin, end), [(f"[{section}]", "")])
            continue
        yield _program(path, name.strip(), range(begin, end), dict(settings), environ)


def _program(path: Path, name: str, lines: range, values: dict[str, str], environ: Environ) -> Original:
    first = int(values.get("numprocs_start", 0))
    names = {"program_name": name, "group_name": name, "here": str(path.parent), "process_num": first}
    copies = values.get("numprocs", "1")
    names |= {"numprocs": int(copies) if copies.isdecimal() else 1, "host_node_name": "%(host_node_name)s"}

    def expand(text: str) -> str:
        for env in re.findall(r"%\(ENV_(\w+)\)s", text):
            names[f"ENV_{env}"] = environ[env]
        try:
            return text % names
        except ValueError:  # supervisord does not start with such a file
            return re.sub(r"%\((\w+)\)s", lambda found: str(names[found[1]]), text)

    program = Original(name, lines, list(values.items()), shlex.split(expand(values["command"])))
    program.copies = int(str(names["numprocs"]))
    program.expand = expand
    pairs = re.compile(r"""\s*([^\s=,]+)\s*=\s*("[^"]*"|'[^']*'|[^\s,"']*)\s*(?:,|$|\n)""")
    for found in pairs.finditer(expand(values.get("environment", ""))):
        program.environment[found[1]] = found[2].strip("\"'")
    return program


def read_procfile(path: Path, text: str, environ: Environ) -> Iterator[Original]:
    """A line NAME: COMMAND each; the rest is passed over, as foreman does."""
    for number, line in enumerate(text.splitlines(), 1):
        found = re.match(r"([A-Za-z0-9_-]+):\s*(.+)$", line.strip())
        if found is None:
            continue
        argv, environment = shell_words(found[2].strip())
        yield Original(found[1], range(number, number + 1), [("command", found[2])], argv, environment)


class _Texts(yaml.SafeLoader):
    """YAML with merged keys and nulls, and every other scalar as it was written."""


_Texts.yaml_implicit_resolvers = {
    first: [(tag, regexp) for tag, regexp in resolvers if tag.endswith((":merge", ":null"))]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Texts.add_multi_constructor("!", lambda loader, suffix, node: getattr(node, "value", None))


def read_compose(path: Path, text: str, environ: Environ) -> Iterator[Original]:
    """The services first, then a nameless one for what stands beside them."""
    root: Any = yaml.load(text, _Texts)
    for name, service in root["services"].items():
        yield _compose_service(name, range(len(text) + 2), service or {}, environ)
    others = [(key, "") for key in root if key not in ("services", "version") and not key.startswith("x-")]
    yield Original("", range(len(text) + 2), others)


def _compose_service(name: str, lines: range, service: dict[str, Any], environ: Environ) -> Original:
    found = Original(name, lines, list(_nested(service)))

    def say(value: Any) -> str:
        return compose_text("" if value is None else str(value), environ)

    def words(value: Any) -> list[str]:
        if value is None:
            return []
        return [say(each) for each in value] if isinstance(value, list) else shlex.split(say(value))

    found.expand = say
    found.argv = words(service.get("entrypoint")) + words(service.get("command"))
    pairs = service.get("environment") or {}
    if isinstance(pairs, list):
        pairs = {str(each).partition("=")[0]: _after_equals(str(each)) for each in pairs}
    for key, value in pairs.items() if isinstance(pairs, dict) else ():
        found.environment[say(key).strip()] = environ.get(key.strip(), "") if value is None else say(value)
    return found


def _after_equals(text: str) -> str | None:
    _, equals, value = text.partition("=")
    return value if equals else None


def _nested(service: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """The keys of a service, and of the mappings in it that have counterparts of their own."""
    for key, value in service.items():
        if key.startswith("x-"):
            continue
        inner = value if isinstance(value, dict) and key in ("healthcheck", "ulimits", "depends_on") else {}
        if key == "deploy" and isinstance(value, dict):
            inner = {each: value[each] for each in value if each != "resources"}
            for kind, bounds in (value.get("resources") or {}).items():
                inner |= {f"resources.{kind}.{bound}": said for bound, said in (bounds or {}).items()}
        for name, each in inner.items():
            yield f"{key}.{name}", str(each)
            if key == "depends_on" and isinstance(each, dict):
                yield from ((f"{key}.{name}.{more}", str(said)) for more, said in each.items())
        if not inner:
            yield key, str(value)
    for item in service.get("env_file") or []:
        if isinstance(item, dict):
            yield from ((f"env_file.{more}", str(said)) for more, said in item.items() if more != "path")


def read_systemd(path: Path, text: str, environ: Environ) -> Iterator[Original]:
    """The one service that a unit is, with its settings that were not taken back."""
    section, settings = "", []
    unit = Original(path.name.removesuffix(".service").removesuffix("@"), range(len(text) + 2))
    unit.expand = lambda value: specified(value, path.name)
    without_comments = re.sub(r"(?m)^[ \t]*[#;].*\n?", "", text)
    for line in re.sub(r"\\\n", " ", without_comments).splitlines():
        if line.strip().startswith("["):
            section = line.strip().strip("[]")
        elif line.strip():
            key, _, value = (part.strip() for part in line.partition("="))
            if not value:
                settings = [each for each in settings if each[:2] != (section, key)]
            else:
                settings.append((section, key, value))
    for section, key, value in settings:
        unit.settings.append((key, value))
        if (section, key) == ("Service", "ExecStart") and unit.argv is None:
            prefix = re.match(r"[-@:+!|]*", value)
            words = systemd_words(value[prefix.end() :] if prefix else value, path.name)
            unit.argv = [words[0], *words[2:]] if prefix and "@" in prefix[0] else words
            unit.argv = [word.replace("$$", "$") for word in unit.argv]
        if (section, key) == ("Service", "Environment"):
            for word in systemd_words(value, path.name):
                name, _, said = word.partition("=")
                unit.environment[name] = said
    yield unit


READERS: dict[str, Callable[[Path, str, Environ], Iterator[Original]]] = {
    "supervisord": read_supervisord,
    "procfile": read_procfile,
    "compose": read_compose,
    "systemd": read_systemd,
}
