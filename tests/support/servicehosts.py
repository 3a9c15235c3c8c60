"""Applications in the example servicehost: configurations of it, and asking it."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any, Final

SERVICEHOST: Final = Path(__file__).parents[2] / "examples" / "servicehost" / "servicehost"
MODULE: Final = SERVICEHOST.parent / "apps" / "shop.wasm"


def template(**keys: Any) -> dict[str, Any]:
    """The template of an application; its data is kept beside the configuration."""
    return {
        "command": [str(SERVICEHOST), "-wasm", "{wasm_path}", "-dbPath", "{db_name}", "-port", "{tcp_port}"],
        "tcp_port": "auto",
        "data_dir": "data/{id}",
        "health_check": {"http": {"path": "/api/status"}, "interval": "15s"},
        "restart": {"initial_delay": "100ms"},
        **keys,
    }


def hosts_config(ports: range, **keys: Any) -> dict[str, Any]:
    """A configuration with this template, and ports of a range for its instances."""
    orchestrator = {
        "isolation": "best_effort",
        "ports": {"range": f"{ports[0]}-{ports[-1]}"},
        "services_dir": "services",
        # Starting an interpreter on a tenth of a processor would be what the tests measure.
        "resource_limits": {"default_cpu_percent": "max"},
    }
    return {"runtime": {"orchestrator": orchestrator}, "templates": {"servicehost": template()}, **keys}


def application(name: str, db_name: str | None = None) -> dict[str, Any]:
    """An instance."""
    return {"id": name, "template": "servicehost", "wasm_path": str(MODULE), "db_name": db_name or name}


async def ask_status(port: int) -> dict[str, Any] | None:
    """What the application on a port says of itself; None when nobody answers."""
    try:
        async with asyncio.timeout(5):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"GET /api/status HTTP/1.1\r\nHost: x\r\n\r\n")
            text = await reader.read()
            writer.close()
    except (OSError, TimeoutError):
        return None
    said: dict[str, Any] = json.loads(text.partition(b"\r\n\r\n")[2] or b"null")
    return said
