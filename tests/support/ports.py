"""Ports of this host for tests, and foreign programs that sit on them."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
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


class _Block:
    """A hundred ports that are of this process alone, of all that find theirs here; given in turn.

    The claim is a name in the kernel, which forgets it with the process and keeps it per network namespace,
    as ports are. They lie below those that the kernel picks itself, and below the supervisor's own default.
    """

    SIZE, FIRST, END = 100, 20000, 30000

    def __init__(self) -> None:
        self._claim = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._ports = self._find()
        self._given = 0

    def _find(self) -> range:
        blocks = range(self.FIRST, self.END, self.SIZE)
        start = os.getpid() % len(blocks)  # another one each time: what is over may linger on a port
        for first in (*blocks[start:], *blocks[:start]):
            with contextlib.suppress(OSError):
                self._claim.bind(f"\0blackhole-cg-test-ports-{first}")
                return range(first, first + self.SIZE)
        raise AssertionError("every block of ports is taken")

    def take(self, count: int) -> range:
        """The next so many in a row that nobody has; one that was given comes again only after all others."""
        for _ in range(2 * self.SIZE):
            first = self._given if self._given + count <= self.SIZE else 0
            self._given = first + 1
            wanted = self._ports[first : first + count]
            if all(map(_is_free, wanted)):
                self._given = first + count
                return wanted
        raise AssertionError(f"there are no {count} free ports in {self._ports}")


def _is_free(port: int) -> bool:
    """Whether nobody has it, nor any connection that was closed a moment ago."""
    with socket.socket() as probe:
        try:
            probe.bind(("", port))
        except OSError:
            return False
    return find_port_holder(port) is None


# With the import, not with the first port: no test shall find one more descriptor at its end.
_BLOCK = _Block()


def free_port() -> int:
    """A port that nobody has, and no other test asks for."""
    return free_ports(1)[0]


def free_ports(count: int) -> range:
    """So many of them in a row."""
    return _BLOCK.take(count)
