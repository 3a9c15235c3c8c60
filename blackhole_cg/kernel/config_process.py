"""Reads a configuration in a process of its own.

What checks a configuration stays in memory once it was imported, several times what the rest of the
supervisor needs, and every later fork would pay for it. In a process of its own it ends with that process,
and the supervisor's loop goes on meanwhile.
"""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import IO, Any, cast

from blackhole_cg.core.spec import SupervisorSpec
from blackhole_cg.errors import BlackholeError, ConfigError
from blackhole_cg.kernel.child_output import read_output
from blackhole_cg.kernel.own_process import python_command


class ConfigProcess:
    """One reading of one file, under way from the beginning; take its result once, by either way.

    Args:
        path: the configuration file.
        runtime_dir: the runtime directory it is resolved for.
    """

    def __init__(self, path: Path, runtime_dir: Path) -> None:
        self._path = path
        command = python_command(__name__, str(path), str(runtime_dir))
        self._child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
        self._pipe = cast(IO[bytes], self._child.stdout)

    def result(self) -> SupervisorSpec:
        """Wait for it.

        Raises:
            ConfigError: the configuration is wrong.
            BlackholeError: the process has died.
        """
        with self._pipe:
            text = self._pipe.read()
        return self._conclude(text)

    async def read(self) -> SupervisorSpec:
        """Wait for it while the loop goes on; whoever stops waiting ends the process.

        Raises:
            ConfigError: the configuration is wrong.
            BlackholeError: the process has died.
        """
        return self._conclude(await read_output(self._child))

    def _conclude(self, text: bytes) -> SupervisorSpec:
        """What the process answered. Its exit status may be lost to whoever reaps strangers."""
        self._child.wait()
        try:
            answer: SupervisorSpec | tuple[Any, ...] = pickle.loads(text)
        except (EOFError, pickle.UnpicklingError):
            raise BlackholeError(f"cannot load {self._path}: the process that reads it has died") from None
        if isinstance(answer, tuple):
            raise ConfigError(answer)
        return answer


def main(path: str, runtime_dir: str) -> None:
    """Be that process: print the specification, or what is wrong, for `ConfigProcess` to read."""
    from blackhole_cg.kernel.files import host_context, load

    answer: SupervisorSpec | tuple[Any, ...]
    try:
        answer = load(path, os.environ, host_context(runtime_dir, os.environ))[1]
    except ConfigError as error:
        answer = error.diagnostics
    with os.fdopen(1, "wb") as pipe:
        pickle.dump(answer, pipe, pickle.HIGHEST_PROTOCOL)


if __name__ == "__main__":
    main(*sys.argv[1:])
