"""From a configuration file to what the commands need of it. Imports what it needs when it is called."""

from __future__ import annotations

import os
import pickle
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from blackhole_cg.errors import BlackholeError, ConfigError

if TYPE_CHECKING:
    from blackhole_cg.core.config import Context, LoadedConfig
    from blackhole_cg.core.spec import SupervisorSpec


def load_config(path: Path, runtime_dir: Path | None = None) -> tuple[LoadedConfig, SupervisorSpec]:
    """The configuration in `path`, with this process's environment. Raises ConfigError."""
    from blackhole_cg.kernel.files import load

    return load(str(path), os.environ, make_context(runtime_dir))


def make_context(runtime_dir: Path | None = None) -> Context:
    """What this process resolves configurations against; the default runtime directory when None is given."""
    from blackhole_cg.kernel.files import host_context
    from blackhole_cg.supervisor.paths import default_paths

    runtime_dir = runtime_dir or default_paths(os.environ, os.geteuid()).runtime_dir
    return host_context(str(runtime_dir), os.environ)


class ApartLoader:
    """Loads a configuration in a child process, while this one goes on with something else.

    What checks a configuration stays in memory once it was imported, several times what the rest of the
    supervisor needs; every later fork would pay for it. In a child it ends with the child.
    """

    def __init__(self, path: Path, runtime_dir: Path) -> None:
        self._path = path
        self._reader, writer = os.pipe()
        self._child = os.fork()
        if self._child == 0:
            _load_and_end(path, runtime_dir, writer)
        os.close(writer)

    def result(self) -> SupervisorSpec:
        """Wait for the child. Call it once.

        Raises:
            ConfigError: the configuration is wrong.
            BlackholeError: the child has died.
        """
        with os.fdopen(self._reader, "rb") as pipe:
            text = pipe.read()
        _, status = os.waitpid(self._child, 0)
        if status or not text:
            code = os.waitstatus_to_exitcode(status)
            raise BlackholeError(f"cannot load {self._path}: the process that reads it ended with {code}")
        answer: SupervisorSpec | tuple[Any, ...] = pickle.loads(text)
        if isinstance(answer, tuple):
            raise ConfigError(answer)
        return answer


def _load_and_end(path: Path, runtime_dir: Path, writer: int) -> NoReturn:
    code = 1
    try:
        answer: SupervisorSpec | tuple[Any, ...]
        try:
            answer = load_config(path, runtime_dir)[1]
        except ConfigError as error:
            answer = error.diagnostics
        with os.fdopen(writer, "wb") as pipe:
            pickle.dump(answer, pipe, pickle.HIGHEST_PROTOCOL)
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)
