"""The configuration: YAML text to checked models to specs. Only here core imports yaml and pydantic."""

from blackhole_cg.core.config.effective import render_yaml, show_config
from blackhole_cg.core.config.includes import Reader
from blackhole_cg.core.config.loaded import LoadedConfig
from blackhole_cg.core.config.loader import in_order, inspect_config, load_config
from blackhole_cg.core.config.models import Config
from blackhole_cg.core.config.resolve import resolve
from blackhole_cg.core.config.schema import json_schema
from blackhole_cg.core.reading import Context

__all__ = [
    "Config",
    "Context",
    "LoadedConfig",
    "Reader",
    "in_order",
    "inspect_config",
    "json_schema",
    "load_config",
    "render_yaml",
    "resolve",
    "show_config",
]
