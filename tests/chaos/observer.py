"""Looks at processes and cgroups all the time, and writes down what must not be. Asks no supervisor.

usage: observer.py DIRECTORY CGROUP_ROOT REPORT. Ends at SIGTERM, with the report as JSON.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path

NEVER_RUN = {"off"}
PERIOD_SECONDS = 0.1


@dataclass(frozen=True)
class Seen:
    """One process of a service."""

    pid: int
    started: int  # clock ticks after boot
    service: str
    is_main: bool
    cgroup: str


class Observer:
    """Invariants over everything that can be seen from outside."""

    def __init__(self, directory: str, cgroup_root: str) -> None:
        self._mark = f"BLACKHOLE_DATA_DIR={directory}/data/".encode()
        self._root = cgroup_root
        self.violations: list[str] = []
        self.mains: dict[str, list[tuple[int, int]]] = {}
        self.rounds = 0

    def look(self) -> None:
        """One round."""
        self.rounds += 1
        mains: dict[str, list[Seen]] = {}
        for pid in os.listdir("/proc"):
            if pid.isdigit() and (seen := self._see(int(pid))):
                self._check_place(seen)
                if seen.is_main:
                    mains.setdefault(seen.service, []).append(seen)
        for service, found in mains.items():
            self._check_mains(service, found)

    def _see(self, pid: int) -> Seen | None:
        """The process, if it belongs to a service; one that is between fork and exec does not yet."""
        try:
            environ = Path(f"/proc/{pid}/environ").read_bytes()
            if self._mark not in environ:
                return None
            stat = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            cgroup = Path(f"/proc/{pid}/cgroup").read_text().rpartition("::")[2].strip()
        except (OSError, ValueError):
            return None
        if stat[0] in "ZX":
            return None
        service = environ.partition(self._mark)[2].partition(b"\0")[0].decode()
        return Seen(pid, int(stat[19]), service, int(stat[3]) == pid, cgroup)

    def _check_place(self, seen: Seen) -> None:
        if not f"/{self._root}".replace("//", "/").endswith(os.path.dirname(seen.cgroup)):
            self._note(seen, f"is in {seen.cgroup}")
        elif os.path.basename(seen.cgroup) != seen.service:
            self._note(seen, f"is in the cgroup of another: {seen.cgroup}")
        if seen.service in NEVER_RUN:
            self._note(seen, "runs, and is disabled")

    def _check_mains(self, service: str, found: list[Seen]) -> None:
        # They were not looked at at the same moment: only those that are all still there run side by side.
        if len(found) > 1 and all(self._see(each.pid) == each for each in found):
            self._note(found[0], f"runs beside {[each.pid for each in found[1:]]}")
        known = self.mains.setdefault(service, [])
        for each in found:
            if (each.pid, each.started) not in known:
                known.append((each.pid, each.started))

    def _note(self, seen: Seen, what: str) -> None:
        if self._see(seen.pid) == seen:  # still so: not just about to end
            text = f"{seen.service} pid {seen.pid} {what}"
            if text not in self.violations:
                self.violations.append(text)


def main() -> None:
    directory, root, report = sys.argv[1:]
    observer = Observer(directory, root)
    ended: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: ended.append(number))
    while not ended:
        observer.look()
        time.sleep(PERIOD_SECONDS)
    found = {"violations": observer.violations, "mains": observer.mains, "rounds": observer.rounds}
    Path(report).write_text(json.dumps(found))


if __name__ == "__main__":
    main()
