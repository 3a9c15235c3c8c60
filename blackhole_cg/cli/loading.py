"""From a configuration file to what the commands need of it."""

from __future__ import annotations

import os
from importlib import import_module
from pathlib import Path
from typing import Any


def load_config(path: Path, context: object = None) -> Any:
    """The configuration in `path`, with this process's environment. Raises ConfigError."""
    return import_module("blackhole_cg.kernel.files").load(path, os.environ, context)
