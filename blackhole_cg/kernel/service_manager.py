"""The systemd that started us: what we tell it, and the one question we ask it.

Without one (no NOTIFY_SOCKET) everything here does nothing.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import shutil
import socket
import subprocess
from array import array
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

log = logging.getLogger(__name__)

ASK_TIMEOUT_SECONDS: Final = 5.0
KEEP_SECONDS: Final = 1.0
KEEP_SOON_SECONDS: Final = 0.1
"""For what is stored with every first run of a service, and again with the next where that failed."""


class ServiceManager:
    """Speaks sd_notify(3).

    Args:
        address: NOTIFY_SOCKET: a path, or a name in the abstract namespace that begins with "@".
        watchdog_seconds: how long we may be silent; None: for ever.
        unit: our unit's name, as systemctl takes it.
        user: whether it is a user's own manager.
    """

    def __init__(
        self, address: str | None, watchdog_seconds: float | None, unit: str | None, user: bool = False
    ) -> None:
        self.watchdog_seconds = watchdog_seconds
        self._address = address
        self._unit = unit
        self._user = user

    @classmethod
    def from_environ(cls, environ: Mapping[str, str], proc: Path = Path("/proc")) -> ServiceManager:
        """The manager that the environment names. Source: sd_notify(3), sd_watchdog_enabled(3)."""
        watchdog_seconds = None
        if environ.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid()):
            with contextlib.suppress(KeyError, ValueError):
                watchdog_seconds = int(environ["WATCHDOG_USEC"]) / 1e6
        address = environ.get("NOTIFY_SOCKET")
        cgroup = (proc / "self/cgroup").read_text() if address else ""
        return cls(address, watchdog_seconds, parse_unit(cgroup), is_of_a_user(cgroup))

    @property
    def present(self) -> bool:
        """Whether there is anybody to tell."""
        return self._address is not None

    def tell(self, **facts: str | int) -> None:
        """Send KEY=VALUE for each fact; what cannot be sent is not worth failing for."""
        try:
            self._send(facts)
        except OSError as cause:
            log.debug("cannot tell the service manager %s: %s", ", ".join(facts), cause)

    def keep(self, name: str, descriptor: int) -> None:
        """Store a copy of a descriptor, which comes back to the next process of the unit by this name.

        It is kept for as long as the unit does not go down for good, and nothing is kept in a unit without
        FileDescriptorStoreMax=. FDPOLL=0: what it would notice is a peer's end, and a listener has no peer.
        Waits for up to a second where the manager does not keep up. Source: sd_pid_notify_with_fds(3).
        """
        try:
            self._send({"FDSTORE": 1, "FDNAME": name, "FDPOLL": 0}, (descriptor,), KEEP_SECONDS)
        except OSError as cause:
            log.warning("%s is not stored with the service manager: %s", name, cause)

    def keep_all(self, name: str, descriptors: Sequence[int]) -> bool:
        """Store copies of these, all by one name, as `keep` does; whether that was sent, or nobody is there.

        FDPOLL=0: a pipe whose other ends are all closed would be let go of, just when it is needed.
        """
        try:
            self._send({"FDSTORE": 1, "FDNAME": name, "FDPOLL": 0}, descriptors, KEEP_SOON_SECONDS)
        except OSError as cause:
            log.warning("%s is not stored with the service manager: %s", name, cause)
            return False
        return True

    def keep_no_more(self, name: str) -> None:
        """Let go of every stored descriptor of this name."""
        self.tell(FDSTOREREMOVE=1, FDNAME=name)

    def _send(
        self, facts: Mapping[str, str | int], descriptors: Sequence[int] = (), timeout_seconds: float = 0
    ) -> None:
        """Raises OSError."""
        if self._address is None:
            return
        text = "\n".join(f"{key}={str(value).replace(chr(10), ' ')}" for key, value in facts.items())
        address = "\0" + self._address[1:] if self._address.startswith("@") else self._address
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array("i", descriptors))] if descriptors else []
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
            channel.settimeout(timeout_seconds)
            channel.connect(address)  # only then a wait is one for room in the manager's queue
            channel.sendmsg([text.encode()], rights)

    def is_restarting_us(self) -> bool:
        """Whether the stop it asks for is the first half of a restart, after which we are started again.

        Answers no when it cannot be asked. Blocks for as long as systemctl takes, at most five seconds.
        """
        systemctl = shutil.which("systemctl")
        if self._address is None or self._unit is None or systemctl is None:
            return False
        scope = ["--user"] if self._user else []
        command = [systemctl, *scope, "list-jobs", "--no-legend", "--no-pager", "--plain"]
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=ASK_TIMEOUT_SECONDS, check=False
            )
        except (OSError, subprocess.TimeoutExpired) as cause:
            log.warning("cannot ask systemd whether this is a restart: %s", cause)
            return False
        return parse_job_type(done.stdout, self._unit) == "restart"


def parse_unit(cgroup: str) -> str | None:
    """The innermost unit in the text of /proc/PID/cgroup."""
    for line in cgroup.splitlines():
        if line.startswith("0::"):
            units = [part for part in line[3:].split("/") if part.endswith((".service", ".scope"))]
            return units[-1] if units else None
    return None


def is_of_a_user(cgroup: str) -> bool:
    """Whether the text of /proc/PID/cgroup is that of a process below a user's own manager."""
    return re.search(r"^0::.*/user@\d+\.service/", cgroup, re.MULTILINE) is not None


def parse_job_type(jobs: str, unit: str) -> str | None:
    """The type of a unit's job in what `systemctl list-jobs` prints: number, unit, type, state."""
    for line in jobs.splitlines():
        match = re.match(r"\s*\d+\s+(\S+)\s+(\S+)\s+\S+", line)
        if match and match[1] == unit:
            return match[2]
    return None
