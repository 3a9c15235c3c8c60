"""A process that answers one question after another, for as long as there are some.

What it imports for the first answer is there for the next. It ends with its socket, however we end.
"""

from __future__ import annotations

import asyncio
import os
import pickle
import socket
import struct
import subprocess
from collections.abc import Callable
from typing import Any, Final

from blackhole_cg.errors import BlackholeError
from blackhole_cg.kernel.own_command import python_command

RESIDENT: Final = "resident"
"""The argument of a module that is to answer many questions."""

_HEADER: Final = struct.Struct("=Q")


class Resident:
    """One such process, begun with the first question; after one that was cancelled or lost, begun anew.

    Args:
        module: what is run; it calls `answer_all` when its argument is RESIDENT.
        purpose: what cannot be done when the process dies, as it follows "cannot".
        idle_seconds: how long it is kept without a question.
    """

    def __init__(self, module: str, purpose: str, idle_seconds: float) -> None:
        self._module = module
        self._purpose = purpose
        self._idle_seconds = idle_seconds
        self._asking = asyncio.Lock()
        self._child: subprocess.Popen[bytes] | None = None
        self._socket: socket.socket | None = None
        self._end: asyncio.TimerHandle | None = None

    async def ask(self, asked: object) -> Any:
        """The answer, while the loop goes on; whoever stops waiting ends the process.

        Raises:
            BlackholeError: the process has died.
        """
        async with self._asking:
            if self._end is not None:
                self._end.cancel()
            try:
                answer = await self._exchange(self._socket or self._begin(), asked)
            except (OSError, EOFError, pickle.UnpicklingError):
                self.close()
                raise BlackholeError(f"cannot {self._purpose}: the process that does it has died") from None
            except BaseException:
                self.close()
                raise
            self._end = asyncio.get_running_loop().call_later(self._idle_seconds, self.close)
            return answer

    def close(self) -> None:
        """End the process."""
        if self._end is not None:
            self._end.cancel()
        if self._socket is not None:
            self._socket.close()
        if self._child is not None:
            self._child.kill()
            self._child.wait()
        self._child = self._socket = self._end = None

    def _begin(self) -> socket.socket:
        ours, theirs = socket.socketpair()
        self._socket = ours
        with theirs:
            command = python_command(self._module, RESIDENT)
            self._child = subprocess.Popen(command, stdin=theirs.fileno(), stdout=subprocess.DEVNULL)
        ours.setblocking(False)
        return ours

    @staticmethod
    async def _exchange(ours: socket.socket, asked: object) -> Any:
        loop = asyncio.get_running_loop()
        text = pickle.dumps(asked, pickle.HIGHEST_PROTOCOL)
        await loop.sock_sendall(ours, _HEADER.pack(len(text)) + text)

        async def receive(count: int) -> bytes:
            received = bytearray()
            while len(received) < count:
                piece = await loop.sock_recv(ours, min(count - len(received), 1 << 20))
                if not piece:
                    raise EOFError
                received += piece
            return bytes(received)

        (count,) = _HEADER.unpack(await receive(_HEADER.size))
        return pickle.loads(await receive(count))


def answer_all(reply: Callable[[Any], object]) -> None:
    """Be that process: answer until nobody asks any more."""
    with socket.socket(fileno=os.dup(0)) as asking, asking.makefile("rb") as questions:
        while header := questions.read(_HEADER.size):
            (count,) = _HEADER.unpack(header)
            said = pickle.dumps(reply(pickle.loads(questions.read(count))), pickle.HIGHEST_PROTOCOL)
            asking.sendall(_HEADER.pack(len(said)) + said)
