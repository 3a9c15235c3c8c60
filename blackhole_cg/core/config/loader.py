"""From files to a checked configuration, with everything that is wrong reported at once."""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, Final

from pydantic import ValidationError

from blackhole_cg.core.config.checks import check
from blackhole_cg.core.config.data import read_data
from blackhole_cg.core.config.discovered import Scan, discover
from blackhole_cg.core.config.dotenv import parse_dotenv
from blackhole_cg.core.config.includes import Files, Reader
from blackhole_cg.core.config.instances import SECTIONS, Expansion, expand
from blackhole_cg.core.config.loaded import INSTANCE_MARK, Broken, LoadedConfig
from blackhole_cg.core.config.messages import Finding, findings_of
from blackhole_cg.core.config.models import Config
from blackhole_cg.core.config.replicas import replicate
from blackhole_cg.core.config.rollout_checks import refuse_surge
from blackhole_cg.core.config.template_text import has_placeholder
from blackhole_cg.core.config.tree import KeyPath, Sequence, without
from blackhole_cg.core.config.tree import Mapping as TreeMapping
from blackhole_cg.core.config.yaml_text import MAX_DIAGNOSTICS
from blackhole_cg.core.units import shorten
from blackhole_cg.errors import ConfigError, Diagnostic

_MAX_ROUNDS: Final = 8


def load_config(path: str, reader: Reader, environ: Mapping[str, str]) -> LoadedConfig:
    """The configuration in the file at `path`, with its includes, variables and env_files.

    Raises:
        ConfigError: with everything that is wrong, sorted by position.
    """
    loaded, diagnostics = inspect_config(path, reader, environ)
    if loaded is None or diagnostics:
        raise ConfigError(in_order(path, diagnostics))
    return loaded


def inspect_config(
    path: str,
    reader: Reader,
    environ: Mapping[str, str],
    scan: Scan | None = None,
    provided: Sequence | None = None,
) -> tuple[LoadedConfig | None, list[Diagnostic]]:
    """What can be understood of the configuration, and everything that is wrong; None if nothing can.

    Args:
        path: the main file.
        reader: the files.
        environ: the variables.
        scan: looks for programs in the services directory; None leaves that out.
        provided: instances that are not in the files.
    """
    files = Files(reader, environ)
    root = files.read(path)
    if root is None:
        return None, files.diagnostics
    replicated = replicate(root)
    expansion = expand(replicated.root, provided, replicated)
    root = expansion.root
    reading = read_data(without(root, SECTIONS), environ)
    config, findings = _validate(reading.data)
    broken = Broken.of(reading.broken | {finding.path for finding in findings})
    loaded = LoadedConfig(
        config,
        root,
        tuple(files.sources),
        reading.secrets,
        broken=broken,
        origins=expansion.origins,
        globs=tuple(files.globs),
    )
    loaded = discover(loaded, scan)
    diagnostics = [*files.diagnostics, *expansion.diagnostics, *reading.diagnostics]
    # What is wrong with `include` was said when the files were joined.
    findings = [finding for finding in findings if finding.path[:1] != ("include",)]
    diagnostics += [loaded.diagnostic_of(finding) for finding in (*findings, *check(loaded))]
    diagnostics += _try_templates(loaded, expansion, environ)
    env_files, env_diagnostics = _read_env_files(loaded, reader)
    diagnostics += env_diagnostics
    if not loaded.config.services and not diagnostics and not _may_be_empty(loaded):
        diagnostics.append(loaded.diagnostic(("services",), "there is no service (accepted: one or more)"))
    return replace(loaded, env_files=env_files), diagnostics


def _may_be_empty(loaded: LoadedConfig) -> bool:
    """Whether services may come later: as instances, or as programs that are found."""
    orchestrator = loaded.config.runtime.orchestrator
    is_watched = orchestrator.discover and orchestrator.discover_interval is not None
    return is_watched or any(loaded.has_written((section,)) for section in SECTIONS)


def _try_templates(
    loaded: LoadedConfig, expansion: Expansion, environ: Mapping[str, str]
) -> list[Diagnostic]:
    """What is wrong with templates that have no instance, as far as that can be told without one."""
    trial = TreeMapping(expansion.root.position)
    services = TreeMapping(expansion.root.position)
    trial.add("services", services.position, services)
    for name, template in expansion.unused.items():
        services.add(name, template.position, template)
    reading = read_data(trial, environ)
    config, findings = _validate(reading.data)
    for name, service in config.services.items():
        findings += refuse_surge(("services", name), service)
    found = [finding for finding in findings if not has_placeholder(trial, finding.path)]
    return [loaded.diagnostic(("templates", *each.path[1:]), each.message, key=each.at_key) for each in found]


def in_order(main: str, diagnostics: Iterable[Diagnostic]) -> list[Diagnostic]:
    """Each diagnostic once, by position, those of the main file first; no more than 1000."""
    once: dict[Diagnostic, Diagnostic] = {}
    for each in sorted(diagnostics):
        # What is wrong with a template is said of its first instance.
        once.setdefault(replace(each, message=each.message.partition(INSTANCE_MARK)[0]), each)
    ordered = sorted(once.values(), key=lambda diagnostic: (diagnostic.source != main, diagnostic))
    if len(ordered) > MAX_DIAGNOSTICS:
        ordered[MAX_DIAGNOSTICS:] = [
            Diagnostic(main, 0, 0, "", f"more errors follow these {MAX_DIAGNOSTICS}")
        ]
    return ordered


def _validate(data: Any) -> tuple[Config, list[Finding]]:
    """The models of all that is sound in the data, and a finding for each refused value."""
    findings: list[Finding] = []
    for _ in range(_MAX_ROUNDS):
        try:
            return Config.model_validate(data), findings
        except ValidationError as error:
            found = findings_of(error, MAX_DIAGNOSTICS + 1)
            findings += found
            if len(found) > MAX_DIAGNOSTICS:
                break
            for finding in found:
                _leave_out(data, finding.path)
    return Config(), findings


def _leave_out(data: Any, path: KeyPath) -> None:
    """Remove the value at `path`, or the innermost mapping's entry that holds it."""
    holder, name, node = None, None, data
    for step in path:
        if isinstance(node, dict) and step in node:
            holder, name = node, step
            node = node[step]
        elif isinstance(node, list) and isinstance(step, int) and step < len(node):
            node = node[step]
        else:
            break
    if holder is not None:
        holder.pop(name)


def _read_env_files(
    loaded: LoadedConfig, reader: Reader
) -> tuple[dict[str, Mapping[str, str]], list[Diagnostic]]:
    env_files: dict[str, Mapping[str, str]] = {}
    diagnostics: list[Diagnostic] = []
    for name, service in loaded.config.services.items():
        if service.env_file is None:
            continue
        path = posixpath.join(loaded.directory_of(name), service.env_file)
        try:
            data = reader.read_bytes(path)
        except (OSError, ValueError) as error:
            cause = getattr(error, "strerror", None) or str(error)
            key = ("services", name, "env_file")
            shown = loaded.secrets.get(key, path)
            diagnostics.append(loaded.diagnostic(key, f"cannot read {shorten(shown, 200)}: {cause}"))
        else:
            env_files[name], wrong = parse_dotenv(data, path)
            diagnostics += wrong
    return env_files, diagnostics
