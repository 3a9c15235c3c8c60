"""What a service may be called: it names its cgroup, its files and its metrics."""

from __future__ import annotations

from typing import Final

SERVICE_NAME_PATTERN: Final = "[a-z0-9][a-z0-9_-]{0,62}"
SERVICE_NAME_FORMS: Final = "up to 63 of a-z, 0-9, '-' and '_', beginning with a letter or a digit"
