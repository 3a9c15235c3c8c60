"""What the tests measured of each limit, one JSON object a line, for the report in docs/isolation.md."""

from __future__ import annotations

import json
import os
from pathlib import Path

PLACE = "BLACKHOLE_CG_EVIDENCE"


def record(limit: str, requested: object, held: str, effect: str, mechanism: str) -> None:
    """Note one proof: what was asked for, what the kernel holds, what that did. Nothing without a place."""
    place = os.environ.get(PLACE)
    if not place:
        return
    facts = {
        "limit": limit,
        "requested": str(requested),
        "held": held,
        "effect": effect,
        "mechanism": mechanism,
        "kernel": os.uname().release,
    }
    with Path(place).open("a") as file:
        file.write(json.dumps(facts) + "\n")
