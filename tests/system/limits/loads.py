"""Services that use a disk or memory up, and how far they got."""

from __future__ import annotations

from tests.support.configs import shell
from tests.support.live import Live
from tests.support.waiting import eventually
from tests.system.limits.measure import Disk, io_counters, printed, rates

SECONDS = 6
# Of the throughput of weights 1000 and 100. It is 10 in theory; on an overloaded host an emulated reader
# sometimes comes too late for its turn.
LEAST_RATIO = 3
NO_RETRY = {"initial_delay": "60s"}
# Stops growing by itself, well past any limit here: a limit that does not hold must not take the host down.
GROW_TO_MIB = 90
GROW = (
    "import time\n"
    "hoard = []\n"
    f"for size in range(1, {GROW_TO_MIB + 1}):\n"
    "    hoard.append(bytearray(2**20))\n"
    "    print(size)\n"
    "print('all of it')\n"
    "time.sleep(1000)\n"
)


def dd(disk: Disk, options: str, name: str, **resources: object) -> dict[str, object]:
    """A service that reads or writes the disk from end to end, again and again, past the page cache.

    Four at a time: a single one that is slow to ask again, on a busy host, would give up its turn.
    """
    forever = f"while :; do dd bs=64k {options}; done 2>/dev/null"
    script = f"for number in 1 2 3 4; do {forever} & done; wait"
    return shell(script, data_dir=name, resources=resources)


def reader(disk: Disk, name: str, **resources: object) -> dict[str, object]:
    return dd(disk, f"if={disk.path} of=/dev/null iflag=direct", name, **resources)


def grown(live: Live, disk: Disk, *counters: tuple[str, str]) -> list[float]:
    """How fast these (service, counter of io.stat) grow, once all have begun."""

    def read() -> list[int]:
        return [io_counters(live.cgroup_root / name, disk).get(key, 0) for name, key in counters]

    eventually(lambda: all(read()), "both use the disk", 60)
    return rates(read, SECONDS)


def settled(live: Live, name: str) -> None:
    """Wait until a growing service has all it wanted, or was ended."""
    eventually(
        lambda: "all of it" in printed(live, name) or live.status(name)["state"] != "running",
        f"{name} has grown as far as it can",
        120,
    )


def grown_mib(live: Live, name: str) -> int:
    return max(int(line) for line in printed(live, name) if line.isdigit())
