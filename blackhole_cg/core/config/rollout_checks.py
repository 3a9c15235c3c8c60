"""Rules for how instances are replaced: that there is a way to do it, and whom there may be more of."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Final

from blackhole_cg.core.config.instances import Origin
from blackhole_cg.core.config.loaded import LoadedConfig
from blackhole_cg.core.config.messages import Finding
from blackhole_cg.core.config.service_models import Service
from blackhole_cg.core.config.tree import KeyPath
from blackhole_cg.core.rollout import most_surge

_SHARED: Final = (
    "an additional instance would have the id, and so the data, of one that is there already"
    " (accepted: 0; more with `instances: N` of a service)"
)


def check_rollout(path: KeyPath, service: Service) -> Iterator[Finding]:
    """None may be down and none may be added: nothing could be replaced."""
    rollout, keys = service.rollout, (*path, "rollout")
    if rollout.max_unavailable == 0 and rollout.max_surge == 0:
        message = "max_surge is 0 too, so nothing could be replaced (accepted: more than 0 in one of them)"
        yield Finding((*keys, "max_unavailable"), message, looks_at=((*keys, "max_surge"),))


def refuse_surge(path: KeyPath, service: Service) -> Iterator[Finding]:
    """What is wrong with max_surge in a template."""
    if service.rollout.max_surge != 0:
        yield Finding((*path, "rollout", "max_surge"), _SHARED)


def check_surge(loaded: LoadedConfig) -> Iterator[Finding]:
    """Whether there are the additional instances that a group may have."""
    services = loaded.config.services
    counts = Counter(origin.template for origin in loaded.origins.values() if _is_member(origin))
    for name, service in services.items():
        origin, path = loaded.origins.get(name), ("services", name)
        if origin is None:
            continue
        if origin.section == "templates":
            yield from refuse_surge(path, service)
            continue
        count = counts[origin.template]
        most = count + most_surge(service.rollout.max_surge, count)
        if any(f"{origin.template}-{index}" not in services for index in range(count + 1, most + 1)):
            message = "has to be written out, as a number or a percentage"
            yield Finding((*path, "rollout", "max_surge"), message)


def _is_member(origin: Origin) -> bool:
    return origin.section == "services" and not origin.is_surge
