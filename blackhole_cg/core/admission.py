"""Whether the memory limits of services still fit into the memory there is."""

from __future__ import annotations

from blackhole_cg.core.spec import ServiceSpec
from blackhole_cg.core.units import format_size


def promised_bytes(spec: ServiceSpec) -> int:
    """The memory that a service may take by its limit; 0 without one, as nothing is promised then."""
    limit = spec.limits.memory_max_bytes
    return limit if isinstance(limit, int) else 0


def find_shortage(promised: int, spec: ServiceSpec, memory_bytes: int | None) -> str | None:
    """Why one more service is too much beside `promised` bytes; None when it fits or nobody knows."""
    own = promised_bytes(spec)
    if memory_bytes is None or not own or promised + own <= memory_bytes:
        return None
    return (
        f"its memory limit of {format_size(own)} and those of what runs add up to "
        f"{format_size(promised + own)}, and there are {format_size(memory_bytes)}"
    )
