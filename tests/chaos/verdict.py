"""Whether what is left after a chaos run is what it should be."""

from __future__ import annotations

import json
import re
import sqlite3
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tests.chaos.faults import ENDLESS
from tests.chaos.world import FRAGILE_RESTARTS, World

PRINTING = (*ENDLESS, "fragile", "once", "wished")


def judge_states(world: World, states: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """Every service is in the state that its policy prescribes after what was done to it."""
    wanted: dict[str, set[str]] = {name: {"running"} for name in ENDLESS}
    wanted |= {"job": {"completed"}, "off": {"stopped"}}
    wanted["once"] = {"failed", "stopped"} if world.kills.get("once") else {"running"}
    wanted["fragile"] = {"failed"} if world.kills.get("fragile", 0) > FRAGILE_RESTARTS else {"running"}
    wanted["wished"] = {{"up": "running", "down": "stopped"}[word] for word in world.wished}
    for name, words in wanted.items():
        info = states[name]
        if info["state"] not in words:
            yield f"{name} is {info['state']}, not {' or '.join(sorted(words))}: {info['last_error']}"
        if name in ENDLESS and info["desired"] != "up":
            yield f"{name} is wanted {info['desired']}"
    if states["web"]["health"] != "healthy":
        yield f"web is {states['web']['health']}"
    if states["wished"]["desired"] not in world.wished:
        yield f"wished is wanted {states['wished']['desired']}, acknowledged was {world.wished}"


def judge_runs(world: World, mains: Mapping[str, list[Any]]) -> Iterator[str]:
    """No service was started more often than faults ended it."""
    for service, found in mains.items():
        most = 1 + world.ends.get(service, 0)
        if len(found) > most:
            yield f"{service} had {len(found)} main processes, {most - 1} of them were ended: {found}"


def judge_logs(world: World, dropped: Mapping[str, int]) -> Iterator[str]:
    """Each run's lines are there from 0 on, in order, each once; what was dropped was told."""
    for service in PRINTING:
        numbers: dict[int, list[int]] = defaultdict(list)
        for path in _log_files(world.log_dir, service):
            for line in path.read_text().splitlines():
                record = json.loads(line)
                if record["stream"] == "stdout":
                    numbers[record["run_id"]].append(int(record["message"]))
        missing = 0
        for run_id, found in numbers.items():
            if found != sorted(set(found)):
                doubled = [number for number, count in Counter(found).items() if count > 1]
                yield f"{service} run {run_id}: lines repeated or out of order: {doubled[:10]}"
            missing += found[-1] + 1 - len(set(found))
        if missing > dropped.get(service, 0):
            yield f"{service}: {missing} lines are missing, {dropped.get(service, 0)} were told as dropped"


def _log_files(directory: Path, service: str) -> list[Path]:
    """Oldest first."""
    rotated = re.compile(rf"{service}\.log\.(\d+)")
    found = [(int(match[1]), path) for path in directory.iterdir() if (match := rotated.fullmatch(path.name))]
    return [path for _, path in sorted(found, reverse=True)] + [directory / f"{service}.log"]


def judge_events(world: World) -> Iterator[str]:
    """Every state follows from the one before, each run begins once, and nothing is stored twice."""
    connection = sqlite3.connect(f"file:{world.state_dir / 'state.db'}?mode=ro", uri=True)
    rows = connection.execute(
        "SELECT id, service, run_id, kind, from_state, to_state FROM events ORDER BY id"
    ).fetchall()
    connection.close()
    last: dict[str, str] = {}
    begun: Counter[tuple[str, int]] = Counter()
    for number, service, run_id, kind, before, after in rows:
        if kind != "state":
            continue
        taken_over = before == "stopped" and after == "running"  # by a supervisor that knew no state yet
        if before != last.get(service, "stopped") and not taken_over:
            yield f"event {number}: {service} goes {before} -> {after}, it was {last.get(service)}"
        last[service] = after
        if after == "starting":
            begun[service, run_id] += 1
    for (service, run_id), times in begun.items():
        if times > 1:
            yield f"{service} run {run_id} began {times} times"


def dropped_lines(world: World) -> dict[str, int]:
    """What supervisors said that they had dropped, by service."""
    connection = sqlite3.connect(f"file:{world.state_dir / 'state.db'}?mode=ro", uri=True)
    rows = connection.execute("SELECT service, detail FROM events WHERE detail LIKE '%dropped%'").fetchall()
    connection.close()
    found: Counter[str] = Counter()
    for service, detail in rows:
        if match := re.search(r"(\d+) were dropped", detail):
            found[service] += int(match[1])
    return dict(found)
