"""supervisord.conf: its [program:x] sections.

Source: the pages "Configuration File" and "Subprocesses" of supervisord's documentation.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from blackhole_cg.core.importers.draft import Carry, Draft, Source, duration, literal, put, refuse, setter
from blackhole_cg.core.importers.ini import Setting, read_supervisord
from blackhole_cg.core.units import parse_size

_EXPANSION: Final = re.compile(r"%(?:%|\(([A-Za-z0-9_]+)\)(0?\d*[sd]))")
_USUAL_NAME: Final = re.compile(r"%\(program_name\)s(?:[-_.:]?%\(process_num\)\d*[ds])?")
_TRUE: Final = frozenset({"true", "yes", "on", "1"})
_MAX_COPIES: Final = 1000

_OWN_AFFAIR: Final = "settings of supervisord itself"
_LOG_FILE: Final = "output is kept in NAME.log of --log-dir, both streams, told apart"
_UNSUPPORTED: Final[Mapping[str, str]] = {
    "stdout_logfile": _LOG_FILE,
    "stderr_logfile": _LOG_FILE,
    "stderr_logfile_maxbytes": "there is one log file for both streams",
    "stderr_logfile_backups": "there is one log file for both streams",
    "stdout_syslog": "output does not go to syslog",
    "stderr_syslog": "output does not go to syslog",
    "stdout_capture_maxbytes": "there are no events made from output",
    "stderr_capture_maxbytes": "there are no events made from output",
    "stdout_events_enabled": "there are no events made from output",
    "stderr_events_enabled": "there are no events made from output",
    "serverurl": "there is no such interface",
    "process_name": "a service is called as its program, and by number where it is one of several",
    "exitcodes": "only exit code 0 and a stop signal count as a success",
    "priority": "services start in the order of their dependencies and of this file: see depends_on",
}
_SECTIONS: Final[Mapping[str, str]] = {
    "eventlistener": "speaks supervisord's own protocol; see `events --follow --json`",
    "fcgi-program": "a socket as standard input is not offered; see `sockets`",
    "group": "there are no groups: name services together, --services=a,b",
}
_QUIET: Final = frozenset({"numprocs", "numprocs_start", "command", "redirect_stderr", "killasgroup"})
"""Read elsewhere, or how it is here in any case."""


@dataclass(frozen=True, slots=True)
class _Copy:
    """One process of a program: what its expansions stand for."""

    source: Source
    names: Mapping[str, str | int]

    def expand(self, text: str, line: int, *, spelled: bool = True) -> str:
        """The text with its expansions replaced, spelled for blackhole.yaml. Raises ConfigError."""

        def value(match: re.Match[str]) -> str:
            name = match[1]
            if name is None:
                return "%"
            if name.startswith("ENV_"):
                return f"${{{name.removeprefix('ENV_')}}}"
            if name not in self.names:
                raise refuse(self.source, line, 1, f"%({name})s is not known here")
            return f"%{match[2]}" % self.names[name]

        return _EXPANSION.sub(value, literal(text) if spelled else text)


def import_supervisord(sources: Sequence[Source]) -> Draft:
    """The programs as services, one for each of `numprocs`. Raises ConfigError."""
    draft = Draft(inherits_environment=True)
    for source in sources:
        settings = read_supervisord(source)
        if not settings:
            raise refuse(source, 0, 0, "has no settings (expected sections such as [program:web])")
        sections: dict[str, list[Setting]] = {}
        for setting in settings:
            sections.setdefault(setting.section, []).append(setting)
        for section, members in sections.items():
            _import_section(draft, source, section, members)
        if not any(section.startswith("program:") for section in sections):
            draft.note(source, 0, "[program:x]", "there is none in this file, so it has no services")
    return draft


def _import_section(draft: Draft, source: Source, section: str, settings: list[Setting]) -> None:
    kind, _, name = section.partition(":")
    first = settings[0].line
    if kind == "program" and name:
        _import_program(draft, source, name.strip(), settings)
    elif kind in _SECTIONS:
        draft.note(source, first, f"[{section}]", _SECTIONS[kind])
    elif section == "include":
        files = " ".join(setting.value for setting in settings)
        draft.note(source, first, "[include]", f"import these files too: {files}")
    else:
        keys = ", ".join(setting.key for setting in settings)
        draft.note(source, first, f"[{section}] {keys}", _OWN_AFFAIR)


def _import_program(draft: Draft, source: Source, name: str, settings: list[Setting]) -> None:
    values = {setting.key: setting for setting in settings}
    if "command" not in values:
        raise refuse(source, settings[0].line, 1, f"[program:{name}] has no command")
    count, first = _whole(source, values, "numprocs", 1), _whole(source, values, "numprocs_start", 0)
    if not 1 <= count <= _MAX_COPIES:
        raise refuse(
            source, values["numprocs"].line, 1, f"numprocs is {count} (accepted: 1 to {_MAX_COPIES})"
        )
    for number in range(first, first + count):
        names: dict[str, str | int] = {"program_name": name, "group_name": name, "here": source.directory}
        copy = _Copy(source, {**names, "process_num": number, "numprocs": count})
        service: dict[str, Any] = {"command": _command(copy, values["command"])}
        for setting in settings:
            _import_setting(draft, copy, service, setting)
        _finish_restart(draft, source, service, values)
        draft.add(source, settings[0].line, name if count == 1 else f"{name}-{number:02d}", service)


def _command(copy: _Copy, setting: Setting) -> str | list[str]:
    text = copy.expand(" ".join(setting.value.split("\n")), setting.line)
    try:
        words = shlex.split(text)
    except ValueError:
        raise refuse(copy.source, setting.line, 1, "command has a quote that is never closed") from None
    if not words:
        raise refuse(copy.source, setting.line, 1, "command is empty")
    return text if "%(ENV_" in setting.value else words  # a variable may stand for several words


def _import_setting(draft: Draft, copy: _Copy, service: dict[str, Any], setting: Setting) -> None:
    if setting.key == "process_name" and _USUAL_NAME.fullmatch(setting.value):
        return
    if "%(ENV_" in setting.value and setting.key not in _MAY_HAVE_VARIABLES and setting.key in _UNDERSTOOD:
        why = "depends on a variable: write its value"
    elif setting.key in _QUIET:
        return
    elif setting.key in _CARRIED:
        value = copy.expand(setting.value, setting.line)
        try:
            why = _CARRIED[setting.key](service, value)
        except ValueError as error:
            raise refuse(copy.source, setting.line, 1, f"{setting.key} {error}") from None
    else:
        why = _UNSUPPORTED.get(setting.key, "is not known")
    if why:
        draft.note(copy.source, setting.line, setting.key, why)


def _finish_restart(
    draft: Draft, source: Source, service: dict[str, Any], values: Mapping[str, Setting]
) -> None:
    """What supervisord does where nothing is written. It waits a second longer each time, we double."""
    restart = {"policy": "on_failure", "max_restarts": 3, "reset_after": "1s", **service.pop("restart", {})}
    if restart["policy"] == "never":
        restart = {"policy": "never"}
        for key in ("startsecs", "startretries"):
            if key in values:
                draft.note(source, values[key].line, key, "it is not restarted, not while it starts either")
    elif restart["reset_after"] == "0s":
        restart["reset_after"] = "1s"  # 0 there: every start counts as one that went well
    service["restart"] = restart


def _whole(source: Source, values: Mapping[str, Setting], key: str, default: int) -> int:
    if key not in values or "%(ENV_" in values[key].value:
        return default
    try:
        return int(values[key].value)
    except ValueError:
        raise refuse(source, values[key].line, 1, f"{key} is not a whole number") from None


def _seconds(value: str) -> str:
    try:
        return duration(float(value))
    except ValueError:
        raise ValueError(f"'{value}' is not a number of seconds") from None


def _autostart(service: dict[str, Any], value: str) -> str:
    if value.lower() not in _TRUE:
        service["enabled"] = False
    return ""


def _autorestart(service: dict[str, Any], value: str) -> str:
    word = value.lower()
    policy = "on_failure" if word == "unexpected" else "always" if word in _TRUE else "never"
    put(service, "restart.policy", policy)
    return ""


def _user(service: dict[str, Any], value: str) -> str:
    service["user"], _, group = value.partition(":")
    if group:
        service["group"] = group
    return ""


def _stop_as_group(service: dict[str, Any], value: str) -> str:
    if value.lower() not in _TRUE:
        return ""
    return (
        "the main process gets the stop signal first, what it leaves behind next; nothing is left in the end"
    )


def _environment(service: dict[str, Any], value: str) -> str:
    """KEY="value",KEY2=value: words and quotes as in a shell, with commas and = between them."""
    lexer = shlex.shlex(value, posix=True)
    lexer.wordchars += "/.+-():${}@%*?[]|<>&^~!"
    lexer.commenters = ""
    words = list(lexer)
    found: dict[str, str] = {}
    while words:
        key, *words = words
        if key == ",":
            continue
        if not words or words[0] != "=":
            raise ValueError('is not KEY="value",KEY2="value"')
        words = words[1:]
        found[key] = words.pop(0) if words and words[0] != "," else ""
    service["environment"] = {**service.get("environment", {}), **found}
    return ""


def _log_size(service: dict[str, Any], value: str) -> str:
    if parse_size(value) == 0:
        return "every log file is rotated at some size"
    put(service, "logs.max_size", value)
    return ""


def _log_files(service: dict[str, Any], value: str) -> str:
    put(service, "logs.max_files", int(value) + 1)
    return ""


_CARRIED: Final[Mapping[str, Carry]] = {
    "directory": setter("data_dir"),
    "umask": setter("umask", lambda value: value.zfill(3)),
    "user": _user,
    "autostart": _autostart,
    "autorestart": _autorestart,
    "startretries": setter("restart.max_restarts", int),
    "startsecs": setter("restart.reset_after", _seconds),
    "stopsignal": setter("stop.signal", str.upper),
    "stopwaitsecs": setter("stop.timeout", _seconds),
    "stopasgroup": _stop_as_group,
    "environment": _environment,
    "stdout_logfile_maxbytes": _log_size,
    "stdout_logfile_backups": _log_files,
}
"""What has a counterpart: sets it, and returns what is different about it, if anything."""

_MAY_HAVE_VARIABLES: Final = frozenset({"command", "directory", "user", "environment"})
_UNDERSTOOD: Final = frozenset({*_CARRIED, "numprocs", "numprocs_start"})
"""Settings whose values have to be understood, which takes a variable's value."""
