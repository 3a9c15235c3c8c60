"""Waiting for real files to change, to come and to go."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from blackhole_cg.kernel.file_watch import FileWatch

LONG_SECONDS = 30.0
STEPS = list[tuple[Callable[[], object], bool]]


def watched(paths: list[Path], globs: list[str], steps: STEPS) -> None:
    """Do these steps, each of which is told of or not; everything is looked for anew before each."""

    async def main() -> None:
        told = asyncio.Event()
        watch = FileWatch(told.set)
        for number, (act, is_told) in enumerate(steps):
            watch.watch(map(str, paths), globs)
            told.clear()
            act()
            if is_told:
                await asyncio.wait_for(told.wait(), LONG_SECONDS)
            watch.watch(map(str, paths), globs)  # reads what there is to read
            assert told.is_set() == is_told, number
        watch.close()

    asyncio.run(main())


def test_a_file_is_told_of_and_its_neighbours_are_not(tmp_path):
    main, other = tmp_path / "main[1].yaml", tmp_path / "main1.yaml"
    steps: STEPS = [
        (lambda: main.write_text("1"), True),
        (lambda: other.write_text("1"), False),
        (lambda: other.rename(main), True),
        (lambda: main.chmod(0o600), True),
        (main.unlink, True),
    ]
    watched([main], [], steps)


def test_files_that_a_glob_finds_come_go_and_are_renamed(tmp_path):
    directory = tmp_path / "conf.d"
    directory.mkdir()
    one, two = directory / "one.yaml", directory / "two.yaml"
    elsewhere = tmp_path / "elsewhere.yaml"
    elsewhere.touch()
    steps: STEPS = [
        (lambda: one.write_text("1"), True),
        (lambda: (directory / "one.yaml~").write_text("1"), False),
        (lambda: (directory / ".hidden.yaml").write_text("1"), False),
        (lambda: one.rename(two), True),
        (two.unlink, True),
        (lambda: one.symlink_to(elsewhere), True),
        (lambda: two.hardlink_to(elsewhere), True),
        (lambda: directory.rename(tmp_path / "aside"), True),
        (lambda: (tmp_path / "aside").rename(directory), True),
    ]
    watched([], [f"{directory}/*.yaml"], steps)


def test_a_file_is_told_of_once_it_is_written_and_not_before(tmp_path):
    new = tmp_path / "new.yaml"

    async def main() -> None:
        told = asyncio.Event()
        watch = FileWatch(told.set)
        watch.watch([], [f"{tmp_path}/*.yaml"])
        with new.open("w") as file:
            file.write("half")
            file.flush()
            watch.watch([], [f"{tmp_path}/*.yaml"])
            assert not told.is_set()
        await asyncio.wait_for(told.wait(), LONG_SECONDS)
        watch.close()

    asyncio.run(main())


def test_directories_that_are_not_there_yet_are_waited_for(tmp_path):
    apps = tmp_path / "apps"
    steps: STEPS = [
        (apps.mkdir, True),
        ((apps / "shop").mkdir, True),
        ((apps / "shop" / "data").mkdir, False),
        ((apps / "shop" / "conf").mkdir, True),
        ((apps / "shop" / "conf" / "a.yaml").touch, True),
        ((tmp_path / "other").mkdir, False),
        (lambda: (apps / "shop").rename(apps / "blog"), True),
        ((apps / "blog" / "conf" / "a.yaml").unlink, True),
    ]
    watched([], [f"{apps}/*/conf/*.yaml"], steps)


def test_a_file_whose_directory_goes_is_watched_when_that_comes_again(tmp_path):
    main, directory = tmp_path / "main.yaml", tmp_path / "parts"
    directory.mkdir()
    steps: STEPS = [
        (directory.rmdir, False),
        (lambda: main.write_text("1"), True),
        (directory.mkdir, True),
        ((directory / "part.yaml").touch, True),
    ]
    watched([main, directory / "part.yaml"], [], steps)


def test_what_happened_before_it_looks_anew_is_not_lost(tmp_path):
    file = tmp_path / "main.yaml"

    async def main() -> None:
        told = asyncio.Event()
        watch = FileWatch(told.set)
        watch.watch([str(file)])
        file.write_text("1")
        watch.watch([str(file)])
        assert told.is_set()
        watch.close()

    asyncio.run(main())


def test_what_happens_while_it_looks_anew_is_not_lost(tmp_path):
    file = tmp_path / "main.yaml"

    def paths() -> Iterator[str]:
        yield str(tmp_path / "other.yaml")
        file.write_text("1")
        yield str(file)

    async def main() -> None:
        told = asyncio.Event()
        watch = FileWatch(told.set)
        watch.watch([str(file)])
        watch.watch(paths())
        assert told.is_set()
        watch.close()

    asyncio.run(main())


@pytest.mark.parametrize("pattern", ["/proc/1/no such/*.yaml", "/dev/null/*.yaml"])
def test_a_place_where_nothing_can_come_is_no_error(pattern):
    watched([], [pattern], [])
