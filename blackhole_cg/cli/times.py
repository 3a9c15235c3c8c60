"""Times of the API as people read them."""

from __future__ import annotations

from datetime import datetime


def local_time(wall: str) -> str:
    """A UTC time of the API in the reader's own time zone, to the second."""
    return datetime.fromisoformat(wall).astimezone().strftime("%Y-%m-%d %H:%M:%S")
