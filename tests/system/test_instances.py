"""Applications that come and go, in a real servicehost: from a file, from fragments, from a provider."""

from __future__ import annotations

import asyncio
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import yaml

from blackhole_cg import Supervisor
from blackhole_cg.core.words import Isolation
from blackhole_cg.errors import OperationError
from blackhole_cg.kernel.host import HostOptions, LinuxHost
from blackhole_cg.supervisor.paths import Paths
from tests.support.live import ROOT, Live, alive, require_cgroup
from tests.support.servicehosts import MODULE, application, ask_status, hosts_config, template
from tests.support.waiting import eventually

PORTS = range(42100, 42140)
CHURN_SECONDS = float(os.environ.get("BLACKHOLE_CG_CHURN_SECONDS", "4"))
"""How long a list changes every 100 ms; 60 for the whole minute."""

CONVERGENCE_SECONDS = 2.0
BUSY_FACTOR = 4.0
"""On a host that is busy with something else: how many times what one instance takes on it."""


def status_of(info: dict[str, Any]) -> dict[str, Any] | None:
    return asyncio.run(ask_status(info["tcp_port"]))


def test_applications_of_a_file_and_of_fragments(supervise: Callable[..., Live]) -> None:
    live = supervise({}, start=False)
    fragments = live.directory / "instances.d"
    fragments.mkdir()
    keys: dict[str, Any] = {"include": ["instances.d/*.yaml"], "instances": [application("shop")]}
    live.config.write_text(yaml.safe_dump(hosts_config(PORTS, **keys)))
    (fragments / "blog.yaml").write_text(yaml.safe_dump({"instances": [application("blog", "posts")]}))
    live.start().ready()
    before = live.services()
    assert {name: info["instance_of"] for name, info in before.items()} == dict.fromkeys(
        ("shop", "blog"), "servicehost"
    )
    said = status_of(before["blog"])
    assert said is not None
    assert (said["service"], said["db"], said["pid"]) == ("blog", "posts", before["blog"]["pid"])
    (fragments / "wiki.yaml").write_text(yaml.safe_dump({"instances": [application("wiki")]}))
    (fragments / "blog.yaml").unlink()
    live.cli("reload")
    after = live.services()
    assert set(after) == {"shop", "wiki"}
    assert after["shop"]["pid"] == before["shop"]["pid"]
    assert status_of(after["wiki"])["db"] == "wiki"  # type: ignore[index]
    assert not alive(before["blog"]["pid"])


def test_a_wrong_instance_is_refused_as_a_whole_and_nothing_stops(supervise: Callable[..., Live]) -> None:
    keys = {"instances": [application("shop")]}
    live = supervise(hosts_config(PORTS, **keys))
    pid = live.status("shop")["pid"]
    wrong = [*keys["instances"], {"id": "shop", "template": "servicehots"}]
    live.config.write_text(yaml.safe_dump(hosts_config(PORTS, instances=wrong)))
    refused = live.cli("reload", check=False)
    assert refused.returncode in (1, 78)
    assert "there is no template 'servicehots' (did you mean 'servicehost'?)" in refused.stderr
    assert live.status("shop")["pid"] == pid


class Pushed:
    """A provider whose lists the test says."""

    def __init__(self) -> None:
        self.lists: asyncio.Queue[Any] = asyncio.Queue()

    async def __aiter__(self) -> AsyncIterator[Any]:
        while True:
            wanted = await self.lists.get()
            if isinstance(wanted, Exception):
                raise wanted
            yield wanted


def supervised(directory: Path, provider: Any, **keys: Any) -> Supervisor:
    config = directory / "blackhole.yaml"
    config.write_text(yaml.safe_dump(hosts_config(PORTS, **keys)))
    root = require_cgroup() / f"bh-test-instances-{os.getpid()}"
    paths = Paths(directory / "run", directory / "state", directory / "log")
    host = LinuxHost(HostOptions(paths.runtime_dir, Isolation.BEST_EFFORT, str(root)))
    return Supervisor(config, paths=paths, host=host, provider=provider)


