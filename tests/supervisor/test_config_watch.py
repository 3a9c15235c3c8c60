"""Reloading by itself: which places of a configuration are watched, with real files."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from blackhole_cg.core.reading import Context
from blackhole_cg.errors import ConfigError
from blackhole_cg.kernel.files import load
from blackhole_cg.supervisor import config_watch
from blackhole_cg.supervisor.config_watch import ConfigWatch

LONG_SECONDS = 30.0
MAIN = """
include: [conf.d/*.yaml]
runtime: {{orchestrator: {{watch: true, discover: {discover}, services_dir: programs}}}}
services: {{web: {{command: /bin/true}}}}
"""


@pytest.fixture(autouse=True)
def short_quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config_watch, "QUIET_SECONDS", 0.02)


class Place:
    """A directory with a configuration; what was read of it last."""

    def __init__(self, directory: Path, *, discover: bool = False) -> None:
        self.directory = directory
        self.main = directory / "blackhole.yaml"
        self.main.write_text(MAIN.format(discover=str(discover).lower()))
        self.watch = ConfigWatch(self.reload)
        self.refused, self.read_again = asyncio.Event(), asyncio.Event()
        self.read()

    def read(self) -> None:
        context = Context(str(self.directory), str(self.directory), str(self.directory))
        self.spec = load(str(self.main), {}, context)[1]
        self.watch.follow(self.spec)
        self.read_again.set()

    async def reload(self) -> None:
        try:
            self.read()
        except ConfigError:
            self.refused.set()
            raise

    async def until_refused(self) -> None:
        await asyncio.wait_for(self.refused.wait(), LONG_SECONDS)

    async def until(self, *names: str) -> None:
        async def wait() -> None:
            while set(self.spec.services) != set(names):
                self.read_again.clear()
                await self.read_again.wait()

        await asyncio.wait_for(wait(), LONG_SECONDS)


def during(directory: Path, act: Callable[[Place], object], **options: bool) -> None:
    async def main() -> None:
        place = Place(directory, **options)
        try:
            await act(place)  # type: ignore[misc]
        finally:
            place.watch.close()

    asyncio.run(main())


def instances(path: Path, *ids: str) -> None:
    items = "".join(f"  - {{id: {each}, template: app}}\n" for each in ids)
    path.write_text(f"templates: {{app: {{command: /bin/true}}}}\ninstances:\n{items}")


def test_fragments_that_a_glob_finds_come_are_renamed_and_go(tmp_path):
    async def act(place: Place) -> None:
        directory = tmp_path / "conf.d"
        directory.mkdir()  # it was not there when the supervisor began
        instances(directory / "apps.yaml", "shop", "blog")
        await place.until("web", "shop", "blog")
        (directory / "more.yaml").write_text("services: {more: {command: /bin/true}}")
        await place.until("web", "shop", "blog", "more")
        (directory / "more.yaml").rename(directory / "more.off")
        await place.until("web", "shop", "blog")
        instances(directory / "apps.yaml", "shop")
        await place.until("web", "shop")
        (directory / "apps.yaml").unlink()
        await place.until("web")

    during(tmp_path, act)


def test_a_broken_fragment_is_noticed_when_it_is_mended(tmp_path):
    async def act(place: Place) -> None:
        directory = tmp_path / "conf.d"
        directory.mkdir()
        broken = directory / "new" / "more.yaml"
        place.main.write_text(place.main.read_text().replace("conf.d/*", "conf.d/*/*"))
        broken.parent.mkdir()
        broken.write_text("services: [")
        await place.until_refused()
        broken.write_text("services: {more: {command: /bin/true}}")
        await place.until("web", "more")

    during(tmp_path, act)


def test_programs_of_the_services_directory_come_and_go(tmp_path):
    async def act(place: Place) -> None:
        program = tmp_path / "programs" / "api" / "api"
        program.parent.mkdir(parents=True)
        program.write_text("#!/bin/sh\n")
        program.chmod(0o755)
        await place.until("web", "api")
        program.unlink()
        await place.until("web")

    during(tmp_path, act, discover=True)
