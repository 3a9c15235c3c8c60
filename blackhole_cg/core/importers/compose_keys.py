"""What of a service in a Compose file has a counterpart here, and why the rest has none."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from blackhole_cg.core.config.tree import Mapping as MappingNode
from blackhole_cg.core.config.tree import Node, Scalar
from blackhole_cg.core.config.tree import Sequence as SequenceNode
from blackhole_cg.core.importers.draft import duration, put
from blackhole_cg.core.importers.spans import read_span

Notes = list[tuple[str, str]]  # (setting, why it is different or missing)

_VARIABLE: Final = re.compile(r"\$(?:\$|\{([^}]*)\}|([A-Za-z_][A-Za-z0-9_]*))")
_BODY: Final = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)(?:(:?[-?+])(.*))?", re.DOTALL)
_PARTS: Final = re.compile(r"(?:\$\{[^}]*\}|[^:])+")  # what colons separate, but those of variables
_ONE_PORT: Final = re.compile(r"\d+|\$\{[^}]*\}")  # of TCP: not 53/udp, not 80-90
_CAPABILITIES: Final = "name the capabilities it keeps as security.capabilities"
_TRUE: Final = frozenset({"true", "yes", "on"})
_SHARES: Final = (2, 262144)  # of cgroup v1, which are 1 to 10000 as weights of cgroup v2


@dataclass(frozen=True, slots=True)
class Entry:
    """One key of a service, and its value as it was written."""

    key: str
    node: Node
    line: int

    def text(self) -> str:
        """The value as one text, its variables spelled as here. Raises ValueError."""
        if not isinstance(self.node, Scalar):
            raise ValueError("is not one text")
        return spell(self.node.text)

    def texts(self) -> list[str]:
        """The value as a list of texts. Raises ValueError."""
        if isinstance(self.node, Scalar):
            return [] if self.node.is_null else [spell(self.node.text)]
        if not isinstance(self.node, SequenceNode):
            raise ValueError("is not a list of texts")
        return [self.of(item).text() for item in self.node.items]

    def entries(self) -> dict[str, Entry]:
        """The value as a mapping. Raises ValueError."""
        if not isinstance(self.node, MappingNode):
            raise ValueError("is not a mapping")
        keys = self.node.keys
        return {key: Entry(key, node, keys[key].line) for key, node in self.node.entries.items()}

    def of(self, node: Node) -> Entry:
        """The same key with another value."""
        return Entry(self.key, node, self.line)

    def variables(self) -> list[str]:
        """The variables anywhere in the value, as they are written."""
        nodes: list[Node] = [self.node]
        for node in nodes:
            if isinstance(node, MappingNode):
                nodes += node.entries.values()
            elif isinstance(node, SequenceNode):
                nodes += node.items
        texts = [node.text for node in nodes if isinstance(node, Scalar)]
        found = [match[0] for text in texts for match in _VARIABLE.finditer(text)]
        return [variable for variable in found if variable != "$$"]

    def number(self) -> float:
        """The value as a number. Raises ValueError."""
        try:
            return float(self.text())
        except ValueError:
            raise ValueError(f"'{self.text()}' is not a number") from None


def spell(text: str) -> str:
    """The text with its variables as blackhole.yaml spells them. Raises ValueError."""

    def value(match: re.Match[str]) -> str:
        if match[0] == "$$":
            return "$$"
        body = _BODY.fullmatch(match[2] or match[1])
        if body is None:
            raise ValueError(f"has a variable that cannot be read: {match[0]}")
        name, operator, rest = body.groups()
        if operator and operator.endswith("+"):
            raise ValueError(f"has {match[0]}, which has no counterpart")
        if rest and "$" in rest:
            raise ValueError(f"has a variable within the variable {name}")
        return f"${{{name}:-{rest}}}" if operator and operator.endswith("-") else f"${{{name}}}"

    return _VARIABLE.sub(value, text)


def attempt(
    target: dict[str, Any], key: str, entry: Entry, read: Callable[[Entry], Any], setting: str
) -> Notes:
    """Set a key to what an entry says; a note where a variable keeps it from being known.

    Raises:
        ValueError: the value is wrong, whatever its variables are.
    """
    try:
        target[key] = read(entry)
    except ValueError as error:
        if not entry.variables():
            raise
        return [(setting, f"{error}: write its value")]
    return []


def _simple(path: str, read: Callable[[Entry], Any]) -> Carry:
    def carry(service: dict[str, Any], entry: Entry) -> Notes:
        put(service, path, read(entry))
        return []

    return carry


def _words(entry: Entry) -> list[str]:
    if not isinstance(entry.node, Scalar):
        return entry.texts()
    try:
        return shlex.split(entry.text())
    except ValueError:
        raise ValueError("has a quote that is never closed") from None


def _span(entry: Entry) -> str:
    return duration(read_span(entry.text()))


def _whole(entry: Entry) -> int:
    return int(entry.number())


def _environment(service: dict[str, Any], entry: Entry) -> Notes:
    """A name without a value is the variable of that name."""
    found: dict[str, str] = {}
    notes: Notes = []
    for name, each in _variables(entry):
        if each is None:
            found[name.strip()] = f"${{{name.strip()}:-}}"
        else:
            notes += attempt(found, name.strip(), each, Entry.text, f"environment {name.strip()}")
        if name != name.strip():
            notes.append((f"environment '{name}'", "a space in the name of a variable is left out"))
    service["environment"] = found
    return notes


def _variables(entry: Entry) -> Iterable[tuple[str, Entry | None]]:
    """Each name, and its value where there is one."""
    if isinstance(entry.node, MappingNode):
        for name, each in entry.entries().items():
            yield name, None if isinstance(each.node, Scalar) and each.node.is_null else each
        return
    if isinstance(entry.node, Scalar):
        if not entry.node.is_null:
            raise ValueError("is one text (accepted: a mapping or a list of NAME=value)")
        return
    for node in entry.node.items:
        if not isinstance(node, Scalar):
            raise ValueError("is not a list of texts")
        name, equals, value = node.text.partition("=")
        if not node.is_null:
            yield spell(name), entry.of(Scalar(node.position, value, plain=False)) if equals else None


def _env_file(service: dict[str, Any], entry: Entry) -> Notes:
    items = entry.node.items if isinstance(entry.node, SequenceNode) else [entry.node]
    paths: list[str] = []
    notes: Notes = []
    for item in items:
        parts = item.entries if isinstance(item, MappingNode) else {"path": item}
        paths += entry.of(parts.get("path", Scalar(item.position, ""))).texts()
        notes += [
            (f"env_file.{key}", "the file must exist and has lines KEY=value")
            for key in parts
            if key != "path"
        ]
    if paths:
        service["env_file"] = paths[0]
    return [*notes, *((f"env_file {path}", "there is one env_file for a service") for path in paths[1:])]


def _user(service: dict[str, Any], entry: Entry) -> Notes:
    parts = _PARTS.findall(entry.text())
    service |= dict(zip(("user", "group"), parts, strict=False))
    return []


def _restart(service: dict[str, Any], entry: Entry) -> Notes:
    word, _, count = entry.text().partition(":")
    policies = {"no": "never", "false": "never", "always": "always", "unless-stopped": "always"}
    policies["on-failure"] = "on_failure"
    if word not in policies:
        raise ValueError(f"is '{word}' (accepted: no, always, on-failure, unless-stopped)")
    service["restart"] = {"policy": policies[word]}
    if policies[word] != "never":
        service["restart"]["max_restarts"] = int(count) if count.isdigit() else "max"
    return []


def _health_check(service: dict[str, Any], entry: Entry) -> Notes:
    parts = entry.entries()
    if parts.get("disable") and parts["disable"].text().lower() in _TRUE:
        return []
    test = parts.get("test")
    words = test.texts() if test is not None else []
    if not words or words == ["NONE"]:
        return [("healthcheck", "it has no test in this file")] if not words else []
    if test is not None and isinstance(test.node, Scalar):
        words = ["CMD-SHELL", *words]
    command = words[1:] if words[0] == "CMD" else ["/bin/sh", "-c", *words[1:]]
    usual = {"interval": "30s", "timeout": "30s", "retries": 3}
    check: dict[str, Any] = {"exec": {"command": command}, **usual}
    reads: dict[str, Callable[[Entry], Any]] = {"interval": _span, "timeout": _span, "retries": _whole}
    notes: Notes = []
    for key, each in parts.items():
        if key in reads:
            notes += attempt(check, key, each, reads[key], f"healthcheck.{key}")
        elif key not in ("test", "disable", "start_period"):
            notes.append((f"healthcheck.{key}", "has no counterpart here"))
    if "start_period" in parts:
        each_seconds = read_span(check["interval"])

        def start_timeout(period: Entry) -> str:
            return duration(max(1.0, read_span(period.text()) + each_seconds * check["retries"]))

        notes += attempt(
            check, "start_timeout", parts["start_period"], start_timeout, "healthcheck.start_period"
        )
    service["health_check"] = check
    why = "its command runs on this host, and a service that fails it is restarted"
    return [*notes, ("healthcheck", why)]


def _ports(service: dict[str, Any], entry: Entry) -> Notes:
    targets: list[str] = []
    nodes = entry.node.items if isinstance(entry.node, SequenceNode) else []
    for node in nodes:
        if isinstance(node, MappingNode):
            parts = entry.of(node).entries()
            if "target" in parts and ("protocol" not in parts or parts["protocol"].text() == "tcp"):
                targets.append(parts["target"].text())
        else:
            targets.append(_PARTS.findall(entry.of(node).text())[-1].removesuffix("/tcp"))
    if port := next((target for target in targets if _ONE_PORT.fullmatch(target)), None):
        service["tcp_port"] = int(port) if port.isdigit() else port
    mapped = ", ".join(node.text for node in nodes if isinstance(node, Scalar)) or "its mappings"
    return [(f"ports {mapped}", "ports are not mapped: a service listens on this host itself")]


def _cpus(entry: Entry) -> float:
    percent = max(1.0, entry.number() * 100)
    return int(percent) if percent == int(percent) else percent


def _weight(entry: Entry) -> int:
    low, high = _SHARES
    shares = min(max(entry.number(), low), high)
    return max(1, round(1 + (shares - low) * 9999 / (high - low)))


def _pids(entry: Entry) -> int | str:
    return "max" if entry.number() <= 0 else _whole(entry)


def _ulimits(service: dict[str, Any], entry: Entry) -> Notes:
    notes: Notes = []
    for name, each in entry.entries().items():
        value = each
        if isinstance(each.node, MappingNode):
            bounds = each.entries()
            value = bounds.get("soft", each)
            if "hard" in bounds and bounds["hard"].text() != value.text():
                notes.append((f"ulimits.{name}", "soft and hard limit are the same here"))
        path = {"nofile": "open_files", "nproc": "processes"}.get(name, f"rlimits.{name}")
        number = _whole(value)
        put(service, f"resources.{path}", "max" if number < 0 else number)
    return notes


def _deploy(service: dict[str, Any], entry: Entry) -> Notes:
    notes: Notes = []
    for key, each in entry.entries().items():
        if key == "resources":
            notes += _deploy_resources(service, each)
        else:
            notes.append((f"deploy.{key}", WHYS.get(key, "has no counterpart here")))
    return notes


def _deploy_resources(service: dict[str, Any], entry: Entry) -> Notes:
    paths: Mapping[tuple[str, str], tuple[str, Callable[[Entry], Any]]] = {
        ("limits", "cpus"): ("cpu_percent", _cpus),
        ("limits", "memory"): ("memory_max", Entry.text),
        ("limits", "pids"): ("pids_max", _pids),
        ("reservations", "memory"): ("memory_low", Entry.text),
    }
    notes: Notes = []
    for kind, each in entry.entries().items():
        for key, value in each.entries().items():
            if (kind, key) in paths:
                path, read = paths[kind, key]
                target = service.setdefault("resources", {})
                notes += attempt(target, path, value, read, f"deploy.resources.{kind}.{key}")
            else:
                notes.append((f"deploy.resources.{kind}.{key}", "has no counterpart here"))
    return notes


def _cap_drop(service: dict[str, Any], entry: Entry) -> Notes:
    names = [name.upper() for name in entry.texts()]
    if names != ["ALL"]:
        return [(f"cap_drop {' '.join(names)}", _CAPABILITIES)]
    service.setdefault("security", {}).setdefault("capabilities", [])
    return []


def _cap_add(service: dict[str, Any], entry: Entry) -> Notes:
    names = [name.upper().removeprefix("CAP_") for name in entry.texts()]
    if "ALL" in names:
        return [("cap_add ALL", _CAPABILITIES)]
    known = service.setdefault("security", {}).get("capabilities", [])
    service["security"]["capabilities"] = [*known, *names]
    return []


def _security_options(service: dict[str, Any], entry: Entry) -> Notes:
    options = [option for option in entry.texts() if not option.startswith("no-new-privileges")]
    return [(f"security_opt {option}", "has no counterpart here") for option in options]


Carry = Callable[[dict[str, Any], Entry], Notes]

WHYS: Final[Mapping[str, str]] = {
    "image": "a service runs a program of this host, not of an image",
    "build": "a service runs a program of this host, not of an image",
    "volumes": "a service sees the files of this host",
    "networks": "a service uses the network of this host",
    "configs": "hand a configuration over with `config` or `env_file`",
    "secrets": "hand a secret over with `env_file` or ${VARIABLE}",
    "expose": "a service listens on this host itself",
    "name": "services have the names they are given here",
    "links": "services find each other on this host: see depends_on",
    "container_name": "the service has its name",
    "hostname": "a service has the name of this host",
    "labels": "has no counterpart here",
    "logging": "output is kept in NAME.log of --log-dir, see `logs`",
    "profiles": "see `enabled`",
    "replicas": "the service runs once: make the others by `instances`",
    "scale": "the service runs once: make the others by `instances`",
    "extends": "write the keys it takes from there",
    "privileged": "see security.capabilities",
    "tty": "a service has no terminal",
    "stdin_open": "a service reads from /dev/null",
    "init": "orphans are taken care of in any case",
}

CARRIED: Final[Mapping[str, Carry]] = {
    "command": _simple("command", _words),
    "entrypoint": _simple("entrypoint", _words),
    "environment": _environment,
    "env_file": _env_file,
    "working_dir": _simple("data_dir", Entry.text),
    "user": _user,
    "restart": _restart,
    "healthcheck": _health_check,
    "stop_signal": _simple("stop.signal", Entry.text),
    "stop_grace_period": _simple("stop.timeout", _span),
    "ports": _ports,
    "mem_limit": _simple("resources.memory_max", Entry.text),
    "mem_reservation": _simple("resources.memory_low", Entry.text),
    "cpus": _simple("resources.cpu_percent", _cpus),
    "cpu_shares": _simple("resources.cpu_weight", _weight),
    "cpuset": _simple("resources.cpuset_cpus", Entry.text),
    "pids_limit": _simple("resources.pids_max", _pids),
    "ulimits": _ulimits,
    "oom_score_adj": _simple("oom_score_adj", _whole),
    "deploy": _deploy,
    "cap_drop": _cap_drop,
    "cap_add": _cap_add,
    "security_opt": _security_options,
}
"""What has a counterpart: sets it, and returns what is different about it."""
