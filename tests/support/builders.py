"""Short ways to make the values tests need."""

from __future__ import annotations

from typing import Any

from blackhole_cg.core.spec import RuntimeSpec, ServiceSpec, SupervisorSpec
from blackhole_cg.core.words import Condition


def service(name: str = "web", *needs: str, **fields: Any) -> ServiceSpec:
    """A service that needs others to have started."""
    fields.setdefault("depends_on", dict.fromkeys(needs, Condition.STARTED))
    fields.setdefault("argv", ("/bin/sleep", "infinity"))
    fields.setdefault("data_dir", "/nonexistent")
    fields.setdefault("environment", {})
    return ServiceSpec(name=name, **fields)


def supervisor_spec(*services: ServiceSpec, **runtime: Any) -> SupervisorSpec:
    """A configuration of these services."""
    return SupervisorSpec(RuntimeSpec(**runtime), {each.name: each for each in services})
