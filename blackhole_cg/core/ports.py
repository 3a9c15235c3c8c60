"""Ports of services that take any: the range, and the spec of a run once its port is known.

Until then `tcp_port` of a spec is AUTO, and a mark stands where its text would. No text of a configuration
can contain the mark, because NUL can stand in no argument and no variable.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass, replace
from typing import Any, Final

from blackhole_cg.core.probe_spec import Address
from blackhole_cg.core.spec import ServiceSpec
from blackhole_cg.core.words import AUTO

PORT_MARK: Final = "\0tcp_port\0"
"""Stands in every text of a spec for the port that is not known yet."""

UNKNOWN_PORT: Final = 0
"""Stands in the addresses of probes for the port that is not known yet."""


def with_port(spec: ServiceSpec, port: int | None) -> ServiceSpec:
    """The spec of a run that listens on `port`; the same spec where that was known, or is not known yet.

    Every text of the spec is looked at, however deep it lies. `tcp_port` stays AUTO, and `config_hash` as it
    is: neither depends on which port it came to be.
    """
    if spec.tcp_port != AUTO or port is None:
        return spec
    filled: ServiceSpec = _fill(spec, port)
    return filled


def _fill(value: Any, port: int) -> Any:
    if isinstance(value, Address):
        is_own = value.unix_socket is None and value.port == UNKNOWN_PORT
        return replace(value, port=port) if is_own else value
    if isinstance(value, str):
        return value.replace(PORT_MARK, str(port)) if PORT_MARK in value else value
    if isinstance(value, tuple):
        return tuple(_fill(item, port) for item in value)
    if isinstance(value, Mapping):
        return {name: _fill(item, port) for name, item in value.items()}
    if is_dataclass(value) and not isinstance(value, type):
        changes = {each.name: _fill(getattr(value, each.name), port) for each in fields(value) if each.init}
        return replace(value, **changes)
    return value
