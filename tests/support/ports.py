"""Ports of this host for tests, and foreign programs that sit on them."""

from __future__ import annotations

import socket
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Self

from blackhole_cg.kernel.ports import find_port_holder

_SCRIPT = """
import socket, sys
address, port, reuse_port = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
listener = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)
listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, reuse_port)
listener.bind((address, port))
listener.listen()
print("ready", flush=True)
sys.stdin.readline()
connection, _ = listener.accept()
listener.close()
print("closed", flush=True)
sys.stdin.readline()
"""


class Occupant:
    """A program that is none of ours and listens on a port, until the end of the `with`."""

    def __init__(self, port: int, address: str = "127.0.0.1", *, reuse_port: bool = False) -> None:
        words = [sys.executable, "-S", "-c", _SCRIPT, address, str(port), str(int(reuse_port))]
        self._child = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._read() == "ready", f"cannot listen on {address} port {port}"
        self.pid = self._child.pid
        self.command = Path(f"/proc/{self.pid}/comm").read_text().strip()

    def keep_only_connection(self) -> None:
        """Take one connection and close the listening socket."""
        assert self._child.stdin is not None
        self._child.stdin.write("\n")
        self._child.stdin.flush()
        assert self._read() == "closed"

    def close(self) -> None:
        """End it, and wait until it has gone."""
        self._child.kill()
        self._child.communicate()

    def _read(self) -> str:
        assert self._child.stdout is not None
        return self._child.stdout.readline().strip()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def free_port() -> int:
    """A port that nobody has at this moment."""
    return free_ports(1)[0]


def free_ports(count: int) -> range:
    """So many ports in a row that nobody has at this moment, away from where the kernel picks its own."""
    low, wanted = 20000 + (_seed() * 37) % 8000, count
    for first in range(low, 32000 - wanted):
        if all(find_port_holder(port) is None for port in range(first, first + wanted)):
            return range(first, first + wanted)
    raise AssertionError(f"there are no {count} free ports")


def _seed() -> int:
    """Another number each time, so that tests at the same time do not meet."""
    with ExitStack() as stack:
        probe = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        port: int = probe.getsockname()[1]
        return port
