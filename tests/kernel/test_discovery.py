"""Programs in a services directory: what is found, what is refused and why. Real files."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from blackhole_cg.core.discovery import MAX_FOUND, Candidate, conclude
from blackhole_cg.kernel.discovery import DiscoveryProcess, scan

needs_root = pytest.mark.skipif(
    os.geteuid() != 0, reason="only for root is a file that all may write refused"
)
OPEN = "anybody can write to it, and it would run as root (take the permission away: chmod o-w)"


def program(directory: Path, name: str, mode: int = 0o755) -> Path:
    """A program where one is looked for."""
    place = directory / name
    place.mkdir(mode=0o755)
    path = place / name
    path.write_text("#!/bin/sh\nexec sleep infinity\n")
    path.chmod(mode)
    return path


def refusals(directory: Path) -> list[str]:
    return [line.removeprefix(f"{directory}/") for line in scan(str(directory)).sentences(str(directory))]


def test_programs_are_found_in_order(tmp_path: Path) -> None:
    for name in ("web", "api", "job-2"):
        program(tmp_path, name)
    (tmp_path / ".git").mkdir()
    (tmp_path / "README").write_text("files beside the directories mean nothing")
    found = scan(str(tmp_path))
    assert (found.names, found.refused, found.problem) == (("api", "job-2", "web"), (), None)


def test_what_is_configured_is_neither_found_nor_refused(tmp_path: Path) -> None:
    program(tmp_path, "web")
    program(tmp_path, "api", 0o644)
    left = scan(str(tmp_path)).without(["web", "api"])
    assert (left.names, left.refused) == ((), ())


def link_to_a_directory(directory: Path) -> None:
    program(directory.parent / "elsewhere", "web")
    (directory / "web").symlink_to(directory.parent / "elsewhere" / "web")


def link_to_a_program(directory: Path) -> None:
    path = program(directory, "web")
    path.rename(path.with_name("real"))
    path.symlink_to("real")


REFUSED: dict[str, tuple[Callable[[Path], object], list[str]]] = {
    "a link to a directory": (link_to_a_directory, ["web: it is a symbolic link"]),
    "a link to nothing": (lambda base: (base / "web").symlink_to("gone"), ["web: it is a symbolic link"]),
    "a link to a program": (link_to_a_program, ["web: its program web is a symbolic link"]),
    "no program": (lambda base: (base / "web").mkdir(), ["web: there is no program web in it"]),
    "a directory": (
        lambda base: (base / "web" / "web").mkdir(parents=True),
        ["web: its program web is not a file"],
    ),
    "not executable": (
        lambda base: program(base, "web", 0o644),
        ["web: its program web is not executable"],
    ),
    "not a name": (
        lambda base: (program(base, "Web"), program(base, "a\nb")),
        [
            "Web: this is not a service name (accepted: up to 63 of a-z, 0-9, '-' and '_', beginning with a "
            "letter or a digit)",
            "a\\nb: this is not a service name (accepted: up to 63 of a-z, 0-9, '-' and '_', beginning with "
            "a letter or a digit)",
        ],
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_refused_is_told_with_the_reason(what: str, tmp_path: Path) -> None:
    make, said = REFUSED[what]
    directory = tmp_path / "services"
    (tmp_path / "elsewhere").mkdir()
    directory.mkdir()
    program(directory, "good")
    make(directory)
    assert refusals(directory) == said
    assert scan(str(directory)).names == ("good",)


@needs_root
def test_what_anybody_can_write_to_is_refused_for_root(tmp_path: Path) -> None:
    directory = tmp_path / "services"
    directory.mkdir()
    program(directory, "file").chmod(0o757)
    program(directory, "place").parent.chmod(0o777)
    assert refusals(directory) == [f"file: its program file: {OPEN}", f"place: {OPEN}"]
    directory.chmod(0o1777)  # the sticky bit keeps nobody from adding programs
    found = scan(str(directory))
    assert (found.names, found.refused) == ((), ())
    assert found.problem == f"{OPEN}; nothing in it is a service"


def test_a_directory_that_is_not_there_has_nothing(tmp_path: Path) -> None:
    found = scan(str(tmp_path / "gone"))
    assert (found.names, found.refused, found.problem) == ((), (), None)
    (tmp_path / "file").write_text("")
    assert scan(str(tmp_path / "file")).problem == "cannot be looked at: Not a directory"


def test_a_great_many_end_in_a_sentence() -> None:
    names = [f"n{number}" for number in range(3)]
    found = conclude([Candidate(name) for name in names])
    assert found.names == tuple(names) and MAX_FOUND >= 1000


def test_looking_in_a_process_of_its_own_answers_the_same_and_can_be_cancelled(tmp_path: Path) -> None:
    program(tmp_path, "web")

    async def main() -> None:
        assert await DiscoveryProcess(str(tmp_path)).read() == scan(str(tmp_path))
        looking = asyncio.create_task(DiscoveryProcess(str(tmp_path)).read())
        await asyncio.sleep(0)
        looking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await looking
        children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
        assert children == []

    asyncio.run(main())
