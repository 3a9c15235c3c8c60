"""Connecting: a question of its own, and the beginning of others."""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import os
import socket
from functools import partial
from typing import Final

from blackhole_cg.core.probe_spec import Address, Answer, TcpTarget
from blackhole_cg.observe.probes.question import put

BACKLOG_RETRY_SECONDS: Final = 0.02


async def ask(target: TcpTarget, timeout_seconds: float) -> Answer:
    """Whether a connection is accepted."""
    question = partial(_connect_and_close, target.address)
    return await put(f"connect {target.address}", question, timeout_seconds)


async def _connect_and_close(address: Address) -> str:
    (await connect(address)).close()
    return "connected"


async def connect(address: Address) -> socket.socket:
    """A connected, non-blocking, close-on-exec socket; looks up no name, so that no thread is started.

    Raises:
        OSError: it cannot be had.
    """
    if address.unix_socket is not None:
        return await _connect_unix(address.unix_socket)
    family = socket.AF_INET6 if ipaddress.ip_address(address.host).version == 6 else socket.AF_INET
    connection = _new_socket(family)
    try:
        await asyncio.get_running_loop().sock_connect(connection, (address.host, address.port))
        # Both ends may have drawn the same port of the ephemeral range: then we have reached ourselves.
        if connection.getsockname() == connection.getpeername():
            raise OSError(errno.ECONNREFUSED, os.strerror(errno.ECONNREFUSED))
    except BaseException:
        connection.close()
        raise
    return connection


async def _connect_unix(path: str) -> socket.socket:
    """A unix socket connects at once, or says EAGAIN while its backlog is full.

    asyncio would take that for the beginning of a connection. Source: connect(2), EAGAIN.
    """
    connection = _new_socket(socket.AF_UNIX)
    try:
        while True:
            try:
                connection.connect(path)
                return connection
            except BlockingIOError:
                await asyncio.sleep(BACKLOG_RETRY_SECONDS)
    except BaseException:
        connection.close()
        raise


def _new_socket(family: socket.AddressFamily) -> socket.socket:
    """Python's sockets are close-on-exec anyway."""
    connection = socket.socket(family, socket.SOCK_STREAM)
    connection.setblocking(False)
    return connection