async def serves(supervisor: Supervisor, wanted: list[dict[str, Any]]) -> bool:
    """Whether the services are just those of the list, and each of them answers as itself."""
    infos = {info.name: info for info in supervisor.all_services()}
    if set(infos) != {item["id"] for item in wanted}:
        return False
    for item in wanted:
        info = infos[item["id"]]
        said = await ask_status(info.tcp_port) if isinstance(info.tcp_port, int) else None
        if said is None or (said["service"], said["db"]) != (item["id"], item["db_name"]):
            return False
    return True


async def until_serves(supervisor: Supervisor, wanted: list[dict[str, Any]]) -> float:
    """Seconds until it is so."""
    started = time.monotonic()
    async with asyncio.timeout(60):
        while not await serves(supervisor, wanted):  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    return time.monotonic() - started


async def watch_ports(supervisor: Supervisor) -> None:
    """Fail as soon as two services have one port."""
    while True:
        ports: dict[int, str] = {}
        for info in supervisor.all_services():
            if info.pid is not None and isinstance(info.tcp_port, int):
                owner = ports.setdefault(info.tcp_port, info.name)
                assert owner == info.name, f"{owner} and {info.name} both have port {info.tcp_port}"
        await asyncio.sleep(0.01)


def test_a_list_that_changes_every_100_ms_converges_and_no_port_is_given_to_two(tmp_path: Path) -> None:
    dice = random.Random(4)
    names = [f"app{number}" for number in range(6)]

    async def main() -> tuple[float, float]:
        pushed = Pushed()
        async with supervised(tmp_path, pushed) as supervisor:
            watching = asyncio.create_task(watch_ports(supervisor))
            await pushed.lists.put([application("app0")])
            alone_seconds = await until_serves(supervisor, [application("app0")])
            wanted: list[dict[str, Any]] = []
            give_up_at = time.monotonic() + CHURN_SECONDS
            while time.monotonic() < give_up_at:
                chosen = dice.sample(names, dice.randint(0, len(names)))
                wanted = [application(name, f"{name}-{dice.randint(0, 2)}") for name in chosen]
                await pushed.lists.put(wanted)
                await asyncio.sleep(0.1)
            wanted = [application(name, f"{name}-last") for name in names[:4]]
            await pushed.lists.put(wanted)
            seconds = await until_serves(supervisor, wanted)
            assert not watching.done(), watching.exception()
            watching.cancel()
            return alone_seconds, seconds

    alone_seconds, seconds = asyncio.run(main())
    print(f"one application: {alone_seconds:.2f} s; after the last of the changes: {seconds:.2f} s")
    assert seconds < max(CONVERGENCE_SECONDS, alone_seconds * BUSY_FACTOR)


def test_a_provider_that_fails_or_talks_nonsense_stops_nothing(tmp_path: Path) -> None:
    shop, blog = application("shop"), application("blog")
    nonsense: list[Any] = [
        ValueError("the database of applications is away"),
        None,
        [5],
        [{**shop, "wasm_path": object()}],
        [{**shop, "colour": "red"}],
        [shop, {**blog, "template": "servicehots"}],
        [shop, shop],
    ]

    async def main() -> None:
        pushed = Pushed()
        async with supervised(tmp_path, pushed) as supervisor:
            await pushed.lists.put([shop])
            await until_serves(supervisor, [shop])
            pid = supervisor.service_info("shop").pid
            for count, wrong in enumerate(nonsense, 1):
                await pushed.lists.put(wrong)
                async with asyncio.timeout(30):
                    while len(told := problems(supervisor)) < count:  # noqa: ASYNC110
                        await asyncio.sleep(0.02)
            assert "ValueError: the database of applications is away" in told[0]
            assert "a list of instances was expected, not nothing" in told[1]
            assert "provider: instances[1].template: there is no template 'servicehots'" in told[5]
            assert [info.pid for info in supervisor.all_services()] == [pid]
            await pushed.lists.put([shop, blog])
            await until_serves(supervisor, [shop, blog])
            assert supervisor.service_info("shop").pid == pid

    asyncio.run(main())


def problems(supervisor: Supervisor) -> list[str]:
    return [event.detail for event in supervisor.events.read() if event.kind == "instances"]


