"""What must hold for any file that is imported, by what its readers say and what the importer wrote."""

from __future__ import annotations

import configparser
import json
import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import yaml
from click.testing import CliRunner, Result

from blackhole_cg.cli.main import EXIT_CONFIG, cli
from blackhole_cg.core.config import inspect_config
from blackhole_cg.core.config.variables import expand
from tests.importers_on.originals import READERS, Environ, Original
from tests.importers_on.places import ALWAYS, PLACES
from tests.importers_on.values import VALUES

_DEFAULTED = re.compile(r"\$\{(\w+):?-")
_USED = re.compile(r"\$\{(\w+)(?:\}|:?[?+])|\$(\w+)|%\(ENV_(\w+)\)s")


@dataclass(slots=True)
class Report:
    """What came of one file. `wrong` is empty when all held."""

    outcome: str = "crashed"
    services: int = 0
    carried: int = 0  # settings, those that are how it is here in any case among them
    listed: int = 0
    to_complete: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Imported:
    """What the importer wrote: the services in order, and the notes as `--json` prints them."""

    kind: str
    services: list[dict[str, Any]]
    notes: list[dict[str, Any]]


class _Text:
    """A reader of configurations that has one in memory."""

    def __init__(self, text: str) -> None:
        self._text = text.encode()

    def read_bytes(self, path: str) -> bytes:
        if path != "blackhole.yaml":
            raise FileNotFoundError(2, "No such file or directory", path)
        return self._text

    def glob(self, pattern: str) -> list[str]:
        return []


def check_file(kind: str, path: Path) -> Report:
    """Import a file twice and look at it from all sides."""
    report = Report()
    done = _run(kind, path)
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        report.wrong.append(f"crashed: {done.exception!r}")
        return report
    if done.exit_code:
        report.outcome = "refused"
        place = re.escape(str(path))
        if done.exit_code != EXIT_CONFIG or not re.match(rf"{place}(:\d+:\d+)?: \S", done.stderr):
            report.wrong.append(f"ended with {done.exit_code}: {done.stderr.strip()}")
        return report
    again = _run(kind, path)
    if (again.stdout, again.stderr) != (done.stdout, done.stderr):
        report.wrong.append("a second import differs")
    facts = json.loads(done.stderr)
    written = yaml.safe_load(done.stdout)
    imported = Imported(kind, [written["services"][name] for name in facts["services"]], facts["notes"])
    report.outcome, report.services = "imported", len(imported.services)
    text = path.read_text(encoding="utf-8-sig")
    for world in _worlds(text):
        try:
            originals = list(READERS[kind](path, text, world))
        except (LookupError, TypeError, ValueError, configparser.Error, yaml.YAMLError) as error:
            report.wrong.append(f"is imported, but cannot be read here: {error!r}")
            break
        report.carried, report.listed = _count(imported, originals)
        report.wrong += [each for each in compare(imported, originals, world) if each not in report.wrong]
        report.to_complete += _complaints(done.stdout, world)
    told = " ".join(f"{note['setting']} {note['why']}" for note in imported.notes)
    report.to_complete = list(dict.fromkeys(report.to_complete))
    report.wrong += [f"is not valid: {each}" for each in report.to_complete if not _is_told(each, told)]
    return report


def _count(imported: Imported, originals: list[Original]) -> tuple[int, int]:
    """How many settings were carried over, and how many were listed, wholly or in part."""
    listed = carried = 0
    for original in originals:
        notes = [note for note in imported.notes if note["line"] in original.lines]
        for key, _ in original.settings:
            is_listed = _is_listed(imported.kind, original, key, {}, notes)
            listed, carried = listed + is_listed, carried + (not is_listed)
    return carried, listed


def _run(kind: str, path: Path) -> Result:
    return CliRunner().invoke(cli, ["import", kind, str(path), "--output", "-", "--json"])


def _worlds(text: str) -> Iterator[dict[str, str]]:
    """Every variable set to a number of its own; then those unset that have a default at every use."""
    names = dict.fromkeys(re.findall(r"[A-Za-z_]\w*", text + text.replace("ENV_", "")))
    everything = {name: str(20_000 + number) for number, name in enumerate(names)}
    yield everything
    needed = {name for found in _USED.findall(text) for name in found if name}
    optional = set(_DEFAULTED.findall(text)) - needed
    if optional:
        yield {name: value for name, value in everything.items() if name not in optional}


def _complaints(text: str, environ: Environ) -> list[str]:
    loaded, diagnostics = inspect_config("blackhole.yaml", _Text(text), environ)
    return [f"{each.key}: {each.message}" for each in diagnostics] + ([] if loaded else ["cannot be read"])


def _is_told(complaint: str, told: str) -> bool:
    """Whether it is about a file that is not here, or about services that the importer says are none."""
    no_file = re.match(r"services\.\S+\.env_file: cannot read \S+: No such file", complaint)
    return no_file is not None or (
        complaint.startswith("services: there is no service") and "no services" in told
    )


