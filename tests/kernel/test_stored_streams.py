"""FIFOs that outlive a supervisor, with a store that is a list."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest

from blackhole_cg.core.words import Stream
from blackhole_cg.kernel.identity import Identity
from blackhole_cg.kernel.inherited import Inheritance
from blackhole_cg.kernel.stored_streams import StoredStreams
from blackhole_cg.kernel.streams import StreamFiles

OWN = Identity.of_this_process()


class Kept:
    """A store that keeps copies, as systemd does."""

    def __init__(self) -> None:
        self.held: dict[str, list[int]] = {}
        self.told: list[str] = []
        self.takes = True

    def keep_all(self, name: str, descriptors: Sequence[int]) -> bool:
        self.told.append(f"keep {name}")
        if self.takes:
            self.held.setdefault(name, []).extend(map(os.dup, descriptors))
        return self.takes

    def keep_no_more(self, name: str) -> None:
        self.told.append(f"drop {name}")
        for descriptor in self.held.pop(name, []):
            os.close(descriptor)

    def handed(self, **others: int) -> Inheritance:
        """To the next process, in the other order; it keeps its own."""
        copies = {name: [os.dup(each) for each in reversed(held)] for name, held in self.held.items()}
        return Inheritance(copies | {name: [os.dup(descriptor)] for name, descriptor in others.items()})


class Life:
    """What one supervisor has of it."""

    def __init__(self, directory: Path, kept: Kept, inheritance: Inheritance | None = None) -> None:
        self.stored = StoredStreams(kept)
        self.stored.inherit(inheritance or Inheritance())
        self.streams = StreamFiles(directory, self.stored)
        self.readers: list[int] = []

    def open(self, name: str = "web") -> dict[Stream, int]:
        opened = {stream: self.streams.open_reader(name, stream, OWN) for stream in Stream}
        self.readers += opened.values()
        return opened

    def run(self, text: bytes, name: str = "web") -> None:
        """A run begins, writes to its standard output, and ends."""
        self.streams.keep(name)
        writer = self.streams.open_writer(name, Stream.STDOUT, OWN)
        os.write(writer, text)
        os.close(writer)

    def die(self) -> None:
        for descriptor in self.readers:
            os.close(descriptor)
        self.stored.close()


@pytest.fixture
def kept():
    it = Kept()
    yield it
    for name in list(it.held):
        it.keep_no_more(name)


@pytest.mark.parametrize("directory_goes", [False, True])
def test_what_nobody_has_read_is_there_for_the_next_one(tmp_path, kept, directory_goes):
    directory, before = tmp_path / "fifo", len(os.listdir("/proc/self/fd"))
    first = Life(directory, kept)
    first.open()
    first.run(b"last words")
    first.die()
    if directory_goes:
        shutil.rmtree(directory)
    second = Life(directory, kept, kept.handed())
    assert second.streams.names() == {"web"}
    readers = second.open()
    assert os.read(readers[Stream.STDOUT], 100) == b"last words"
    second.run(b"more")
    assert os.read(readers[Stream.STDOUT], 100) == b"more"
    assert kept.told == ["keep log/web"], "it is still stored"
    second.streams.remove("web")
    assert kept.told[1:] == ["drop log/web"]
    second.die()
    assert len(os.listdir("/proc/self/fd")) == before


def test_both_streams_are_stored_once_with_the_first_run_and_again_where_that_failed(tmp_path, kept):
    life = Life(tmp_path, kept)
    life.open()
    assert kept.told == []
    kept.takes = False
    life.run(b"")
    kept.takes = True
    for _ in range(3):
        life.run(b"")
    assert kept.told == ["keep log/web"] * 2
    assert len(kept.held["log/web"]) == 2
    life.die()


def test_another_fifo_of_that_name_is_read_and_stored_in_the_place_of_the_old_one(tmp_path, kept):
    first = Life(tmp_path / "fifo", kept)
    first.open()
    first.run(b"lost")
    first.die()
    shutil.rmtree(tmp_path / "fifo")
    between = Life(tmp_path / "fifo", Kept())  # one whom nobody has handed anything
    between.open()
    between.die()
    second = Life(tmp_path / "fifo", kept, kept.handed())
    readers = second.open()
    second.run(b"new")
    assert os.read(readers[Stream.STDOUT], 100) == b"new"
    assert kept.told == ["keep log/web", "drop log/web", "keep log/web"]
    assert len(kept.held["log/web"]) == 2
    second.die()


def test_the_next_program_in_the_same_process_stores_nothing_twice(tmp_path, kept):
    first = Life(tmp_path, kept)
    first.open()
    first.run(b"")
    null = os.open(os.devnull, os.O_RDONLY)
    second = Life(tmp_path, kept, Inheritance({"control": [null]}))
    second.open()
    second.streams.find_lost("web", [os.getpid()])  # taken over
    assert kept.told == ["keep log/web"]
    second.run(b"")
    assert kept.told == ["keep log/web", "drop log/web", "keep log/web"]
    first.die()
    second.die()
    os.close(null)