def test_a_half_edited_file_is_not_applied_because_an_instance_came(tmp_path: Path) -> None:
    async def main() -> None:
        pushed = Pushed()
        async with supervised(tmp_path, pushed) as supervisor:
            await pushed.lists.put([application("shop")])
            await until_serves(supervisor, [application("shop")])
            (tmp_path / "blackhole.yaml").write_text("templates: {} # editing\n")
            wanted = [application("shop"), application("blog")]
            await pushed.lists.put(wanted)
            await until_serves(supervisor, wanted)
            changed = hosts_config(PORTS)
            changed["templates"]["servicehost"] = template(umask="077")
            (tmp_path / "blackhole.yaml").write_text(yaml.safe_dump(changed))
            plan = await supervisor.reload()  # which knows the instances that the provider gave
            assert sorted(change.service for change in plan.changes) == ["blog", "shop"]
            assert await serves(supervisor, wanted)

    asyncio.run(main())


def test_another_file_keeps_the_instances_and_a_way_back_makes_lists_wait(tmp_path: Path) -> None:
    shop, blog = application("shop"), application("blog")
    other = tmp_path / "other.yaml"
    other.write_text(yaml.safe_dump(hosts_config(PORTS, instances=[application("wiki")])))

    async def main() -> None:
        pushed = Pushed()
        async with supervised(tmp_path, pushed) as supervisor:
            await pushed.lists.put([shop])
            await until_serves(supervisor, [shop])
            pid = supervisor.service_info("shop").pid
            await supervisor.configuration.apply(str(other))
            assert await serves(supervisor, [shop, application("wiki")])
            await pushed.lists.put([shop, blog])  # goes with the file that was applied
            await until_serves(supervisor, [shop, blog, application("wiki")])
            await supervisor.configuration.roll_back(1)
            assert supervisor.all_services() == []
            await pushed.lists.put([blog])
            async with asyncio.timeout(30):
                while not problems(supervisor):  # noqa: ASYNC110
                    await asyncio.sleep(0.02)
            assert "is not that of the file (reload to go on)" in problems(supervisor)[-1]
            assert supervisor.all_services() == []
            with suppress(OperationError):  # the list comes in the middle of it, and has no 'shop'
                await supervisor.reload()
            await until_serves(supervisor, [blog])
            assert pid is not None and not alive(pid)

    asyncio.run(main())


class Providing:
    """`tests.support.provided` as a process."""

    def __init__(self, directory: Path, root: Path) -> None:
        command = [sys.executable, "-m", "tests.support.provided"]
        self.process = subprocess.Popen(
            [*command, directory / "blackhole.yaml", directory, root],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "ready\n"

    def say(self, text: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(text + "\n")
        self.process.stdin.flush()

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def live_view(supervise: Callable[..., Live]) -> Live:
    """A client's view of a supervisor that the test runs by itself."""
    live = supervise(hosts_config(PORTS), start=False)
    live.runtime_dir.mkdir()
    return live


def test_after_kill_9_instances_run_on_even_if_the_provider_has_gone(live_view: Live) -> None:
    first = Providing(live_view.directory, live_view.cgroup_root)
    try:
        first.say(json.dumps([application("shop"), application("blog")]))

        def both() -> dict[str, Any] | None:
            found = live_view.services()
            return found if len(found) == 2 and all(map(is_up, found.values())) else None

        before = eventually(both, "both are up", 60)
    finally:
        first.kill()
    second = Providing(live_view.directory, live_view.cgroup_root)
    try:
        second.say("the provider is broken")
        after = live_view.services()
        assert {name: info["pid"] for name, info in after.items()} == {
            name: info["pid"] for name, info in before.items()
        }
        assert {name: info["tcp_port"] for name, info in after.items()} == {
            name: info["tcp_port"] for name, info in before.items()
        }
        assert all(info["adopted"] for info in after.values())
        second.say(json.dumps([application("shop")]))
        eventually(lambda: set(live_view.services()) == {"shop"}, "blog has gone", 60)
        assert live_view.status("shop")["pid"] == before["shop"]["pid"]
    finally:
        second.kill()


def is_up(info: dict[str, Any]) -> bool:
    return bool(info["state"] == "running" and info["health"] == "healthy")


def test_the_module_of_the_tests_is_one() -> None:
    assert MODULE.read_bytes() == b"\0asm\1\0\0\0"
