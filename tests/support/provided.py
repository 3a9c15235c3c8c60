"""A supervisor with a provider, as a program: python -m tests.support.provided CONFIG DIRECTORY CGROUP_ROOT

Each line of stdin is a list of instances as JSON; what is no JSON is an error of the provider.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from blackhole_cg import Supervisor
from blackhole_cg.core.words import Isolation
from blackhole_cg.kernel.host import HostOptions, LinuxHost
from blackhole_cg.supervisor.paths import Paths


class Lines:
    """Lists from stdin."""

    def __init__(self) -> None:
        self._text = b""

    async def __aiter__(self) -> AsyncIterator[Sequence[Mapping[str, Any]]]:
        while True:
            line = await self._line()
            if not line:
                await asyncio.Event().wait()
            yield json.loads(line)

    async def _line(self) -> bytes:
        loop, readable = asyncio.get_running_loop(), asyncio.Event()
        while b"\n" not in self._text:
            loop.add_reader(0, readable.set)
            await readable.wait()
            loop.remove_reader(0)
            readable.clear()
            piece = os.read(0, 65536)
            if not piece:
                return b""
            self._text += piece
        line, _, self._text = self._text.partition(b"\n")
        return line


async def main(config: str, directory: Path, root: str) -> None:
    paths = Paths(directory / "run", directory / "state", directory / "log")
    host = LinuxHost(HostOptions(paths.runtime_dir, Isolation.BEST_EFFORT, root))
    async with Supervisor(config, paths=paths, host=host, provider=Lines()) as supervisor:
        await supervisor.start()
        print("ready", flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], Path(sys.argv[2]), sys.argv[3]))
