"""Block devices as the io controller sees them: their numbers, and what acts on io.weight for each."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Mapping
from pathlib import Path

BFQ = "bfq"
IO_COST = "io.cost"


def resolve_device(device: str, sys: Path = Path("/sys")) -> str:
    """MAJOR:MINOR of the whole disk that `device` (a path, or MAJOR:MINOR) is or is a part of.

    The io controller knows disks, not partitions.

    Raises:
        OSError: there is no such device.
        ValueError: it is no block device.
    """
    number = device
    if not re.fullmatch(r"\d+:\d+", device):
        found = Path(device).stat()
        if not stat.S_ISBLK(found.st_mode):
            raise ValueError(f"{device} is no block device")
        number = f"{os.major(found.st_rdev)}:{os.minor(found.st_rdev)}"
    entry = (sys / "dev/block" / number).resolve(strict=True)
    if (entry / "partition").exists():
        return (entry.parent / "dev").read_text().strip()
    return number


def io_weight_mechanisms(sys: Path, cgroup_mount: Path | None) -> dict[str, str | None]:
    """For each disk, what makes io.weight count there: "bfq", "io.cost", or None.

    Virtual devices (loop, zram, device mapper) are left out: weights act on the disks below them.
    Source: kernel Documentation/admin-guide/cgroup-v2.rst, io.weight and io.cost.qos.
    """
    costed = parse_io_cost(_read(cgroup_mount / "io.cost.qos")) if cgroup_mount else frozenset()
    mechanisms: dict[str, str | None] = {}
    for disk in sorted((sys / "block").glob("*")):
        if not (disk / "device").exists():
            continue
        if parse_scheduler(_read(disk / "queue/scheduler")) == BFQ:
            mechanisms[disk.name] = BFQ
        elif _read(disk / "dev").strip() in costed:
            mechanisms[disk.name] = IO_COST
        else:
            mechanisms[disk.name] = None
    return mechanisms


def parse_scheduler(text: str) -> str:
    """The active one of "none mq-deadline [bfq]"; "none" when there is no choice."""
    match = re.search(r"\[([\w-]+)\]", text)
    return match[1] if match else text.strip() or "none"


def parse_io_cost(text: str) -> frozenset[str]:
    """The devices for which io.cost.qos says enable=1."""
    return frozenset(line.split()[0] for line in text.splitlines() if "enable=1" in line.split())


def describe_mechanisms(mechanisms: Mapping[str, str | None]) -> str:
    """One phrase for people: where weights act and by what, and where they do not."""
    acting = [f"{disk} by {mechanism}" for disk, mechanism in mechanisms.items() if mechanism]
    idle = [disk for disk, mechanism in mechanisms.items() if not mechanism]
    parts = ["acts on " + ", ".join(acting)] if acting else []
    if idle:
        parts.append(f"has no effect on {', '.join(idle)}: neither the BFQ scheduler nor io.cost is active")
    return "; ".join(parts) or "has no effect: no disk is known here"


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
