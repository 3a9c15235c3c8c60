"""A service manager of our own: keeps descriptors for a supervisor, and hands them to the one that follows.

As the module that is run, what execs a supervisor with them: `python fd_store.py SOCKET COMMAND...`.
"""

from __future__ import annotations

import os
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

MOST = 250
"""Descriptors that one message can carry. Source: unix(7), SCM_MAX_FD is 253."""


class FdStore:
    """What sd_pid_notify_with_fds(3) promises of FDSTORE=1, FDNAME= and FDSTOREREMOVE=1."""

    def __init__(self, directory: Path) -> None:
        self.notify_path, self.hand_path = directory / "notify", directory / "hand"
        self.stored: list[tuple[str, int]] = []
        self.messages: list[dict[str, str]] = []
        self._notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._notify.bind(str(self.notify_path))
        self._hand = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._hand.bind(str(self.hand_path))
        self._hand.listen()
        self._lock = threading.Lock()
        for work in (self._take_all, self._hand_all):
            threading.Thread(target=work, daemon=True).start()

    @property
    def wrapper(self) -> tuple[str, ...]:
        """What to run a supervisor by."""
        return sys.executable, __file__, str(self.hand_path), str(self.notify_path)

    @property
    def names(self) -> list[str]:
        """What the stored descriptors are called."""
        with self._lock:
            return sorted(name for name, _ in self.stored)

    def close(self) -> None:
        """End it, and close what is stored."""
        for listener in (self._notify, self._hand):
            listener.shutdown(socket.SHUT_RDWR)
            listener.close()
        for _, descriptor in self.stored:
            os.close(descriptor)

    def _take_all(self) -> None:
        while True:
            try:
                data, descriptors, _, _ = socket.recv_fds(self._notify, 65536, MOST)
            except OSError:
                return
            if not data:
                return
            facts = dict(line.split("=", 1) for line in data.decode().splitlines())
            with self._lock:
                self._take(facts, descriptors)

    def _take(self, facts: dict[str, str], descriptors: list[int]) -> None:
        self.messages.append(facts)
        if "FDSTORE" in facts:
            assert facts["FDPOLL"] == "0"
            self.stored += [(facts["FDNAME"], descriptor) for descriptor in descriptors]
        if "FDSTOREREMOVE" in facts:
            gone = [each for each in self.stored if each[0] == facts["FDNAME"]]
            self.stored = [each for each in self.stored if each not in gone]
            for _, descriptor in gone:
                os.close(descriptor)

    def _hand_all(self) -> None:
        while True:
            try:
                peer, _ = self._hand.accept()
            except OSError:
                return
            with peer, self._lock:
                names = ":".join(name for name, _ in reversed(self.stored))  # no order is promised
                socket.send_fds(peer, [f"{names}\n".encode()], [each for _, each in reversed(self.stored)])


@contextmanager
def fd_store(directory: Path) -> Iterator[FdStore]:
    """One for a test."""
    store = FdStore(directory)
    try:
        yield store
    finally:
        store.close()


def main(hand: str, notify: str, *command: str) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as peer:
        peer.connect(hand)
        data, descriptors, _, _ = socket.recv_fds(peer, 65536, MOST)
    names = [name for name in data.decode().strip().split(":") if name]
    floor = 3 + len(names)
    lifted = []
    for descriptor in descriptors:
        copy = descriptor
        while copy < floor:
            copy = os.dup(copy)
        lifted.append(copy)
    for number, copy in enumerate(lifted, 3):
        os.dup2(copy, number, inheritable=True)
    listen = {
        "LISTEN_PID": str(os.getpid()),
        "LISTEN_FDS": str(len(names)),
        "LISTEN_FDNAMES": ":".join(names),
    }
    os.execvpe(command[0], command, {**os.environ, **listen, "NOTIFY_SOCKET": notify})


if __name__ == "__main__":
    main(*sys.argv[1:])
