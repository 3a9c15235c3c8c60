"""A process that answers one question after another: real processes."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from blackhole_cg.errors import BlackholeError
from blackhole_cg.kernel.resident import Resident
from tests.kernel.machine import eventually, in_time, is_alive


def all_children() -> set[int]:
    text = Path(f"/proc/self/task/{os.getpid()}/children").read_text()
    return {int(word) for word in text.split()}


BEFORE: set[int] = set()


@pytest.fixture(autouse=True)
def not_of_other_tests() -> None:
    BEFORE.clear()
    BEFORE.update(all_children())


def children() -> list[int]:
    return sorted(all_children() - BEFORE)


@asynccontextmanager
async def opened(idle_seconds: float = 60.0) -> AsyncIterator[Resident]:
    resident = Resident("tests.support.answering", "answer", idle_seconds)
    try:
        yield resident
    finally:
        resident.close()
        assert children() == []


def test_one_process_answers_everything_small_and_large() -> None:
    async def main() -> None:
        async with opened() as resident:
            pid, said = await resident.ask({"a": 1})
            assert (said, children()) == ({"a": 1}, [pid])
            large = b"x" * 5_000_000
            assert await resident.ask(large) == (pid, large)

    in_time(main())


def test_one_that_died_is_told_and_the_next_question_begins_another() -> None:
    async def main() -> None:
        async with opened() as resident:
            first, _ = await resident.ask(1)
            with pytest.raises(BlackholeError, match="cannot answer: the process that does it has died"):
                await resident.ask("die")
            second, said = await resident.ask(2)
            assert (said, second != first) == (2, True)
            os.kill(second, 9)
            await eventually(lambda: not is_alive(second), "it has gone")
            with pytest.raises(BlackholeError):
                await resident.ask(3)
            assert (await resident.ask(4))[1] == 4

    in_time(main())


def test_who_stops_waiting_ends_it_and_no_answer_is_taken_for_another() -> None:
    async def main() -> None:
        async with opened() as resident:
            asking = asyncio.create_task(resident.ask("hang"))
            await eventually(children, "it has begun")
            asking.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asking
            assert children() == []
            answers = await asyncio.gather(*(resident.ask(number) for number in range(5)))
            assert [said for _, said in answers] == list(range(5))

    in_time(main())


def test_without_questions_it_ends_after_a_while() -> None:
    async def main() -> None:
        async with opened(idle_seconds=0.05) as resident:
            first, _ = await resident.ask(1)
            await eventually(lambda: not children(), "it has ended")
            assert (await resident.ask(2))[0] != first

    in_time(main())


def test_it_ends_when_whoever_asked_is_killed(tmp_path: Path) -> None:
    import subprocess
    import sys

    script = (
        "import asyncio, sys; from blackhole_cg.kernel.resident import Resident\n"
        "async def main():\n"
        "    print((await Resident('tests.support.answering', 'answer', 60).ask(1))[0], flush=True)\n"
        "    await asyncio.Event().wait()\n"
        "asyncio.run(main())\n"
    )
    root = Path(__file__).parents[2]
    asking = subprocess.Popen([sys.executable, "-c", script], cwd=root, stdout=subprocess.PIPE, text=True)
    assert asking.stdout is not None
    pid = int(asking.stdout.readline())
    asking.kill()
    asking.communicate()
    in_time(eventually(lambda: not is_alive(pid), "it has ended"))
