"""What holds for every test."""

from __future__ import annotations

import pytest
from hypothesis import settings

from tests.support import real_kernel

# A shared machine can be slow for a moment; a deadline would turn that into a failure that says nothing.
settings.register_profile("project", deadline=None, print_blob=True)
settings.load_profile("project")


@pytest.fixture(autouse=True)
def _real_kernel(request: pytest.FixtureRequest) -> None:
    """Tests of the real kernel and systemd run where those are; elsewhere they say why not."""
    if request.node.get_closest_marker("needs_kernel") and (reason := real_kernel.obstacle()):
        pytest.skip(reason)
