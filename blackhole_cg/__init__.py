"""A Linux cgroup-v2 resource-isolating supervisor.

The Python API is `Supervisor` and `InstanceProvider`, described in docs/python-api.md; each is imported when
it is first asked for, so that the command line stays fast.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from blackhole_cg.core.instance_list import InstanceProvider as InstanceProvider
    from blackhole_cg.supervisor.supervisor import Supervisor as Supervisor

__version__ = "0.1.0"
__all__ = ["InstanceProvider", "Supervisor", "__version__"]


def __getattr__(name: str) -> Any:
    if name == "Supervisor":
        from blackhole_cg.supervisor.supervisor import Supervisor

        return Supervisor
    if name == "InstanceProvider":
        from blackhole_cg.core.instance_list import InstanceProvider

        return InstanceProvider
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
