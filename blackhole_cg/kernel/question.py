"""A question that a process of its own answers: what it had to import for that ends with it."""

from __future__ import annotations

import contextlib
import gc
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from typing import IO, Any, cast

from blackhole_cg.errors import BlackholeError
from blackhole_cg.kernel.own_command import python_command


class Question:
    """One question to one module, under way from the beginning; take its answer once, by either way.

    Args:
        module: what is run; it calls `answer`.
        asked: plain data, handed over as a file that is nowhere: nobody waits for a pipe that is full.
        purpose: what cannot be done when the process dies, as it follows "cannot".
    """

    def __init__(self, module: str, asked: object, purpose: str) -> None:
        self._purpose = purpose
        self.text = b""  # of the answer, once there is one
        descriptor = os.memfd_create("question", os.MFD_CLOEXEC)
        with os.fdopen(descriptor, "w+b") as file:
            pickle.dump(asked, file, pickle.HIGHEST_PROTOCOL)
            file.flush()
            file.seek(0)
            command = python_command(module)
            self._child = subprocess.Popen(command, stdin=file, stdout=subprocess.PIPE)
        self._pipe = cast(IO[bytes], self._child.stdout)

    def result(self) -> Any:
        """Wait for it. Raises BlackholeError: the process has died."""
        with self._pipe:
            text = self._pipe.read()
        self._child.wait()
        return self._conclude(text)

    async def read(self) -> Any:
        """Wait for it while the loop goes on; whoever stops waiting ends the process.

        Raises:
            BlackholeError: the process has died.
        """
        # Here: it imports asyncio, and the process that answers needs none, nor does whoever asks at a start.
        from blackhole_cg.kernel.child_output import read_output

        return self._conclude(await read_output(self._child))

    def _conclude(self, text: bytes) -> Any:
        """What the process answered. Its exit status may be lost to whoever reaps strangers."""
        self.text = text
        try:
            return pickle.loads(text)
        except (EOFError, pickle.UnpicklingError):
            raise BlackholeError(f"cannot {self._purpose}: the process that does it has died") from None


def answer(reply: Callable[[Any], object]) -> None:
    """Be that process: answer what was asked."""
    gc.disable()  # it ends before there is anything to gain
    said = reply(pickle.load(sys.stdin.buffer))
    # Who asked may have been killed meanwhile: nobody is left to be told of that.
    with contextlib.suppress(BrokenPipeError), os.fdopen(os.dup(1), "wb") as pipe:
        pickle.dump(said, pipe, pickle.HIGHEST_PROTOCOL)
