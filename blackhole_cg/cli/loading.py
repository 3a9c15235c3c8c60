"""From a configuration file to what the commands need of it. Imports what it needs when it is called."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from blackhole_cg.core.config import Context, LoadedConfig
    from blackhole_cg.core.spec import SupervisorSpec


def load_config(path: Path, runtime_dir: Path | None = None) -> tuple[LoadedConfig, SupervisorSpec]:
    """The configuration in `path`, with this process's environment. Raises ConfigError."""
    from blackhole_cg.kernel.files import load

    return load(str(path), os.environ, make_context(runtime_dir))


def make_context(runtime_dir: Path | None = None) -> Context:
    """What this process resolves configurations against; the default runtime directory when None is given."""
    from blackhole_cg.kernel.asked import host_context
    from blackhole_cg.supervisor.paths import default_paths

    runtime_dir = runtime_dir or default_paths(os.environ, os.geteuid()).runtime_dir
    return host_context(str(runtime_dir), os.environ)
