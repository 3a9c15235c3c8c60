"""From the configuration of another supervisor to ours: text to services, and notes on what did not fit."""

from blackhole_cg.core.importers.draft import Draft, Note, Source
from blackhole_cg.core.importers.kinds import IMPORTERS
from blackhole_cg.core.importers.render import render

__all__ = ["IMPORTERS", "Draft", "Note", "Source", "render"]
