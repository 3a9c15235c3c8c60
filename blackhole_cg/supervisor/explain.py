"""What only the supervisor knows of where a service is: whom it waits for, what its policy has left."""

from __future__ import annotations

from typing import Any

from blackhole_cg.core.restart import still_counting
from blackhole_cg.core.words import State
from blackhole_cg.runner.service import ServiceRunner
from blackhole_cg.supervisor.services import Services


def explain(services: Services, name: str, now: float) -> dict[str, Any]:
    """Dependencies that are waited for, what probes say, and restarts used up. Raises UnknownServiceError."""
    runner = services.runner(name)
    return {
        "problem": runner.health_watch.last_failure,
        "waits_for": _waits_for(services, name, {name}),
        "restart": _restart(runner, now),
    }


def _waits_for(services: Services, name: str, seen: set[str]) -> list[dict[str, Any]]:
    """The dependencies that keep a service waiting, and what keeps these; each is gone into once."""
    if services.runners[name].status.state is not State.WAITING:
        return []
    found = []
    for dependency in services.unmet(name):
        runner = services.runners[dependency]
        deeper = [] if dependency in seen else _waits_for(services, dependency, seen | {dependency})
        seen.add(dependency)
        found.append({
            "service": dependency,
            "condition": str(services.runners[name].spec.depends_on[dependency]),
            "state": str(runner.status.state),
            "health": str(runner.status.health),
            "problem": runner.health_watch.last_failure or runner.status.last_error,
            "waits_for": deeper,
        })  # fmt: skip
    return found


def _restart(runner: ServiceRunner, now: float) -> dict[str, Any]:
    policy, status = runner.spec.restart, runner.status
    uptime_seconds = 0.0 if status.started_at is None else now - status.started_at
    history = still_counting(policy, status.history, uptime_seconds, now)
    return {
        "policy": str(policy.when),
        "type": str(runner.spec.type),
        "recent": len(history.restarted_at),
        "max_restarts": policy.max_restarts,
        "window_seconds": policy.window_seconds,
    }
