"""The control socket outlives the program that listens on it."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from blackhole_cg.control.access import Access, bind_control_socket, resume_control_socket

ACCESS = Access(os.geteuid())


def handed_over(path: Path, access: Access = ACCESS) -> int:
    """A descriptor of a socket at the path, which its first owner has closed."""
    with bind_control_socket(path, access) as listener:
        return os.dup(listener.fileno())


def test_whoever_waits_in_the_socket_is_accepted_by_the_next_program(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    descriptor = handed_over(path)
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(os.fspath(path))
        listener = resume_control_socket(descriptor, path, ACCESS)
        assert listener is not None
        with listener:
            connection, _ = listener.accept()
            connection.close()


def test_its_mode_and_group_are_those_of_the_configuration_now(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    group = os.getegid()
    for access, mode in ((Access(os.geteuid(), group), 0o660), (ACCESS, 0o600)):
        listener = resume_control_socket(handed_over(path), path, access)
        assert listener is not None
        listener.close()
        assert (path.stat().st_mode & 0o777, path.stat().st_gid) == (mode, group)


@pytest.mark.parametrize("replacement", [None, "a file", "another socket"])
def test_one_that_is_not_at_its_place_any_more_is_given_up(tmp_path: Path, replacement: str | None) -> None:
    path = tmp_path / ("elsewhere.sock" if replacement == "another socket" else "control.sock")
    descriptor = handed_over(tmp_path / "control.sock")
    if replacement != "another socket":
        path.unlink()
    if replacement == "a file":
        path.touch()
    assert resume_control_socket(descriptor, path, ACCESS) is None
    with pytest.raises(OSError):
        os.fstat(descriptor)
