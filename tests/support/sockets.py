"""What a caller of a service on a held socket sees."""

from __future__ import annotations

import socket


def ask(port: int, timeout_seconds: float = 30) -> int:
    """The pid of the process that answers (`held_server.py`)."""
    with socket.create_connection(("127.0.0.1", port), timeout=timeout_seconds) as caller:
        caller.sendall(b"?")
        return int(caller.makefile().readline())


def is_refused(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=30).close()
    except ConnectionRefusedError:
        return True
    return False