def compare(imported: Imported, originals: list[Original], environ: Environ) -> Iterator[str]:
    """What is lost, altered or made up."""
    services = iter(imported.services)
    for original in originals:
        copies = list(islice(services, original.copies)) if original.name else [{}]
        if not copies:
            yield f"{original.name}: is not in the new file"
            continue
        notes = [note for note in imported.notes if note["line"] in original.lines]
        for key, value in original.settings:
            if not _is_accounted_for(imported.kind, original, key, value, copies[0], notes):
                yield f"{original.name}: {key}: is neither carried over nor listed: {value!r}"
        yield from _compare_values(imported.kind, original, copies[0], notes, environ)
        yield from _compare_command(imported.kind, original, copies[0], notes, environ)
        yield from _compare_environment(original, copies[0], notes, environ)
    if list(services):
        yield "has more services than the file"


def _is_accounted_for(
    kind: str,
    original: Original,
    key: str,
    value: str,
    service: Mapping[str, Any],
    notes: list[dict[str, Any]],
) -> bool:
    if key in ALWAYS[kind] and ALWAYS[kind][key](value):
        return True
    return _is_listed(kind, original, key, service, notes) or _is_in_place(kind, key, service)


def _compare_values(
    kind: str, original: Original, service: dict[str, Any], notes: list[dict[str, Any]], environ: Environ
) -> Iterator[str]:
    """The last of each setting that has one value, where it was carried over."""
    for key, value in dict(original.settings).items():
        if key not in VALUES[kind] or _is_listed(kind, original, key, service, notes):
            continue
        path, old, new = VALUES[kind][key]
        if not _has(service, path):
            continue
        found: Any = service
        for part in path.split("."):
            found = found[part]
        wanted, got = old(original.expand(value)), new(expand(str(found), environ).text)
        if wanted != got:
            yield f"{original.name}: {key}: is {found!r} here, not {value!r}"


def _is_listed(
    kind: str, original: Original, key: str, service: Mapping[str, Any], notes: list[dict[str, Any]]
) -> bool:
    name = f"{original.name}." if kind == "compose" and original.name else ""
    for note in notes:
        setting = note["setting"].removeprefix(name)
        if name and setting == note["setting"]:
            continue
        if kind == "procfile" and setting == original.name:
            return True
        if setting == key or re.match(rf"{re.escape(key)}[ .=\]]", setting):
            return True
        parent = key.rpartition(".")[0]
        if setting == parent and not _is_in_place(kind, parent, service):
            return True
        if kind == "systemd" and setting.startswith(f"{key}="):
            return True
        if key.startswith("[") and setting.startswith(key):
            return True
    return False


def _is_in_place(kind: str, key: str, service: Mapping[str, Any]) -> bool:
    """Whether the service has what a setting becomes."""
    general = re.sub(r"^(depends_on|ulimits)\.[^.]+", r"\1.*", key)
    return any(_has(service, path.format(*key.split("."))) for path in PLACES[kind].get(general, ()))


def _has(service: Any, path: str) -> bool:
    for part in path.lower().split("."):
        if isinstance(service, list):
            return part in service
        if not isinstance(service, dict) or part not in service:
            return False
        service = service[part]
    return True


def _words(value: Any, environ: Environ) -> list[str]:
    if isinstance(value, str):
        return shlex.split(expand(value, environ).text)
    return [expand(str(word), environ).text for word in value]


def _compare_command(
    kind: str, original: Original, service: dict[str, Any], notes: list[dict[str, Any]], environ: Environ
) -> Iterator[str]:
    if original.argv is None:
        return
    words = _words(service.get("command", []), environ) + _words(service.get("args", []), environ)
    if words != original.argv and not _is_noted(notes, original, ("command", "entrypoint")):
        yield f"{original.name}: runs {words}, not {original.argv}"


def _is_noted(notes: list[dict[str, Any]], original: Original, settings: tuple[str, ...]) -> bool:
    names = {f"{original.name}.{setting}" for setting in settings}
    return any(note["setting"] in names for note in notes)


def _compare_environment(
    original: Original, service: dict[str, Any], notes: list[dict[str, Any]], environ: Environ
) -> Iterator[str]:
    found = {
        expand(name, environ).text: expand(str(value), environ).text
        for name, value in service.get("environment", {}).items()
    }
    for name, value in original.environment.items():
        listed = any(f"environment {name}" in note["setting"] for note in notes)
        if found.get(name) != value and not listed:
            yield f"{original.name}: the environment's {name} is {found.get(name)!r}, not {value!r}"
    for name in found.keys() - original.environment.keys() - {"PORT"}:
        yield f"{original.name}: the environment has {name}, which the file does not"
