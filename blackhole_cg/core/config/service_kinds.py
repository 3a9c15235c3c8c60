"""Kinds of values that only services have: command lines, signals, capabilities, masks, CPU lists."""

from __future__ import annotations

import re
import shlex
import signal
from dataclasses import dataclass
from typing import Any, Final

from blackhole_cg.core.config.kinds import JsonSchema, Kind, Words, describe, suggest

_CAPABILITY_NAMES: Final = """
    AUDIT_CONTROL AUDIT_READ AUDIT_WRITE BLOCK_SUSPEND BPF CHECKPOINT_RESTORE CHOWN DAC_OVERRIDE
    DAC_READ_SEARCH FOWNER FSETID IPC_LOCK IPC_OWNER KILL LEASE LINUX_IMMUTABLE MAC_ADMIN MAC_OVERRIDE MKNOD
    NET_ADMIN NET_BIND_SERVICE NET_BROADCAST NET_RAW PERFMON SETFCAP SETGID SETPCAP SETUID SYSLOG SYS_ADMIN
    SYS_BOOT SYS_CHROOT SYS_MODULE SYS_NICE SYS_PACCT SYS_PTRACE SYS_RAWIO SYS_RESOURCE SYS_TIME
    SYS_TTY_CONFIG WAKE_ALARM
"""
CAPABILITIES: Final = frozenset(_CAPABILITY_NAMES.split())
"""Without "CAP_". Source: capabilities(7)."""

MAX_COMMAND_TEXT: Final = 32_768
"""Characters of a command that is one text; splitting takes time that grows with the square of it."""

_STOPPING: Final = frozenset({"STOP", "TSTP", "TTIN", "TTOU", "CONT", "CHLD"})
_SIGNALS: Final = {
    member.name.removeprefix("SIG"): int(member)
    for member in signal.Signals
    if member.name.removeprefix("SIG") not in _STOPPING
}
_CPU_RANGE: Final = re.compile(r"([0-9]{1,5})(?:-([0-9]{1,5}))?")


def split_command(command: str | tuple[str, ...]) -> tuple[str, ...]:
    """The argument list of a command; one string is split as a shell would split it."""
    return tuple(shlex.split(command)) if isinstance(command, str) else command


@dataclass(frozen=True)
class Command(Kind):
    """A command line: a list, or one string."""

    def read(self, value: Any) -> str | tuple[str, ...]:
        argument = Words(pattern=".*")
        if isinstance(value, list | tuple):
            for index, item in enumerate(value):
                if item is None or isinstance(item, dict | list):
                    raise ValueError(f"item {index + 1} is {_item(item)}, not text")
            made: str | tuple[str, ...] = tuple(argument.read(item) for item in value)
        elif isinstance(value, str):
            made = argument.read(value)
            if len(made) > MAX_COMMAND_TEXT:
                raise ValueError(f"is too long (accepted: up to {MAX_COMMAND_TEXT} characters, or a list)")
        else:
            raise ValueError(f"{describe(value)} is not a command")
        try:
            words = split_command(made)
        except ValueError:
            raise ValueError("has a quote that is never closed") from None
        if not words or not words[0].strip():
            raise ValueError("names no program")
        return made

    def accepted(self) -> str:
        return "a list of texts, or one text that is split like a shell does"

    def schema(self) -> JsonSchema:
        items = {"type": ["string", "number", "boolean"]}
        return {
            "anyOf": [
                {"type": "string", "minLength": 1},
                {"type": "array", "items": items, "minItems": 1},
            ]
        }

    def show(self, value: Any) -> Any:
        return value if isinstance(value, str) else list(value)


def _item(item: Any) -> str:
    return "empty" if item is None else describe(item)


@dataclass(frozen=True)
class SignalName(Kind):
    """A signal that asks a process to end, by name."""

    def read(self, value: Any) -> int:
        name = str(value).upper().removeprefix("SIG") if isinstance(value, str) else ""
        if name not in _SIGNALS:
            is_long = isinstance(value, str) and value.upper().startswith("SIG")
            hint = suggest(value, [f"SIG{known}" if is_long else known for known in _SIGNALS])
            accepted = f"({hint}accepted: {self.accepted()})"
            raise ValueError(f"{describe(value)} is not a signal that ends a process {accepted}")
        return _SIGNALS[name]

    def accepted(self) -> str:
        return "TERM, INT, QUIT, HUP, USR1, USR2, KILL and so on, with or without SIG"

    def schema(self) -> JsonSchema:
        return {"type": "string", "pattern": "^(SIG)?[A-Z0-9]+$"}

    def show(self, value: Any) -> Any:
        return next(name for name, number in _SIGNALS.items() if number == value)


@dataclass(frozen=True)
class Capability(Kind):
    """A Linux capability, by name."""

    def read(self, value: Any) -> str:
        name = str(value).upper().removeprefix("CAP_") if isinstance(value, str) else ""
        if name not in CAPABILITIES:
            hint = suggest(value, sorted(CAPABILITIES))
            raise ValueError(f"{describe(value)} is not a capability ({hint}accepted: {self.accepted()})")
        return name

    def accepted(self) -> str:
        return "names such as NET_BIND_SERVICE, with or without CAP_"

    def schema(self) -> JsonSchema:
        return {"type": "string", "pattern": "^([cC][aA][pP]_)?[A-Za-z_]+$"}


@dataclass(frozen=True)
class Mask(Kind):
    """A file mode creation mask, in octal."""

    def read(self, value: Any) -> int:
        if not isinstance(value, str) or not re.fullmatch("0?[0-7]{3}", value):
            raise ValueError(f"{describe(value)} is not an octal mask")
        return int(value, 8)

    def accepted(self) -> str:
        return "three octal digits such as 022, or four with a leading 0"

    def schema(self) -> JsonSchema:
        return {"type": "string", "pattern": "^0?[0-7]{3}$"}

    def show(self, value: Any) -> Any:
        return f"{value:03o}"


@dataclass(frozen=True)
class CpuList(Kind):
    """A set of CPU numbers as the kernel writes one."""

    def read(self, value: Any) -> str:
        for part in str(value).split(","):
            match = _CPU_RANGE.fullmatch(part) if isinstance(value, str) else None
            if match is None or int(match[2] or match[1]) < int(match[1]):
                raise ValueError(f"{describe(value)} is not a list of CPUs")
        return str(value)

    def accepted(self) -> str:
        return "a list such as 0-3,6"

    def schema(self) -> JsonSchema:
        return {"type": ["string", "integer"], "pattern": "^[0-9]+(-[0-9]+)?(,[0-9]+(-[0-9]+)?)*$"}
