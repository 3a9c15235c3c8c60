"""A finished draft as the text of blackhole.yaml."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from blackhole_cg.core.config import render_yaml
from blackhole_cg.core.importers.draft import Draft

_RUNTIME: Final[dict[str, Any]] = {
    "orchestrator": {"resource_limits": {"default_cpu_percent": "max", "default_memory_mb": "max"}}
}
_ALWAYS: Final = (
    "Services had no limits where none is written, so the defaults are lifted here: choose your own.",
    "HOME is the data_dir, which is what the working directory was.",
    "Programs cannot gain privileges (setuid) unless a service has security: {no_new_privileges: false}.",
)
_CLEAN: Final = (
    "The environment is clean: variables of the former supervisor have to be listed in `environment`."
)


def render(draft: Draft, paths: Sequence[str]) -> str:
    """The configuration, with what is different about it and what was not carried over as comments."""
    remarks = [*_ALWAYS, *((_CLEAN,) if draft.inherits_environment else ())]
    lines = [f"Imported from {', '.join(paths)}. `blackhole-cg check` says whether it can be run here.", ""]
    lines += [f"- {remark}" for remark in remarks]
    if draft.notes:
        lines += ["", "Not carried over, or not exactly:", *(f"- {note}" for note in draft.notes)]
    comment = "".join(f"# {_one_line(line)}".rstrip() + "\n" for line in lines)
    config: dict[str, Any] = {"runtime": _RUNTIME, "services": draft.services}
    if len(draft.services) > 50:
        config["runtime"] = {
            "orchestrator": {"max_processes": len(draft.services), **_RUNTIME["orchestrator"]}
        }
    return f"{comment}\n{render_yaml(_plain(config))}"


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, str) else value
