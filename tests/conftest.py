"""What holds for every test."""

from __future__ import annotations

from hypothesis import settings

# A shared machine can be slow for a moment; a deadline would turn that into a failure that says nothing.
settings.register_profile("project", deadline=None, print_blob=True)
settings.load_profile("project")
