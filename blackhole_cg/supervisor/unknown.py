"""Cgroups below the root that belong to no live run: shown to who asks, ended only when somebody wants it."""

from __future__ import annotations

import logging
from typing import Any

from blackhole_cg.errors import OperationError
from blackhole_cg.runner.host import Host
from blackhole_cg.supervisor.services import Services

_log = logging.getLogger(__name__)


def unknown_cgroups(host: Host, services: Services) -> list[dict[str, Any]]:
    """Each with its name, its directory, and the processes in it."""
    root = (host.facts.cgroup_root or "").rstrip("/")
    live = {name for name, runner in services.runners.items() if runner.run is not None}
    return [
        {"name": name, "path": f"{root}/{name}", "pids": pids}
        for name, pids in host.cgroups(known=live).items()
    ]


async def kill_cgroup(host: Host, services: Services, name: str) -> list[int]:
    """Kill what is in one of them, and remove it; the processes that were in it.

    Raises:
        OperationError: it is none of them.
        CgroupError: it cannot be removed.
    """
    if name not in (each["name"] for each in unknown_cgroups(host, services)):
        hint = " (it is that of a live service: use `stop`)" if name in services.runners else ""
        raise OperationError(f"there is no cgroup '{name}' that belongs to no service{hint}")
    pids = await host.clear(name)
    _log.warning("the cgroup %s, which belonged to no service, was removed on request: %s", name, pids)
    return pids
