"""Where services can be reached, told in a file that other programs watch."""

from __future__ import annotations

import asyncio
import json
import logging
import os
from pathlib import Path
from typing import Any, Final

from blackhole_cg.core.endpoints import find_endpoint
from blackhole_cg.supervisor.services import Services

_log = logging.getLogger(__name__)

FILE_NAME: Final = "endpoints.json"
MODE: Final = 0o644
"""For every user: it tells no more than who listens where, which the kernel tells everybody too."""

GATHER_SECONDS: Final = 0.02
"""Changes that come together are written together."""


def list_endpoints(services: Services) -> dict[str, dict[str, Any]]:
    """Every service that listens somewhere, in start order."""
    found = [find_endpoint(runner.spec, runner.status, runner.port) for runner in services.runners.values()]
    return {endpoint.service: endpoint.to_json() for endpoint in found if endpoint is not None}


class EndpointsFile:
    """Keeps the file equal to what is true. It is replaced as a whole, so no reader ever sees a part.

    Args:
        runtime_dir: where the file is.
        services: the services it tells of; it listens to their changes from now on.
    """

    def __init__(self, runtime_dir: Path, services: Services) -> None:
        self._path = runtime_dir / FILE_NAME
        self._services = services
        self._written: bytes | None = None
        self._is_broken = False
        self._timer: asyncio.TimerHandle | None = None
        services.watch(self._note)

    def write(self) -> None:
        """Write the file, if what it tells has changed; a failure is told once and tried again later."""
        self._timer = None
        text = json.dumps({"endpoints": list_endpoints(self._services)}).encode() + b"\n"
        if text == self._written:
            return
        try:
            _replace(self._path, text)
        except OSError as error:
            if not self._is_broken:
                _log.error("cannot write %s: %s; what it tells is out of date", self._path, error.strerror)
            self._is_broken = True
            return
        self._written, self._is_broken = text, False

    def restore(self) -> bool:
        """Write the file again where somebody has deleted it; whether that was so."""
        if self._written is None or self._path.exists():
            return False
        self._written = None
        self.write()
        return self._written is not None

    def close(self, *, keep: bool) -> None:
        """Write it no more; and take it away, unless the services run on."""
        self._services.watch(None)
        if self._timer is not None:
            self._timer.cancel()
        if keep:
            self.write()
        else:
            self._path.unlink(missing_ok=True)

    def _note(self) -> None:
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(GATHER_SECONDS, self.write)


def _replace(path: Path, text: bytes) -> None:
    draft = path.with_name(f".{path.name}.new")
    draft.unlink(missing_ok=True)
    try:
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, MODE)
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(descriptor, MODE)  # whatever the umask
            file.write(text)
        draft.rename(path)
    except OSError:
        draft.unlink(missing_ok=True)
        raise
