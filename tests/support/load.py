"""A steady load of new connections on one port: what became of each is counted by name.

Run as a program: PORT [CALLERS]. Prints "loading" once every caller has been answered, and at SIGTERM the
counts as JSON: answered, and whatever else happened (refused, reset, cut, slow, or the name of an error).
Each caller has a loopback address of its own, so that the ports of connections just closed do not run out.
"""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
from collections import Counter

PATIENCE_SECONDS = 60.0
PAUSE_SECONDS = 0.002


async def ask(port: int, source: str) -> str:
    """One connection: connect, say something, be answered."""
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=(source, 0))
            try:
                writer.write(b"GET / HTTP/1.0\r\n\r\n")
                answer = await reader.read()
            finally:
                writer.close()
    except ConnectionRefusedError:
        return "refused"
    except (ConnectionResetError, BrokenPipeError):
        return "reset"
    except TimeoutError:
        return "slow"
    except OSError as error:
        return repr(error)
    return "answered" if answer.endswith(b"\n") else "cut"


async def load(port: int, callers: int) -> None:
    counts: Counter[str] = Counter()
    first = asyncio.Event()
    answered = set()
    done = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, done.set)

    async def call(number: int) -> None:
        while not done.is_set():
            outcome = await ask(port, f"127.0.0.{number + 2}")
            counts[outcome] += 1
            answered.add(number)
            if len(answered) == callers and not first.is_set():
                first.set()
                print("loading", flush=True)
            await asyncio.sleep(PAUSE_SECONDS)

    await asyncio.gather(*(call(number) for number in range(callers)))
    print(json.dumps(counts), flush=True)


class Load:
    """The program, for the time of a `with`; `counts` afterwards."""

    def __init__(self, port: int, callers: int = 8) -> None:
        self.counts: dict[str, int] = {}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.load", str(port), str(callers)],
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> Load:
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "loading\n"
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        self._process.terminate()
        try:
            text, _ = self._process.communicate(timeout=2 * PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            raise
        self.counts = json.loads(text)


if __name__ == "__main__":
    asyncio.run(load(int(sys.argv[1]), int(sys.argv[2])))
