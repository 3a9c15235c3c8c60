"""Unit files of systemd: services, each a file.

Source: systemd.service(5), systemd.exec(5), systemd.kill(5), systemd.resource-control(5), systemd.unit(5).
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Sequence
from typing import Any, Final

from blackhole_cg.core.importers.draft import Draft, Source, literal, refuse, valid_name
from blackhole_cg.core.importers.ini import Setting, read_systemd
from blackhole_cg.core.importers.systemd_keys import CARRIED, WHYS
from blackhole_cg.core.importers.systemd_words import split_command

_SPECIFIER: Final = re.compile(r"%(.)")
_SECTIONS: Final = frozenset({"Unit", "Service", "Install"})
_OF_RESTARTS: Final = frozenset(
    {"RestartSec", "StartLimitBurst", "StartLimitInterval", "StartLimitIntervalSec"}
)
_PREFIXES: Final = "-@:+!|"
_LISTS: Final = frozenset({"Environment", "EnvironmentFile", "ExecStart"})
_DESCRIPTIVE: Final = frozenset({"Description", "Documentation"})
_ORDER: Final = frozenset({"After", "Requires", "Wants", "BindsTo", "Requisite"})
_OURS: Final = frozenset(
    {"KillMode", "SendSIGKILL", "DefaultDependencies", "StandardOutput", "StandardError"}
)
_SAME: Final = {
    "KillMode": {"control-group", "mixed"},
    "SendSIGKILL": {"yes", "true", "1"},
    "StandardOutput": {"journal", "inherit", "journal+console"},
    "StandardError": {"journal", "inherit", "journal+console"},
}


def import_systemd(sources: Sequence[Source]) -> Draft:
    """Each unit as a service of its name. Raises ConfigError."""
    draft = Draft()
    units = {posixpath.basename(source.path).removesuffix(".service") for source in sources}
    for source in sources:
        _import_unit(draft, source, units)
    return draft


def _import_unit(draft: Draft, source: Source, units: set[str]) -> None:
    settings = read_systemd(source)
    if not any(setting.key == "ExecStart" and setting.value for setting in settings):
        raise refuse(source, 0, 0, "is not a service that can be started (expected ExecStart= in [Service])")
    name = posixpath.basename(source.path).removesuffix(".service")
    service: dict[str, Any] = {"command": []}
    unit = _Unit(draft, source, name.removesuffix("@"), service, units)
    for setting in _without_reset(settings):
        unit.take(setting)
    if unit.number_of_commands == 0:
        raise refuse(source, 0, 0, "has no ExecStart= left")
    unit.finish()
    draft.add(source, 1, unit.name, service)


def _without_reset(settings: Sequence[Setting]) -> list[Setting]:
    """The settings that count: an empty value takes back those before it, the last of a single one wins."""
    kept: list[Setting] = []
    for setting in settings:
        is_list = setting.key in _LISTS or setting.key.startswith(("Exec", "IO", "Condition", "Assert"))
        is_list = is_list or setting.section != "Service"
        if not setting.value or not is_list:
            kept = [each for each in kept if each.key != setting.key]
        if setting.value:
            kept.append(setting)
    return kept


class _Unit:
    """One unit on its way to a service."""

    def __init__(
        self, draft: Draft, source: Source, name: str, service: dict[str, Any], units: set[str]
    ) -> None:
        self.name = name
        self.number_of_commands = 0
        self._draft = draft
        self._source = source
        self._service = service
        self._units = units
        self._of_restarts: list[Setting] = []

    def take(self, setting: Setting) -> None:
        """Carry one setting over, or note that it was not."""
        key, value = setting.key, setting.value
        if key in _OF_RESTARTS:
            self._of_restarts.append(setting)
        if setting.section == "Unit":
            self._take_order(setting)
        elif setting.section not in _SECTIONS:
            text = f"[{setting.section}] {key}={value}"
            self._draft.note(self._source, setting.line, text, "is not of the service")
        elif setting.section == "Install":
            self._note(setting, "services start with the supervisor: see `enabled`")
        elif key == "ExecStart":
            self._take_command(setting)
        elif key in CARRIED:
            text = self._specify(setting, value)
            try:
                why = CARRIED[key](self._service, text)
            except ValueError as error:
                raise refuse(self._source, setting.line, 1, f"{key}= {error}") from None
            if why:
                self._note(setting, why)
        elif key not in _OURS or (key in _SAME and value.lower() not in _SAME[key]):
            self._note(setting, WHYS.get(key, "has no counterpart here"))

    def finish(self) -> None:
        """Fill in what systemd does where nothing is written."""
        if "watchdog" in self._service and self._service.get("type") != "notify":
            del self._service["watchdog"]
            why = "a watchdog needs type notify, which sets NOTIFY_SOCKET"
            self._draft.note(self._source, 0, "WatchdogSec", why)
        restart = self._service.get("restart", {})
        is_oneshot = self._service.get("type") == "oneshot"
        policy = restart.get("policy", "never")
        if policy == "never":
            self._service["restart"] = {"policy": "never"}
            for setting in self._of_restarts:
                self._note(setting, "it is not restarted")
            if is_oneshot:
                del self._service["restart"]
            return
        delay = restart.get("initial_delay", "100ms")
        usual = {"max_restarts": 5, "restart_window": "10s"}
        self._service["restart"] = {**usual, **restart, "initial_delay": delay, "max_delay": delay}

    def _take_order(self, setting: Setting) -> None:
        if setting.key in _DESCRIPTIVE:
            return
        if setting.key in ("StartLimitIntervalSec", "StartLimitBurst"):
            CARRIED[setting.key](self._service, setting.value)
            return
        if setting.key not in _ORDER:
            self._note(setting, WHYS.get(setting.key, "has no counterpart here"))
            return
        names = [name.removesuffix(".service") for name in setting.value.split()]
        ours = [name for name in names if name in self._units]
        needed = self._service.setdefault("depends_on", []) if ours else []
        needed += [valid_name(name) for name in ours if valid_name(name) not in needed and name != self.name]
        others = [name for name in names if name not in self._units]
        if others:
            text = f"{setting.key}={' '.join(others)}"
            self._draft.note(self._source, setting.line, text, "is not among the imported services")

    def _take_command(self, setting: Setting) -> None:
        self.number_of_commands += 1
        if self.number_of_commands > 1:
            self._note(setting, "a service has one command")
            return
        line = setting.value
        prefix = line[: len(line) - len(line.lstrip(_PREFIXES))]
        if prefix.strip("-"):
            self._note(setting, f"the prefix '{prefix}' has no counterpart here")
        elif prefix:
            self._note(setting, "a failure is not ignored")
        try:
            words, has_more = split_command(line[len(prefix) :])
        except ValueError as error:
            raise refuse(self._source, setting.line, 1, f"ExecStart= {error}") from None
        if has_more:
            self._note(setting, "a service has one command")
        if "@" in prefix and len(words) > 1:
            del words[1]
        self._service["command"] = [self._word(setting, word) for word in words]

    def _word(self, setting: Setting, word: str) -> str:
        if re.search(r"\$\{?[A-Za-z_]", word):
            self._note(setting, f"'{word}' is not replaced by a variable of the service: write its value")
        return self._specify(setting, literal(word.replace("$$", "$")))

    def _specify(self, setting: Setting, text: str) -> str:
        """The text with the specifiers replaced that are known without the machine it ran on."""
        known = {"%": "%", "n": f"{self.name}.service", "N": self.name, "p": self.name.partition("@")[0]}
        known |= {
            "t": "/run",
            "S": "/var/lib",
            "C": "/var/cache",
            "L": "/var/log",
            "T": "/tmp",
            "V": "/var/tmp",
        }

        def value(match: re.Match[str]) -> str:
            if match[1] not in known:
                self._note(setting, f"the specifier %{match[1]} is left as it is")
                return match[0]
            return known[match[1]]

        return _SPECIFIER.sub(value, text)

    def _note(self, setting: Setting, why: str) -> None:
        self._draft.note(self._source, setting.line, f"{setting.key}={setting.value}", why)
