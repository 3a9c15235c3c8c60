"""Runs chaos, and says what came of it."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import uuid
from collections import Counter, defaultdict
from pathlib import Path

from tests.chaos import verdict
from tests.chaos.faults import FAULTS
from tests.chaos.world import Ports, World
from tests.support.live import ROOT, cgroup_mount
from tests.support.ports import free_port
from tests.support.real_kernel import in_test_vm

DISK = "size=24m"
QUIET_SECONDS = 120
INSIDE = "BLACKHOLE_CG_CHAOS_INSIDE"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--only", help="faults, separated by commas")
    parser.add_argument("--keep", action="store_true", help="leave the directory for a look")
    options = parser.parse_args()
    if INSIDE not in os.environ:  # a mount namespace of its own, for small disks that are nobody else's
        command = [sys.executable, "-m", "tests.chaos", *sys.argv[1:]]
        private = ["unshare", "--mount", "--propagation", "private"]
        return subprocess.call([*private, *command], env={**os.environ, INSIDE: "1"}, cwd=ROOT)
    directory = Path(tempfile.mkdtemp(prefix="blackhole-cg-chaos-"))
    for name in ("state", "log"):
        (directory / name).mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", DISK, "none", directory / name], check=True)
    try:
        return asyncio.run(Chaos(directory, options).run())
    finally:
        if not options.keep:
            for name in ("state", "log"):
                subprocess.run(["umount", directory / name], check=False)
            shutil.rmtree(directory, ignore_errors=True)


class Chaos:
    """One run: services under load, faults one after the other and side by side, then quiet and a verdict."""

    def __init__(self, directory: Path, options: argparse.Namespace) -> None:
        mount = cgroup_mount()
        assert mount is not None, "cgroup v2 is not mounted"
        root = mount / f"bh-chaos-{uuid.uuid4().hex[:8]}"
        self._world = World(directory, root, random.Random(options.seed))
        self._options = options
        self._slow = 5.0 if in_test_vm() else 1.0  # how much slower an emulated machine is
        chosen = options.only.split(",") if options.only else None
        self._faults = [each for each in FAULTS if chosen is None or each[1].__name__ in chosen]
        self._answers: Counter[str] = Counter()
        self._refused: dict[int, list[float]] = defaultdict(list)  # port -> when
        self._held_port, self._held_since = 0, 0.0

    async def run(self) -> int:
        """Do it; 0 when nothing was wrong."""
        world = self._world
        ports = Ports(free_port(), free_port())
        self._held_port = ports.held
        world.write_config(ports, line_seconds=0.01 * self._slow)
        report = world.directory / "observer.json"
        arguments = [str(world.directory), str(world.cgroup_root), str(report)]
        observer = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.chaos.observer", *arguments, cwd=ROOT
        )
        await world.start()
        problems: list[str] = []
        load = [asyncio.create_task(self._load(port)) for port in (ports.web, ports.held)]
        load.append(asyncio.create_task(world.listen()))
        try:
            problems += await self._settle("at the beginning")
            self._held_since = world.now()
            if not problems:
                await self._play()
                problems += await self._settle("in the end")
            problems += verdict.judge_states(world, await world.states())
        finally:
            for task in load:
                task.cancel()
            code = await world.stop()
            observer.send_signal(signal.SIGTERM)
            await observer.wait()
        problems += self._judge(code, json.loads(report.read_text()))
        self._tell(problems)
        return 1 if problems else 0

    def _judge(self, code: int, seen: dict[str, object]) -> list[str]:
        world = self._world
        problems = [*world.violations, *seen["violations"]]  # type: ignore[misc]
        problems += verdict.judge_runs(world, seen["mains"])  # type: ignore[arg-type]
        problems += verdict.judge_logs(world)
        refused = [at for at in self._refused[self._held_port] if at > self._held_since]
        problems += verdict.judge_refusals(world, refused)
        problems += verdict.judge_events(world)
        if code != 0:
            problems.append(f"the last supervisor ended with {code}")
        if world.cgroup_root.exists():
            left = [str(path) for path in world.cgroup_root.rglob("*") if path.is_dir()]
            problems += [f"left: {path}" for path in left]
            if not left:
                world.cgroup_root.rmdir()
        print(f"the observer looked {seen['rounds']} times", flush=True)
        return problems

    async def _settle(self, when: str) -> list[str]:
        """Wait until everything is where it should be; what is not."""
        problems = ["no supervisor answered"]
        for _ in range(int(QUIET_SECONDS * self._slow)):
            with contextlib.suppress(OSError):
                problems = list(verdict.judge_states(self._world, await self._world.states()))
            if not problems:
                return []
            await asyncio.sleep(1)
        return [f"{when}: {problem}" for problem in problems]

    async def _play(self) -> None:
        """Faults until the time is over; up to three at once, two of a kind never."""
        world, running = self._world, {}
        weights = [weight for weight, _ in self._faults]
        until = world.now() + self._options.minutes * 60
        while world.now() < until:
            (_, fault) = world.random.choices(self._faults, weights)[0]
            pause = world.random.choice((0.0, 0.05, 0.3, 1.0, 2.0)) * self._slow
            running = {kind: task for kind, task in running.items() if not task.done()}
            if len(running) < 3 and fault not in running:
                running[fault] = asyncio.create_task(self._do(fault))
            await asyncio.sleep(pause)
        await asyncio.gather(*running.values())

    async def _do(self, fault) -> None:  # type: ignore[no-untyped-def]
        world = self._world
        entry = {"at": round(world.now(), 2), "fault": fault.__name__}
        world.faults.append(entry)
        entry["what"] = await fault(world)
        print(json.dumps(entry), flush=True)

    async def _load(self, port: int) -> None:
        """A client that never stops asking."""
        name = "held" if port == self._held_port else "web"
        while True:
            try:
                async with asyncio.timeout(5 * self._slow):
                    reader, writer = await asyncio.open_connection("127.0.0.1", port)
                    answer = await reader.read()
                    writer.close()
                kind = "answered" if answer else "broken off"
            except (OSError, TimeoutError) as error:
                kind = type(error).__name__
                if isinstance(error, ConnectionRefusedError):
                    self._refused[port].append(self._world.now())
            self._answers[f"{name}: {kind}"] += 1
            await asyncio.sleep(0.02 * self._slow)

    def _tell(self, problems: list[str]) -> None:
        world = self._world
        counts = Counter(entry["fault"] for entry in world.faults)
        print(f"seed {self._options.seed}: {sum(counts.values())} faults {dict(counts)}")
        print(f"{world.lives} supervisors, the load: {dict(self._answers)}")
        bursts = verdict.bursts(self._refused[self._held_port])
        print(f"the held socket refused at {[f'{begin:.1f}-{end:.1f}s' for begin, end in bursts]}")
        for problem in problems:
            print(f"PROBLEM {problem}")
        if problems and self._options.keep:
            print(f"kept: {world.directory}")
        print("ok" if not problems else f"{len(problems)} problems", flush=True)


if __name__ == "__main__":
    sys.exit(main())
