"""A Linux cgroup-v2 resource-isolating supervisor.

The Python API is `Supervisor`, described in docs/python-api.md; it is imported when it is first asked for, so
that the command line stays fast.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from blackhole_cg.supervisor.supervisor import Supervisor as Supervisor

__version__ = "0.1.0"
__all__ = ["Supervisor", "__version__"]


def __getattr__(name: str) -> Any:
    if name == "Supervisor":
        from blackhole_cg.supervisor.supervisor import Supervisor

        return Supervisor
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
