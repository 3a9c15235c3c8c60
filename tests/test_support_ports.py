"""The ports that tests get: those of one process are no other's, and nothing lingers on them."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

from tests.support.ports import free_port, free_ports

OTHER = "from tests.support.ports import free_port; print(*(free_port() for _ in range(50)))"


def test_two_processes_never_get_the_same_port() -> None:
    mine = {free_port() for _ in range(50)}
    command = [sys.executable, "-c", OTHER]
    told = subprocess.run(command, cwd=Path(__file__).parents[1], capture_output=True, text=True, check=True)
    assert mine.isdisjoint(map(int, told.stdout.split()))


def test_ports_are_given_in_turn_and_one_that_is_taken_or_was_just_closed_is_passed_over() -> None:
    first = free_port()
    assert free_port() != first
    with socket.socket() as listener:
        for port in free_ports(1):
            listener.bind(("127.0.0.1", port))
        listener.listen()
        with socket.create_connection(listener.getsockname()) as caller:
            served, _ = listener.accept()
            served.close()  # who closes first keeps the connection for a while
            assert caller.recv(1) == b""
    assert port not in {free_port() for _ in range(150)}
