"""Configurations for tests, as mappings."""

from __future__ import annotations

import sys
from typing import Any


def config(services: dict[str, dict[str, Any]], **orchestrator: Any) -> dict[str, Any]:
    """A configuration that runs on any host; services without a CPU limit of their own have none."""
    orchestrator.setdefault("isolation", "best_effort")
    orchestrator.setdefault("resource_limits", {"default_cpu_percent": "max"})
    orchestrator.setdefault("shutdown_timeout", "20s")
    return {"runtime": {"orchestrator": orchestrator}, "services": services}


def shell(script: str, **keys: Any) -> dict[str, Any]:
    """A service that is a shell script."""
    return {"command": ["/bin/sh", "-c", script], "data_dir": "data", **keys}


def python(script: str, **keys: Any) -> dict[str, Any]:
    """A service that is a Python script without site packages, which starts fast."""
    return {"command": [sys.executable, "-S", "-u", "-c", script], "data_dir": "data", **keys}


SLEEP = {"command": ["/bin/sleep", "infinity"], "data_dir": "data"}
